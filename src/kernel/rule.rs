//! Policy rules on the wire.

use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{
    RuleAction as WireAction, RuleAttribute, RuleFlags, RuleMessage,
};

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{family_number, family_of};
use super::wire::{CREATE, WireError};
use crate::objects::{Rule, RuleAction};
use crate::types::{Family, Mark, Priority, Protocol, TableId};

// Message types of linux/rtnetlink.h.
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
/// Length of `struct fib_rule_hdr` (linux/fib_rules.h).
const RULE_HEADER: usize = 12;
/// `FRA_SUPPRESS_PREFIXLEN` of a rule that suppresses nothing: -1.
const SUPPRESS_NOTHING: u32 = u32::MAX;

/// Writes a rule message; gives its type and flags.
///
/// Adds carry no `NLM_F_EXCL`: the kernel compares everything but the protocol, so that a
/// foreign twin would refuse ours, and the twin may go at any time. Deletes carry the
/// protocol: without it the kernel removes the first twin, which may be the foreign one.
pub fn encode(deleting: bool, rule: &Rule, buffer: &mut Vec<u8>) -> (u16, u16) {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority.0));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(
        rule.protocol.0,
    )));
    if let Some(iif) = &rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    if let Some(mark) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark.value));
        attributes.push(RuleAttribute::FwMask(mark.mask));
    }
    message.header.action = match rule.action {
        RuleAction::Lookup {
            table,
            suppress_prefixlength,
        } => {
            attributes.push(RuleAttribute::Table(table.0));
            if let Some(length) = suppress_prefixlength {
                attributes.push(RuleAttribute::SuppressPrefixLen(length));
            }
            WireAction::ToTable
        }
        RuleAction::Goto(target) => {
            attributes.push(RuleAttribute::Goto(target.0));
            WireAction::Goto
        }
        RuleAction::Nop => WireAction::Nop,
        RuleAction::Other(action) => WireAction::from(action),
    };
    let at = buffer.len();
    buffer.resize(at + message.buffer_len(), 0);
    message.emit(&mut buffer[at..]);
    if deleting {
        (RTM_DELRULE, 0)
    } else {
        (RTM_NEWRULE, CREATE)
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
        let Some(family) = frame.body.first().and_then(|number| family_of(*number)) else {
            return Ok(None);
        };
        let message = RuleMessage::parse(frame.body).map_err(|_| WireError::Malformed("rule"))?;
        Ok(Some(rule_of(family, &message)))
    })
}

pub(super) fn rule_of(family: Family, message: &RuleMessage) -> Rule {
    let mut rule = Rule {
        family,
        priority: Priority(0),
        iif: None,
        mark: None,
        foreign_selectors: Vec::new(),
        action: RuleAction::Nop,
        protocol: Protocol(0),
    };
    let mut table = TableId(u32::from(message.header.table));
    let (mut suppress_prefixlength, mut goto, mut mark, mut mask) = (None, None, None, None);
    let other = &mut rule.foreign_selectors;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = Priority(*priority),
            RuleAttribute::Protocol(protocol) => rule.protocol = Protocol(u8::from(*protocol)),
            RuleAttribute::Table(id) => table = TableId(*id),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Goto(target) => goto = Some(Priority(*target)),
            RuleAttribute::SuppressPrefixLen(SUPPRESS_NOTHING) => {}
            RuleAttribute::SuppressPrefixLen(length) => suppress_prefixlength = Some(*length),
            RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Source(address) => {
                other.push(format!("from {address}/{}", message.header.src_len));
            }
            RuleAttribute::Destination(address) => {
                other.push(format!("to {address}/{}", message.header.dst_len));
            }
            RuleAttribute::Oifname(name) => other.push(format!("oif {name}")),
            RuleAttribute::UidRange(range) => {
                other.push(format!("uidrange {}-{}", range.start, range.end));
            }
            RuleAttribute::L3MDev(true) => other.push("l3mdev".to_owned()),
            RuleAttribute::L3MDev(false) => {}
            attribute => other.push(format!("{attribute:?}").to_lowercase()),
        }
    }
    if message.header.tos != 0 {
        other.push(format!("tos {:#x}", message.header.tos));
    }
    if message.header.flags.contains(RuleFlags::Invert) {
        other.push("not".to_owned());
    }
    rule.mark = match (mark, mask) {
        (None, None) => None,
        (value, mask) => Some(Mark {
            value: value.unwrap_or(0),
            mask: mask.unwrap_or(u32::MAX),
        }),
    };
    rule.action = match message.header.action {
        WireAction::ToTable => RuleAction::Lookup {
            table,
            suppress_prefixlength,
        },
        WireAction::Goto => RuleAction::Goto(goto.unwrap_or(Priority(0))),
        WireAction::Nop => RuleAction::Nop,
        action => RuleAction::Other(u8::from(action)),
    };
    rule
}
