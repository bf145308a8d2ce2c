//! Gateways with their probes and traffic, and the egress addresses of a NAT.

use serde::{Deserialize, Serialize};

use crate::firewall::Traffic;
use crate::objects::NeighbourState;
use crate::types::Family;

/// A gateway of one of the paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// `bypass` or `egress`.
    pub path: String,
    pub family: Family,
    pub address: String,
    /// The interface of the route; `None` for a gateway that is left out.
    pub device: Option<String>,
    /// False for an egress gateway of the settings without a route for new flows.
    pub in_use: bool,
    /// True for an egress gateway in whose place new flows take another one.
    #[serde(default)]
    pub reserve: bool,
    /// The state in the kernel's neighbour table; `None` without an entry.
    pub neighbour: Option<NeighbourState>,
    /// The verdict of the probes; `None` for a gateway without probes.
    #[serde(default)]
    pub health: Option<HealthStatus>,
}

/// The verdict of the probes about a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// `up`, `suspect`, `down`, or `held` after an outage.
    pub state: String,
    /// False if new flows take another gateway because of the state.
    pub usable: bool,
    /// Seconds in this state.
    pub since_s: u64,
    /// The reason of the state.
    pub why: String,
    /// The duration of the last answered probe in microseconds.
    pub latency_us: Option<u64>,
    /// Loss and latency of the recent probes.
    #[serde(default)]
    pub quality: QualityStatus,
    /// The traffic of pinned flows; `None` without counters, where probes alone watch the gateway.
    #[serde(default)]
    pub traffic: Option<TrafficStatus>,
}

impl GatewayStatus {
    /// True for a gateway that needs somebody's look.
    pub fn is_bad(&self) -> bool {
        let down = self.health.as_ref().is_some_and(|health| !health.usable);
        down || !(self.in_use || self.reserve) || self.is_silent()
    }

    /// True if the gateway doesn't answer on its link.
    pub fn is_silent(&self) -> bool {
        self.neighbour.is_some_and(NeighbourState::is_unresolved)
    }
}

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
