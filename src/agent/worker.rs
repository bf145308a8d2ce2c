//! The worker: a thread that runs passes one after the other, while the loop answers requests,
//! pings the watchdog and handles signals.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::effort::Effort;
use super::shared::{Shared, locked};
use super::{in_force, journal_line};
use crate::apply::Interposer;
use crate::config::{AutoOr, Config, Role};
use crate::journal::Record;
use crate::kernel::errno::KernelError;
use crate::kernel::{Kernel, ObserveError};
use crate::plan::{Goal, Step};
use crate::reconcile::{Cause, Gathered, InForce, Memory, Options, Report, pass};
use crate::types::Family;

/// A task of the worker.
pub(super) enum Order {
    Pass(Box<PassOrder>),
    /// Writes a line to the journal.
    Write {
        state_dir: PathBuf,
        record: Box<Record>,
    },
    /// Stores the start of the unbroken time in force, or removes the file.
    Since {
        state_dir: PathBuf,
        since: Option<i64>,
    },
    /// Stores the families whose bypass path is out of use.
    Diverted {
        state_dir: PathBuf,
        families: BTreeSet<Family>,
    },
}

pub(super) struct PassOrder {
    pub config: Arc<Config>,
    pub role: Role,
    pub options: Options,
    pub gathered: Gathered,
}

pub(super) struct Ended {
    pub report: Report,
    pub cause: Cause,
    pub started: Instant,
    pub ended: Instant,
    /// The CPU time.
    pub effort: Duration,
    /// The changed objects had been in force before: another program had changed them.
    pub drift: bool,
    pub in_force: Option<Arc<InForce>>,
}

/// Starts the worker's thread, which ends when the sender is dropped.
///
/// # Errors
/// The system refuses a thread.
pub(super) fn start(
    shared: Arc<Shared>,
    ended: UnboundedSender<Ended>,
) -> std::io::Result<Sender<Order>> {
    let (orders, waiting) = mpsc::channel();
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || run(&waiting, &shared, &ended))?;
    Ok(orders)
}

fn run(orders: &Receiver<Order>, shared: &Shared, ended: &UnboundedSender<Ended>) {
    let mut kernel: Option<Kernel> = None;
    let mut memory = Memory::default();
    let mut last: Option<Arc<InForce>> = None;
    // The settings of `last`.
    let mut last_config: Option<Arc<Config>> = None;
    for order in orders {
        let mut order = match order {
            Order::Pass(order) => *order,
            Order::Write { state_dir, record } => {
                journal_line::write(&state_dir, record, |locked| tell(shared, locked));
                continue;
            }
            Order::Since { state_dir, since } => {
                in_force::store(&state_dir, since);
                continue;
            }
            Order::Diverted {
                state_dir,
                families,
            } => {
                in_force::store_diverted(&state_dir, families);
                continue;
            }
        };
        let started = Instant::now();
        let effort = Effort::now();
        let watched = order.options.watched.is_some();
        if watched && shared.take_flushed() {
            // Objects that the operator flushed on purpose don't count as drift.
            last = None;
        }
        if order.options.cause == Cause::Resync {
            // A resync reads everything anew.
            memory.forget();
        }
        // Only passes that change the kernel protect its tables.
        let protects = watched.then_some(order.config.kernel.protect_table);
        let same = |config: &Arc<Config>| Arc::ptr_eq(config, &order.config);
        if let Some(watched) = &mut order.options.watched
            && last_config.as_ref().is_some_and(same)
        {
            watched.earlier.clone_from(&last);
        }
        let mut conduct = Conduct { shared, turn: None };
        let mut report = pass(
            order.gathered,
            Some(&mut memory),
            &order.config,
            order.role,
            &order.options,
            || opened(&mut kernel, shared, protects),
            Some(&mut conduct),
        );
        shared.pass_ended();
        share_judged(kernel.as_mut(), shared);
        let in_force = report.in_force.take().map(|it| Arc::from(*it));
        let mut drift = false;
        if watched && let Some(in_force) = &in_force {
            drift = last.as_ref().is_some_and(|last| last.goal == in_force.goal);
            // During a pause `flush` is about to delete these objects: no drift either.
            last = (!shared.is_paused()).then(|| Arc::clone(in_force));
            last_config = Some(Arc::clone(&order.config));
            shared.arm(Arc::clone(in_force));
        }
        drop(conduct);
        let over = Ended {
            report,
            cause: order.options.cause,
            started,
            ended: Instant::now(),
            effort: effort.elapsed(),
            drift,
            in_force,
        };
        if ended.send(over).is_err() {
            return;
        }
    }
}

/// Tells the watcher that the lock is held, and that its holder is done.
fn tell(shared: &Shared, locked: bool) {
    if locked {
        shared.pass_began();
    } else {
        shared.pass_ended();
    }
}

/// The worker's kernel. A pass opens the kernel with the lock held: no other process runs a pass.
fn opened<'k>(
    kernel: &'k mut Option<Kernel>,
    shared: &Shared,
    protects: Option<AutoOr<bool>>,
) -> Result<&'k mut Kernel, ObserveError> {
    shared.pass_began();
    if let Some(wanted) = protects {
        shared.protect(wanted);
    }
    match kernel {
        Some(kernel) => Ok(kernel),
        none => Ok(none.insert(Kernel::open()?.protect(&shared.protection))),
    }
}

/// Tells the poll of iptables-legacy the chains that the pass has judged.
fn share_judged(kernel: Option<&mut Kernel>, shared: &Shared) {
    if let Some(judged) = kernel.and_then(Kernel::take_judged) {
        shared.judged(judged);
    }
}

/// Keeps the watcher from changing objects during a pass with another goal, and ends the pass at
/// the end of the process or at the beginning of a pause.
struct Conduct<'a> {
    shared: &'a Shared,
    turn: Option<MutexGuard<'a, ()>>,
}

impl Interposer for Conduct<'_> {
    fn heads_for(&mut self, goal: &Goal) {
        // With the same goal the watcher continues: an object deleted while the pass reads and
        // verifies would otherwise stay away until the next pass.
        if self.shared.heads_for(goal) || self.turn.is_some() {
            return;
        }
        self.shared.disarm();
        // A running repair ends within a millisecond.
        self.turn = Some(locked(&self.shared.turn));
    }

    fn before(&mut self, _index: usize, _step: &Step) -> Option<KernelError> {
        None
    }

    fn batches(&self) -> bool {
        true
    }

    fn stops(&self) -> bool {
        // In a pause too: a pass that waited for the lock during `flush` would restore everything
        // that `flush` has deleted.
        self.shared.is_stopping() || self.shared.is_paused()
    }
}
