//! The probes of a round, counted for each way.

use std::collections::BTreeMap;

use super::WayId;

/// Probes, and those of them without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) asked: u32,
    pub(super) lost: u32,
}

impl Tally {
    pub(super) fn add(&mut self, more: Tally) {
        self.asked += more.asked;
        self.lost += more.lost;
    }

    /// Counts one probe.
    pub(super) fn count(&mut self, reached: bool) {
        self.asked += 1;
        self.lost += u32::from(!reached);
    }
}

/// The probes of one way in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tallies {
    /// Those of servers that answered through another way of the round.
    pub(super) compared: Tally,
    /// Those of servers that have answered lately through any way. These counts are fair to all ways alike:
    /// with two gateways, the lost probes of one would else choose the counted probes of the other.
    pub(super) living: Tally,
}

/// A round as one of its ways sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) way: WayId,
    pub(super) round: &'a BTreeMap<WayId, Tallies>,
}

impl Seen<'_> {
    /// The probes of the way itself.
    pub(super) fn own(&self) -> Tallies {
        self.round.get(&self.way).copied().unwrap_or_default()
    }

    /// The probes of the other ways.
    pub(super) fn others(&self) -> impl Iterator<Item = (WayId, Tallies)> {
        let others = self.round.iter().filter(|(way, _)| **way != self.way);
        others.map(|(way, tallies)| (*way, *tallies))
    }

    /// True if no other way has been asked for a server that lives.
    pub(super) fn is_alone(&self) -> bool {
        self.others().all(|(_, tallies)| tallies.living.asked == 0)
    }
}
