//! The options of a pass.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::in_force::InForce;
use crate::health::Health;
use crate::journal::WayChange;
use crate::plan::{ObjectKey, Step};
use crate::types::{Region, SyncToken};

/// How far a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Change the kernel and the state dir.
    #[default]
    Apply,
    /// Stop after the plan; write nothing.
    DryRun,
    /// Store the judged document and leave the kernel alone, as for a machine image.
    CacheOnly,
    /// Judge the document; write nothing and leave the kernel alone.
    CacheOnlyDryRun,
}

impl Mode {
    /// The mode that the two flags of the command line ask for.
    pub fn of(dry_run: bool, cache_only: bool) -> Mode {
        match (dry_run, cache_only) {
            (false, false) => Mode::Apply,
            (true, false) => Mode::DryRun,
            (false, true) => Mode::CacheOnly,
            (true, true) => Mode::CacheOnlyDryRun,
        }
    }

    /// True if the state dir may be written, which needs the lock.
    pub fn writes(self) -> bool {
        matches!(self, Mode::Apply | Mode::CacheOnly)
    }

    /// True if the pass ends with the judgement of the document.
    pub fn documents_only(self) -> bool {
        matches!(self, Mode::CacheOnly | Mode::CacheOnlyDryRun)
    }
}

/// The documents that a pass judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asking {
    /// The document of the source, against the last known good.
    #[default]
    Source,
    /// The last known good alone; no source is contacted.
    Nobody,
    /// The document of the source alone, as on a new machine.
    SourceAlone,
}

/// The reason for a pass. [`Cause::as_str`] is the word in the journal and the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    #[default]
    Reconcile,
    Start,
    /// A control client requested a pass.
    Kick,
    /// New settings are in use.
    Config,
    Document,
    /// Kernel notifications report changes.
    Drift,
    Retry,
    /// The pause of a fought object is over.
    Conflict,
    /// A full check, due by the clock.
    Resync,
    /// New settings are tried by a dry run.
    Reload,
    /// The watcher repaired single objects before the pass.
    Repair,
    /// Probes have found other ways well or down.
    Probe,
    /// An operator has drained a gateway, or undone it.
    Drain,
}

words!(Cause {
    Reconcile => "reconcile",
    Start => "start",
    Kick => "kick",
    Config => "config",
    Document => "document",
    Drift => "drift",
    Retry => "retry",
    Conflict => "conflict",
    Resync => "resync",
    Reload => "reload",
    Repair => "mended",
    Probe => "probe",
    Drain => "drain",
});

/// Options of a pass that an agent runs beside a watcher, which repairs single objects and
/// requests another pass for every change.
///
/// So a watched pass answers for its own steps only: an unrelated object that disappears
/// meanwhile is left to the watcher and to the next pass. A pass without changes leaves no line
/// in the journal, since an agent runs many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// Fought objects whose pause lasts: not written by this pass.
    pub paused: BTreeSet<ObjectKey>,
    /// Fought objects whose pause is over: written once by this pass.
    pub contested: BTreeSet<ObjectKey>,
    /// Repairs by the watcher since the last pass, for the journal.
    pub repaired: Vec<Step>,
    /// The result of the last pass under the same settings. A refused pass restores missing
    /// objects of it.
    pub earlier: Option<Arc<InForce>>,
}

/// The options of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub mode: Mode,
    /// The token of `--accept`: the operator's approval of a held document.
    pub accept: Option<SyncToken>,
    /// The region of `--accept-region`: the operator's approval of a held region.
    pub accept_region: Option<Region>,
    pub asking: Asking,
    pub cause: Cause,
    /// Flush state files to the disk before going on. Off in tests and benchmarks only.
    pub sync: bool,
    /// Set by an agent.
    pub watched: Option<Watched>,
    /// The ways out of use by the verdict of probes.
    pub health: Health,
    /// True if `health` is the verdict of an earlier agent, which the kernel must confirm.
    pub former_health: bool,
    /// The drained gateways, as an agent knows them; `None` to read the state dir.
    pub drained: Option<BTreeSet<IpAddr>>,
    /// Changes of the use of ways since the last pass, for the journal.
    pub ways: Vec<WayChange>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mode: Mode::default(),
            accept: None,
            accept_region: None,
            asking: Asking::default(),
            cause: Cause::default(),
            sync: true,
            watched: None,
            health: Health::default(),
            former_health: false,
            drained: None,
            ways: Vec::new(),
        }
    }
}
