//! State shared by the agent's three threads: the loop schedules, the worker runs passes, and the
//! watcher listens to the kernel and restores deleted objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::RepairLimiter;
use super::repair_log::RepairLog;
use crate::config::{AutoOr, Role};
use crate::firewall::WayTraffic;
use crate::health::{Health, WayId, WayStatus};
use crate::journal::WayChange;
use crate::judge::chain::BaseChain;
use crate::kernel::firewall::nftables::Protection;
use crate::kernel::flows::Ended;
use crate::kernel::saved_rulesets::{SavedRuleset, with_our_table};
use crate::plan::{Goal, ObjectKey, Step};
use crate::reconcile::InForce;
use crate::status::snapshot::EndedStatus;

/// Steps kept for the journal between two passes; further steps are counted only.
const KEPT_STEPS: usize = crate::journal::MAX_LISTED;
/// Changes of ways kept for the journal while no pass can write it.
const KEPT_CHANGES: usize = crate::journal::MAX_LISTED;
/// A pause waits for up to ten milliseconds for the end of a repair.
const REPAIR_POLLS: u32 = 40;
const REPAIR_POLL: Duration = Duration::from_micros(250);
/// Causes kept as text between two passes.
const KEPT_CAUSES: usize = 8;
/// Remembered names of programs that change our objects: more than any host has at once.
const KEPT_CULPRITS: usize = 256;

/// Locks a mutex, also after a panic of an earlier holder: the values in this file are consistent at
/// every point at which a holder may panic.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ways that the prober judges. Their times count from `start`.
#[derive(Debug, Clone)]
pub(super) struct Probed {
    pub start: Instant,
    pub ways: Vec<WayStatus>,
    /// The traffic of the ways with counters.
    pub traffic: BTreeMap<WayId, WayTraffic>,
}

/// The watcher's findings since the loop last took them.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// Time of the last event that needs a pass at once.
    pub event: Option<Instant>,
    /// Time of the last such event that may have opened the egress path.
    pub urgent: Option<Instant>,
    /// Time of the last event that was repaired already or that can wait for the end of a burst.
    pub repaired_at: Option<Instant>,
    pub lost: u64,
    /// Time of the last change of a link, an address or a default route, with which the kernel may
    /// have removed routes.
    pub link_changed: Option<Instant>,
    /// A link came up or a default route changed: the source may be reachable again.
    pub way_changed: bool,
    pub causes: Vec<String>,
    /// The first restored objects.
    pub steps: Vec<Step>,
    pub steps_total: u64,
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Objects in a new conflict, restored too often.
    pub fought: Vec<ObjectKey>,
    /// Probes have found other ways well or down.
    pub health_changed: bool,
    /// The watcher's last error: the thread has ended.
    pub deaf: Option<String>,
}

impl Noticed {
    /// Adds a cause for the log, unless the list is full.
    pub fn cause(&mut self, cause: impl FnOnce() -> String) {
        if self.causes.len() < KEPT_CAUSES {
            let cause = cause();
            if !self.causes.contains(&cause) {
                self.causes.push(cause);
            }
        }
    }

    /// Time of the last event that may have opened the egress path of a role. A NAT has no table of
    /// its own for the egress: without its uplink, the kernel sends partners out by the next best
    /// default, such as that of the bypass interface, until a pass.
    pub fn urgent_in(&self, role: Role) -> Option<Instant> {
        match role {
            Role::Host => self.urgent,
            Role::Nat => self.urgent.max(self.link_changed),
        }
    }

    /// Records repairs by the watcher.
    pub fn repaired(&mut self, steps: Vec<Step>, now: Instant) {
        self.repaired_at = Some(now);
        self.steps_total += steps.len() as u64;
        for step in steps {
            *self.by_kind.entry(step.object()).or_default() += 1;
            if self.steps.len() < KEPT_STEPS {
                self.steps.push(step);
            }
        }
    }
}

/// The state that the three threads share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The verified state that the watcher restores; `None` before the first pass, and while a pass
    /// with another goal changes the kernel.
    in_force: Mutex<Option<Arc<InForce>>>,
    /// A pause for `flush`: nothing is restored.
    paused: AtomicBool,
    /// A pause has begun since the last pass: missing objects were deleted on purpose.
    flushed: AtomicBool,
    /// After SIGTERM a pass ends at the next step.
    stopping: AtomicBool,
    /// A pass of this process holds the lock of the state dir.
    passing: AtomicBool,
    /// The number of passes begun.
    passes: AtomicU64,
    /// Held by the watcher during a repair, and by a pass whose goal differs from the state in
    /// force: only one of both changes the kernel at a time.
    pub turn: Mutex<()>,
    pub limiter: Mutex<RepairLimiter<ObjectKey>>,
    pub repair_log: Mutex<RepairLog<ObjectKey>>,
    /// The last program that changed an object, as far as known.
    pub culprits: Mutex<BTreeMap<ObjectKey, String>>,
    pub noticed: Mutex<Noticed>,
    /// The foreign chains of iptables-legacy that the last pass has judged.
    judged: Mutex<Option<Vec<BaseChain>>>,
    /// The protection of our nf_tables tables: the worker claims, `flush` and single passes make the
    /// loop release.
    pub protection: Protection,
    /// `[kernel] protect_table` of the last pass that changed the kernel.
    protects: Mutex<Option<AutoOr<bool>>>,
    /// The ways out of use by the verdict of probes.
    pub health: Mutex<Health>,
    /// All probed ways, and the time of their last change.
    pub ways: Mutex<Option<Probed>>,
    /// Changes of the use of ways since the last pass, for the journal.
    pub way_changes: Mutex<Vec<WayChange>>,
    /// The flows ended on each gateway since the start.
    pub ended: Mutex<BTreeMap<WayId, EndedStatus>>,
    pub wake: Notify,
}

impl Shared {
    /// Counts the flows ended on a way.
    pub fn count_ended(&self, way: WayId, ended: &Ended) {
        let mut all = locked(&self.ended);
        let total = all.entry(way).or_default();
        total.connections += u64::from(ended.connections);
        total.forwarded += u64::from(ended.forwarded);
        total.begun_anew += u64::from(ended.begun_anew);
    }

    /// Keeps changes of ways that a pass could not write to the journal for the next one, the newest of
    /// too many.
    pub fn put_back(&self, mut unwritten: Vec<WayChange>) {
        let mut changes = locked(&self.way_changes);
        unwritten.append(&mut changes);
        let excess = unwritten.len().saturating_sub(KEPT_CHANGES);
        *changes = unwritten.split_off(excess);
    }

    /// The state that the watcher may restore.
    pub fn in_force(&self) -> Option<Arc<InForce>> {
        locked(&self.in_force).clone()
    }

    /// Ends all repairs until the next [`Shared::arm`].
    pub fn disarm(&self) {
        *locked(&self.in_force) = None;
    }

    /// Sets the state to restore, unless a pause has begun meanwhile.
    pub fn arm(&self, in_force: Arc<InForce>) {
        let mut place = locked(&self.in_force);
        *place = (!self.is_paused()).then_some(in_force);
    }

    /// True if the watcher restores the same goal.
    pub fn heads_for(&self, goal: &Goal) -> bool {
        self.in_force()
            .is_some_and(|in_force| in_force.goal == *goal)
    }

    /// Keeps the foreign chains that a pass has judged; `None` for unreadable ones.
    pub fn judged(&self, chains: Option<Vec<BaseChain>>) {
        *locked(&self.judged) = chains;
    }

    /// True if the last pass has judged these chains.
    pub fn has_judged(&self, chains: Option<&Vec<BaseChain>>) -> bool {
        locked(&self.judged).as_ref() == chains
    }

    /// Marks the lock of the state dir as held by a pass of this process.
    pub fn pass_began(&self) {
        self.passes.fetch_add(1, Ordering::SeqCst);
        self.passing.store(true, Ordering::SeqCst);
    }

    /// The number of passes of this process begun so far.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::SeqCst)
    }

    /// Ends the mark of [`Shared::pass_began`].
    pub fn pass_ended(&self) {
        self.passing.store(false, Ordering::SeqCst);
    }

    /// True while a pass of this process holds the lock of the state dir.
    pub fn is_passing(&self) -> bool {
        self.passing.load(Ordering::SeqCst)
    }

    /// Begins a pause. On return no repair runs, and none starts until the end of the pause.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.flushed.store(true, Ordering::SeqCst);
        self.disarm();
        // A running repair ends in well under a millisecond. A pass holds `turn` for longer, and
        // `flush` waits for the lock of that pass.
        for _ in 0..REPAIR_POLLS {
            if self.turn.try_lock().is_ok() {
                break;
            }
            std::thread::sleep(REPAIR_POLL);
        }
        self.protection.release();
    }

    /// Protects our tables from other programs if the settings ask for it (`auto`: unless a saved
    /// ruleset has them), except in a pause: `flush` is about to delete the tables.
    pub fn protect(&self, wanted: AutoOr<bool>) {
        *locked(&self.protects) = Some(wanted);
        let wanted = match wanted {
            AutoOr::Set(wanted) => wanted,
            AutoOr::Auto => with_our_table().is_none(),
        };
        if !wanted {
            return self.protection.give_up();
        }
        self.protection.claim();
        // After the claim: a pause that begins meanwhile must not find the tables protected.
        if self.is_paused() {
            self.protection.release();
        }
    }

    /// Opens our tables to other programs if a saved ruleset has them now. True if the protection
    /// depends on saved rulesets.
    pub fn saved_ruleset_changed(&self, found: Option<&SavedRuleset>) -> bool {
        let depends = *locked(&self.protects) == Some(AutoOr::Auto);
        if depends && found.is_some() {
            self.protection.give_up();
        }
        depends
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    /// True during a pause.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// True if a pause has begun since the last call.
    pub fn take_flushed(&self) -> bool {
        self.flushed.swap(false, Ordering::SeqCst)
    }

    /// Ends repairs, and a running pass at the next step.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.disarm();
    }

    /// True after SIGTERM.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Remembers the program that changed an object.
    pub fn blame(&self, object: ObjectKey, program: String) {
        let mut culprits = locked(&self.culprits);
        if culprits.len() >= KEPT_CULPRITS && !culprits.contains_key(&object) {
            culprits.pop_first();
        }
        culprits.insert(object, program);
    }

    /// The last program that changed an object, or "unknown".
    pub fn culprit(&self, object: &ObjectKey) -> String {
        let culprits = locked(&self.culprits);
        culprits
            .get(object)
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_link_of_a_nat_is_urgent() {
        let now = Instant::now();
        let link = Noticed {
            event: Some(now),
            link_changed: Some(now),
            ..Noticed::default()
        };
        assert_eq!(link.urgent_in(Role::Nat), Some(now));
        // The egress table of a host keeps its default.
        assert_eq!(link.urgent_in(Role::Host), None);
        let firewall = Noticed {
            urgent: Some(now),
            ..Noticed::default()
        };
        assert_eq!(firewall.urgent_in(Role::Host), Some(now));
    }

    #[test]
    fn unwritten_changes_of_ways_stay_in_order_and_few() {
        let shared = Shared::default();
        let change = |way: usize| WayChange::now(way, "down", "a test");
        locked(&shared.way_changes).push(change(KEPT_CHANGES + 1));
        shared.put_back((1..=KEPT_CHANGES).map(change).collect());
        let kept = locked(&shared.way_changes);
        assert_eq!(kept.len(), KEPT_CHANGES);
        let newest = (KEPT_CHANGES + 1).to_string();
        assert!(kept.first().unwrap().to_string().contains("2 "));
        assert!(kept.last().unwrap().to_string().contains(&newest));
    }
}
