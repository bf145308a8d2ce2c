//! The schedule of fetches: the refresh timer with full jitter, and the circuit breaker.
//!
//! ```text
//!            success                        5th failure in a row
//!  ┌──────── Closed ─────────────────────────────────▶ Open ◀─────────┐
//!  └──▶ a random point of     failure: back-off,        │ pause over,  │ failure:
//!       the next slot         at most to that point     │ or link up   │ longer pause
//!                ▲                                      ▼              │
//!                └─────────────── success ────────── HalfOpen ─────────┘
//! ```

use std::time::{Duration, Instant};

use crate::status::snapshot::BreakerState;

/// The upper bound of the first back-off; the bound doubles with each failure. Two seconds outlast
/// most DHCP renewals and gateway fail-overs, and five failures stay below a minute.
const BACK_OFF: Duration = Duration::from_secs(2);
/// Consecutive failures that open the breaker. Each failure includes the source's own retries, so
/// that five are no transient fault.
const OPENS_AFTER: u32 = 5;
/// The longest pause of an open breaker, unless the refresh is longer. An hour is short compared
/// with the document age of a day that causes the first warning (`[agent] stale`).
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Minimum time between two fetches that events brought forward: a flapping link must not hammer
/// the source.
const FORWARD_PAUSE: Duration = Duration::from_secs(5);
/// Bounds of the refresh, so that no setting overflows the arithmetic: the minimum of the config,
/// and a year, longer than an agent runs without a restart.
const REFRESH: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(365 * 24 * 3600));

/// The timer of the fetch.
///
/// Time is divided into slots of one refresh each, with one fetch at a uniformly random point of
/// every slot: the mean interval is one refresh, the longest two. A fleet whose deployment started
/// all agents at once spreads its requests from the second fetch on.
#[derive(Debug, Clone)]
pub struct FetchSchedule {
    refresh: Duration,
    /// The beginning of the last fetch's slot.
    slot: Instant,
    due: Instant,
    running: bool,
    breaker: BreakerState,
    failures: u32,
    /// Consecutive times that the pause of the open breaker has grown.
    pauses: u32,
    /// The due time of the last fetch that an event brought forward.
    forwarded: Option<Instant>,
    /// An event caused the next (or the running) fetch.
    trial: bool,
    /// An event came during the running fetch, perhaps too late for the fetch to profit.
    again: bool,
}

impl FetchSchedule {
    /// A schedule with the first fetch due at once. `refresh` is `[source] refresh`.
    pub fn new(refresh: Duration, now: Instant) -> Self {
        FetchSchedule {
            refresh: refresh.clamp(REFRESH.0, REFRESH.1),
            slot: now,
            due: now,
            running: false,
            breaker: BreakerState::Closed,
            failures: 0,
            pauses: 0,
            forwarded: None,
            trial: false,
            again: false,
        }
    }

    /// The start of the next fetch. During a fetch: the time to give the fetch up, two refreshes
    /// after its start.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The state of the circuit breaker.
    pub fn breaker(&self) -> BreakerState {
        self.breaker
    }

    /// Failures since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// Records the start of a fetch, whether due or requested.
    pub fn started(&mut self, now: Instant) {
        self.enter_slot(now);
        self.running = true;
        self.again = false;
        self.due = now + 2 * self.refresh;
        if self.breaker == BreakerState::Open {
            self.breaker = BreakerState::HalfOpen;
        }
    }

    /// Records an answer of the source: a new document, or a confirmation of the present document.
    /// `random` is from 0 (inclusive) to 1 (exclusive), in all functions.
    pub fn succeeded(&mut self, now: Instant, random: f64) {
        self.end();
        self.failures = 0;
        self.pauses = 0;
        self.breaker = BreakerState::Closed;
        self.due = self.next_slot(random).max(now);
    }

    /// Records a failed fetch: no answer, or a useless one.
    pub fn failed(&mut self, now: Instant, random: f64) {
        let trial = self.trial;
        let again = self.end();
        self.failures = self.failures.saturating_add(1);
        if self.failures < OPENS_AFTER {
            let ceiling = doubled(BACK_OFF, self.failures - 1, self.refresh);
            let refresh = self.next_slot(random).max(now);
            self.due = (now + ceiling.mul_f64(unit(random))).min(refresh);
        } else {
            // A fetch that an event brought forward says nothing about the length of the outage: a
            // flapping link must not drive the pause to its maximum.
            if !(trial && self.pauses > 0) {
                self.pauses = self.pauses.saturating_add(1);
            }
            self.breaker = BreakerState::Open;
            self.due = now + self.pause(random);
        }
        if again {
            self.bring_forward(now);
        }
    }

    /// Records that the running fetch was given up, which is no failure of the source: the next
    /// fetch is due at once.
    pub fn given_up(&mut self, now: Instant) {
        self.end();
        self.due = now;
    }

    /// Records an event that makes a fetch worthwhile, such as a link coming up: the next fetch is
    /// due at once, or 5 s after the last fetch that was brought forward. An event during a fetch
    /// counts if that fetch fails.
    pub fn bring_forward(&mut self, now: Instant) {
        if self.running {
            self.again = true;
            return;
        }
        let at = match self.forwarded {
            Some(last) => now.max(last + FORWARD_PAUSE),
            None => now,
        };
        if at < self.due {
            self.due = at;
            self.forwarded = Some(at);
            self.trial = true;
        }
    }

    /// Applies a reloaded config. A changed refresh begins new slots at `now`; after a failure of
    /// the source, an earlier due time stays.
    pub fn set_refresh(&mut self, refresh: Duration, now: Instant, random: f64) {
        let refresh = refresh.clamp(REFRESH.0, REFRESH.1);
        if refresh == self.refresh {
            return;
        }
        self.refresh = refresh;
        self.slot = now;
        if self.running {
            self.due = now + 2 * refresh;
            return;
        }
        let at = match self.breaker {
            BreakerState::Closed => now + refresh.mul_f64(unit(random)),
            BreakerState::Open | BreakerState::HalfOpen => now + self.pause(random),
        };
        let waits_for_the_timer = self.failures == 0 && !self.trial && self.due > now;
        self.due = if waits_for_the_timer {
            at
        } else {
            at.min(self.due)
        };
    }

    /// Ends a fetch; returns true if an event came meanwhile.
    fn end(&mut self) -> bool {
        self.running = false;
        self.trial = false;
        std::mem::take(&mut self.again)
    }

    fn enter_slot(&mut self, now: Instant) {
        let past = now.saturating_duration_since(self.slot).as_nanos();
        let whole = past - past % self.refresh.as_nanos();
        self.slot += nanoseconds(whole);
    }

    fn next_slot(&self, random: f64) -> Instant {
        self.slot + self.refresh + self.refresh.mul_f64(unit(random))
    }

    /// A random point of the second half of the pause, so that agents of a fleet spread out.
    fn pause(&self, random: f64) -> Duration {
        let longest = LONGEST_PAUSE.max(self.refresh);
        let whole = doubled(self.refresh, self.pauses.saturating_sub(1), longest);
        whole.mul_f64(0.5 + unit(random) / 2.0)
    }
}

/// `first` doubled `times` times, at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 2u32.checked_pow(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// A random number that is safe to multiply durations with.
fn unit(random: f64) -> f64 {
    if random.is_nan() {
        0.0
    } else {
        random.clamp(0.0, 1.0)
    }
}

fn nanoseconds(count: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(count / SECOND).unwrap_or(u64::MAX);
    // Nanoseconds below a second always fit.
    let rest = u32::try_from(count % SECOND).unwrap_or(0);
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests;
