use proptest::prelude::*;

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The times of repairs if another program undoes each repair at once.
fn fight(
    limiter: &mut RepairLimiter<u32>,
    key: u32,
    now: &mut Instant,
    repairs: usize,
) -> Vec<Instant> {
    let mut at = vec![];
    while at.len() < repairs {
        if limiter.allow(&key, *now) {
            at.push(*now);
        } else {
            *now = limiter.next_release().unwrap();
        }
    }
    at
}

#[test]
fn five_repairs_in_ten_seconds_then_growing_pauses() {
    let start = Instant::now();
    let mut now = start;
    let mut limiter = RepairLimiter::new();
    let at = fight(&mut limiter, 1, &mut now, 15);
    let seconds: Vec<u64> = at.iter().map(|at| (*at - start).as_secs()).collect();
    assert_eq!(
        seconds,
        [0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303]
    );
    assert!(
        !limiter.is_paused(&1, now),
        "repaired, and the repair may last"
    );
    assert!(limiter.is_fought(&1, now) && !limiter.is_fought(&2, now));
    assert!(!limiter.allow(&1, now));
    assert!(limiter.is_paused(&1, now));
    let paused: Vec<_> = limiter.paused(now).collect();
    assert_eq!(paused, [(&1, LONGEST_PAUSE, 15)]);
}

#[test]
fn a_conflict_affects_no_other_object() {
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
fn slow_deletions_are_no_conflict() {
    let start = Instant::now();
    let mut limiter = RepairLimiter::new();
    for round in 0..100 {
        assert!(limiter.allow(&1, start + ms(2000) * round));
    }
}

#[test]
fn slower_deletions_keep_the_pause_and_the_conflict_ends() {
    let mut now = Instant::now();
    let mut limiter = RepairLimiter::new();
    fight(&mut limiter, 1, &mut now, 6);
    // The last repair lasted longer than a pause: the next repair needs no pause.
    for _ in 0..3 {
        now += ms(30_000);
        assert!(limiter.allow(&1, now));
    }
    assert!(!limiter.allow(&1, now + ms(10)));
    assert_eq!(limiter.next_release(), Some(now + ms(2010)));
    now += ms(2010);
    assert!(limiter.allow(&1, now));
    // A repair that lasts for a minute ends the conflict.
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
fn release_lasts_until_the_next_check() {
    let mut now = Instant::now();
    let mut limiter = RepairLimiter::new();
    fight(&mut limiter, 1, &mut now, 5);
    assert!(!limiter.allow(&1, now));
    let release = now + FIRST_PAUSE;
    limiter.passed(release - ms(1));
    assert_eq!(
        limiter.next_release(),
        Some(release),
        "the pass began too early"
    );
    limiter.passed(release);
    assert_eq!(
        limiter.next_release(),
        None,
        "another program restored the object"
    );
    assert!(!limiter.is_paused(&1, release));
    limiter.forget_old(release + OVER_AFTER);
    assert!(limiter.conflicts.is_empty());
}

#[test]
fn repairs_of_a_flushed_table_are_dropped_after_the_window() {
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
    assert_eq!(limiter.repaired.len(), 1, "without a call of forget_old");
    limiter.forget_old(start + WINDOW * 2);
    assert!(limiter.repaired.is_empty());
}

/// An object, another program deleting the object, and the agent's reactions.
struct World {
    now: Instant,
    missing: bool,
    limiter: RepairLimiter<u8>,
}

impl World {
    /// The watcher receives a deletion.
    fn hears(&mut self, at: Instant) {
        self.missing = !self.limiter.allow(&1, at);
    }

    /// A pass with the given times between order, start, reading and end. With `deleted`, the
    /// object is deleted once more after the reading.
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
    /// For every sequence of passes and deletions: after the last deletion, and with no pass due,
    /// the object is in place.
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
            if heard {
                world.hears(world.now);
            } else {
                world.pass(times, deleted);
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

    /// For every sequence of requests: a refusal is a pause of at most a minute, no repair falls
    /// into a pause, repairs stay rare, and each key is independent of all others.
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
            prop_assert!(limiter.repaired.len() + limiter.conflicts.len() <= 3);
        }
        for at in repairs.values() {
            // The worst case: four repairs at the end of a window, five at the beginning of the
            // next, and three after the conflict's pauses of 1, 2 and 4 s.
            for thirteen in at.windows(13) {
                prop_assert!(thirteen[12] - thirteen[0] >= WINDOW);
            }
        }
    }
}
