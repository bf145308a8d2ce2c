//! A packet as the chains at a hook see the packet.

use std::net::IpAddr;

use super::field::Field;
use super::marks::{Bits, Marks};
use super::ordinary::{LOCAL, PORT, SOURCE_PORT, Transport, UNICAST, UNNAMED_USER};
use crate::types::{Family, IfIndex};

/// The bits of the flow's state in both interfaces (`NF_CT_STATE_BIT`,
/// linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

/// The place of a packet in its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowPlace {
    /// The first packet.
    Opening,
    /// A later packet of the same direction.
    Later,
    /// A packet of the other direction.
    Answer,
}

/// A packet at one of the hooks. The host's own packets have no input interface (index 0), those for
/// the host no output interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub input: (IfIndex, String),
    pub output: (IfIndex, String),
    pub source: IpAddr,
    pub destination: IpAddr,
    pub transport: Transport,
    pub place: FlowPlace,
    pub marks: Marks,
    /// The address of the client behind the translation; `None` if unknown.
    pub client_seen_as: Option<IpAddr>,
    /// The fields that the hook of the chain does not see as the packet has them, such as the output
    /// interface before the routing decision.
    pub unseen: Vec<Field>,
}

pub(super) enum Value {
    Bytes(Vec<u8>),
    /// A mark of which not all bits are known.
    Bits(Bits),
    OtherFamily,
    Unknown,
}

impl Packet {
    /// The family of the packet.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The first packet of a TCP connection to HTTPS.
    pub fn opening(
        input: (IfIndex, String),
        output: (IfIndex, String),
        source: IpAddr,
        destination: IpAddr,
    ) -> Packet {
        Packet {
            input,
            output,
            source,
            destination,
            transport: Transport::Tcp,
            place: FlowPlace::Opening,
            marks: Marks::none(0),
            client_seen_as: None,
            unseen: Vec::new(),
        }
    }

    /// The answer to the first packet of a flow.
    pub fn answer(&self) -> Packet {
        Packet {
            input: self.output.clone(),
            output: self.input.clone(),
            source: self.destination,
            destination: self.source,
            transport: self.transport,
            place: FlowPlace::Answer,
            marks: Marks::of_unknown_flow(),
            client_seen_as: self.client_seen_as,
            unseen: Vec::new(),
        }
    }

    /// True for the first packet of a flow.
    pub fn opens(&self) -> bool {
        self.place == FlowPlace::Opening
    }

    /// True for a packet of a socket of this host.
    pub fn is_own(&self) -> bool {
        self.input.0 == IfIndex(0)
    }

    /// True for a packet that stays on this host.
    fn is_for_host(&self) -> bool {
        self.output.0 == IfIndex(0)
    }

    /// The port of the server is known for TCP alone: UDP has many ordinary ports.
    fn port(&self, field: Field) -> Value {
        let of_server = match self.place {
            FlowPlace::Opening | FlowPlace::Later => Field::DestinationPort,
            FlowPlace::Answer => Field::SourcePort,
        };
        // The kernel chooses the port of an own socket.
        let own_socket = self.is_own() || self.is_for_host();
        match (field == of_server, self.transport) {
            (true, Transport::Tcp) => Value::Bytes(PORT.to_be_bytes().into()),
            (false, _) if own_socket => Value::Bytes(SOURCE_PORT.to_be_bytes().into()),
            _ => Value::Unknown,
        }
    }

    /// The packet's part that a condition reads.
    pub(super) fn value(&self, field: Field) -> Value {
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
            Field::Protocol => Value::Bytes(vec![self.transport.number()]),
            Field::SourcePort | Field::DestinationPort => self.port(field),
            Field::Source(family) => of(family, self.source),
            Field::Destination(family) => of(family, self.destination),
            Field::FlowState => {
                let state = if self.opens() { NEW } else { ESTABLISHED };
                Value::Bytes(state.to_ne_bytes().into())
            }
            Field::FlowStatus => {
                let status = if self.opens() { OPENING } else { ANSWERED };
                Value::Bytes(status.to_ne_bytes().into())
            }
            Field::Mark => Value::Bits(self.marks.of_packet()),
            Field::FlowMark => Value::Bits(self.marks.of_flow()),
            // A forwarded packet has no socket.
            Field::User if !self.is_own() => Value::Unknown,
            Field::User => Value::Bytes(UNNAMED_USER.to_ne_bytes().into()),
            Field::DestinationType if self.place != FlowPlace::Answer => {
                Value::Bytes(UNICAST.to_ne_bytes().into())
            }
            Field::DestinationType if self.is_for_host() => {
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
