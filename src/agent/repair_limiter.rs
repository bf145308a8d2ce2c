//! Two programs that both repair must not fight at full speed.
//!
//! Each object is mended five times in ten seconds. Whoever undoes that once more wants something
//! else: the object is in conflict, which is told, and it is mended after pauses that grow from a
//! second to a minute. Other objects don't notice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Repairs that an object gets within [`WINDOW`]: a link that bounces or a service that restarts
/// takes an object away once or twice.
const REPAIRS: u32 = 5;
/// The time in which those are counted, from the first one on.
const WINDOW: Duration = Duration::from_secs(10);
/// The first pause of a conflict; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. A try a minute costs nothing, and when the other program has gone, the
/// object is back within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A conflict is over when its object held for this long after its last repair, or when this long
/// after its pause nobody asked for a repair (the object came back by itself, or isn't wanted any
/// more). As long as the longest pause: a fight at that pace never counts as over.
const OVER_AFTER: Duration = LONGEST_PAUSE;

/// An object that was mended lately. Small, since a flush of a whole table makes 16,000 of them.
#[derive(Debug, Clone, Copy)]
struct Mended {
    first: Instant,
    repairs: u32,
}

/// An object that somebody keeps changing back.
#[derive(Debug, Clone, Copy)]
struct Conflict {
    last_repair: Instant,
    pause: Duration,
    /// The end of the pause, of one that is over too.
    until: Instant,
    /// Nobody has looked since the pause began whether it needs a repair when it is over.
    waiting: bool,
    repairs: u64,
}

impl Conflict {
    /// Never while its object may yet need the repair that the pause has put off.
    fn is_over(&self, now: Instant) -> bool {
        !self.waiting && now >= self.last_repair.max(self.until) + OVER_AFTER
    }
}

/// Limits the repairs of each object, named by a key.
#[derive(Debug, Clone)]
pub struct RepairLimiter<K> {
    mended: BTreeMap<K, Mended>,
    conflicts: BTreeMap<K, Conflict>,
    swept_at: Option<Instant>,
}

impl<K> Default for RepairLimiter<K> {
    fn default() -> Self {
        RepairLimiter {
            mended: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            swept_at: None,
        }
    }
}

impl<K: Ord + Clone> RepairLimiter<K> {
    /// Nothing was mended yet.
    pub fn new() -> Self {
        RepairLimiter::default()
    }

    /// Whether an object that needs a repair may have it now; yes counts as a repair. A no begins
    /// a pause, or was said in one: [`RepairLimiter::next_release`] tells when to come back.
    pub fn allow(&mut self, key: &K, now: Instant) -> bool {
        // The memory stays bounded even where nobody else calls it.
        if self.swept_at.is_none_or(|swept| now >= swept + WINDOW) {
            self.forget_old(now);
        }
        if let Some(conflict) = self.conflicts.get_mut(key) {
            if !conflict.is_over(now) {
                return conflict.allow(now);
            }
            self.conflicts.remove(key);
        }
        let Some(mended) = self.mended.get_mut(key) else {
            let first = Mended {
                first: now,
                repairs: 1,
            };
            self.mended.insert(key.clone(), first);
            return true;
        };
        if now >= mended.first + WINDOW {
            (mended.first, mended.repairs) = (now, 1);
            return true;
        }
        if mended.repairs < REPAIRS {
            mended.repairs += 1;
            return true;
        }
        let conflict = Conflict::new(now, mended.repairs);
        self.mended.remove(key);
        self.conflicts.insert(key.clone(), conflict);
        false
    }

    /// A pass found this object in need of a repair and left it alone, because it was among those of
    /// [`RepairLimiter::exhausted`] when the pass was ordered. A conflict begins, or goes on: the
    /// repair is due when its pause is over, at once if that has happened meanwhile.
    pub fn left_alone(&mut self, key: &K, now: Instant) {
        if let Some(conflict) = self.conflicts.get_mut(key)
            && !conflict.is_over(now)
        {
            conflict.waiting = true;
            return;
        }
        let repairs = self.mended.remove(key).map_or(REPAIRS, |it| it.repairs);
        self.conflicts
            .insert(key.clone(), Conflict::new(now, repairs));
    }

    /// The objects that wait for the end of a pause, or for the pass that follows it: how long yet,
    /// and how often they were mended since the conflict's first repair.
    pub fn paused(&self, now: Instant) -> impl Iterator<Item = (&K, Duration, u64)> {
        self.conflicts.iter().filter_map(move |(key, conflict)| {
            let left = conflict.until.saturating_duration_since(now);
            (conflict.waiting || !left.is_zero()).then_some((key, left, conflict.repairs))
        })
    }

    /// The objects that a pass is to leave alone: those in a pause, and those that have used up
    /// their repairs. One that a pass finds changed all the same is told to
    /// [`RepairLimiter::left_alone`].
    pub fn exhausted(&self, now: Instant) -> impl Iterator<Item = &K> {
        let paused = self.conflicts.iter();
        let paused = paused.filter(move |(_, conflict)| now < conflict.until);
        let used_up = self
            .mended
            .iter()
            .filter(move |(_, mended)| mended.repairs >= REPAIRS && now < mended.first + WINDOW);
        let paused = paused.map(|(key, _)| key);
        paused.chain(used_up.map(|(key, _)| key))
    }

    /// The objects that somebody keeps changing back, paused or not.
    pub fn fought(&self, now: Instant) -> impl Iterator<Item = &K> {
        let conflicts = self.conflicts.iter();
        let going_on = conflicts.filter(move |(_, conflict)| !conflict.is_over(now));
        going_on.map(|(key, _)| key)
    }

    /// Whether an object waits for the end of a pause.
    pub fn is_paused(&self, key: &K, now: Instant) -> bool {
        self.conflicts
            .get(key)
            .is_some_and(|conflict| now < conflict.until)
    }

    /// Whether somebody keeps changing an object back, paused or not.
    pub fn is_fought(&self, key: &K, now: Instant) -> bool {
        self.conflicts
            .get(key)
            .is_some_and(|conflict| !conflict.is_over(now))
    }

    /// The earliest moment at which an object that was refused may be mended. It stays, even when
    /// it has passed, until [`RepairLimiter::allow`] or [`RepairLimiter::passed`] says that
    /// somebody has looked: a release in the middle of a pass isn't missed.
    pub fn next_release(&self) -> Option<Instant> {
        let waiting = self.conflicts.values().filter(|conflict| conflict.waiting);
        waiting.map(|conflict| conflict.until).min()
    }

    /// A pass that began at `started` has looked at every object: one whose pause was over by
    /// then and that wasn't mended needs no repair.
    pub fn passed(&mut self, started: Instant) {
        for conflict in self.conflicts.values_mut() {
            conflict.waiting &= started < conflict.until;
        }
    }

    /// Drops what no longer matters: repairs whose ten seconds are over, and conflicts that are.
    pub fn forget_old(&mut self, now: Instant) {
        self.mended.retain(|_, mended| now < mended.first + WINDOW);
        self.conflicts.retain(|_, conflict| !conflict.is_over(now));
        self.swept_at = Some(now);
    }
}

impl Conflict {
    fn new(now: Instant, repairs: u32) -> Self {
        Conflict {
            // The last of them lies somewhere before, and what counts is the pause from now.
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
        // The pause is over; or the last repair held for longer than a pause, so that another
        // one keeps the pace and no longer pause is called for.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Another program undoes every repair at once, and we ask at each release: when we repaired.
    fn fight(
        limiter: &mut RepairLimiter<u32>,
        key: u32,
        now: &mut Instant,
        repairs: usize,
    ) -> Vec<Instant> {
        let mut at = vec![];
        while at.len() < repairs {
            match limiter.allow(&key, *now) {
                true => at.push(*now),
                false => *now = limiter.next_release().unwrap(),
            }
        }
        at
    }

    #[test]
    fn five_in_ten_seconds_and_then_pauses_that_grow() {
        let start = Instant::now();
        let mut now = start;
        let mut limiter = RepairLimiter::new();
        let at = fight(&mut limiter, 1, &mut now, 15);
        let seconds: Vec<u64> = at.iter().map(|at| (*at - start).as_secs()).collect();
        assert_eq!(
            seconds,
            [0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303]
        );
        assert!(!limiter.is_paused(&1, now), "mended, and it may hold");
        assert!(limiter.is_fought(&1, now) && !limiter.is_fought(&2, now));
        assert!(!limiter.allow(&1, now));
        assert!(limiter.is_paused(&1, now));
        let paused: Vec<_> = limiter.paused(now).collect();
        assert_eq!(paused, [(&1, LONGEST_PAUSE, 15)]);
    }

    #[test]
    fn other_objects_notice_nothing() {
        let mut now = Instant::now();
        let mut limiter = RepairLimiter::new();
        fight(&mut limiter, 1, &mut now, 9);
        assert!(!limiter.allow(&1, now));
        for _ in 0..5 {
            assert!(limiter.allow(&2, now));
        }
        assert!(!limiter.is_paused(&2, now));
        assert!(!limiter.allow(&2, now));
        assert!(limiter.is_paused(&2, now));
    }

    #[test]
    fn a_slow_pace_is_no_conflict() {
        let start = Instant::now();
        let mut limiter = RepairLimiter::new();
        for round in 0..100 {
            assert!(limiter.allow(&1, start + ms(2000) * round));
        }
    }

    #[test]
    fn a_conflict_that_slows_down_keeps_its_pace_and_ends() {
        let mut now = Instant::now();
        let mut limiter = RepairLimiter::new();
        fight(&mut limiter, 1, &mut now, 6);
        // The last repair held for longer than a pause: the next is free.
        for _ in 0..3 {
            now += ms(30_000);
            assert!(limiter.allow(&1, now));
        }
        assert!(!limiter.allow(&1, now + ms(10)));
        assert_eq!(limiter.next_release(), Some(now + ms(2010)));
        now += ms(2010);
        assert!(limiter.allow(&1, now));
        // It held for a minute: as if nothing had ever been.
        assert!(limiter.is_fought(&1, now));
        now += OVER_AFTER;
        assert!(!limiter.is_fought(&1, now));
        for _ in 0..5 {
            assert!(limiter.allow(&1, now));
        }
        assert!(!limiter.allow(&1, now));
        assert_eq!(limiter.next_release(), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn a_release_is_told_until_somebody_has_looked() {
        let mut now = Instant::now();
        let mut limiter = RepairLimiter::new();
        fight(&mut limiter, 1, &mut now, 5);
        assert!(!limiter.allow(&1, now));
        let release = now + FIRST_PAUSE;
        limiter.passed(release - ms(1));
        assert_eq!(limiter.next_release(), Some(release), "it began too early");
        limiter.passed(release);
        assert_eq!(limiter.next_release(), None, "it came back by itself");
        assert!(!limiter.is_paused(&1, release));
        limiter.forget_old(release + OVER_AFTER);
        assert!(limiter.conflicts.is_empty());
    }

    #[test]
    fn a_flush_of_a_whole_table_is_soon_forgotten() {
        let start = Instant::now();
        let mut limiter = RepairLimiter::new();
        for key in 0..16_000u32 {
            assert!(limiter.allow(&key, start));
        }
        assert_eq!(
            (limiter.next_release(), limiter.paused(start).count()),
            (None, 0)
        );
        assert!(limiter.allow(&1, start + WINDOW));
        assert_eq!(limiter.mended.len(), 1, "without a call of forget_old");
        limiter.forget_old(start + WINDOW * 2);
        assert!(limiter.mended.is_empty());
    }

    /// An object that somebody deletes, and what an agent does about it.
    struct World {
        now: Instant,
        missing: bool,
        limiter: RepairLimiter<u8>,
    }

    impl World {
        /// The watcher hears of a deletion.
        fn hears(&mut self, at: Instant) {
            self.missing = !self.limiter.allow(&1, at);
        }

        /// A pass: ordered, begun, looking, ended, each some time after the one before; the object
        /// may be deleted once more after it has looked.
        fn pass(&mut self, [begins, looks, ends]: [u64; 3], deleted: bool) {
            let withheld = self.limiter.exhausted(self.now).any(|key| *key == 1);
            let started = self.now + ms(begins);
            let looked = started + ms(looks);
            self.now = looked + ms(ends);
            let needed = self.missing;
            self.missing &= withheld;
            if deleted {
                self.hears(looked);
            }
            self.limiter.passed(started);
            match (needed, withheld) {
                (true, true) => self.limiter.left_alone(&1, self.now),
                (true, false) => drop(self.limiter.allow(&1, self.now)),
                (false, _) => {}
            }
        }
    }

    proptest! {
        /// However passes and deletions fall: when nobody deletes any more, and no pass is due, the
        /// object is there.
        #[test]
        fn no_repair_is_lost(
            deletions in prop::collection::vec(
                (
                    prop_oneof![8 => 0u64..20, 4 => 500u64..1100, 1 => 0u64..9000],
                    prop::bool::weighted(0.8),
                    any::<bool>(),
                    [0u64..300, 0u64..300, 0u64..300],
                ),
                1..60,
            ),
        ) {
            let now = Instant::now();
            let mut world = World { now, missing: false, limiter: RepairLimiter::new() };
            for (gap, heard, deleted, times) in deletions {
                let next = world.now + ms(gap);
                while let Some(at) = world.limiter.next_release().filter(|at| *at <= next) {
                    world.now = world.now.max(at);
                    world.pass(times, deleted);
                    if world.now > next { break; }
                }
                world.now = world.now.max(next);
                world.missing = true;
                match heard {
                    true => world.hears(world.now),
                    false => world.pass(times, deleted),
                }
            }
            for _ in 0..9 {
                let Some(at) = world.limiter.next_release() else { break };
                prop_assert!(world.limiter.paused(world.now).next().is_some());
                world.now = world.now.max(at);
                world.pass([5, 20, 20], false);
            }
            prop_assert!(!world.missing);
            prop_assert_eq!(world.limiter.next_release(), None);
        }

        /// Whatever asks when: a no is a pause of at most a minute, a yes never falls into one,
        /// repairs stay rare, and each key is treated as if it were alone.
        #[test]
        fn repairs_are_rare_and_never_end(
            asks in prop::collection::vec((0u8..3, prop_oneof![0u64..50, 0u64..5000, 0u64..90_000]), 1..400),
        ) {
            let mut now = Instant::now();
            let mut limiter = RepairLimiter::new();
            let mut alone: BTreeMap<u8, RepairLimiter<u8>> = BTreeMap::new();
            let mut repairs: BTreeMap<u8, Vec<Instant>> = BTreeMap::new();
            for (key, gap) in asks {
                now += ms(gap);
                let allowed = limiter.allow(&key, now);
                prop_assert_eq!(allowed, alone.entry(key).or_default().allow(&key, now));
                if allowed {
                    prop_assert!(!limiter.is_paused(&key, now));
                    repairs.entry(key).or_default().push(now);
                } else {
                    prop_assert!(limiter.is_paused(&key, now));
                    let release = limiter.next_release();
                    prop_assert!(release.is_some_and(|at| at <= now + LONGEST_PAUSE));
                    let mine = limiter.paused(now).find(|(paused, ..)| **paused == key);
                    prop_assert!(mine.is_some_and(|(_, left, _)| left <= LONGEST_PAUSE));
                }
                prop_assert!(limiter.mended.len() + limiter.conflicts.len() <= 3);
            }
            for at in repairs.values() {
                // At the very worst: four at the end of a window, five at the beginning of the
                // next, and three after the conflict's pauses of 1, 2 and 4 s.
                for thirteen in at.windows(13) {
                    prop_assert!(thirteen[12] - thirteen[0] >= WINDOW);
                }
            }
        }
    }
}
