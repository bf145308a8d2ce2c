//! The health of the ways out: which gateways and which bypass paths are in use. Pure.
//!
//! ```text
//! counters ─▶ reading ─┐             ┌─▶ due ─▶ probes ─▶ answer ─┐
//!                      ├─▶ [ Watch ] ┤                            │
//! probes   ─▶ answer  ─┘             └─▶ decide ─▶ Health, changes, flows to end
//! ```
//!
//! A way with traffic needs few probes: its own answers show that it is well, and packets without answers
//! put it in doubt. A way in doubt is probed by rounds: the same servers at the same moment through
//! this way and others. Only servers that answer through another way count against it, so an outage of
//! the servers changes nothing. A gateway that loses a part of the packets is found by the share of its lost
//! probes. Time and random numbers are arguments.

mod close;
mod decide;
mod group;
mod look;
mod loss;
mod pace;
mod probes;
mod repeated;
mod round;
mod silence;
mod status;
mod tally;
mod terms;
#[cfg(test)]
mod tests;
mod watch;
mod way;
mod why;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::types::Family;

pub use group::Group;
pub use pace::IDLE_READING;
pub use probes::Quality;
pub use repeated::Segments;
pub use round::{Answer, TargetId};
pub use silence::{READING, Reading, SILENT_READINGS};
pub use status::WayStatus;
pub use terms::Terms;
pub use watch::{Change, Decision, Probe, Stuck, Watch};
pub use way::State;
pub use why::Why;

/// A way out of this host, for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WayId {
    Bypass(Family),
    Gateway(IpAddr),
    /// NAT role: the uplink of the egress path.
    Uplink(Family),
}

impl WayId {
    /// The family of the packets on the way.
    pub fn family(self) -> Family {
        match self {
            WayId::Bypass(family) | WayId::Uplink(family) => family,
            WayId::Gateway(address) => Family::of(address),
        }
    }
}

impl fmt::Display for WayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WayId::Bypass(family) => write!(f, "{family} bypass path"),
            WayId::Gateway(address) => write!(f, "gateway {address}"),
            WayId::Uplink(family) => write!(f, "{family} uplink"),
        }
    }
}

/// The ways that are out of use. A way without a verdict is in use: the default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    out: BTreeSet<WayId>,
    drained: BTreeSet<IpAddr>,
    rolled_back: BTreeSet<WayId>,
}

impl Health {
    /// All ways but these are in use.
    pub fn without(out: impl IntoIterator<Item = WayId>) -> Health {
        Health {
            out: out.into_iter().collect(),
            drained: BTreeSet::new(),
            rolled_back: BTreeSet::new(),
        }
    }

    /// The same, with these gateways drained by an operator.
    pub fn with_drained(mut self, drained: BTreeSet<IpAddr>) -> Health {
        self.drained = drained;
        self
    }

    /// The drained gateways: they get no new flow while another gateway is in use, and their open flows
    /// end by themselves.
    pub fn drained(&self) -> &BTreeSet<IpAddr> {
        &self.drained
    }

    /// The same, with the ways that a change of this host's own has broken.
    #[must_use]
    pub fn rolled_back(self, ways: impl IntoIterator<Item = WayId>) -> Health {
        Health {
            rolled_back: ways.into_iter().collect(),
            ..self
        }
    }

    /// The same, with these ways in use.
    #[must_use]
    pub fn with_use_of(mut self, ways: impl IntoIterator<Item = WayId>) -> Health {
        for way in ways {
            self.out.remove(&way);
            self.rolled_back.remove(&way);
        }
        self
    }

    /// True for a way out of use since a probe failed just after a change of this host's own.
    pub fn is_rolled_back(&self, way: WayId) -> bool {
        self.rolled_back.contains(&way)
    }

    /// True if new flows may take the way.
    pub fn is_in_use(&self, way: WayId) -> bool {
        !self.out.contains(&way)
    }

    /// The ways out of use, sorted.
    pub fn out(&self) -> impl Iterator<Item = WayId> {
        self.out.iter().copied()
    }
}
