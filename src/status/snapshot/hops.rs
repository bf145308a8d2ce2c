//! Probes and traffic of gateways, and the egress addresses of a NAT.

use serde::{Deserialize, Serialize};

use crate::firewall::Traffic;

/// Loss and latency of the recent probes through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QualityStatus {
    /// The last probes, 100 at most.
    pub probes: u32,
    /// Those without an answer.
    pub lost: u32,
    /// The time within which half of the answers came, in microseconds.
    pub p50_us: Option<u64>,
    /// The time within which 99 of 100 answers came, in microseconds.
    pub p99_us: Option<u64>,
}

/// The traffic of the flows through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Packets that left.
    pub out: Traffic,
    /// Answers.
    pub back: Traffic,
}

/// An egress address of a NAT.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EgressAddressStatus {
    /// As in the settings.
    pub address: String,
    /// This host's address in its place, which differs for an Elastic IP.
    pub own: Option<String>,
    /// `here`, `standby` (no interface has the address yet), `missing`.
    pub state: String,
}
