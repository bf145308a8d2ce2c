//! Counts repairs that are never withheld, and reports conflicts.
//!
//! Without a rule, an egress route, a sysctl or the firewall rules of ours, packets leave with an
//! address of the host. The agent restores these objects after each deletion, however often
//! another program deletes them: a repair costs less than a millisecond of CPU time, and the
//! watcher makes at most one round of repairs per 5 ms.

use std::collections::BTreeMap;
use std::time::Instant;

use super::repair_limiter::{REPAIRS, WINDOW};
use crate::ownership::Ownership;
use crate::plan::ObjectKey;

/// True for objects whose repairs the [`super::RepairLimiter`] may withhold: bypass routes.
pub(super) fn may_wait(key: &ObjectKey, ownership: &Ownership) -> bool {
    matches!(key, ObjectKey::Route(route) if ownership.is_bypass_table(route.table))
}

#[derive(Debug, Clone, Copy)]
struct Repairs {
    /// The start of the window, and the repairs in the window.
    first: Instant,
    recent: u32,
    /// All repairs since the object was first entered.
    total: u64,
    /// The end of the conflict, unless further repairs follow.
    fought_until: Option<Instant>,
}

/// The repairs of all objects, each named by a key.
#[derive(Debug, Clone)]
pub(super) struct RepairLog<K> {
    objects: BTreeMap<K, Repairs>,
}

impl<K> Default for RepairLog<K> {
    fn default() -> Self {
        RepairLog {
            objects: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> RepairLog<K> {
    /// Records a repair. Returns true if a conflict begins: more than five repairs in ten seconds.
    pub fn record(&mut self, key: &K, now: Instant) -> bool {
        let repairs = self.objects.entry(key.clone()).or_insert(Repairs {
            first: now,
            recent: 0,
            total: 0,
            fought_until: None,
        });
        if now >= repairs.first + WINDOW {
            (repairs.first, repairs.recent) = (now, 0);
        }
        repairs.recent += 1;
        repairs.total += 1;
        let begins = repairs.fought_until.is_none() && repairs.recent > REPAIRS;
        if begins || repairs.fought_until.is_some() {
            repairs.fought_until = Some(now + WINDOW);
        }
        begins
    }

    /// The objects in conflict, with the number of repairs.
    pub fn fought(&self) -> impl Iterator<Item = (&K, u64)> {
        let fought = self.objects.iter();
        fought.filter_map(|(key, it)| it.fought_until.map(|_| (key, it.total)))
    }

    /// True for an object in conflict.
    pub fn is_fought(&self, key: &K) -> bool {
        let repairs = self.objects.get(key);
        repairs.is_some_and(|repairs| repairs.fought_until.is_some())
    }

    /// The earliest end of a conflict. A pass is due then, to report the state in force again.
    pub fn next_end(&self) -> Option<Instant> {
        self.objects.values().filter_map(|it| it.fought_until).min()
    }

    /// Records a pass with this start: ends conflicts without repairs for ten seconds, and drops
    /// older repairs.
    pub fn passed(&mut self, started: Instant) {
        self.objects.retain(|_, repairs| {
            let end = repairs.fought_until.unwrap_or(repairs.first + WINDOW);
            started < end
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn frequent_repairs_are_a_conflict_until_ten_quiet_seconds() {
        let mut log = RepairLog::default();
        let mut now = Instant::now();
        let mut begun = Vec::new();
        for round in 0..20 {
            if log.record(&1, now) {
                begun.push(round);
            }
            log.passed(now);
            now += Duration::from_millis(1500);
        }
        assert_eq!(begun, [5], "reported once");
        assert_eq!(log.fought().collect::<Vec<_>>(), [(&1, 20)]);
        let end = log.next_end().unwrap();
        assert_eq!(end, now - Duration::from_millis(1500) + WINDOW);
        log.passed(end - Duration::from_millis(1));
        assert!(log.is_fought(&1));
        log.passed(end);
        assert!(!log.is_fought(&1) && log.objects.is_empty());
        assert_eq!(log.next_end(), None);
    }

    #[test]
    fn rare_repairs_are_no_conflict() {
        let mut log = RepairLog::default();
        let start = Instant::now();
        for round in 0..100 {
            assert!(!log.record(&1, start + Duration::from_secs(2) * round));
        }
        log.passed(start + Duration::from_secs(300));
        assert!(log.objects.is_empty());
    }
}
