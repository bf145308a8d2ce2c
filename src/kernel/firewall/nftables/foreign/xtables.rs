//! Matches and targets of xtables, which iptables-nft embeds in its rules.

use std::net::IpAddr;

use crate::judge::chain::{Condition, Effect, Field, NewSource, Test};
use crate::judge::destination::of_type;
use crate::judge::ordinary::Transport;
use crate::kernel::firewall::nftables::register;
use crate::kernel::firewall::nftables::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};

/// The condition on state or status of `xt_conntrack` (`struct xt_conntrack_mtinfo2` and `3`,
/// linux/netfilter/xt_conntrack.h; `state` is an alias of it).
pub(super) fn flow_state(info: &[u8], revision: u32) -> Condition {
    /// `XT_CONNTRACK_STATE`, `XT_CONNTRACK_STATUS`.
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    const MATCH_FLAGS: usize = 146;
    let at = |offset: usize| {
        info.get(offset..offset + 2)
            .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
    };
    let (flags, inverted) = (at(MATCH_FLAGS), at(MATCH_FLAGS + 2));
    let mask = |place: usize| match revision {
        2 | 3 => at(MATCH_FLAGS + 4 + 2 * place),
        _ => info.get(MATCH_FLAGS + 4 + place).copied().map(u16::from),
    };
    let (field, bits) = match flags {
        Some(STATE) => (Field::FlowState, mask(0)),
        Some(STATUS) => (Field::FlowStatus, mask(1)),
        _ => return Condition::unknown(),
    };
    match (flags, inverted, bits) {
        (Some(flag), Some(inverted), Some(bits)) => Condition {
            field,
            mask: u32::from(bits).to_ne_bytes().into(),
            test: Test::Equals(vec![0; 4]),
            negated: inverted & flag == 0,
        },
        _ => Condition::unknown(),
    }
}

/// The port conditions of `xt_tcp` (`struct xt_tcp`, linux/netfilter/xt_tcpudp.h): two ranges of
/// ports in the host's order, an option, two bytes of flags, and the inverted parts.
pub(super) fn tcp(info: &[u8]) -> Vec<Condition> {
    let (Some(option), Some(flags), Some(inverted)) = (info.get(8), info.get(9), info.get(11))
    else {
        return vec![Condition::unknown()];
    };
    let mut found = vec![protocol(Transport::Tcp)];
    found.extend(ports(info, *inverted));
    if *option != 0 || *flags != 0 {
        found.push(Condition::unknown());
    }
    found
}

/// The conditions of `xt_udp` (`struct xt_udp`, linux/netfilter/xt_tcpudp.h): two ranges of ports, and
/// the inverted parts.
pub(super) fn udp(info: &[u8]) -> Vec<Condition> {
    let Some(inverted) = info.get(8) else {
        return vec![Condition::unknown()];
    };
    let mut found = vec![protocol(Transport::Udp)];
    found.extend(ports(info, *inverted));
    found
}

/// The conditions on two ranges of ports.
fn ports(info: &[u8], inverted: u8) -> Vec<Condition> {
    /// `XT_TCP_INV_SRCPT` and `XT_TCP_INV_DSTPT`, as for UDP.
    const INVERTED: [u8; 2] = [1, 2];
    let mut found = Vec::new();
    for (place, field) in [Field::SourcePort, Field::DestinationPort]
        .into_iter()
        .enumerate()
    {
        let ends = port(info, 4 * place).zip(port(info, 4 * place + 2));
        match ends {
            Some((0, u16::MAX)) => {}
            Some((first, last)) => found.push(Condition {
                field,
                mask: Vec::new(),
                test: Test::InRanges(vec![(bytes(first), bytes(last))]),
                negated: inverted & INVERTED[place] != 0,
            }),
            None => found.push(Condition::unknown()),
        }
    }
    found
}

fn protocol(transport: Transport) -> Condition {
    Condition::equals(Field::Protocol, vec![transport.number()], false)
}

fn port(info: &[u8], offset: usize) -> Option<u16> {
    let bytes = info.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
}

fn bytes(port: u16) -> Vec<u8> {
    port.to_be_bytes().into()
}

/// The condition of `xt_multiport` (`struct xt_multiport_v1`, linux/netfilter/xt_multiport.h).
pub(super) fn multiport(info: &[u8], revision: u32) -> Condition {
    /// `XT_MULTIPORT_SOURCE`, `XT_MULTIPORT_DESTINATION`.
    const FIELDS: [Field; 2] = [Field::SourcePort, Field::DestinationPort];
    const PORTS: usize = 15;
    let (Some(flags), Some(count)) = (info.first(), info.get(1)) else {
        return Condition::unknown();
    };
    let field = FIELDS.get(usize::from(*flags));
    let (Some(field), 1) = (field, revision) else {
        return Condition::unknown();
    };
    let is_first = |place: usize| {
        info.get(2 + 2 * PORTS + place)
            .is_some_and(|flag| *flag != 0)
    };
    let negated = info.get(2 + 3 * PORTS).is_some_and(|invert| *invert != 0);
    let mut ranges = Vec::new();
    let mut place = 0;
    while place < usize::from(*count).min(PORTS) {
        let last = if is_first(place) { place + 1 } else { place };
        let ends = port(info, 2 + 2 * place).zip(port(info, 2 + 2 * last));
        ranges.extend(ends.map(|(first, last)| (bytes(first), bytes(last))));
        place = last + 1;
    }
    Condition {
        field: *field,
        mask: Vec::new(),
        test: Test::InRanges(ranges),
        negated,
    }
}

/// The condition of `xt_mark` or `xt_connmark` (`struct xt_mark_mtinfo1`, linux/netfilter/xt_mark.h;
/// `struct xt_connmark_mtinfo1`): mark, mask and inversion.
pub(super) fn mark(field: Field, info: &[u8], revision: u32) -> Condition {
    match (info.get(..4), info.get(4..8), info.get(8), revision) {
        (Some(mark), Some(mask), Some(inverted), 1) => Condition {
            mask: mask.to_vec(),
            ..Condition::equals(field, mark.to_vec(), *inverted != 0)
        },
        _ => Condition::unknown(),
    }
}

/// The condition of `xt_owner` on one user (`struct xt_owner_match_info`,
/// linux/netfilter/xt_owner.h): two ranges, of users and groups, the parts that count, and the
/// inverted ones.
pub(super) fn owner(info: &[u8]) -> Condition {
    /// `XT_OWNER_UID`.
    const UID: u8 = 1;
    let at = |offset: usize| info.get(offset..offset + 4);
    match (at(0), at(4), info.get(16), info.get(17)) {
        (Some(first), Some(last), Some(&UID), Some(inverted)) if first == last => {
            Condition::equals(Field::User, first.to_vec(), inverted & UID != 0)
        }
        _ => Condition::unknown(),
    }
}

/// The condition of `xt_addrtype` on the destination (`struct xt_addrtype_info_v1`,
/// linux/netfilter/xt_addrtype.h): two sets of types, and flags.
pub(super) fn destination_type(info: &[u8], revision: u32) -> Condition {
    /// `XT_ADDRTYPE_INVERT_DEST`.
    const INVERTED: u32 = 2;
    let flags = info.get(4..8).and_then(|bytes| bytes.try_into().ok());
    match (
        port(info, 0),
        port(info, 2),
        flags.map(u32::from_ne_bytes),
        revision,
    ) {
        (Some(0), Some(types), Some(flags @ (0 | INVERTED)), 1) => {
            let types = (0..u16::BITS).filter(|kind| types & (1 << kind) != 0);
            of_type(types, flags == INVERTED)
        }
        _ => Condition::unknown(),
    }
}

/// The effect of a target, in a table of the family.
pub(super) fn target(name: &str, info: &[u8], revision: u32, family: u8) -> Effect {
    match name {
        "REJECT" => Effect::Reject,
        "DROP" => Effect::Drop,
        // A program decides about a queued packet, perhaps for an acceptance.
        "ACCEPT" | "NFQUEUE" => Effect::Accept,
        "MASQUERADE" => Effect::Translate(NewSource::OfInterface),
        "DNAT" | "REDIRECT" | "TPROXY" => Effect::Divert,
        "SNAT" => Effect::Translate(range_start(info, revision, family).into()),
        "NETMAP" => Effect::Translate(NewSource::Unknown),
        _ => Effect::Continue,
    }
}

/// The first address of a translation's range (`struct nf_nat_range`; revision 0:
/// `struct nf_nat_ipv4_multi_range_compat`, linux/netfilter/nf_nat.h).
fn range_start(info: &[u8], revision: u32, family: u8) -> Option<IpAddr> {
    let offset = if revision == 0 && family == NFPROTO_IPV4 {
        8
    } else {
        4
    };
    let length = if family == NFPROTO_IPV6 { 16 } else { 4 };
    register::address(info.get(offset..offset + length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_states_of_xtables_are_read() {
        let mut info = vec![0; 160];
        info[146..148].copy_from_slice(&1u16.to_ne_bytes());
        info[150..152].copy_from_slice(&6u16.to_ne_bytes());
        let condition = flow_state(&info, 3);
        assert_eq!(condition.field, Field::FlowState);
        assert_eq!(condition.mask, 6u32.to_ne_bytes());
        assert!(condition.negated);
        info[146] = 3;
        assert_eq!(flow_state(&info, 3), Condition::unknown());
        assert_eq!(flow_state(&[], 3), Condition::unknown());
    }

    #[test]
    fn ports_of_xtables_are_read() {
        let mut info = vec![0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
        info[4..6].copy_from_slice(&443u16.to_ne_bytes());
        info[6..8].copy_from_slice(&444u16.to_ne_bytes());
        info[2..4].copy_from_slice(&u16::MAX.to_ne_bytes());
        let found = tcp(&info);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1].field, Field::DestinationPort);
        let range = vec![(443u16.to_be_bytes().into(), 444u16.to_be_bytes().into())];
        assert_eq!(found[1].test, Test::InRanges(range));
        assert_eq!(tcp(&info[..5]), [Condition::unknown()]);
    }

    #[test]
    fn marks_of_xtables_are_read() {
        let mut info = vec![0; 12];
        info[..4].copy_from_slice(&0x4000u32.to_ne_bytes());
        info[4..8].copy_from_slice(&0xff00u32.to_ne_bytes());
        info[8] = 1;
        let found = mark(Field::Mark, &info, 1);
        assert_eq!(found.field, Field::Mark);
        assert_eq!(found.mask, 0xff00u32.to_ne_bytes());
        assert_eq!(found.test, Test::Equals(0x4000u32.to_ne_bytes().into()));
        assert!(found.negated);
        assert_eq!(mark(Field::Mark, &info[..5], 1), Condition::unknown());
    }

    #[test]
    fn owners_and_destination_types_of_xtables_are_read() {
        let mut info = vec![0; 20];
        info[..4].copy_from_slice(&1337u32.to_ne_bytes());
        info[4..8].copy_from_slice(&1337u32.to_ne_bytes());
        (info[16], info[17]) = (1, 1);
        let user = Condition::equals(Field::User, 1337u32.to_ne_bytes().into(), true);
        assert_eq!(owner(&info), user);
        info[16] = 3;
        assert_eq!(owner(&info), Condition::unknown());
        let mut info = vec![0; 8];
        info[2..4].copy_from_slice(&4u16.to_ne_bytes());
        let local = of_type([2], false);
        assert_eq!(destination_type(&info, 1), local);
        assert_eq!(destination_type(&info, 0), Condition::unknown());
    }

    #[test]
    fn lists_of_ports_are_read() {
        let mut info = vec![0; 48];
        (info[0], info[1]) = (1, 3);
        for (place, port) in [80u16, 8000, 8999].into_iter().enumerate() {
            info[2 + 2 * place..4 + 2 * place].copy_from_slice(&port.to_ne_bytes());
        }
        // The second and third are the ends of a range.
        info[32 + 1] = 1;
        let found = multiport(&info, 1);
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        assert_eq!(found.field, Field::DestinationPort);
        let ranges = vec![(bytes(80), bytes(80)), (bytes(8000), bytes(8999))];
        assert_eq!(found.test, Test::InRanges(ranges));
        assert_eq!(multiport(&info, 0), Condition::unknown());
    }
}
