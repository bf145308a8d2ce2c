//! When a burst of events becomes a pass.
//!
//! The kernel tells of a foreign deletion within 30 µs, so that the first event of a quiet time is
//! worth an answer at once. What follows it (a link that goes down takes thousands of routes
//! along, DHCP takes an address and gives it back) is worth one look when it is over.
//!
//! ```text
//!  events    │   ││││ ││      ││││││││││││││││ … without end
//!  passes    ▉        ▉ quiet                 ▉ most
//!            at once    trailing                trailing
//! ```

use std::time::{Duration, Instant};

/// A burst is over after this long without an event. Notifications of one cause come within a few
/// milliseconds; 50 ms is what a person still takes for at once.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that doesn't end is answered this long after its first event.
const MOST: Duration = Duration::from_secs(1);
/// After a pass that took d the next one waits 20 d: at most one part in 21, 4.8 %, of the time
/// is spent in passes, however fast the events come.
const REST: u32 = 20;
/// But it never waits longer than this, since a drift that isn't mended for long is worse than a
/// busy core. The bound above holds for passes up to 250 ms; the largest are far below.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Events that no pass has looked at yet.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
    /// It began in a quiet time, when a pass was allowed: it is answered at its first event.
    at_once: bool,
}

/// Decides when events are answered by a pass.
#[derive(Debug, Clone, Default)]
pub struct Debounce {
    burst: Option<Burst>,
    /// The last event or the end of the last pass, whichever was later.
    busy_until: Option<Instant>,
    /// No pass before this: what the last one took must be outweighed first.
    rested_at: Option<Instant>,
}

impl Debounce {
    /// Nothing has happened yet: the first event is answered at once.
    pub fn new() -> Self {
        Debounce::default()
    }

    /// Something changed that a pass should look at.
    pub fn event(&mut self, now: Instant) {
        let quiet = self.busy_until.is_none_or(|until| now >= until + QUIET);
        let rested = self.rested_at.is_none_or(|rested| now >= rested);
        self.note(now, quiet && rested);
    }

    /// Something changed that is mended already: a pass looks at it when the burst is over.
    pub fn mended(&mut self, now: Instant) {
        self.note(now, false);
    }

    fn note(&mut self, now: Instant, at_once: bool) {
        match &mut self.burst {
            Some(burst) => burst.last = burst.last.max(now),
            none => {
                *none = Some(Burst {
                    first: now,
                    last: now,
                    at_once,
                });
            }
        }
        self.busy_until = self.busy_until.max(Some(now));
    }

    /// When the next pass shall start; `None` while no event waits. A moment in the past means
    /// at once.
    pub fn due(&self) -> Option<Instant> {
        let burst = self.burst?;
        let settled = match burst.at_once {
            true => burst.first,
            false => (burst.last + QUIET).min(burst.first + MOST),
        };
        Some(self.rested_at.map_or(settled, |rested| settled.max(rested)))
    }

    /// A pass ran, for whatever cause. It has seen what was noted until it started; later events
    /// stay, and are answered by one trailing pass.
    pub fn passed(&mut self, started: Instant, ended: Instant) {
        self.burst = self
            .burst
            .filter(|burst| burst.last > started)
            .map(|burst| Burst {
                // The first event of those that stay isn't known any more. This is never later,
                // so that none waits longer than promised.
                first: burst.first.max(started),
                last: burst.last,
                at_once: false,
            });
        self.busy_until = self.busy_until.max(Some(ended));
        let took = ended.saturating_duration_since(started);
        let rest = took.saturating_mul(REST).min(LONGEST_REST);
        self.rested_at = self.rested_at.max(Some(ended + rest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_event_of_a_quiet_time_is_answered_at_once() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        assert_eq!(debounce.due(), None);
        debounce.event(start);
        assert_eq!(debounce.due(), Some(start));
        debounce.event(start + ms(1));
        assert_eq!(debounce.due(), Some(start), "more of them change nothing");
        debounce.passed(start + ms(1), start + ms(2));
        assert_eq!(debounce.due(), None, "both were there when it started");
        debounce.event(start + ms(100));
        assert_eq!(debounce.due(), Some(start + ms(100)));
    }

    #[test]
    fn what_follows_makes_one_trailing_pass() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        debounce.passed(start, start + ms(1));
        for event in [2, 4, 40, 80] {
            debounce.event(start + ms(event));
            assert_eq!(debounce.due(), Some(start + ms(event) + QUIET));
        }
        debounce.passed(start + ms(130), start + ms(131));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn a_burst_without_end_is_answered_all_the_same() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        debounce.passed(start, start + ms(1));
        for event in (10..3000).step_by(10) {
            debounce.event(start + ms(event));
        }
        assert_eq!(debounce.due(), Some(start + ms(10) + MOST));
    }

    #[test]
    fn events_during_a_pass_stay() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        debounce.event(start + ms(3));
        debounce.passed(start + ms(2), start + ms(4));
        assert_eq!(debounce.due(), Some(start + ms(3) + QUIET));
    }

    #[test]
    fn a_pass_is_followed_by_a_rest() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.passed(start, start + ms(100));
        // Quiet, but too soon: it waits, and then it waits for the end of the burst too.
        debounce.event(start + ms(500));
        assert_eq!(debounce.due(), Some(start + ms(2100)));
        debounce.event(start + ms(1600));
        assert_eq!(debounce.due(), Some(start + ms(2100)));
        debounce.passed(start + ms(2100), start + ms(2101));
        debounce.event(start + ms(2400));
        assert_eq!(debounce.due(), Some(start + ms(2400)));
        // The longest rest.
        debounce.passed(start + ms(3000), start + ms(63_000));
        debounce.event(start + ms(63_001));
        assert_eq!(debounce.due(), Some(start + ms(63_000) + LONGEST_REST));
    }

    proptest! {
        /// Every event is followed by a pass in bounded time, a first one at once; passes rest;
        /// and their share of the time stays bounded, however the events come.
        #[test]
        fn every_event_is_answered(
            gaps in prop::collection::vec(prop_oneof![0u64..20, 0u64..200, 0u64..3000], 1..200),
            took in prop::collection::vec(0u64..250, 1..20),
        ) {
            let start = Instant::now();
            let mut debounce = Debounce::new();
            let mut took = took.into_iter().cycle();
            let mut at = start;
            let events: Vec<Instant> = gaps.iter().map(|gap| { at += ms(*gap); at }).collect();
            let mut waiting = events.iter().copied().peekable();
            let mut passes: Vec<(Instant, Instant)> = vec![];
            loop {
                // As in a loop that waits for an event or for the time, whichever is first.
                let due = debounce.due();
                match (waiting.peek(), due) {
                    (Some(event), due) if due.is_none_or(|due| *event <= due) => {
                        debounce.event(*event);
                        waiting.next();
                    }
                    (_, Some(due)) => {
                        let begun = passes.last().map_or(due, |(_, ended)| due.max(*ended));
                        let ended = begun + ms(took.next().unwrap_or(1));
                        while let Some(event) = waiting.next_if(|event| *event <= ended) {
                            debounce.event(event);
                        }
                        debounce.passed(begun, ended);
                        passes.push((begun, ended));
                    }
                    (_, None) => break,
                }
                prop_assert!(passes.len() <= events.len());
            }
            for event in &events {
                let answer = passes.iter().map(|(begun, _)| *begun).find(|begun| begun >= event);
                prop_assert!(answer.is_some_and(|answer| answer <= *event + MOST + LONGEST_REST + ms(250)));
            }
            for pair in passes.windows(2) {
                let (took, rest) = (pair[0].1 - pair[0].0, pair[1].0 - pair[0].1);
                prop_assert!(rest >= took * REST);
            }
            if let (Some(first), Some(last)) = (passes.first(), passes.last()) {
                let busy: Duration = passes.iter().map(|(begun, ended)| *ended - *begun).sum();
                let last_took = last.1 - last.0;
                prop_assert!((busy - last_took) * (REST + 1) <= last.0 - first.0);
                prop_assert_eq!(first.0, events[0], "the very first at once");
            }
        }
    }
}
