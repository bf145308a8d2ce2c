//! The worker of the vpc role: a thread that runs passes over the VPC one after the other, while the
//! loop answers requests, pings the watchdog and handles signals.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::super::{in_force, journal_line};
use crate::config::Config;
use crate::journal::Record;
use crate::reconcile::{Asking, Cause, Mode, Options};
use crate::source::child::Asker;
use crate::vpc::error::VpcError;
use crate::vpc::observe::EntryCache;
use crate::vpc::pass::{PassMemory, pass};
use crate::vpc::report::VpcReport;
use crate::vpc::session::Session;

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
}

/// A pass.
pub(super) struct PassOrder {
    pub config: Arc<Config>,
    pub options: Options,
}

/// The end of a pass.
pub(super) struct Ended {
    /// `None` for a pass that was given up, at the end of the process or for a pause.
    pub report: Option<VpcReport>,
    pub cause: Cause,
    /// True if the source was to be asked.
    pub asked: bool,
    /// `None` while the region is unknown.
    pub region: Option<String>,
    pub started: Instant,
    pub ended: Instant,
}

/// Starts the worker's thread, which ends when the sender is dropped. A pass is given up while `halt`
/// is true.
///
/// # Errors
/// The system refuses a thread or a runtime.
pub(super) fn start(
    asker: Asker,
    halt: watch::Receiver<bool>,
    ended: UnboundedSender<Ended>,
) -> std::io::Result<Sender<Order>> {
    let (orders, waiting) = mpsc::channel();
    // The connections to EC2 live as long as this runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let worker = Worker {
        asker,
        halt,
        session: None,
        memory: PassMemory::default(),
    };
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || worker.run(&runtime, &waiting, &ended))?;
    Ok(orders)
}

struct Worker {
    asker: Asker,
    halt: watch::Receiver<bool>,
    /// The client of the last pass, with its settings.
    session: Option<(Arc<Config>, Session)>,
    memory: PassMemory,
}

impl Worker {
    fn run(
        mut self,
        runtime: &tokio::runtime::Runtime,
        orders: &Receiver<Order>,
        ended: &UnboundedSender<Ended>,
    ) {
        for order in orders {
            match order {
                Order::Pass(order) => {
                    let over = runtime.block_on(self.pass(*order));
                    if ended.send(over).is_err() {
                        return;
                    }
                }
                Order::Write { state_dir, record } => {
                    journal_line::write(&state_dir, record, |_locked| {})
                }
                Order::Since { state_dir, since } => in_force::store(&state_dir, since),
            }
        }
    }

    async fn pass(&mut self, order: PassOrder) -> Ended {
        let started = Instant::now();
        let (cause, asked) = (
            order.options.cause,
            order.options.asking == Asking::Source && order.options.mode == Mode::Apply,
        );
        let mut halt = self.halt.clone();
        let report = tokio::select! {
            // A dropped pass ends between two calls, or during one: both leave each address of the old
            // and the new state on its path.
            _ = halt.wait_for(|halt| *halt) => None,
            report = self.run_pass(order) => Some(report),
        };
        let session = self.session.as_ref();
        Ended {
            report,
            cause,
            asked,
            region: session.map(|(_, session)| session.region.to_string()),
            started,
            ended: Instant::now(),
        }
    }

    async fn run_pass(&mut self, order: PassOrder) -> VpcReport {
        let PassOrder { config, options } = order;
        if options.mode == Mode::DryRun {
            // Settings under test have a client of their own.
            return match Session::open(&config).await {
                Ok(session) => {
                    let mut memory = self.memory_for(EntryCache::default());
                    pass(&session.ec2, &session.config, &options, &mut memory).await
                }
                Err(error) => VpcReport::failed(options.mode, &error),
            };
        }
        if options.cause == Cause::Resync {
            // A resync reads everything anew.
            self.memory.entries = EntryCache::default();
            self.memory.documents.forget();
        }
        if let Err(error) = self.open(&config).await {
            return VpcReport::failed(options.mode, &error);
        }
        self.memory.asker = Some(self.asker.clone());
        match &self.session {
            Some((_, session)) => {
                pass(&session.ec2, &session.config, &options, &mut self.memory).await
            }
            // `open` has just set the session.
            None => VpcReport::new(options.mode),
        }
    }

    fn memory_for(&self, entries: EntryCache) -> PassMemory {
        PassMemory {
            entries,
            waits: self.memory.waits,
            asker: Some(self.asker.clone()),
            ..PassMemory::default()
        }
    }

    /// Opens a client, unless there is one of the same settings. The client keeps credentials and
    /// connections.
    async fn open(&mut self, config: &Arc<Config>) -> Result<(), VpcError> {
        let session = self.session.take();
        let same = session.filter(|(known, _)| Arc::ptr_eq(known, config));
        self.session = match same {
            Some(session) => Some(session),
            None => {
                // Values that the disk has refused outlive the settings.
                self.memory.entries = EntryCache::default();
                Some((Arc::clone(config), Session::open(config).await?))
            }
        };
        Ok(())
    }
}
