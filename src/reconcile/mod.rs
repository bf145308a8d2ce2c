//! One pass, left to right: the only place that knows every stage.

mod documents;
mod examine;
mod execute;
mod fetch_path;
mod gather;
pub mod instance;
mod memory;
mod persist;
pub mod report;
mod restore;
mod view;

use std::borrow::BorrowMut;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;

use crate::apply::Interposer;
use crate::config::{Config, Role};
use crate::desired::DesiredError;
use crate::guard::AcceptError;
use crate::journal::{Journal, MAX_LISTED, PassId, Record};
use crate::kernel::firewall::FirewallError;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::privilege::has_net_admin;
use crate::kernel::{Kernel, ObserveError};
use crate::ownership::{Numbers, Ownership};
use crate::plan::{ObjectKey, Step};
use crate::source::imds::ImdsError;
use crate::state::StateFile;
use crate::state::error::{ReadError, StateError};
use crate::state::lock::{LockError, PassLock};
use crate::state::store::Store;
use crate::types::SyncToken;

pub use examine::{Examined, examine};
pub use gather::{Gathered, gather};
pub use memory::Memory;
pub use report::{Fetch, InForce, Outcome, Report};
pub use view::{BackendChoice, Firewalls, View};

/// How long a pass waits for another one to end.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Which documents a pass goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asking {
    /// The source's, judged against the last known good.
    #[default]
    Source,
    /// What is in force already; nobody is asked.
    Nobody,
    /// The source's by itself, as if it were the first one.
    SourceAlone,
}

/// What a pass is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Stop after the plan; write nothing anywhere.
    pub dry_run: bool,
    /// Fetch, judge and store the document; leave the kernel alone.
    pub cache_only: bool,
    /// The operator's word for a held document.
    pub accept: Option<SyncToken>,
    /// Which documents it goes by.
    pub asking: Asking,
    /// Why the pass runs, for the journal.
    pub cause: String,
    /// Whether state reaches the disk before the pass goes on; off for benchmarks only.
    pub sync: bool,
    /// Objects that are left as they are although they drifted: another program keeps changing
    /// them back.
    pub withheld: BTreeSet<ObjectKey>,
    /// Objects that were, and may be mended again: once, whatever becomes of that.
    pub fought: BTreeSet<ObjectKey>,
    /// What was put back already, step by step, since the last pass: for the journal.
    pub mended: Vec<Step>,
    /// Whether a pass that finds everything in sync leaves no line in the journal: an agent's
    /// are many.
    pub quiet: bool,
    /// Somebody hears what changes while the pass runs, and mends it or runs another pass: what
    /// others take away meanwhile is no reason to take this pass's work back.
    pub watched: bool,
    /// What was in force last, under these very settings: a pass that is refused puts back what
    /// has gone of it.
    pub earlier: Option<Arc<InForce>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            dry_run: false,
            cache_only: false,
            accept: None,
            asking: Asking::Source,
            cause: "reconcile".to_owned(),
            sync: true,
            withheld: BTreeSet::new(),
            fought: BTreeSet::new(),
            mended: Vec::new(),
            quiet: false,
            watched: false,
            earlier: None,
        }
    }
}

/// Why a pass failed.
#[derive(Debug, Error)]
pub enum PassError {
    /// No right to change the kernel.
    #[error(
        "changing routes, rules and firewall needs CAP_NET_ADMIN: run as root (sudo trailblazer …); --dry-run needs no privilege"
    )]
    NoPrivilege,
    /// Another pass runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel can't be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The state dir can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The state dir or the journal can't be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// `--accept` doesn't fit.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The metadata service is needed and silent.
    #[error("metadata service: {error}; it is needed for {setting}")]
    Instance {
        /// What it said.
        #[source]
        error: ImdsError,
        /// Which setting needs it.
        setting: &'static str,
    },
    /// The host doesn't fit the settings.
    #[error(transparent)]
    Desired(#[from] DesiredError),
    /// The firewall fails.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// No firewall to carry the rules.
    #[error("no firewall can carry our rules: {0}")]
    NoFirewall(String),
    /// Something foreign is where ours should go.
    #[error("conflict: {}; nothing was changed", .0.join("; "))]
    Conflict(Vec<String>),
    /// Applied, but not as promised; what was ours before is back.
    #[error("{reason}; rolled back: what was ours before the pass is in force again")]
    RolledBack {
        /// What went wrong.
        reason: String,
    },
    /// Applied, not as promised, and the way back failed too.
    #[error(
        "{reason}; the rollback failed too: {rollback}; run `trailblazer reconcile` again, or `trailblazer flush` to take everything of ours away"
    )]
    RollbackFailed {
        /// What went wrong first.
        reason: String,
        /// What went wrong then.
        rollback: String,
    },
    /// Which region is selected is unknown, so no document can be judged.
    #[error("{0}; until then, the bypass path keeps what it has")]
    NoRegion(String),
    /// The process was told to end.
    #[error("stopped between two steps; the next pass goes on from there")]
    Stopped,
    /// There never was a document, and there is none now.
    #[error("no document: {0}; until one comes, the bypass path keeps what it has")]
    NoDocument(String),
}

impl From<NetlinkError> for PassError {
    fn from(error: NetlinkError) -> Self {
        PassError::Observe(ObserveError::Netlink(error))
    }
}

/// Now, in seconds since the epoch; a clock before 1970 counts as 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A pass and what it needs.
pub(crate) struct Pass<'a> {
    pub config: &'a Config,
    pub role: Role,
    pub options: &'a Options,
    pub store: Store,
    pub journal: Journal,
    pub id: PassId,
    pub started: Instant,
    pub report: Report,
    /// What `numbers.json` holds; nobody else writes it while we have the lock.
    pub stored_numbers: Option<Vec<Numbers>>,
    /// What was asked ahead of the pass; `None`: it asks itself.
    pub gathered: Option<Gathered>,
    /// What is known from earlier passes of this process.
    pub memory: Option<&'a mut Memory>,
}

/// Runs one pass, which asks the outside world by itself. Whatever happens is in the report.
pub async fn pass<K: BorrowMut<Kernel>>(
    config: &Config,
    role: Role,
    options: &Options,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let pass = Pass::new(config, role, options);
    pass.run_to_its_end(kernel, interposer).await
}

/// Runs one pass on answers that were gathered before: it waits for nobody but the lock. What it
/// learns of the documents is left to the next one, but for a dry run's.
pub async fn pass_on<K: BorrowMut<Kernel>>(
    gathered: Gathered,
    memory: &mut Memory,
    config: &Config,
    role: Role,
    options: &Options,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let mut pass = Pass::new(config, role, options);
    pass.gathered = Some(gathered);
    pass.memory = Some(memory).filter(|_| !options.dry_run);
    pass.run_to_its_end(kernel, interposer).await
}

impl Pass<'_> {
    async fn run_to_its_end<K: BorrowMut<Kernel>>(
        self,
        kernel: impl FnOnce() -> Result<K, ObserveError>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Report {
        let mut pass = self;
        pass.report.cache_only = pass.options.cache_only;
        if let Err(error) = pass.run(kernel, interposer).await {
            pass.report.fail(&error);
        }
        pass.report.settle();
        pass.report.duration = pass.started.elapsed();
        pass.write_end();
        pass.report
    }
}

impl<'a> Pass<'a> {
    pub(crate) fn new(config: &'a Config, role: Role, options: &'a Options) -> Self {
        let state_dir = &config.source.state_dir;
        Pass {
            config,
            role,
            options,
            store: Store::open(state_dir).with_sync(options.sync),
            journal: Journal::new(state_dir).with_sync(options.sync),
            id: PassId::new(Timestamp::now()),
            started: Instant::now(),
            report: Report::new(role, options.dry_run),
            stored_numbers: None,
            gathered: None,
            memory: None,
        }
    }

    async fn run<K: BorrowMut<Kernel>>(
        &mut self,
        kernel: impl FnOnce() -> Result<K, ObserveError>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        let writes_kernel = !self.options.dry_run && !self.options.cache_only;
        if writes_kernel && has_net_admin() == Some(false) {
            return Err(PassError::NoPrivilege);
        }
        let lock = if self.options.dry_run {
            None
        } else {
            let directory = &self.config.source.state_dir;
            Some(PassLock::acquire(
                directory,
                &self.options.cause,
                LOCK_WAIT,
            )?)
        };
        self.report.locked = !self.options.dry_run;
        let warning = lock.as_ref().and_then(PassLock::warning);
        self.report.notes.extend(warning.map(str::to_owned));
        let mut kernel = kernel()?;
        let kernel = kernel.borrow_mut();
        let ownership = self.ownership()?;
        let mut view = view::View::open(self, kernel, ownership, Firewalls::Chosen).await?;
        self.report.end_stage("observe");
        self.write_mended()?;
        let documents = self.documents(&view).await?;
        self.report.take_judgement(&documents.judgement);
        view.prefixes = (!documents.judgement.nothing_in_force)
            .then(|| documents.judgement.ranges.prefixes.clone());
        if self.options.cache_only {
            if !self.options.dry_run {
                self.keep_documents(&documents)?;
            }
            return documents.complaint(self.report.held);
        }
        self.execute(kernel, &mut view, &documents, interposer)?;
        documents.complaint(self.report.held)
    }

    /// Our numbers, and those of earlier configs that the state dir remembers.
    fn ownership(&mut self) -> Result<Ownership, PassError> {
        self.stored_numbers = self.optional(self.store.read_json(StateFile::Numbers))?;
        let earlier = self.stored_numbers.iter().flatten().copied();
        Ok(Ownership::new(Numbers::of(self.config), earlier))
    }

    /// A state file that may be absent. A dry run by somebody who may not read it goes on
    /// without, and says so; a damaged small file is said and replaced by the next write.
    fn optional<T>(&mut self, read: Result<T, ReadError>) -> Result<Option<T>, PassError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) if error.is_damaged() => {
                self.report.notes.push(error.to_string());
                Ok(None)
            }
            Err(error) if self.may_look_only(&error) => {
                self.report.notes.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn may_look_only(&self, error: &ReadError) -> bool {
        self.options.dry_run && error.is_denied()
    }

    /// The line about what was put back before the pass, within a fraction of a millisecond.
    fn write_mended(&self) -> Result<(), PassError> {
        let mended = &self.options.mended;
        if mended.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let id = PassId(format!("{}-mended", self.id));
        let record = Record::end(
            Timestamp::now(),
            id,
            "mended",
            Outcome::Changed.as_str(),
            Duration::ZERO,
        );
        let steps = self.report.steps_json(mended, MAX_LISTED);
        Ok(self
            .journal
            .append(&record.with_first_steps(steps, mended.len()))?)
    }

    /// The line before apply.
    fn write_begin(&self) -> Result<(), PassError> {
        let record = Record::begin(Timestamp::now(), self.id.clone(), &self.options.cause);
        Ok(self.journal.append(&self.filled(record))?)
    }

    fn filled(&self, record: Record) -> Record {
        let steps = &self.report.plan.steps;
        record
            .with_first_steps(self.report.steps_json(steps, MAX_LISTED), steps.len())
            .with_sync_token(self.report.sync_token.map(|token| token.0))
            .with_verdicts(
                self.report
                    .verdicts
                    .iter()
                    .filter_map(|v| serde_json::to_value(v).ok()),
            )
    }

    /// The line after the pass; its failure is a note, since the pass is over.
    fn write_end(&mut self) {
        let quiet = self.options.quiet && self.report.outcome == Outcome::InSync;
        if !self.report.locked || quiet {
            return;
        }
        let record = Record::end(
            Timestamp::now(),
            self.id.clone(),
            &self.options.cause,
            self.report.outcome.as_str(),
            self.report.duration,
        );
        let record = self.filled(record).with_error(self.report.error.clone());
        if let Err(error) = self.journal.append(&record) {
            self.report
                .notes
                .push(format!("the journal lacks this pass: {error}"));
        }
    }
}
