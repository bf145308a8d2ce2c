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
    /// `None` for a gateway that is not drained.
    #[serde(default)]
    pub drained: Option<DrainStatus>,
    /// Host role: open flows pinned to the gateway; `None` without pins, and before the first count.
    #[serde(default)]
    pub flows: Option<u64>,
    /// Flows that the agent has ended since its start; `None` for a gateway without probes.
    #[serde(default)]
    pub ended: Option<EndedStatus>,
}

/// The flows that stood still on a gateway that went down, and were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndedStatus {
    /// Open connections whose sockets were closed.
    pub connections: u64,
    /// Open connections that the host forwards: their next packet gets a reset.
    #[serde(default)]
    pub forwarded: u64,
    /// Connections that were being opened, and flows of datagrams: their next packet takes another
    /// gateway.
    pub begun_anew: u64,
}

/// The drain of a gateway: an operator wants no new flows on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// In seconds since the epoch.
    pub since: i64,
    /// Seconds since then.
    pub since_s: u64,
    /// The program that asked for it.
    pub by: String,
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
    /// For `held`: the seconds until new flows may take the gateway again.
    #[serde(default)]
    pub held_for_s: Option<u64>,
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
        match self.drained {
            // An operator is at work on the machine.
            Some(_) => self.in_use,
            None => self.is_down() || !(self.in_use || self.reserve) || self.is_silent(),
        }
    }

    /// True if new flows take another gateway by the verdict of the probes.
    pub fn is_down(&self) -> bool {
        self.health.as_ref().is_some_and(|health| !health.usable)
    }

    /// True if new flows may take the gateway, as far as known.
    pub fn takes_new_flows(&self) -> bool {
        !self.is_bad() && self.drained.is_none()
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
