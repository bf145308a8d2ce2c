//! Limits repairs, so that two programs with different goals don't change an object back and forth
//! at full speed.
//!
//! Each object gets five repairs in ten seconds. After one more change by another program the
//! object is in conflict: the agent reports the conflict and repairs the object after pauses that
//! grow from a second to a minute. Other objects are not affected.
//!
//! Only bypass routes are limited: without a bypass route, packets to S3 leave by the egress path,
//! which costs money but reveals no address. Repairs of all other objects are never withheld; the
//! `repair_log` counts these repairs and reports a conflict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Repairs of an object within [`WINDOW`]. A link flap or the restart of a service deletes an object
/// once or twice.
pub(super) const REPAIRS: u32 = 5;
/// The time in which repairs are counted, from the first repair on.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The first pause of a conflict; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. A repair a minute costs nothing, and after the end of the other program the
/// object is restored within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A conflict ends when the object has stayed in place for this long after the last repair, or has
/// needed no repair for this long after the last pause (another program restored the object, or the
/// goal no longer contains the object). As long as the longest pause, so that a conflict with one
/// repair per longest pause continues.
const OVER_AFTER: Duration = LONGEST_PAUSE;

/// Recent repairs of an object. Small, since a flush of a whole table makes 16,000 values.
#[derive(Debug, Clone, Copy)]
struct Repaired {
    first: Instant,
    repairs: u32,
}

/// An object that another program keeps changing.
#[derive(Debug, Clone, Copy)]
struct Fight {
    last_repair: Instant,
    pause: Duration,
    until: Instant,
    /// No pass has checked the object since the end of the pause.
    waiting: bool,
    repairs: u64,
}

impl Fight {
    /// False while the object may still need the repair that the pause has delayed.
    fn is_over(&self, now: Instant) -> bool {
        !self.waiting && now >= self.last_repair.max(self.until) + OVER_AFTER
    }
}

/// The limiter: the recent repairs and the conflicts of all objects, each named by a key.
///
/// Invariants: each key is treated independently of all others, and each refusal is followed by a
/// release after at most a minute.
#[derive(Debug, Clone)]
pub struct RepairLimiter<K> {
    repaired: BTreeMap<K, Repaired>,
    conflicts: BTreeMap<K, Fight>,
    swept_at: Option<Instant>,
}

impl<K> Default for RepairLimiter<K> {
    fn default() -> Self {
        RepairLimiter {
            repaired: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            swept_at: None,
        }
    }
}

impl<K: Ord + Clone> RepairLimiter<K> {
    /// A limiter without repairs.
    pub fn new() -> Self {
        RepairLimiter::default()
    }

    /// Permits or refuses a repair now, and counts a permitted repair. A refusal begins a pause, or
    /// falls into a pause; [`RepairLimiter::next_release`] gives the end of the pause.
    pub fn allow(&mut self, key: &K, now: Instant) -> bool {
        // Bounds the memory without calls of `forget_old` from outside.
        if self.swept_at.is_none_or(|swept| now >= swept + WINDOW) {
            self.forget_old(now);
        }
        if let Some(conflict) = self.conflicts.get_mut(key) {
            if !conflict.is_over(now) {
                return conflict.allow(now);
            }
            self.conflicts.remove(key);
        }
        let Some(repaired) = self.repaired.get_mut(key) else {
            let first = Repaired {
                first: now,
                repairs: 1,
            };
            self.repaired.insert(key.clone(), first);
            return true;
        };
        if now >= repaired.first + WINDOW {
            (repaired.first, repaired.repairs) = (now, 1);
            return true;
        }
        if repaired.repairs < REPAIRS {
            repaired.repairs += 1;
            return true;
        }
        let conflict = Fight::new(now, repaired.repairs);
        self.repaired.remove(key);
        self.conflicts.insert(key.clone(), conflict);
        false
    }

    /// Records that a pass found an object in need of a repair and withheld the repair, because
    /// [`RepairLimiter::exhausted`] contained the object at the start of the pass. A conflict begins
    /// or continues; the repair is due at the end of the pause, which may have passed meanwhile.
    pub fn left_alone(&mut self, key: &K, now: Instant) {
        if let Some(conflict) = self.conflicts.get_mut(key)
            && !conflict.is_over(now)
        {
            conflict.waiting = true;
            return;
        }
        let repairs = self
            .repaired
            .remove(key)
            .map_or(REPAIRS, |last| last.repairs);
        self.conflicts.insert(key.clone(), Fight::new(now, repairs));
    }

    /// The objects whose repair waits for the end of a pause or for the following pass, with the
    /// remaining time of the pause and the number of repairs since the beginning of the conflict.
    pub fn paused(&self, now: Instant) -> impl Iterator<Item = (&K, Duration, u64)> {
        self.conflicts.iter().filter_map(move |(key, conflict)| {
            let left = conflict.until.saturating_duration_since(now);
            (conflict.waiting || !left.is_zero()).then_some((key, left, conflict.repairs))
        })
    }

    /// The objects that a pass must not repair: objects in a pause, and objects without repairs
    /// left. The pass reports changes of these objects by [`RepairLimiter::left_alone`].
    pub fn exhausted(&self, now: Instant) -> impl Iterator<Item = &K> {
        let paused = self.conflicts.iter();
        let paused = paused.filter(move |(_, conflict)| now < conflict.until);
        let used_up = self.repaired.iter().filter(move |(_, repaired)| {
            repaired.repairs >= REPAIRS && now < repaired.first + WINDOW
        });
        let paused = paused.map(|(key, _)| key);
        paused.chain(used_up.map(|(key, _)| key))
    }

    /// The objects in conflict, during a pause or not.
    pub fn fought(&self, now: Instant) -> impl Iterator<Item = &K> {
        let conflicts = self.conflicts.iter();
        let going_on = conflicts.filter(move |(_, conflict)| !conflict.is_over(now));
        going_on.map(|(key, _)| key)
    }

    /// The number of repairs in the last ten seconds, 0 for an object in conflict.
    pub fn recent_repairs(&self, key: &K, now: Instant) -> u32 {
        let repaired = self.repaired.get(key);
        let recent = repaired.filter(|repaired| now < repaired.first + WINDOW);
        recent.map_or(0, |repaired| repaired.repairs)
    }

    /// True during a pause of the object.
    pub fn is_paused(&self, key: &K, now: Instant) -> bool {
        self.conflicts
            .get(key)
            .is_some_and(|conflict| now < conflict.until)
    }

    /// True for an object in conflict, during a pause or not.
    pub fn is_fought(&self, key: &K, now: Instant) -> bool {
        self.conflicts
            .get(key)
            .is_some_and(|conflict| !conflict.is_over(now))
    }

    /// The earliest time at which a refused repair is permitted. A release in the past remains until
    /// [`RepairLimiter::allow`] or [`RepairLimiter::passed`] reports a check of the object, so that
    /// a release during a pass is not missed.
    pub fn next_release(&self) -> Option<Instant> {
        let waiting = self.conflicts.values().filter(|conflict| conflict.waiting);
        waiting.map(|conflict| conflict.until).min()
    }

    /// Records that a pass with this start has checked every object. An object whose pause had ended
    /// before and that the pass didn't repair needs no repair.
    pub fn passed(&mut self, started: Instant) {
        for conflict in self.conflicts.values_mut() {
            conflict.waiting &= started < conflict.until;
        }
    }

    /// Drops ended conflicts, and repairs older than ten seconds.
    pub fn forget_old(&mut self, now: Instant) {
        self.repaired
            .retain(|_, repaired| now < repaired.first + WINDOW);
        self.conflicts.retain(|_, conflict| !conflict.is_over(now));
        self.swept_at = Some(now);
    }
}

impl Fight {
    fn new(now: Instant, repairs: u32) -> Self {
        Fight {
            // The true time of the last repair is earlier; only the pause from now matters.
            last_repair: now,
            pause: FIRST_PAUSE,
            until: now + FIRST_PAUSE,
            waiting: true,
            repairs: repairs.into(),
        }
    }

    fn allow(&mut self, now: Instant) -> bool {
        if now < self.until {
            self.waiting = true;
            return false;
        }
        // After a pause, or after a repair that lasted longer than a pause: the other program is
        // slow, and a longer pause is unnecessary.
        if self.waiting || now >= self.last_repair + self.pause {
            self.waiting = false;
            self.last_repair = now;
            self.repairs += 1;
            return true;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.until = now + self.pause;
        self.waiting = true;
        false
    }
}

#[cfg(test)]
mod tests;
