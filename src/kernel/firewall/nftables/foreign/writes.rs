//! The writes of marks and zones: statements of nf_tables, and targets of xtables.

use super::registers::Registers;
use crate::judge::marks::{MarkOf, MarkValue, MarkWrite, Write, Zone};
use crate::kernel::firewall::nftables::uapi::*;
use crate::kernel::wire::{Attribute, number};

// linux/netfilter/nf_tables.h.
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DIRECTION: u16 = 3;
const NFTA_CT_SREG: u16 = 4;
const NFT_CT_ZONE: u32 = 17;

/// The statement `meta mark set …`; `None` for other keys, and for a load.
pub(super) fn meta_set(list: &[Attribute<'_>], registers: &Registers) -> Option<Write> {
    let register = number(list, NFTA_META_SREG)?;
    (number(list, NFTA_META_KEY) == Some(NFT_META_MARK)).then(|| {
        Write::Mark(MarkWrite {
            of: MarkOf::Packet,
            value: registers.mark(Some(register), MarkOf::Packet),
        })
    })
}

/// The statements `ct mark set …` and `ct zone set …`; `None` for other keys, and for a load.
pub(super) fn flow_set(list: &[Attribute<'_>], registers: &Registers) -> Option<Write> {
    let register = number(list, NFTA_CT_SREG)?;
    match number(list, NFTA_CT_KEY)? {
        NFT_CT_MARK => Some(Write::Mark(MarkWrite {
            of: MarkOf::Flow,
            value: registers.mark(Some(register), MarkOf::Flow),
        })),
        NFT_CT_ZONE => {
            let id = registers.data(Some(register)).first_chunk::<2>();
            // `IP_CT_DIR_ORIGINAL` is 0, `IP_CT_DIR_REPLY` 1; both directions without the attribute.
            let direction = super::byte(list, NFTA_CT_DIRECTION);
            let of = |wanted: u8| direction.is_none_or(|direction| direction == wanted);
            Some(Write::Zone(
                id.map(|id| Zone::new(u16::from_ne_bytes(*id), of(0), of(1))),
            ))
        }
        _ => None,
    }
}

/// The write of a target of xtables.
pub(super) fn target(name: &str, info: &[u8], revision: u32) -> Option<Write> {
    match name {
        "NOTRACK" => Some(Write::Untrack),
        "CT" => connection(info),
        "MARK" => Some(Write::Mark(MarkWrite {
            of: MarkOf::Packet,
            value: mark(info, revision),
        })),
        "CONNMARK" => Some(Write::Mark(connmark(info, revision))),
        _ => None,
    }
}

/// `struct xt_ct_target_info` (linux/netfilter/xt_CT.h): flags and a zone.
fn connection(info: &[u8]) -> Option<Write> {
    /// `XT_CT_NOTRACK`, `XT_CT_ZONE_DIR_ORIG`, `XT_CT_ZONE_DIR_REPL`, `XT_CT_ZONE_MARK`.
    const NOTRACK: u16 = 1;
    const ORIGINAL: u16 = 1 << 2;
    const REPLY: u16 = 1 << 3;
    const OF_MARK: u16 = 1 << 4;
    let flags = half(info, 0)?;
    if flags & NOTRACK != 0 {
        return Some(Write::Untrack);
    }
    let zone = half(info, 2)?;
    let both = flags & (ORIGINAL | REPLY) == 0;
    let of = |direction: u16| both || flags & direction != 0;
    match flags & OF_MARK {
        0 if zone == 0 => None,
        0 => Some(Write::Zone(Some(Zone::new(zone, of(ORIGINAL), of(REPLY))))),
        _ => Some(Write::Zone(None)),
    }
}

/// `struct xt_mark_tginfo2` (linux/netfilter/xt_mark.h).
fn mark(info: &[u8], revision: u32) -> Option<MarkValue> {
    if revision != 2 {
        return None;
    }
    Some(MarkValue {
        keep: !word(info, 4)?,
        take: 0,
        xor: word(info, 0)?,
    })
}

/// `struct xt_connmark_tginfo1` and `2` (linux/netfilter/xt_connmark.h): mark, masks of the flow's and
/// of the packet's mark, a shift (revision 2), and the operation.
fn connmark(info: &[u8], revision: u32) -> MarkWrite {
    /// `XT_CONNMARK_SET`, `XT_CONNMARK_SAVE`, `XT_CONNMARK_RESTORE`.
    const SET: u8 = 0;
    const SAVE: u8 = 1;
    const RESTORE: u8 = 2;
    let words = word(info, 0).zip(word(info, 4)).zip(word(info, 8));
    let (mode, shift) = match revision {
        1 => (info.get(12), Some(0)),
        2 => (info.get(14), info.get(13).copied()),
        _ => (None, None),
    };
    let value = |keep, take, xor| (shift == Some(0)).then_some(MarkValue { keep, take, xor });
    let (of, value) = match (words, mode) {
        (Some(((mark, flow), _)), Some(&SET)) => (MarkOf::Flow, value(!flow, 0, mark)),
        (Some(((_, flow), packet)), Some(&SAVE)) => (MarkOf::Flow, value(!flow, packet, 0)),
        (Some(((_, flow), packet)), Some(&RESTORE)) => (MarkOf::Packet, value(!packet, flow, 0)),
        _ => (MarkOf::Packet, None),
    };
    MarkWrite { of, value }
}

fn half(info: &[u8], offset: usize) -> Option<u16> {
    let bytes = info.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn word(info: &[u8], offset: usize) -> Option<u32> {
    let bytes = info.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn value(keep: u32, take: u32, xor: u32) -> Option<MarkValue> {
        Some(MarkValue { keep, take, xor })
    }

    #[test]
    fn marks_of_targets_are_read() {
        let found = target("MARK", &words(&[0x77, 0xff]), 2);
        let expected = Write::Mark(MarkWrite {
            of: MarkOf::Packet,
            value: value(!0xff, 0, 0x77),
        });
        assert_eq!(found, Some(expected));
        assert_eq!(mark(&words(&[0x77, 0xff]), 1), None);
        assert_eq!(mark(&[1, 2], 2), None);
    }

    #[test]
    fn flow_marks_are_set_saved_and_restored() {
        let info = |mode: u32| words(&[0x5, 0xf, 0xf0, mode]);
        let of = |mode| connmark(&info(mode), 1);
        assert_eq!(of(0).of, MarkOf::Flow);
        assert_eq!(of(0).value, value(!0xf, 0, 0x5));
        assert_eq!(of(1).value, value(!0xf, 0xf0, 0));
        assert_eq!(of(2).of, MarkOf::Packet);
        assert_eq!(of(2).value, value(!0xf0, 0xf, 0));
        let mut shifted = info(0);
        (shifted[13], shifted[14]) = (4, 1);
        assert_eq!(connmark(&shifted, 2).value, None);
        shifted[13] = 0;
        assert_eq!(connmark(&shifted, 2).value, value(!0xf, 0xf0, 0));
    }

    #[test]
    fn zones_of_one_direction_are_read() {
        let info = |flags: u16| [flags.to_ne_bytes(), 5u16.to_ne_bytes()].concat();
        let zone = |original, reply| Some(Write::Zone(Some(Zone { original, reply })));
        assert_eq!(connection(&info(0)), zone(5, 5));
        assert_eq!(connection(&info(4)), zone(5, 0));
        assert_eq!(connection(&info(8)), zone(0, 5));
        assert_eq!(connection(&info(16)), Some(Write::Zone(None)));
        assert_eq!(connection(&info(1)), Some(Write::Untrack));
    }
}
