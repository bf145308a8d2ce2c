//! Holds back the repair of bypass routes that another program deletes again.
//!
//! `ip route flush` deletes and lists a table in turns, until a listing is empty: a repair between
//! two turns is one more deletion, so that a single flush would look like a fight. The first repair
//! of a route comes at once, since a connection opened through the NAT breaks when its route
//! returns. A further repair of the same route within ten seconds waits until no route is deleted
//! for a few milliseconds, longer with each repair. Objects of the egress path never wait.

use std::time::{Duration, Instant};

use super::repair::Gone;
use crate::agent::RepairLimiter;
use crate::agent::repair_limiter::REPAIRS;
use crate::agent::repair_log::may_wait;
use crate::ownership::Ownership;
use crate::plan::ObjectKey;

/// The quiet time before the second repair of a route. Doubles with each further repair.
const QUIET: Duration = Duration::from_millis(5);
/// The longest time from the first deletion to the repair.
const MOST: Duration = Duration::from_millis(100);

/// Deleted routes that wait for a quiet time.
#[derive(Debug)]
pub(super) struct Held {
    gone: Gone,
    first: Instant,
    last: Instant,
    quiet: Duration,
    /// The passes begun before the first deletion: a later pass has seen the deletion.
    passes: u64,
}

impl Held {
    /// Moves the bypass routes with an earlier repair out of `gone`.
    pub(super) fn take(
        held: &mut Option<Held>,
        gone: &mut Gone,
        limiter: &RepairLimiter<ObjectKey>,
        ownership: &Ownership,
        passes: u64,
        now: Instant,
    ) {
        let repairs = |key: &ObjectKey| {
            let repairs = limiter.recent_repairs(key, now);
            // From the last permitted repair on the limiter decides.
            let waits = repairs < REPAIRS && may_wait(key, ownership);
            if waits { repairs } else { 0 }
        };
        let repaired = gone.routes.iter();
        let repaired = repaired.map(|route| repairs(&ObjectKey::Route(route.key)));
        let Some(most) = repaired.max().filter(|most| *most > 0) else {
            return;
        };
        let waiting = gone.split(|key| repairs(key) > 0);
        let held = held.get_or_insert_with(|| Held {
            gone: Gone::default(),
            first: now,
            last: now,
            quiet: QUIET,
            passes,
        });
        held.gone.append(waiting);
        held.last = now;
        held.quiet = held.quiet.max(QUIET * 2u32.pow(most - 1));
    }

    /// The time of the repair.
    pub(super) fn due(&self) -> Instant {
        (self.last + self.quiet).min(self.first + MOST)
    }

    /// The routes to repair, or nothing after a pass that has begun meanwhile: that pass may have
    /// restored the routes.
    pub(super) fn release(self, passes: u64) -> Option<Gone> {
        (passes == self.passes).then_some(self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Route, RouteKey, RouteTarget};
    use crate::ownership::Numbers;
    use crate::types::{Metric, Protocol, Realm, TableId};

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn route(table: u32, dst: &str) -> Route {
        Route {
            key: RouteKey {
                table: TableId(table),
                dst: dst.parse().unwrap(),
                tos: 0,
                metric: Metric(0),
            },
            target: RouteTarget::Throw,
            realm: Realm(0),
            options: None,
            protocol: Protocol(83),
        }
    }

    fn gone(routes: &[Route]) -> Gone {
        Gone {
            routes: routes.to_vec(),
            ports: routes
                .iter()
                .map(|route| (ObjectKey::Route(route.key), 7))
                .collect(),
            ..Gone::default()
        }
    }

    #[test]
    fn route_repaired_before_waits_for_a_growing_quiet_time() {
        let ownership = Ownership::new(Numbers::default(), []);
        let (again, other) = (route(1083, "3.5.0.0/19"), route(1083, "16.182.0.0/16"));
        let egress = route(1084, "10.0.0.0/8");
        let mut limiter = RepairLimiter::new();
        let start = Instant::now();
        for (repairs, quiet) in [
            (0, None),
            (1, Some(5)),
            (2, Some(10)),
            (4, Some(40)),
            (5, None),
        ] {
            while limiter.recent_repairs(&ObjectKey::Route(again.key), start) < repairs {
                assert!(limiter.allow(&ObjectKey::Route(again.key), start));
            }
            let mut held = None;
            let mut gone = gone(&[again.clone(), other.clone(), egress.clone()]);
            Held::take(&mut held, &mut gone, &limiter, &ownership, 3, start);
            let due = held.as_ref().map(Held::due);
            assert_eq!(due, quiet.map(|quiet| start + ms(quiet)), "{repairs}");
            assert_eq!(gone.routes.contains(&again), quiet.is_none());
            assert_eq!(gone.ports.len(), gone.routes.len());
            assert!(gone.routes.contains(&other) && gone.routes.contains(&egress));
            if let Some(held) = held {
                let released = held.release(3).unwrap();
                assert_eq!(released.routes, std::slice::from_ref(&again));
                assert_eq!(released.ports, [(ObjectKey::Route(again.key), 7)]);
            }
        }
    }

    #[test]
    fn endless_deletions_postpone_no_repair_beyond_100_ms() {
        let ownership = Ownership::new(Numbers::default(), []);
        let again = route(1083, "3.5.0.0/19");
        let mut limiter = RepairLimiter::new();
        let start = Instant::now();
        limiter.allow(&ObjectKey::Route(again.key), start);
        let mut held = None;
        for at in (0..1000).step_by(4) {
            let mut gone = gone(std::slice::from_ref(&again));
            Held::take(
                &mut held,
                &mut gone,
                &limiter,
                &ownership,
                3,
                start + ms(at),
            );
            assert!(gone.is_empty());
        }
        let held = held.unwrap();
        assert_eq!(held.due(), start + MOST);
        assert!(held.release(4).is_none(), "a pass has begun meanwhile");
    }
}
