//! When the source is asked: the refresh timer with full jitter, and the circuit breaker.
//!
//! ```text
//!            success                        5th failure in a row
//!  ┌──────── Closed ─────────────────────────────────▶ Open ◀─────────┐
//!  └──▶ a random point of     failure: back-off,        │ pause over,  │ failure:
//!       the next slot         at most until then        │ or link up   │ longer pause
//!                ▲                                      ▼              │
//!                └─────────────── success ────────── HalfOpen ─────────┘
//! ```

use std::time::{Duration, Instant};

use crate::status::snapshot::BreakerState;

/// The upper bound of the first back-off; it doubles from there. Two seconds outlast a DHCP
/// renewal or a gateway's fail-over more often than not, and five failures stay below a minute.
const BACK_OFF: Duration = Duration::from_secs(2);
/// Failures in a row that open the breaker. Each of them has gone through the source's own
/// retries already, so that five are no hiccup.
const OPENS_AFTER: u32 = 5;
/// The longest pause of an open breaker, unless the refresh itself is longer. An hour is short
/// against the day that a document may be old before anybody is warned (`[agent] stale`).
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// At least this long from one fetch that an event brought forward to the next: a flapping link
/// must not hammer the source.
const FORWARD_PAUSE: Duration = Duration::from_secs(5);
/// Bounds of the refresh, so that no setting makes the arithmetic fail: the shortest that the
/// config knows, and a year, which no agent outlives without a restart.
const REFRESH: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(365 * 24 * 3600));

/// The timer of the fetch.
///
/// Time is cut into slots of one refresh each, and every slot has its fetch at a uniformly random
/// point: the mean interval is the refresh, an interval is never longer than two, and agents that
/// a fleet's deployment started in step are out of step from their second fetch on.
#[derive(Debug, Clone)]
pub struct FetchSchedule {
    refresh: Duration,
    /// The beginning of the slot that the last fetch belongs to.
    slot: Instant,
    due: Instant,
    running: bool,
    breaker: BreakerState,
    failures: u32,
    /// How often in a row the pause of the open breaker has grown.
    pauses: u32,
    /// When the last fetch that an event brought forward was due.
    forwarded: Option<Instant>,
    /// The next fetch, or the running one, is there because of an event.
    trial: bool,
    /// An event came while a fetch was running, which may have been too early to profit from it.
    again: bool,
}

impl FetchSchedule {
    /// A schedule whose first fetch is due at once. `refresh` is `[source] refresh`.
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

    /// When the next fetch shall start. While one is running: when to stop believing in it, two
    /// refreshes after its start.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The circuit breaker.
    pub fn breaker(&self) -> BreakerState {
        self.breaker
    }

    /// Failures since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// A fetch starts, whether it was due or somebody asked for it.
    pub fn started(&mut self, now: Instant) {
        self.enter_slot(now);
        self.running = true;
        self.again = false;
        self.due = now + 2 * self.refresh;
        if self.breaker == BreakerState::Open {
            self.breaker = BreakerState::HalfOpen;
        }
    }

    /// The source answered: with a new document, or that the one at hand is the newest. `random`
    /// is from 0 (inclusive) to 1 (exclusive), as everywhere here.
    pub fn succeeded(&mut self, now: Instant, random: f64) {
        self.end();
        self.failures = 0;
        self.pauses = 0;
        self.breaker = BreakerState::Closed;
        self.due = self.next_slot(random).max(now);
    }

    /// The source didn't answer, or with nothing of use.
    pub fn failed(&mut self, now: Instant, random: f64) {
        let trial = self.trial;
        let again = self.end();
        self.failures = self.failures.saturating_add(1);
        if self.failures < OPENS_AFTER {
            let ceiling = doubled(BACK_OFF, self.failures - 1, self.refresh);
            let refresh = self.next_slot(random).max(now);
            self.due = (now + ceiling.mul_f64(unit(random))).min(refresh);
        } else {
            // A trial that an event brought forward says nothing about how long the source will
            // be away: a link that flaps must not drive the pause to its longest.
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

    /// The running fetch was given up, which says nothing of the source: the next one is due.
    pub fn given_up(&mut self, now: Instant) {
        self.end();
        self.due = now;
    }

    /// Something happened that makes a trial worthwhile, such as a link that came up: the next
    /// fetch is due at once, or 5 s after the last one that was brought forward. An event during
    /// a fetch counts once that has failed.
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

    /// The config was read again. Another refresh begins new slots at `now`; a fetch that is
    /// due earlier than they say stays where it is if the source has failed.
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
        self.due = match waits_for_the_timer {
            true => at,
            false => at.min(self.due),
        };
    }

    /// A fetch is over; returns whether an event came meanwhile.
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

    /// A random point of the second half of the pause: never soon, never in step.
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

/// A random number made safe to multiply durations with.
fn unit(random: f64) -> f64 {
    match random.is_nan() {
        true => 0.0,
        false => random.clamp(0.0, 1.0),
    }
}

fn nanoseconds(count: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(count / SECOND).unwrap_or(u64::MAX);
    // Less than a second's worth always fits.
    let rest = u32::try_from(count % SECOND).unwrap_or(0);
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests;
