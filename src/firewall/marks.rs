//! Mark bits that foreign rules read or write, compared with ours. Pure.
//!
//! Packet marks and flow marks (conntrack) are 32 bits each, shared by all programs of a host. Two
//! programs work beside each other only with different bits.

use std::fmt;

use crate::types::{Mark, PathMask};

/// Mark bits of programs that many hosts run, even if no rule of the program exists now. Podman's
/// netavark, CNI portmap and kube-proxy; Cilium; Calico; Tailscale; the AWS VPC CNI; mwan3.
const WELL_KNOWN: [u32; 7] = [
    0x2000,
    0xc000,
    0x0f00,
    0xffff_0000,
    0x00ff_0000,
    0x0080,
    0x3f00,
];

/// The carrier of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    Packet,
    /// A conntrack entry.
    Flow,
}

words!(Carrier { Packet => "packet mark", Flow => "flow mark" });

/// The access of a rule to a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// The rule compares the bits of the mask with the value.
    Reads,
    /// The rule replaces the bits of the mask. The value has the bits that may be set afterwards.
    Writes,
}

words!(Access { Reads => "compares", Writes => "writes" });

/// A foreign rule with a mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkUse {
    /// `ipv4 policy rule 20000`, or `table ip nat, chain CNI-HOSTPORT-SETMARK`.
    pub place: String,
    pub carrier: Carrier,
    pub access: Access,
    pub mark: Mark,
}

/// Bits that a foreign rule shares with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Our bits inside the foreign mask.
    pub bits: u32,
    /// Our bits inside the foreign value.
    pub in_value: u32,
}

impl MarkUse {
    /// The bits shared with ours; `None` without a shared bit. Packets of a host carry one bit of ours,
    /// flows and the packets that a NAT instance `forwards` two.
    pub fn overlap(&self, path: PathMask, forwards: bool) -> Option<Overlap> {
        let ours = match self.carrier {
            Carrier::Packet if !forwards => path.packet().mask,
            Carrier::Packet => path.0,
            Carrier::Flow => path.0,
        };
        let bits = (self.mark.mask | self.mark.value) & ours;
        (bits != 0).then_some(Overlap {
            bits,
            in_value: self.mark.value & ours,
        })
    }
}

impl fmt::Display for MarkUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} the {} {}",
            self.place,
            self.access.as_str(),
            self.carrier.as_str(),
            self.mark
        )
    }
}

/// Two adjacent bits outside all of these marks, for `[kernel] marks.path`. A rule that compares
/// all 32 bits shares its mask with every choice; such a rule only excludes the bits of its value.
/// `None` if no pair is free.
pub fn free_path_mask(uses: &[MarkUse], gateway_mask: u32) -> Option<PathMask> {
    let taken = uses.iter().fold(gateway_mask, |taken, found| {
        let mask = if found.mark.mask == u32::MAX {
            0
        } else {
            found.mark.mask
        };
        taken | mask | found.mark.value
    });
    let known = WELL_KNOWN.iter().fold(taken, |known, bits| known | bits);
    let pairs = || (0..31).map(|place| 3_u32 << place);
    let free = |avoid: u32| move |pair: &u32| pair & avoid == 0;
    pairs()
        .find(free(known))
        .or_else(|| pairs().find(free(taken)))
        .map(PathMask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn uses(carrier: Carrier, value: u32, mask: u32) -> MarkUse {
        MarkUse {
            place: "policy rule 20000".to_owned(),
            carrier,
            access: Access::Reads,
            mark: Mark { value, mask },
        }
    }

    #[test]
    fn default_bits_are_free_of_the_marks_of_well_known_programs() {
        let kernel = Config::default().kernel;
        for bits in WELL_KNOWN {
            assert_eq!(kernel.path_mask.0 & bits, 0, "{bits:#x}");
            assert_eq!(kernel.gateway_mask & bits, 0, "{bits:#x}");
        }
    }

    #[test]
    fn overlaps_are_found_in_value_and_in_mask() {
        let path = PathMask(0x30);
        let overlap = |carrier, value, mask| uses(carrier, value, mask).overlap(path, false);
        assert_eq!(overlap(Carrier::Packet, 0x2000, 0x2000), None);
        assert_eq!(overlap(Carrier::Packet, 0x20, 0x20), None, "flows only");
        let both = |bits, in_value| Some(Overlap { bits, in_value });
        let forwarded = uses(Carrier::Packet, 0x20, 0x20).overlap(path, true);
        assert_eq!(forwarded, both(0x20, 0x20));
        assert_eq!(overlap(Carrier::Flow, 0x20, 0x20), both(0x20, 0x20));
        assert_eq!(overlap(Carrier::Packet, 12_345, u32::MAX), both(0x10, 0x10));
        assert_eq!(overlap(Carrier::Packet, 5, u32::MAX), both(0x10, 0));
        assert_eq!(overlap(Carrier::Packet, 0, 0x10), both(0x10, 0));
    }

    #[test]
    fn free_bits_avoid_foreign_values_and_well_known_programs() {
        let free = |uses: &[MarkUse]| free_path_mask(uses, 0x0e).map(|path| path.0);
        assert_eq!(free(&[]), Some(0x30));
        assert_eq!(free(&[uses(Carrier::Packet, 0x10, 0x10)]), Some(0x60));
        let full = uses(Carrier::Packet, 12_345, u32::MAX);
        assert_eq!(free(&[full]).map(|pair| pair & 12_345), Some(0));
        let all = uses(Carrier::Flow, 1, 0x7fff_ffff);
        assert_eq!(free(&[all]), None);
    }
}
