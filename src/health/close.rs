//! The end of a round: its verdicts and counts reach the ways.

use std::collections::BTreeMap;
use std::time::Duration;

use super::WayId;
use super::group::Group;
use super::round::{Round, Verdict};
use super::tally::{Seen, Tallies};
use super::watch::{GRACE, Watch};
use super::why::Why;

impl Watch {
    pub(super) fn close_old_rounds(&mut self, now: Duration) {
        let limit = self.terms.timeout + GRACE;
        let old = |round: &Round| now.saturating_sub(round.begun) > limit;
        while let Some((number, _)) = self.rounds.iter().find(|(_, (_, round))| old(round)) {
            let number = *number;
            if let Some((group, round)) = self.rounds.remove(&number) {
                self.close(group, &round, now);
            }
        }
    }

    pub(super) fn close(&mut self, group: Group, round: &Round, now: Duration) {
        let single = round.is_single();
        let verdicts = round.verdicts();
        let good = verdicts.values().filter(|it| **it == Verdict::Good).count();
        let tallies = self.tallies(group, round);
        for (id, verdict) in verdicts {
            let Some(way) = self.ways.get_mut(&id).filter(|_| Group::of(id) == group) else {
                continue;
            };
            way.alone = !single && good == 1 && verdict == Verdict::Good;
            match verdict {
                Verdict::Nothing => {}
                // A single server proves no outage.
                verdict if single && !way.is_down() && !way.is_suspect() => {
                    way.probed(verdict == Verdict::Good, now, &self.terms);
                }
                verdict => {
                    let seen = Seen {
                        way: id,
                        round: &tallies,
                    };
                    let seen = matches!(id, WayId::Gateway(_)).then_some(seen);
                    way.judge(verdict, seen, round.begun, now, &self.terms);
                    if matches!(way.why, Why::Loss { .. }) && way.is_down() && way.since == now {
                        self.repeated.prove();
                    }
                }
            }
        }
    }

    /// The probes of a round by way. A server lives that has answered just before the round or since; for a
    /// round of ways that are down beside a living gateway, which nobody asks, within two intervals.
    fn tallies(&self, group: Group, round: &Round) -> BTreeMap<WayId, Tallies> {
        let beside = !self.is_compared(group) && self.has_gateway(group.family());
        let within = if beside {
            self.terms.interval * 2
        } else {
            self.terms.patient_interval()
        };
        round.tallies(|target| {
            let last = self.answered.get(&(group, target));
            last.is_some_and(|last| *last + within >= round.begun)
        })
    }
}
