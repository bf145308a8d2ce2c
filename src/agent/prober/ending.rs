//! Ends the flows that stand still on a way, once no route leads new flows there.
//!
//! The listing of a big table of flows takes seconds: the prober's loop goes on meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Probing;
use crate::agent::shared::Shared;
use crate::health::{Health, Stuck, WayId};
use crate::kernel::flows::{Ended, FlowError, end_flows, forget_flows};

/// The time until the second round: stragglers are connections that were being opened meanwhile.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const ROUNDS: u32 = 2;

/// Flows of a way that are to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    way: WayId,
    flows: Stuck,
    rounds: u32,
    /// The earliest time of the next round.
    at: Instant,
}

/// The flows that are to be ended, and those whose end is under way.
#[derive(Debug, Default)]
pub(super) struct Endings {
    waiting: Vec<Ending>,
    under_way: JoinSet<Ending>,
}

impl Endings {
    /// Takes a decision: the flows to end, and the ways in use. A way that is back keeps its flows.
    pub fn decided(&mut self, health: &Health, end: &[(WayId, Stuck)]) {
        self.waiting.retain(|it| !health.is_in_use(it.way));
        let new = end.iter().map(|(way, flows)| Ending {
            way: *way,
            flows: *flows,
            rounds: ROUNDS,
            at: Instant::now(),
        });
        self.waiting.extend(new);
    }

    /// The time of the next round that waits for nothing else; `None` without one.
    pub fn due(&self) -> Option<Instant> {
        let rest = self.waiting.iter().filter(|it| it.rounds < ROUNDS);
        rest.map(|it| it.at).min()
    }

    /// Waits for the end of a round. A caller that drops the future loses nothing.
    pub async fn ended(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok(ended)) if ended.rounds > 0 => self.waiting.push(ended),
            // A round that has panicked has no second one.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// The rounds to begin now. The routes in force lead new flows elsewhere.
    fn take_due(&mut self, in_force: &Health, now: Instant) -> Vec<Ending> {
        let is_due = |it: &Ending| it.at <= now && !in_force.is_in_use(it.way);
        let (due, waiting) = self.waiting.iter().partition(|it| is_due(it));
        self.waiting = waiting;
        due
    }
}

impl Probing<'_> {
    /// Begins to end the flows of ways that no route uses for new flows any more.
    pub(super) fn end_stuck(&mut self) {
        for due in self.endings.take_due(&self.in_force, Instant::now()) {
            let Ending { way, flows, .. } = due;
            let Some(mark) = self.ways.marks.get(&way).and_then(|it| it.flow) else {
                continue;
            };
            let (family, reset) = (way.family(), self.ways.reset);
            let forwards = self.ways.forwards;
            let shared = Arc::clone(self.shared);
            self.endings.under_way.spawn_blocking(move || {
                let ended = match flows {
                    Stuck::All if forwards => forget_flows(family, mark),
                    Stuck::All | Stuck::Opening => end_flows(family, mark, flows, reset),
                };
                record(&shared, way, ended);
                Ending {
                    rounds: due.rounds - 1,
                    at: Instant::now() + AGAIN_AFTER,
                    ..due
                }
            });
        }
    }
}

fn record(shared: &Shared, way: WayId, ended: Result<Ended, FlowError>) {
    match ended {
        Ok(ended) => {
            tracing::warn!("{way} is down: {ended}");
            shared.count_ended(way, &ended);
        }
        Err(error) => tracing::warn!("{way} is down, and its flows stand still: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Family;

    const WAY: WayId = WayId::Bypass(Family::Ipv4);

    #[test]
    fn flows_are_ended_once_the_route_leads_elsewhere_and_kept_by_a_way_that_is_back() {
        let (mut endings, now) = (Endings::default(), Instant::now());
        let (well, down) = (Health::default(), Health::without([WAY]));
        let later = now + Duration::from_secs(1);
        endings.decided(&down, &[(WAY, Stuck::All)]);
        assert_eq!(endings.due(), None, "the route is awaited, not a time");
        assert_eq!(endings.take_due(&well, later), []);
        let first = endings.take_due(&down, later);
        assert_eq!(first.len(), 1);
        assert_eq!(endings.take_due(&down, later), []);
        let again = Ending {
            rounds: 1,
            at: later,
            ..first[0]
        };
        endings.waiting.push(again);
        assert_eq!(endings.due(), Some(later));
        assert_eq!(endings.take_due(&down, now), [], "too early");
        endings.decided(&well, &[]);
        assert_eq!(endings.take_due(&down, later), [], "the way is back");
    }

    #[test]
    fn second_round_follows_the_end_of_the_first() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().unwrap();
        runtime.block_on(async {
            let mut endings = Endings::default();
            let ending = |rounds| Ending {
                way: WAY,
                flows: Stuck::All,
                rounds,
                at: Instant::now(),
            };
            for rounds in [1, 0] {
                endings.under_way.spawn_blocking(move || ending(rounds));
                endings.ended().await;
            }
            assert_eq!(endings.waiting.len(), 1);
        });
    }
}
