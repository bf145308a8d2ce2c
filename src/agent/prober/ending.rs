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
/// The least time between later rounds, for connections that were alive and stand still now.
const LATER: Duration = Duration::from_secs(2);
/// Later rounds take at most this part of the time.
const LATER_PART: u32 = 50;

/// Flows of a way that are to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    way: WayId,
    flows: Stuck,
    rounds: u32,
    /// The earliest time of the next round.
    at: Instant,
}

impl Ending {
    /// The round after this one, which has left `open` connections and has taken some time. The NAT may lose
    /// packets or refuse new flows only: its open connections go on, and each may stand still later.
    fn next(self, open: u32, took: Duration) -> Option<Ending> {
        let now = Instant::now();
        if self.rounds > 1 {
            Some(Ending {
                rounds: self.rounds - 1,
                at: now + AGAIN_AFTER,
                ..self
            })
        } else {
            (open > 0).then(|| Ending {
                flows: Stuck::Unanswered,
                rounds: 1,
                at: now + LATER.max(took * LATER_PART),
                ..self
            })
        }
    }
}

/// The flows that are to be ended, and those whose end is under way.
#[derive(Debug, Default)]
pub(super) struct Endings {
    waiting: Vec<Ending>,
    under_way: JoinSet<Option<Ending>>,
}

impl Endings {
    /// Takes a decision: the flows to end, and the ways in use. A way that is back keeps its flows.
    pub fn decided(&mut self, health: &Health, end: &[(WayId, Stuck)]) {
        // The rounds of a new decision have later ones of their own.
        let decided = |way| end.iter().any(|(of, _)| *of == way);
        self.waiting
            .retain(|it| !health.is_in_use(it.way) && !decided(it.way));
        let new = end.iter().map(|(way, flows)| Ending {
            way: *way,
            flows: *flows,
            rounds: ROUNDS,
            at: Instant::now(),
        });
        self.waiting.extend(new);
    }

    /// The time of the next round that waits for nothing else; `None` without one.
    pub fn due(&self, in_force: &Health) -> Option<Instant> {
        let waits_for_route = |it: &Ending| it.rounds == ROUNDS || in_force.is_in_use(it.way);
        let rest = self.waiting.iter().filter(|it| !waits_for_route(it));
        rest.map(|it| it.at).min()
    }

    /// Waits for the end of a round. A caller that drops the future loses nothing.
    pub async fn ended(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok(Some(next))) => {
                let mut others = self.waiting.iter();
                if next.flows != Stuck::Unanswered || !others.any(|it| it.way == next.way) {
                    self.waiting.push(next);
                }
            }
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
                let begun = Instant::now();
                let ended = match flows {
                    Stuck::All if forwards => forget_flows(family, mark),
                    _ => end_flows(family, mark, flows, reset),
                };
                let open = ended.as_ref().map_or(0, |ended| ended.alive + ended.others);
                record(&shared, due, ended);
                due.next(open, begun.elapsed())
            });
        }
    }
}

fn record(shared: &Shared, Ending { way, flows, .. }: Ending, ended: Result<Ended, FlowError>) {
    match ended {
        Ok(ended) if flows == Stuck::Unanswered && ended.is_none() => {}
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
        assert_eq!(endings.due(&down), None, "the route is awaited, not a time");
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
        assert_eq!(endings.due(&down), Some(later));
        assert_eq!(endings.due(&well), None, "the route is awaited again");
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
            for (rounds, open) in [(ROUNDS, 0), (1, 0)] {
                let next = move || ending(rounds).next(open, Duration::ZERO);
                endings.under_way.spawn_blocking(next);
                endings.ended().await;
            }
            assert_eq!(endings.waiting.len(), 1);
            assert_eq!(endings.waiting[0].flows, Stuck::All);
        });
    }

    #[test]
    fn later_rounds_follow_while_connections_are_open_and_spare_the_processor() {
        let ending = Ending {
            way: WAY,
            flows: Stuck::All,
            rounds: 1,
            at: Instant::now(),
        };
        let quick = ending.next(7, Duration::from_millis(1)).unwrap();
        assert_eq!((quick.flows, quick.rounds), (Stuck::Unanswered, 1));
        assert!(quick.at.saturating_duration_since(Instant::now()) <= LATER);
        let slow = quick.next(7, Duration::from_secs(1)).unwrap();
        assert!(slow.at.saturating_duration_since(Instant::now()) > LATER * 20);
        assert_eq!(slow.next(0, Duration::ZERO), None);
        let mut endings = Endings::default();
        endings.waiting.push(quick);
        let down = Health::without([WAY]);
        endings.decided(&down, &[(WAY, Stuck::All)]);
        assert_eq!(endings.waiting.len(), 1, "a decision has rounds of its own");
        assert_eq!(endings.waiting[0].flows, Stuck::All);
    }
}
