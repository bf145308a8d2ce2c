//! The states of the kernel's neighbour tables (ARP and neighbour discovery).

use serde::{Deserialize, Serialize};

/// The kernel's knowledge of a neighbour (`NUD_*`, linux/neighbour.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourState {
    /// The kernel asks, without an answer so far.
    Incomplete,
    /// The neighbour answered a moment ago.
    Reachable,
    /// The neighbour answered earlier, and no packet has needed a newer answer.
    Stale,
    Delay,
    Probe,
    /// The neighbour doesn't answer.
    Failed,
    /// A link without neighbour discovery.
    NoArp,
    /// Set by an administrator.
    Permanent,
}

words!(NeighbourState {
    Incomplete => "incomplete",
    Reachable => "reachable",
    Stale => "stale",
    Delay => "delay",
    Probe => "probe",
    Failed => "failed",
    NoArp => "noarp",
    Permanent => "permanent",
});

impl NeighbourState {
    /// The state of the kernel's bits; `None` for an entry without a state.
    pub fn of(bits: u16) -> Option<NeighbourState> {
        let place = usize::try_from(bits.trailing_zeros()).ok()?;
        NeighbourState::ALL.get(place).copied()
    }

    /// True while the kernel asks, and after the kernel has given up.
    pub fn is_unresolved(self) -> bool {
        matches!(self, NeighbourState::Incomplete | NeighbourState::Failed)
    }
}
