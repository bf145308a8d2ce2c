//! The parts of a packet that conditions of foreign rules read.

use crate::types::Family;

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
    /// The mark of the packet's flow, in the host's byte order.
    FlowMark,
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
