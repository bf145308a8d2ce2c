//! The result of a pass, for people and programs.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::in_force::InForce;
use super::{BackendChoice, Mode, PassError};
use crate::config::Role;
use crate::degraded::{self, Degradation, Part};
use crate::exit;
use crate::firewall::{BackendKind, ObservedFirewall, OwnedFirewall};
use crate::guard::{GuardState, Judgement, Verdict};
use crate::notes::Notes;
use crate::observed::ObservedState;
use crate::plan::{Devices, ObjectKey, Plan, Step, json as plan_json};
use crate::ranges::Group;
use crate::state::error::StateFault;
use crate::types::{PerFamily, SyncToken};

/// The end of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    InSync,
    Changed,
    /// A dry run found changes.
    Pending,
    /// The guard holds a document or a part of it; the rest is in force.
    Held,
    /// Stopped between two steps: the steps before are valid, the next pass does the rest.
    Stopped,
    /// Failed, and our objects are as they were before the pass.
    RolledBack,
    /// No document yet: a source is to be asked after this pass. Everything else is in force.
    Waiting,
    Failed,
}

words!(Outcome {
    InSync => "in_sync",
    Changed => "changed",
    Pending => "pending",
    Held => "held",
    Stopped => "stopped",
    RolledBack => "rolled_back",
    Waiting => "waiting",
    Failed => "failed",
});

impl Outcome {
    /// The exit code for scripts.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::InSync | Outcome::Changed => exit::OK,
            Outcome::Pending => exit::PENDING,
            Outcome::Held => exit::HELD,
            Outcome::Stopped | Outcome::RolledBack | Outcome::Waiting | Outcome::Failed => {
                exit::FAILED
            }
        }
    }
}

/// How many of the steps are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// None: a dry run, a failure before the first step, or a rollback.
    None,
    /// Some, without a rollback.
    Part,
    /// All, verified.
    All,
}

/// The result of asking the source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FetchOutcome {
    #[default]
    NotAsked,
    /// The document in force is the newest of the source.
    Unchanged,
    /// A new document is in force.
    Changed,
    /// The new document, or a part of it, is held.
    Held,
    /// The answer can't be used, for this reason.
    Rejected(String),
    /// No answer came, for this reason.
    Failed(String),
}

/// The time spent on each stage, in the order of first appearance. Repeated stages are summed up.
#[derive(Debug)]
pub(super) struct Laps {
    stages: Vec<(&'static str, Duration)>,
    last: Instant,
}

impl Laps {
    /// Starts the first stage.
    pub fn start() -> Laps {
        Laps {
            stages: Vec::new(),
            last: Instant::now(),
        }
    }

    /// Ends a stage: the time since the last end was spent on it.
    pub fn end(&mut self, stage: &'static str) {
        let now = Instant::now();
        let spent = now.duration_since(std::mem::replace(&mut self.last, now));
        add_stage(&mut self.stages, stage, spent);
    }

    /// The stages with their times.
    pub fn into_stages(self) -> Vec<(&'static str, Duration)> {
        self.stages
    }
}

fn add_stage(stages: &mut Vec<(&'static str, Duration)>, stage: &'static str, spent: Duration) {
    match stages.iter_mut().find(|(name, _)| *name == stage) {
        Some((_, sum)) => *sum += spent,
        None => stages.push((stage, spent)),
    }
}

/// The result of a pass. Only the pass writes to it; each stage returns values and notes.
#[derive(Debug)]
pub struct Report {
    pub outcome: Outcome,
    pub role: Role,
    pub mode: Mode,
    pub sync_token: Option<SyncToken>,
    /// The date of the document in force, in the format of AWS.
    pub create_date: String,
    /// Counts of selected prefixes.
    pub selected: PerFamily<usize>,
    /// Counts of routes: the prefixes after aggregation, include, exclude and hold-down.
    pub aggregated: PerFamily<usize>,
    /// The steps, carried out or pending.
    pub plan: Plan,
    pub verdicts: Vec<Verdict>,
    /// True if one of the verdicts holds.
    pub held: bool,
    pub fetch: FetchOutcome,
    /// True if the pass failed only for want of a document or a region. Everything else is in force.
    pub without_document: bool,
    /// Counts of prefixes in force before aggregation, by service, region and family.
    pub groups: Vec<(Group, usize)>,
    pub guard_state: GuardState,
    pub notes: Notes,
    /// Parts that are missing, the most important part first.
    pub degraded: Vec<Degradation>,
    pub backend: Option<BackendChoice>,
    pub error: Option<String>,
    pub duration: Duration,
    pub stages: Vec<(&'static str, Duration)>,
    pub devices: Devices,
    pub applied: Applied,
    /// Objects that differ from the goal and were left alone, since another program keeps undoing
    /// our changes.
    pub fought: BTreeSet<ObjectKey>,
    /// The state in force, once the pass has reached or found it.
    pub in_force: Option<Box<InForce>>,
    /// True once the journal has the last line of the pass.
    pub is_recorded: bool,
    judged: bool,
}

/// A fault of the state dir as a missing part. No other part waits for the disk.
pub fn state_fault(fault: impl Into<StateFault>) -> Degradation {
    const HARMLESS: &str = "only withdrawals of prefixes wait";
    let StateFault { reason, advice } = fault.into();
    let advice = match advice {
        "" => HARMLESS.to_owned(),
        advice => format!("{advice}; {HARMLESS}"),
    };
    Degradation::new(Part::State, None, reason).with_advice(advice)
}

impl Report {
    /// An empty report.
    pub fn new(role: Role, mode: Mode) -> Self {
        Report {
            outcome: Outcome::InSync,
            role,
            mode,
            sync_token: None,
            create_date: String::new(),
            selected: PerFamily::default(),
            aggregated: PerFamily::default(),
            plan: Plan::default(),
            verdicts: Vec::new(),
            held: false,
            fetch: FetchOutcome::NotAsked,
            without_document: false,
            groups: Vec::new(),
            guard_state: GuardState::default(),
            notes: Notes::default(),
            degraded: Vec::new(),
            backend: None,
            error: None,
            duration: Duration::ZERO,
            stages: Vec::new(),
            devices: Devices::default(),
            applied: Applied::None,
            fought: BTreeSet::new(),
            in_force: None,
            is_recorded: false,
            judged: false,
        }
    }

    /// The report of a pass that failed before its start.
    pub(super) fn failed(role: Role, mode: Mode, error: &PassError) -> Self {
        let mut report = Report::new(role, mode);
        report.fail(error);
        report
    }

    /// Adds the steps of a pass just before this one, for the same command.
    pub(super) fn follow(&mut self, early: Report) {
        if early.plan.is_empty() || early.applied == Applied::None {
            return;
        }
        if self.outcome == Outcome::InSync {
            self.outcome = Outcome::Changed;
        }
        if self.applied == Applied::None {
            self.applied = early.applied;
        }
        self.plan.steps.splice(0..0, early.plan.steps);
    }

    /// Adds the time of questions asked before the pass.
    pub(super) fn add_source_time(&mut self, took: Duration) {
        self.duration += took;
        add_stage(&mut self.stages, "source", took);
    }

    /// Takes over the judgement of the guard.
    pub fn take_judgement(&mut self, judgement: &Judgement) {
        self.judged = true;
        self.sync_token = judgement.ranges.sync_token;
        self.create_date.clone_from(&judgement.ranges.create_date);
        self.selected = judgement.ranges.selected;
        self.aggregated = judgement.ranges.aggregated();
        self.verdicts.clone_from(&judgement.verdicts);
        self.held = judgement.held;
        self.groups = judgement.ranges.selected_groups();
        self.guard_state.clone_from(&judgement.state);
        self.degrade(&judgement.degraded);
        if self.held {
            self.outcome = Outcome::Held;
        }
    }

    /// Adds missing parts.
    pub fn degrade(&mut self, missing: &[Degradation]) {
        degraded::merge(&mut self.degraded, missing.iter().cloned());
    }

    /// Adds a fault of the state dir.
    pub(super) fn degrade_state(&mut self, fault: impl Into<StateFault>) {
        self.degrade(&[state_fault(fault)]);
    }

    /// The exit code for scripts: a missing part is a failure, unless steps are pending or held.
    pub fn exit_code(&self) -> u8 {
        match self.outcome.exit_code() {
            exit::OK if !self.degraded.is_empty() => exit::FAILED,
            code => code,
        }
    }

    /// True after the judgement of the guard. Before, the document in force is unknown.
    pub fn was_judged(&self) -> bool {
        self.judged
    }

    /// Takes over the plan.
    pub fn take_plan(&mut self, plan: Plan) {
        if self.mode == Mode::DryRun && !plan.is_empty() {
            self.outcome = Outcome::Pending;
        }
        self.plan = plan;
    }

    /// Takes out the steps of firewalls that hold the same rules as `before`: the kernel refused
    /// the rest of the policy again.
    pub(super) fn drop_idle(
        &mut self,
        before: &BTreeMap<BackendKind, OwnedFirewall>,
        observed: &ObservedState,
    ) {
        self.plan.steps.retain(|step| match step {
            Step::Firewall { backend, .. } => match observed.firewalls.get(backend) {
                Some(ObservedFirewall::Owned(now)) => before
                    .get(backend)
                    .is_none_or(|before| before.text != now.text),
                Some(ObservedFirewall::Absent) => before.contains_key(backend),
                _ => true,
            },
            _ => true,
        });
    }

    /// Sets the error and derives how many steps are carried out.
    pub fn fail(&mut self, error: &PassError) {
        self.applied = match (self.outcome, error) {
            (Outcome::Changed, _) => Applied::All,
            (_, PassError::RollbackFailed { .. } | PassError::Stopped) => Applied::Part,
            _ if self.applied == Applied::Part => Applied::Part,
            _ => Applied::None,
        };
        match error {
            PassError::Stopped => self.outcome = Outcome::Stopped,
            _ if self.outcome == Outcome::RolledBack => {}
            _ => self.outcome = Outcome::Failed,
        }
        self.without_document = matches!(error, PassError::NoDocument(_) | PassError::NoRegion(_));
        let asked = self.fetch != FetchOutcome::NotAsked;
        if matches!(error, PassError::NoDocument(_)) && !asked && self.outcome == Outcome::Failed {
            self.outcome = Outcome::Waiting;
        }
        self.error = Some(error.to_string());
    }

    /// Derives the final outcome: a failure beats a hold, a hold beats anything else.
    pub fn settle(&mut self) {
        if self.error.is_none() && self.mode == Mode::Apply {
            self.applied = Applied::All;
        }
        let would_store = self.mode == Mode::CacheOnlyDryRun && self.fetch == FetchOutcome::Changed;
        if would_store && self.outcome == Outcome::InSync {
            self.outcome = Outcome::Pending;
        }
        let soft = matches!(
            self.outcome,
            Outcome::InSync | Outcome::Changed | Outcome::Pending
        );
        if self.held && soft {
            self.outcome = Outcome::Held;
        }
    }

    /// The digest of the held selection.
    pub(super) fn held_digest(&self) -> Option<&str> {
        let hold = self.guard_state.hold.as_ref().filter(|_| self.held)?;
        Some(&hold.digest)
    }

    /// The object that `reconcile -o json` prints.
    pub fn to_json(&self) -> Value {
        json!({
            "outcome": self.outcome.as_str(),
            "role": self.role.as_str(),
            "dry_run": !self.mode.writes(),
            "sync_token": self.sync_token,
            "create_date": self.create_date,
            "selected": self.selected,
            "aggregated": self.aggregated,
            "applied": self.applied,
            "steps": plan_json::values(&self.plan.steps, usize::MAX, &self.devices),
            "conflicts": self.plan.conflicts.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(),
            "verdicts": self.verdicts,
            "notes": self.distinct_notes(),
            "degraded": self.degraded,
            "firewall": self.backend.as_ref().map(|backend| json!({
                "backend": backend.kind.as_str(),
                "reason": backend.reason,
            })),
            "error": self.error,
            "duration_ms": u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            "stages_ms": self.stages.iter()
                .map(|(stage, spent)| ((*stage).to_owned(), json!(spent.as_secs_f64() * 1e3)))
                .collect::<serde_json::Map<_, _>>(),
        })
    }

    fn distinct_notes(&self) -> Vec<&str> {
        let mut seen = Vec::new();
        for note in self.notes.texts() {
            if !seen.contains(&note) {
                seen.push(note);
            }
        }
        seen
    }
}
