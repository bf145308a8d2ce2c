//! Foreign firewall chains as values, and the packets in them.
//!
//! Both readers (nf_tables over netlink, the text of iptables-legacy) give the same values. A
//! condition compares bytes of the packet, so no reader needs to know the meaning of a rule. A
//! comparison has three values: a condition outside our knowledge (a set of addresses by country,
//! a port, a limit) is *unknown*, and a rule with such a condition neither certainly matches nor
//! certainly fails.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at_hook::Value;
pub use super::at_hook::{FlowPlace, Packet, octets};
pub use super::field::Field;
use super::marks::Write;
use crate::types::Family;

/// The comparison of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The value begins with these bytes.
    Equals(Vec<u8>),
    /// The value lies in one of the ranges; both ends belong to a range.
    InRanges(Vec<(Vec<u8>, Vec<u8>)>),
    /// All conditions of one of the lists hold: a key that joins several fields. The field of the
    /// condition has no meaning.
    AnyOf(Vec<Vec<Condition>>),
    Unknown,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub field: Field,
    /// Bits of the value that count; empty for all.
    pub mask: Vec<u8>,
    pub test: Test,
    pub negated: bool,
}

impl Condition {
    /// A condition outside our knowledge.
    pub fn unknown() -> Condition {
        Condition {
            field: Field::Unknown,
            mask: Vec::new(),
            test: Test::Unknown,
            negated: false,
        }
    }

    /// A comparison with bytes.
    pub fn equals(field: Field, bytes: Vec<u8>, negated: bool) -> Condition {
        Condition {
            field,
            mask: Vec::new(),
            test: Test::Equals(bytes),
            negated,
        }
    }

    /// `None` for unknown.
    pub(super) fn holds(&self, packet: &Packet) -> Option<bool> {
        if let Test::AnyOf(lists) = &self.test {
            let mut found = Some(false);
            for list in lists {
                match all_hold(list, packet) {
                    Some(true) => return Some(!self.negated),
                    None => found = None,
                    Some(false) => {}
                }
            }
            return found.map(|found| found != self.negated);
        }
        let value = match packet.value(self.field) {
            Value::Bytes(bytes) => bytes,
            Value::Bits(bits) => {
                let compared = self.mask.first_chunk();
                let compared = compared.map_or(u32::MAX, |mask| u32::from_ne_bytes(*mask));
                if compared & !bits.known != 0 {
                    return None;
                }
                bits.value.to_ne_bytes().into()
            }
            Value::OtherFamily => return Some(false),
            Value::Unknown => return None,
        };
        let value = masked(value, &self.mask);
        let found = match &self.test {
            Test::Equals(bytes) => value.get(..bytes.len()).map(|part| part == bytes)?,
            Test::InRanges(ranges) => ranges.iter().any(|(first, last)| {
                let part = &value[..value.len().min(first.len())];
                part >= first.as_slice() && part <= last.as_slice()
            }),
            Test::AnyOf(_) | Test::Unknown => return None,
        };
        Some(found != self.negated)
    }
}

/// `None` for unknown. One failed condition decides.
pub(super) fn all_hold(conditions: &[Condition], packet: &Packet) -> Option<bool> {
    let mut all = Some(true);
    for condition in conditions {
        match condition.holds(packet) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => all = None,
        }
    }
    all
}

fn masked(mut value: Vec<u8>, mask: &[u8]) -> Vec<u8> {
    for (byte, mask) in value.iter_mut().zip(mask) {
        *byte &= mask;
    }
    value
}

/// The effect of a rule on a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The next rule follows: counters, logs.
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
    Jump(String),
    Goto(String),
    /// Source translation.
    Translate(NewSource),
    /// Another destination: translation, redirection, a transparent proxy.
    Divert,
    /// The effect of the first element with conditions that hold.
    Map(Vec<(Vec<Condition>, Effect)>),
    /// A jump to a chain of ours.
    Ours,
}

/// The source of a translated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSource {
    Address(IpAddr),
    /// The address of the outgoing interface (masquerade).
    OfInterface,
    /// An address outside our knowledge, as from a map.
    Unknown,
}

impl From<Option<IpAddr>> for NewSource {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(NewSource::Unknown, NewSource::Address)
    }
}

/// A rule of a foreign chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRule {
    pub conditions: Vec<Condition>,
    /// In the sequence of the rule, before its effect.
    pub writes: Vec<Write>,
    pub effect: Effect,
}

impl ForeignRule {
    /// `None` for unknown.
    pub(super) fn matches(&self, packet: &Packet) -> Option<bool> {
        all_hold(&self.conditions, packet)
    }
}

/// The place of a base chain in the path of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainPlace {
    /// The ingress hook of an interface, before everything else.
    Ingress,
    /// Before the routing decision, except translation.
    Prerouting,
    /// Destination translation, before the routing decision.
    Diversion,
    /// The forward hook: decides whether a packet is forwarded.
    Forward,
    /// Packets for the host itself, except translation.
    Input,
    /// Packets of the host itself, except translation.
    Output,
    /// Destination translation of packets of the host itself.
    OutputDiversion,
    /// After the routing decision, except translation.
    Postrouting,
    /// The egress hook of an interface, after everything else.
    Egress,
    /// Source translation.
    Translation,
}

/// The age of a base chain, as far as nf_tables tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// The handle of the table, which grows from table to table.
    pub table: u64,
    pub origin: Origin,
}

/// The age of a chain inside its table. All objects of a table share one sequence of handles, so that
/// a chain made later has a handle above the number of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Among the first objects of the table, as old as the table.
    First,
    /// No older than the table, and perhaps made with its first rules.
    Early,
    /// Added later, or deleted and added again.
    Late,
}

/// A base chain with all chains that its rules reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// As the tool of the interface names the table: `table ip filter`, `iptables-legacy table
    /// filter`.
    pub table: String,
    pub name: String,
    pub place: ChainPlace,
    /// The families that pass the chain.
    pub families: Vec<Family>,
    /// Lower priorities come first.
    pub priority: i32,
    /// The age in nf_tables; `None` elsewhere.
    pub age: Option<Age>,
    /// The interfaces of an ingress or egress hook; empty elsewhere.
    pub devices: Vec<String>,
    /// The kernel routes a packet of the host again if this chain has changed the packet's mark (type
    /// `route`).
    pub reroutes: bool,
    /// The policy is drop.
    pub drops: bool,
    pub chains: BTreeMap<String, Vec<ForeignRule>>,
}
