//! A look at the gateways that carry traffic: a few rounds of probes without a doubt.

use std::time::Duration;

use super::WayId;
use super::group::Group;
use super::repeated::Segments;
use super::watch::{COMPARED, Probe, Watch};
use super::way::Way;

/// The rounds of a look. Nine probes through a gateway that loses a quarter of them are all answered in 8 of
/// 100 looks.
const ROUNDS: u32 = 3;

impl Watch {
    /// True if segments of this host may have been lost by a gateway: one with traffic beside another one.
    pub fn wants_segments(&self, now: Duration) -> bool {
        self.ways.iter().any(|(id, way)| {
            matches!(id, WayId::Gateway(_)) && way.last_read.is_some() && way.is_busy(now)
        })
    }

    /// Takes a reading of this host's segments, at the pace of the counters.
    pub fn segments(&mut self, segments: Segments, now: Duration) {
        if !self.repeated.take(segments, now, &self.terms) {
            return;
        }
        for (group, count) in self.targets.clone() {
            let gateways = self.gateways(group.family());
            let well = gateways.filter(|(_, way)| !way.is_down()).count();
            if matches!(group, Group::Egress(_)) && count > 0 && well > 1 {
                self.looks.entry(group).or_insert(0);
            }
        }
    }

    /// The probes of a look: some rounds, and further ones while a probe has no answer whose server has
    /// answered through another way. The end of its round shows the loss only after the time limit.
    pub(super) fn look(&mut self, group: Group, count: usize, now: Duration) -> Vec<Probe> {
        let Some(begun) = self.looks.get(&group).copied() else {
            self.next.remove(&group);
            return Vec::new();
        };
        if begun > 0 && self.next.get(&group).is_some_and(|next| *next > now) {
            return Vec::new();
        }
        let mut rounds = self.rounds.values();
        let hints = rounds.any(|(of, round)| *of == group && round.hints_at_loss());
        if begun >= ROUNDS && !hints {
            self.looks.remove(&group);
            self.next.remove(&group);
            return Vec::new();
        }
        let well = self
            .gateways(group.family())
            .filter(|(_, way)| !way.is_down());
        let (mut ways, others): (Vec<_>, Vec<_>) = well.partition(|(_, way)| way.is_busy(now));
        ways.extend(others.into_iter().take(COMPARED));
        let ways: Vec<WayId> = ways.into_iter().map(|(id, _)| id).collect();
        self.looks.insert(group, begun + 1);
        self.next.insert(group, now + self.terms.suspect_interval);
        self.ask(group, ways, (count, count), now)
    }
}

impl Way {
    /// True if the way has had packets lately, or if nobody knows.
    fn is_busy(&self, now: Duration) -> bool {
        self.last_read.is_none() || self.had_packet_lately(now)
    }
}
