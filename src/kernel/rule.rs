//! Policy rules on the wire.
//!
//! The reader takes each attribute by itself, so that neither a foreign rule with an odd interface
//! name nor an attribute of a newer kernel ends a pass.

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{family_number, family_of};
use super::wire::{
    Attribute, CREATE, WireError, each_attribute, put, put_address, put_text, put_u32, u16_at,
    u32_at,
};
use crate::objects::{ForeignSelector, Rule, RuleAction};
use crate::types::{Family, Mark, Priority, Protocol, TableId};

// Message types and attributes of linux/rtnetlink.h and fib_rules.h.
pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_FLOW: u16 = 11;
const FRA_TUN_ID: u16 = 12;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FRA_DSCP: u16 = 25;
const FRA_FLOWLABEL: u16 = 26;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FIB_RULE_INVERT: u32 = 2;
/// Length of `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;
/// `FRA_SUPPRESS_PREFIXLEN` and `FRA_SUPPRESS_IFGROUP` of a rule without suppression: -1.
const SUPPRESS_NOTHING: u32 = u32::MAX;

/// Writes a rule message; returns its type and flags.
///
/// Adds carry no `NLM_F_EXCL`: the kernel compares everything but the protocol, so that a
/// foreign twin would refuse our rule, and the twin may go at any time. Deletes carry the
/// protocol: without the protocol, the kernel removes the first twin, perhaps the foreign one.
pub fn encode(deleting: bool, rule: &Rule, buffer: &mut Vec<u8>) -> (u16, u16) {
    let action = match rule.action {
        RuleAction::Lookup { .. } => FR_ACT_TO_TBL,
        RuleAction::Goto(_) => FR_ACT_GOTO,
        RuleAction::Nop => FR_ACT_NOP,
        RuleAction::Other(action) => action,
    };
    let length = rule.foreign_selectors.iter().find_map(|selector| {
        let ForeignSelector::From(source) = selector else {
            return None;
        };
        Some(source.prefix_len())
    });
    let length = length.unwrap_or(0);
    buffer.extend_from_slice(&[family_number(rule.family), 0, length, 0, 0, 0, 0, action]);
    buffer.extend_from_slice(&[0; 4]);
    for selector in &rule.foreign_selectors {
        encode_selector(selector, buffer);
    }
    put_u32(buffer, FRA_PRIORITY, rule.priority.0);
    put(buffer, FRA_PROTOCOL, &[rule.protocol.0]);
    if let Some(iif) = &rule.iif {
        put_text(buffer, FRA_IIFNAME, iif);
    }
    if let Some(mark) = rule.mark {
        put_u32(buffer, FRA_FWMARK, mark.value);
        put_u32(buffer, FRA_FWMASK, mark.mask);
    }
    match rule.action {
        RuleAction::Lookup {
            table,
            suppress_prefixlength,
        } => {
            put_u32(buffer, FRA_TABLE, table.0);
            if let Some(length) = suppress_prefixlength {
                put_u32(buffer, FRA_SUPPRESS_PREFIXLEN, length);
            }
        }
        RuleAction::Goto(target) => put_u32(buffer, FRA_GOTO, target.0),
        RuleAction::Nop | RuleAction::Other(_) => {}
    }
    if deleting {
        (RTM_DELRULE, 0)
    } else {
        (RTM_NEWRULE, CREATE)
    }
}

/// Writes a selector of the shut state ([`Rule::is_of_shut`]) or a realm; our rules have no other one.
fn encode_selector(selector: &ForeignSelector, buffer: &mut Vec<u8>) {
    match selector {
        ForeignSelector::From(source) => put_address(buffer, FRA_SRC, source.network()),
        ForeignSelector::IpProtocol(number) => put(buffer, FRA_IP_PROTO, &[*number]),
        ForeignSelector::Realms(realms) => put_u32(buffer, FRA_FLOW, *realms),
        ForeignSelector::SourcePorts(first, last) => {
            let ports = [first, last].map(|port| port.to_ne_bytes());
            put(buffer, FRA_SPORT_RANGE, ports.as_flattened());
        }
        _ => {}
    }
}

/// All rules of a family, ours or not.
pub fn dump(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<Rule>, NetlinkError> {
    let operation = format!("read the {family} rules");
    let request = |buffer: &mut Vec<u8>| {
        buffer.push(family_number(family));
        buffer.extend_from_slice(&[0; RULE_HEADER - 1]);
    };
    socket.dump(&operation, RTM_GETRULE, request, |frame| {
        if frame.kind != RTM_NEWRULE {
            return Ok(None);
        }
        decode(frame.body)
    })
}

/// Reads a rule message; `None` for a rule of another family.
///
/// Every selector of today's kernels without a field of its own becomes a foreign selector: a rule
/// for fewer packets must never equal ours. Unknown attributes are ignored: a newer kernel may add
/// some to our rules, and the rules would never equal the wanted ones.
pub(super) fn decode(body: &[u8]) -> Result<Option<Rule>, WireError> {
    let (header, list) = body
        .split_at_checked(RULE_HEADER)
        .ok_or(WireError::Malformed("rule header"))?;
    let [number, dst_len, src_len, tos, table, _, _, action, ..] = *header else {
        return Err(WireError::Malformed("rule header"));
    };
    let Some(family) = family_of(number) else {
        return Ok(None);
    };
    let mut table = TableId(u32::from(table));
    let (mut priority, mut protocol, mut iif) = (Priority(0), Protocol(0), None);
    let (mut suppress, mut goto, mut value, mut mask) = (None, Priority(0), None, None);
    let mut foreign_selectors = Vec::new();
    for attribute in each_attribute(list) {
        let attribute = attribute?;
        match attribute.kind {
            FRA_PRIORITY => priority = Priority(attribute.u32()?),
            FRA_PROTOCOL => protocol = Protocol(attribute.u8()?),
            FRA_TABLE => table = TableId(attribute.u32()?),
            FRA_IIFNAME => iif = Some(attribute.text()),
            FRA_FWMARK => value = Some(attribute.u32()?),
            FRA_FWMASK => mask = Some(attribute.u32()?),
            FRA_GOTO => goto = Priority(attribute.u32()?),
            FRA_SUPPRESS_PREFIXLEN => {
                suppress = Some(attribute.u32()?).filter(|length| *length != SUPPRESS_NOTHING);
            }
            _ => foreign_selectors.extend(foreign(&attribute, src_len, dst_len)?),
        }
    }
    if tos != 0 {
        foreign_selectors.push(ForeignSelector::Tos(tos));
    }
    if u32_at(header, 8)? & FIB_RULE_INVERT != 0 {
        foreign_selectors.push(ForeignSelector::Not);
    }
    foreign_selectors.sort();
    let mark = (value.is_some() || mask.is_some()).then(|| Mark {
        value: value.unwrap_or(0),
        mask: mask.unwrap_or(u32::MAX),
    });
    let action = match action {
        FR_ACT_TO_TBL => RuleAction::Lookup {
            table,
            suppress_prefixlength: suppress,
        },
        FR_ACT_GOTO => RuleAction::Goto(goto),
        FR_ACT_NOP => RuleAction::Nop,
        other => RuleAction::Other(other),
    };
    Ok(Some(Rule {
        family,
        priority,
        iif,
        mark,
        foreign_selectors,
        action,
        protocol,
    }))
}

/// A selector (or modifier) without a field of its own; `None` for an unknown attribute.
fn foreign(
    attribute: &Attribute<'_>,
    src_len: u8,
    dst_len: u8,
) -> Result<Option<ForeignSelector>, WireError> {
    let bytes = attribute.payload;
    let ports = || Ok::<_, WireError>((u16_at(bytes, 0)?, u16_at(bytes, 2)?));
    Ok(Some(match attribute.kind {
        FRA_SRC => ForeignSelector::From(ForeignSelector::prefix(attribute.address()?, src_len)),
        FRA_DST => ForeignSelector::To(ForeignSelector::prefix(attribute.address()?, dst_len)),
        FRA_OIFNAME => ForeignSelector::OutputDevice(attribute.text()),
        FRA_UID_RANGE => ForeignSelector::Users(u32_at(bytes, 0)?, u32_at(bytes, 4)?),
        FRA_L3MDEV if attribute.u8()? == 0 => return Ok(None),
        FRA_L3MDEV => ForeignSelector::VrfTable,
        FRA_SUPPRESS_IFGROUP if attribute.u32()? == SUPPRESS_NOTHING => return Ok(None),
        FRA_SUPPRESS_IFGROUP => ForeignSelector::SuppressInterfaceGroup(attribute.u32()?),
        FRA_IP_PROTO => ForeignSelector::IpProtocol(attribute.u8()?),
        FRA_SPORT_RANGE => {
            let (first, last) = ports()?;
            ForeignSelector::SourcePorts(first, last)
        }
        FRA_DPORT_RANGE => {
            let (first, last) = ports()?;
            ForeignSelector::DestinationPorts(first, last)
        }
        FRA_DSCP => ForeignSelector::Dscp(attribute.u8()?),
        FRA_FLOWLABEL => ForeignSelector::FlowLabel(attribute.be32().unwrap_or_default()),
        FRA_TUN_ID => ForeignSelector::TunnelId,
        FRA_FLOW => ForeignSelector::Realms(attribute.u32()?),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Attributes;
    use super::*;

    fn ours() -> Rule {
        Rule {
            family: Family::Ipv4,
            priority: Priority(30_000),
            iif: Some("lo".to_owned()),
            mark: Some(Mark {
                value: 0,
                mask: 0x3000,
            }),
            foreign_selectors: Vec::new(),
            action: RuleAction::Lookup {
                table: TableId(1083),
                suppress_prefixlength: Some(0),
            },
            protocol: Protocol(83),
        }
    }

    fn message(rule: &Rule, more: Attributes) -> Vec<u8> {
        let mut body = Vec::new();
        encode(false, rule, &mut body);
        body.extend(more.into_bytes());
        body
    }

    fn read(body: &[u8]) -> Rule {
        decode(body).unwrap().unwrap()
    }

    #[test]
    fn rules_round_trip() {
        let goto = Rule {
            family: Family::Ipv6,
            iif: None,
            mark: None,
            action: RuleAction::Goto(Priority(31_000)),
            ..ours()
        };
        let nop = Rule {
            action: RuleAction::Nop,
            ..goto.clone()
        };
        let from = Rule {
            foreign_selectors: vec![
                ForeignSelector::From("2000::/3".parse().unwrap()),
                ForeignSelector::IpProtocol(6),
                ForeignSelector::SourcePorts(1, 32_767),
            ],
            ..goto.clone()
        };
        for rule in [ours(), goto, nop, from] {
            assert_eq!(read(&message(&rule, Attributes::new())), rule);
        }
    }

    #[test]
    fn attributes_of_a_newer_kernel_leave_our_rule_equal() {
        let newer = Attributes::new()
            .put(FRA_SUPPRESS_IFGROUP, &u32::MAX.to_ne_bytes())
            .put(200, &[1, 2, 3])
            .put(201, &[]);
        assert_eq!(read(&message(&ours(), newer)), ours());
    }

    #[test]
    fn every_known_foreign_selector_makes_a_rule_differ_from_ours() {
        let four = |value: u32| value.to_ne_bytes();
        let ports: Vec<u8> = [80u16, 81].map(u16::to_ne_bytes).concat();
        let uids: Vec<u8> = [0u32, 99].map(u32::to_ne_bytes).concat();
        let cases: [(u16, &[u8], &str); 12] = [
            (FRA_SRC, &[10, 0, 0, 0], "from 10.0.0.0/0"),
            (FRA_DST, &[10, 1, 0, 0], "to 10.1.0.0/0"),
            (FRA_OIFNAME, b"e\xff\0", r"oif e\xff"),
            (FRA_UID_RANGE, &uids, "uidrange 0-99"),
            (FRA_L3MDEV, &[1], "lookup [l3mdev-table]"),
            (FRA_SUPPRESS_IFGROUP, &four(3), "suppress_ifgroup 3"),
            (FRA_IP_PROTO, &[6], "ipproto tcp"),
            (FRA_SPORT_RANGE, &ports, "sport 80-81"),
            (FRA_DPORT_RANGE, &ports, "dport 80-81"),
            (FRA_DSCP, &[8], "dscp 0x8"),
            (FRA_FLOWLABEL, &[0, 0, 0, 5], "flowlabel 0x5"),
            (FRA_FLOW, &four(9), "realms 9"),
        ];
        for (kind, payload, words) in cases {
            let rule = read(&message(&ours(), Attributes::new().put(kind, payload)));
            let [selector] = rule.foreign_selectors.as_slice() else {
                panic!("one selector: {rule:?}");
            };
            assert_eq!(selector.to_string(), words);
        }
    }

    #[test]
    fn header_selectors_of_a_foreign_rule_are_kept() {
        let mut body = message(&ours(), Attributes::new());
        body[3] = 0x10;
        body[8..12].copy_from_slice(&FIB_RULE_INVERT.to_ne_bytes());
        assert_eq!(
            read(&body).foreign_selectors,
            [ForeignSelector::Not, ForeignSelector::Tos(0x10)]
        );
    }

    #[test]
    fn truncated_rule_messages_are_errors() {
        let body = message(&ours(), Attributes::new());
        for length in [0, RULE_HEADER - 1, RULE_HEADER + 2, body.len() - 1] {
            assert!(decode(&body[..length]).is_err(), "{length}");
        }
        let short = message(&ours(), Attributes::new().put(FRA_IP_PROTO, &[]));
        assert!(decode(&short).is_err());
    }

    #[test]
    fn rules_of_other_families_are_ignored() {
        /// `RTNL_FAMILY_IPMR` (linux/rtnetlink.h): rules of multicast routing.
        const IPMR: u8 = 128;
        let mut body = message(&ours(), Attributes::new());
        body[0] = IPMR;
        assert_eq!(decode(&body).unwrap(), None);
    }
}
