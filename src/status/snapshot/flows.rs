//! Conntrack's table, and the flows in it.

use serde::{Deserialize, Serialize};

pub use crate::judge::{FlowCount, PathCounts};
use crate::types::PerFamily;

/// The use of conntrack's table, which both roles need: a full table drops new connections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConntrackStatus {
    pub entries: u64,
    /// `None` if the kernel doesn't tell.
    pub limit: Option<u64>,
    /// `entries` in per cent of `limit`.
    pub percent: Option<f64>,
    /// Flows that found no free place, such as a free port for a translation, since boot.
    pub insert_failed: u64,
    /// Packets dropped for want of an entry, since boot.
    pub dropped: u64,
    /// Entries removed early to make room, since boot.
    pub early_dropped: u64,
    /// The pairs of an address of this host and a destination with the most flows, at most five;
    /// NAT role only.
    pub busiest: Vec<PortUseStatus>,
}

/// The ports in use from one address to one destination.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PortUseStatus {
    /// The translated source address.
    pub address: String,
    /// Address and port.
    pub destination: String,
    /// `tcp`, `udp`, or the number.
    pub protocol: String,
    pub ports: u64,
    /// `ports` in per cent of the ports from 1024 up.
    pub percent: f64,
}

/// The open flows that keep the path of their first packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PinnedStatus {
    /// Seconds since the count.
    pub age_s: u64,
    /// `None` for a family without pins.
    pub flows: PerFamily<Option<PathCounts>>,
}
