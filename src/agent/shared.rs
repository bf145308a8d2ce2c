//! What the agent's three threads share: the loop decides, the worker runs passes, the watcher
//! hears the kernel and puts back what has gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::RepairLimiter;
use crate::plan::{Goal, ObjectKey, Step};
use crate::reconcile::InForce;

/// Steps kept for the journal between two passes; the total tells the rest.
const KEPT_STEPS: usize = crate::journal::MAX_LISTED;
/// For ten milliseconds a pause waits for a repair to end.
const REPAIR_POLLS: u32 = 40;
const REPAIR_POLL: Duration = Duration::from_micros(250);
/// Causes kept by name between two passes.
const KEPT_CAUSES: usize = 8;
/// Names of those who change our objects that are remembered: no host has so many at once.
const KEPT_CULPRITS: usize = 256;

/// Locks, whatever became of an earlier holder: the values below are whole at every point at
/// which a holder may panic.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the watcher has noticed since the loop last looked.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// When something came that only a pass can answer.
    pub event: Option<Instant>,
    /// When something came that is mended already, or that isn't urgent.
    pub mended_at: Option<Instant>,
    /// Notifications were lost.
    pub lost: u64,
    /// When a link, an address or a default route changed last: routes may have gone with it.
    pub link_changed: Option<Instant>,
    /// A link came or a default route changed: the source may be within reach again.
    pub way_changed: bool,
    /// What the events were, in words, a few of them.
    pub causes: Vec<String>,
    /// What was put back.
    pub steps: Vec<Step>,
    /// How many steps that were.
    pub steps_total: u64,
    /// The same by kind of object.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Objects that were put back too often: they are left alone for a pause that began.
    pub refused: Vec<ObjectKey>,
    /// The watcher has ended, and why.
    pub deaf: Option<String>,
}

impl Noticed {
    pub fn cause(&mut self, cause: impl FnOnce() -> String) {
        if self.causes.len() < KEPT_CAUSES {
            let cause = cause();
            if !self.causes.contains(&cause) {
                self.causes.push(cause);
            }
        }
    }

    pub fn mended(&mut self, steps: Vec<Step>, now: Instant) {
        self.mended_at = Some(now);
        self.steps_total += steps.len() as u64;
        for step in steps {
            *self.by_kind.entry(step.object()).or_default() += 1;
            if self.steps.len() < KEPT_STEPS {
                self.steps.push(step);
            }
        }
    }
}

/// Shared by the threads.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What is in force; `None` while a pass changes it, and while nobody knows.
    in_force: Mutex<Option<Arc<InForce>>>,
    /// `flush` has taken everything away, or is about to: nothing is put back.
    paused: AtomicBool,
    /// A pause has begun since a pass last asked: what is missing was taken away on purpose.
    flushed: AtomicBool,
    /// SIGTERM came: a pass ends at its next step.
    stopping: AtomicBool,
    /// A pass of ours has the lock of the state dir.
    passing: AtomicBool,
    /// One at a time changes the kernel: the watcher, or a pass that wants something else than
    /// what is in force.
    pub turn: Mutex<()>,
    /// Repairs by object.
    pub limiter: Mutex<RepairLimiter<ObjectKey>>,
    /// Who changed an object last, as far as known.
    pub culprits: Mutex<BTreeMap<ObjectKey, String>>,
    /// For the loop.
    pub noticed: Mutex<Noticed>,
    /// Wakes the loop.
    pub wake: Notify,
}

impl Shared {
    /// What the watcher may put back.
    pub fn in_force(&self) -> Option<Arc<InForce>> {
        locked(&self.in_force).clone()
    }

    /// Nothing may be put back until the next [`Shared::arm`].
    pub fn disarm(&self) {
        *locked(&self.in_force) = None;
    }

    /// This is in force, unless a pause came in between.
    pub fn arm(&self, in_force: Arc<InForce>) {
        let mut place = locked(&self.in_force);
        *place = (!self.is_paused()).then_some(in_force);
    }

    /// Whether that is what the watcher puts back to, too.
    pub fn heads_for(&self, goal: &Goal) -> bool {
        self.in_force()
            .is_some_and(|in_force| in_force.goal == *goal)
    }

    pub fn pass_began(&self) {
        self.passing.store(true, Ordering::SeqCst);
    }

    pub fn pass_ended(&self) {
        self.passing.store(false, Ordering::SeqCst);
    }

    /// Whether the lock of the state dir is this process's own.
    pub fn is_passing(&self) -> bool {
        self.passing.load(Ordering::SeqCst)
    }

    /// Begins a pause. On return, no repair runs and none begins.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.flushed.store(true, Ordering::SeqCst);
        self.disarm();
        // A repair that had begun takes well under a millisecond. A pass keeps the turn longer;
        // whoever wants to change something waits for that one's lock.
        for _ in 0..REPAIR_POLLS {
            if self.turn.try_lock().is_ok() {
                break;
            }
            std::thread::sleep(REPAIR_POLL);
        }
    }

    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Whether there was a pause since this was last asked.
    pub fn take_flushed(&self) -> bool {
        self.flushed.swap(false, Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.disarm();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Remembers who changed an object.
    pub fn blame(&self, object: ObjectKey, who: String) {
        let mut culprits = locked(&self.culprits);
        if culprits.len() >= KEPT_CULPRITS && !culprits.contains_key(&object) {
            culprits.pop_first();
        }
        culprits.insert(object, who);
    }

    /// Who changed an object last.
    pub fn culprit(&self, object: &ObjectKey) -> String {
        let culprits = locked(&self.culprits);
        culprits
            .get(object)
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned())
    }
}
