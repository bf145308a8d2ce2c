//! Decides when events cause a pass.
//!
//! The kernel reports a foreign deletion within 30 µs, so that the first event after a quiet time
//! deserves a pass at once. Further events of the same burst (a link that goes down removes
//! thousands of routes, a DHCP client removes and adds an address) deserve one pass at its end.
//!
//! ```text
//!  events    │   ││││ ││      ││││││││││││││││ … without end
//!  passes    ▉        ▉ quiet                 ▉ most
//!            at once    trailing                trailing
//! ```

use std::time::{Duration, Instant};

/// Time without an event that ends a burst. Notifications of one cause come within a few
/// milliseconds, and people perceive 50 ms as instant.
const QUIET: Duration = Duration::from_millis(50);
/// Time from the first event of an endless burst to the pass.
const MOST: Duration = Duration::from_secs(1);
/// After a pass with an effort (CPU time) of d the next pass waits 20 d: passes use at most one part
/// in 21, 4.8 %, of a core, however fast events come. A pass that waited for a gateway or a lock
/// delays no later one.
const REST: u32 = 20;
/// Maximum of that wait, since a long unrepaired drift is worse than a busy core. The bound above
/// holds for passes up to 250 ms; the largest passes are far shorter.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The same factor for urgent events, which may leave packets with a wrong source address: at most a
/// fifth of the time is spent in passes.
const URGENT_REST: u32 = 4;

/// Events since the last pass.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
    /// Began in a quiet time, when a pass was allowed: the first event causes the pass.
    at_once: bool,
    urgent: bool,
}

/// Collects events and tells when to run a pass.
#[derive(Debug, Clone, Default)]
pub struct Debounce {
    burst: Option<Burst>,
    /// The later of the last event and the end of the last pass.
    busy_until: Option<Instant>,
    /// The end of the rest after the last pass: no pass before.
    rested_at: Option<Instant>,
    /// The end of the rest for urgent events.
    urgent_at: Option<Instant>,
}

impl Debounce {
    /// A debounce without events: the first event causes a pass at once.
    pub fn new() -> Self {
        Debounce::default()
    }

    /// Records a change that needs a pass.
    pub fn event(&mut self, now: Instant) {
        let quiet = self.busy_until.is_none_or(|until| now >= until + QUIET);
        let rested = self.rested_at.is_none_or(|rested| now >= rested);
        self.note(now, quiet && rested);
    }

    /// Records a change that may have opened the egress path: the rest before the pass is shorter.
    pub fn urgent(&mut self, now: Instant) {
        let quiet = self.busy_until.is_none_or(|until| now >= until + QUIET);
        self.note(now, quiet);
        if let Some(burst) = &mut self.burst {
            burst.urgent = true;
            burst.at_once |= quiet;
        }
    }

    /// Records a change that was repaired already: a pass verifies after the burst.
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
                    urgent: false,
                });
            }
        }
        self.busy_until = self.busy_until.max(Some(now));
    }

    /// The start of the next pass, in the past if the pass is due at once; `None` without events.
    pub fn due(&self) -> Option<Instant> {
        let burst = self.burst?;
        let settled = if burst.at_once {
            burst.first
        } else {
            (burst.last + QUIET).min(burst.first + MOST)
        };
        let rested = if burst.urgent {
            self.urgent_at
        } else {
            self.rested_at
        };
        Some(rested.map_or(settled, |rested| settled.max(rested)))
    }

    /// Records a pass of any cause, with its CPU time. The pass has seen the events before its start;
    /// one trailing pass answers the later events.
    pub fn passed(&mut self, started: Instant, ended: Instant, effort: Duration) {
        self.burst = self
            .burst
            .filter(|burst| burst.last > started)
            .map(|burst| Burst {
                // The first event after the start of the pass is unknown. The start is an earlier
                // bound, so that no event waits longer than `MOST`.
                first: burst.first.max(started),
                last: burst.last,
                at_once: false,
                urgent: burst.urgent,
            });
        self.busy_until = self.busy_until.max(Some(ended));
        let rest = effort.saturating_mul(REST).min(LONGEST_REST);
        self.rested_at = self.rested_at.max(Some(ended + rest));
        let rest = effort.saturating_mul(URGENT_REST).min(LONGEST_REST);
        self.urgent_at = self.urgent_at.max(Some(ended + rest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A pass that works all the time.
    fn passed(debounce: &mut Debounce, started: Instant, ended: Instant) {
        debounce.passed(started, ended, ended - started);
    }

    #[test]
    fn a_pass_that_waited_delays_no_later_one() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.passed(start, start + ms(400), ms(2));
        debounce.event(start + ms(420));
        assert_eq!(debounce.due(), Some(start + ms(420) + QUIET));
    }

    #[test]
    fn an_urgent_event_shortens_the_rest() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        passed(&mut debounce, start, start + ms(20));
        debounce.event(start + ms(200));
        assert_eq!(debounce.due(), Some(start + ms(420)));
        debounce.urgent(start + ms(210));
        assert_eq!(debounce.due(), Some(start + ms(260)), "in the same burst");
        passed(&mut debounce, start + ms(260), start + ms(280));
        debounce.urgent(start + ms(300));
        assert_eq!(debounce.due(), Some(start + ms(360)), "four passes long");
        passed(&mut debounce, start + ms(360), start + ms(380));
        debounce.urgent(start + ms(1000));
        assert_eq!(debounce.due(), Some(start + ms(1000)));
    }

    #[test]
    fn the_first_event_after_a_quiet_time_causes_a_pass_at_once() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        assert_eq!(debounce.due(), None);
        debounce.event(start);
        assert_eq!(debounce.due(), Some(start));
        debounce.event(start + ms(1));
        assert_eq!(debounce.due(), Some(start), "further events change nothing");
        passed(&mut debounce, start + ms(1), start + ms(2));
        assert_eq!(
            debounce.due(),
            None,
            "both came before the start of the pass"
        );
        debounce.event(start + ms(100));
        assert_eq!(debounce.due(), Some(start + ms(100)));
    }

    #[test]
    fn further_events_cause_one_trailing_pass() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        passed(&mut debounce, start, start + ms(1));
        for event in [2, 4, 40, 80] {
            debounce.event(start + ms(event));
            assert_eq!(debounce.due(), Some(start + ms(event) + QUIET));
        }
        passed(&mut debounce, start + ms(130), start + ms(131));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn an_endless_burst_causes_a_pass() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        passed(&mut debounce, start, start + ms(1));
        for event in (10..3000).step_by(10) {
            debounce.event(start + ms(event));
        }
        assert_eq!(debounce.due(), Some(start + ms(10) + MOST));
    }

    #[test]
    fn events_during_a_pass_cause_another_pass() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        debounce.event(start);
        debounce.event(start + ms(3));
        passed(&mut debounce, start + ms(2), start + ms(4));
        assert_eq!(debounce.due(), Some(start + ms(3) + QUIET));
    }

    #[test]
    fn a_rest_follows_each_pass() {
        let start = Instant::now();
        let mut debounce = Debounce::new();
        passed(&mut debounce, start, start + ms(100));
        // A quiet time, but during the rest: the pass waits for the rest and the end of the burst.
        debounce.event(start + ms(500));
        assert_eq!(debounce.due(), Some(start + ms(2100)));
        debounce.event(start + ms(1600));
        assert_eq!(debounce.due(), Some(start + ms(2100)));
        passed(&mut debounce, start + ms(2100), start + ms(2101));
        debounce.event(start + ms(2400));
        assert_eq!(debounce.due(), Some(start + ms(2400)));
        // The longest rest.
        passed(&mut debounce, start + ms(3000), start + ms(63_000));
        debounce.event(start + ms(63_001));
        assert_eq!(debounce.due(), Some(start + ms(63_000) + LONGEST_REST));
    }

    proptest! {
        /// A pass follows every event in bounded time, the first event at once. A rest follows
        /// every pass, so that passes take a bounded share of the time.
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
                // Wait for an event or for the due time, whichever is first.
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
                        passed(&mut debounce, begun, ended);
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
