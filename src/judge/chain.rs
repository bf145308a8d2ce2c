//! Foreign firewall chains as values, and the packets in them.
//!
//! Both readers (nf_tables over netlink, the text of iptables-legacy) give the same values. A
//! condition compares bytes of the packet, so no reader needs to know the meaning of a rule. A
//! comparison has three values: a condition outside our knowledge (a set of addresses by country,
//! a port, a limit) is *unknown*, and a rule with such a condition neither certainly matches nor
//! certainly fails.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ordinary::{LOCAL, PORT, PROTOCOL, SOURCE_PORT, UNICAST, UNNAMED_USER};
use crate::types::{Family, IfIndex};

/// The bits of the flow's state in both interfaces (`NF_CT_STATE_BIT`,
/// linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

/// A part of a packet that a condition reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    InputName,
    OutputName,
    InputIndex,
    OutputIndex,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, one byte.
    Family,
    /// The protocol of the frame (`ETH_P_*`), in the order of the network.
    EtherType,
    /// The protocol in the IP header.
    Protocol,
    SourcePort,
    DestinationPort,
    /// Bytes of an address of that family; conditions fail for the other family.
    Source(Family),
    Destination(Family),
    /// The state of the flow, in the host's byte order.
    FlowState,
    /// The status bits of the flow (`IPS_*`), in the host's byte order.
    FlowStatus,
    /// The packet's mark, in the host's byte order.
    Mark,
    /// The user of the sending socket, in the host's byte order.
    User,
    /// The routing type of the destination (`RTN_*`), in the host's byte order.
    DestinationType,
    Unknown,
}

impl Field {
    /// The bytes of a value. A longer key joins several fields.
    pub fn width(self) -> usize {
        match self {
            Field::InputName | Field::OutputName => 16,
            Field::Family | Field::Protocol => 1,
            Field::EtherType | Field::SourcePort | Field::DestinationPort => 2,
            Field::Source(Family::Ipv6) | Field::Destination(Family::Ipv6) => 16,
            _ => 4,
        }
    }
}

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
    /// The next rule follows: counters, logs, marks.
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
    /// conntrack ignores the packet: nothing translates the packet. The next rule follows.
    Untrack,
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
    /// The policy is drop.
    pub drops: bool,
    pub chains: BTreeMap<String, Vec<ForeignRule>>,
}

/// A packet at one of the hooks. The host's own packets have no input interface (index 0), those for
/// the host no output interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub input: (IfIndex, String),
    pub output: (IfIndex, String),
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The first packet of a flow; otherwise a later one.
    pub opens: bool,
    /// The fields that the hook of the chain does not see as the packet has them, such as the output
    /// interface before the routing decision.
    pub unseen: Vec<Field>,
}

enum Value {
    Bytes(Vec<u8>),
    OtherFamily,
    Unknown,
}

impl Packet {
    /// The family of the packet.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    fn value(&self, field: Field) -> Value {
        if self.unseen.contains(&field) {
            return Value::Unknown;
        }
        let of = |family: Family, address: IpAddr| {
            if family == Family::of(address) {
                Value::Bytes(octets(address))
            } else {
                Value::OtherFamily
            }
        };
        match field {
            Field::InputName => Value::Bytes(padded(&self.input.1)),
            Field::OutputName => Value::Bytes(padded(&self.output.1)),
            Field::InputIndex => Value::Bytes(self.input.0.0.to_ne_bytes().into()),
            Field::OutputIndex => Value::Bytes(self.output.0.0.to_ne_bytes().into()),
            Field::Family => Value::Bytes(vec![protocol_family(self.family())]),
            Field::EtherType => Value::Bytes(ether_type(self.family()).to_be_bytes().into()),
            Field::Protocol => Value::Bytes(vec![PROTOCOL]),
            // The other port is any.
            Field::DestinationPort if self.opens => Value::Bytes(PORT.to_be_bytes().into()),
            Field::SourcePort if !self.opens => Value::Bytes(PORT.to_be_bytes().into()),
            // The kernel chooses the port of an own socket.
            Field::SourcePort if self.input.0 == IfIndex(0) => own_port(),
            Field::DestinationPort if self.output.0 == IfIndex(0) => own_port(),
            Field::SourcePort | Field::DestinationPort => Value::Unknown,
            Field::Source(family) => of(family, self.source),
            Field::Destination(family) => of(family, self.destination),
            Field::FlowState => {
                let state = if self.opens { NEW } else { ESTABLISHED };
                Value::Bytes(state.to_ne_bytes().into())
            }
            Field::FlowStatus => {
                let status = if self.opens { OPENING } else { ANSWERED };
                Value::Bytes(status.to_ne_bytes().into())
            }
            Field::Mark => Value::Bytes(vec![0; 4]),
            // A forwarded packet has no socket.
            Field::User if self.input.0 != IfIndex(0) => Value::Unknown,
            Field::User => Value::Bytes(UNNAMED_USER.to_ne_bytes().into()),
            Field::DestinationType if self.opens => Value::Bytes(UNICAST.to_ne_bytes().into()),
            Field::DestinationType if self.output.0 == IfIndex(0) => {
                Value::Bytes(LOCAL.to_ne_bytes().into())
            }
            Field::DestinationType | Field::Unknown => Value::Unknown,
        }
    }
}

/// The status of a flow at its first packet, and with an answer to translated packets: `IPS_SRC_NAT`,
/// `IPS_SEEN_REPLY`, `IPS_CONFIRMED`, and the marks of finished translations
/// (linux/netfilter/nf_conntrack_common.h). Nobody translates the destination of an ordinary packet.
const OPENING: u32 = 0x100;
const ANSWERED: u32 = 0x19a;

/// `ETH_P_IP` and `ETH_P_IPV6` (linux/if_ether.h).
fn ether_type(family: Family) -> u16 {
    match family {
        Family::Ipv4 => 0x0800,
        Family::Ipv6 => 0x86dd,
    }
}

fn own_port() -> Value {
    Value::Bytes(SOURCE_PORT.to_be_bytes().into())
}

/// The number of a family in netfilter (`NFPROTO_*`, linux/netfilter.h).
fn protocol_family(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// An interface name as the kernel compares it: 16 bytes (`IFNAMSIZ`), zeros at the end.
fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
