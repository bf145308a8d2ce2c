//! What came of a pass, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BackendChoice, PassError};
use crate::columns::Style;
use crate::config::Role;
use crate::exit;
use crate::facts::HostFacts;
use crate::guard::{GuardState, Judgement, Verdict};
use crate::notes::Notes;
use crate::ownership::Ownership;
use crate::plan::text::{Context, render, totals};
use crate::plan::{Goal, ObjectKey, Plan, Step, json as plan_json};
use crate::ranges::Group;
use crate::types::{Family, IfIndex, PerFamily, SyncToken};

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do.
    InSync,
    /// Changed and verified.
    Changed,
    /// A dry run found changes.
    Pending,
    /// The guard holds something; what it lets through is in force.
    Held,
    /// Told to end between two steps: what is done is right, the next pass does the rest.
    Stopped,
    /// Not as promised; what was ours before is back.
    RolledBack,
    /// Failed.
    Failed,
}

words!(Outcome {
    InSync => "in_sync",
    Changed => "changed",
    Pending => "pending",
    Held => "held",
    Stopped => "stopped",
    RolledBack => "rolled_back",
    Failed => "failed",
});

impl Outcome {
    /// The exit code that scripts see.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::InSync | Outcome::Changed => exit::OK,
            Outcome::Pending => exit::PENDING,
            Outcome::Held => exit::HELD,
            Outcome::Stopped | Outcome::RolledBack | Outcome::Failed => exit::FAILED,
        }
    }
}

/// How much of the steps a pass has carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// Nothing: a dry run, a failure before the first step, or all of it taken back.
    None,
    /// Some steps, and the way back failed too.
    Part,
    /// Every step, verified.
    All,
}

/// What came of asking the source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fetch {
    /// It wasn't asked.
    #[default]
    NotAsked,
    /// The document in force is its newest.
    Unchanged,
    /// Another document is in force now.
    Changed,
    /// Its document, or a part of it, waits.
    Held,
    /// It answered with nothing that may go in force: why.
    Rejected(String),
    /// It didn't answer: why.
    Failed(String),
}

/// What a pass leaves in force: what an agent watches over until the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What lies in the kernel of ours.
    pub goal: Goal,
    /// How ours is told from others'.
    pub ownership: Ownership,
    /// The host as it was seen last.
    pub facts: HostFacts,
}

/// Everything about a pass that somebody may want to know.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The role.
    pub role: Role,
    /// A dry run.
    pub dry_run: bool,
    /// Only the document was looked at.
    pub cache_only: bool,
    /// The document in force.
    pub sync_token: Option<SyncToken>,
    /// Its date, as AWS writes it.
    pub create_date: String,
    /// Selected prefixes.
    pub selected: PerFamily<usize>,
    /// The same after aggregation, include, exclude and hold-down: the routes.
    pub aggregated: PerFamily<usize>,
    /// The steps, done or to do.
    pub plan: Plan,
    /// The guard's verdicts.
    pub verdicts: Vec<Verdict>,
    /// Whether one of them holds.
    pub held: bool,
    /// What came of asking the source.
    pub fetch: Fetch,
    /// It failed for want of a document or a region alone: what needs neither is in force.
    pub without_document: bool,
    /// Prefixes in force by what the document lists them under, before aggregation.
    pub groups: Vec<(Group, usize)>,
    /// What the guard remembers: a hold, hold-downs.
    pub guard_state: GuardState,
    /// What else is worth knowing.
    pub notes: Notes,
    /// The firewall in use.
    pub backend: Option<BackendChoice>,
    /// Why it failed.
    pub error: Option<String>,
    /// From start to end.
    pub duration: Duration,
    /// Where the time went: the stages in the order of their first lap, repeated ones summed up.
    pub stages: Vec<(&'static str, Duration)>,
    /// Names of the interfaces.
    pub devices: BTreeMap<IfIndex, String>,
    /// How much of the steps is carried out.
    pub applied: Applied,
    /// What the pass leaves in force, once it has brought it about or found it so.
    pub in_force: Option<Box<InForce>>,
    /// The guard has judged: before that, which document is in force wasn't looked at.
    judged: bool,
    /// The pass had the lock, so it belongs into the journal.
    pub(super) locked: bool,
    /// The end of the last lap.
    lap: Instant,
}

impl Report {
    /// An empty report.
    pub fn new(role: Role, dry_run: bool) -> Self {
        Report {
            outcome: Outcome::InSync,
            role,
            dry_run,
            cache_only: false,
            sync_token: None,
            create_date: String::new(),
            selected: PerFamily::default(),
            aggregated: PerFamily::default(),
            plan: Plan::default(),
            verdicts: Vec::new(),
            held: false,
            fetch: Fetch::NotAsked,
            without_document: false,
            groups: Vec::new(),
            guard_state: GuardState::default(),
            notes: Notes::default(),
            backend: None,
            error: None,
            duration: Duration::ZERO,
            devices: BTreeMap::new(),
            applied: Applied::None,
            stages: Vec::new(),
            in_force: None,
            judged: false,
            locked: false,
            lap: Instant::now(),
        }
    }

    /// Ends a stage: the time since the last lap was spent on it.
    pub(super) fn end_stage(&mut self, stage: &'static str) {
        let now = Instant::now();
        let spent = now.duration_since(std::mem::replace(&mut self.lap, now));
        match self.stages.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, sum)) => *sum += spent,
            None => self.stages.push((stage, spent)),
        }
    }

    /// Takes over what the guard decided.
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
        if self.held {
            self.outcome = Outcome::Held;
        }
    }

    /// Whether the guard has judged: before that, which document is in force wasn't looked at.
    pub fn was_judged(&self) -> bool {
        self.judged
    }

    /// Takes over the steps.
    pub fn take_plan(&mut self, plan: Plan) {
        if self.dry_run && !plan.is_empty() {
            self.outcome = Outcome::Pending;
        }
        self.plan = plan;
    }

    /// Takes over the steps of a further attempt. Where those before are carried out, somebody
    /// has undone what is done again, and both are told; what was refused is told once.
    pub(super) fn take_more(&mut self, further: &Plan, carried_out: bool) {
        if !carried_out {
            let again: BTreeSet<ObjectKey> = further.steps.iter().map(Step::key).collect();
            self.plan.steps.retain(|step| !again.contains(&step.key()));
        }
        self.plan.steps.extend_from_slice(&further.steps);
    }

    /// Says why the pass failed.
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
        self.error = Some(error.to_string());
    }

    /// Held beats pending and changed; a failure beats all.
    pub fn settle(&mut self) {
        if self.error.is_none() && !self.dry_run && !self.cache_only {
            self.applied = Applied::All;
        }
        let soft = matches!(
            self.outcome,
            Outcome::InSync | Outcome::Changed | Outcome::Pending
        );
        if self.held && soft {
            self.outcome = Outcome::Held;
        }
    }

    fn device_name(&self, index: IfIndex) -> String {
        self.devices
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{index}"))
    }

    pub(super) fn steps_json(&self, steps: &[Step], most: usize) -> Vec<Value> {
        let name = |index| self.device_name(index);
        steps
            .iter()
            .take(most)
            .map(|step| plan_json::value_of(step, &name))
            .collect()
    }

    /// The object that `reconcile -o json` prints.
    pub fn to_json(&self) -> Value {
        let name = |index| self.device_name(index);
        json!({
            "outcome": self.outcome.as_str(),
            "role": self.role.as_str(),
            "dry_run": self.dry_run,
            "sync_token": self.sync_token,
            "create_date": self.create_date,
            "selected": self.selected,
            "aggregated": self.aggregated,
            "applied": self.applied,
            "steps": plan_json::steps(&self.plan, &name),
            "conflicts": self.plan.conflicts.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(),
            "verdicts": self.verdicts,
            "notes": self.distinct_notes(),
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

    /// The text for people, on standard output.
    pub fn to_text(&self, ownership: &Ownership, style: Style) -> String {
        let mut text = String::new();
        if self.judged {
            self.document_to_text(&mut text);
        } else {
            let _ = writeln!(text, "document  not looked at");
        }
        if let Some(backend) = &self.backend {
            let _ = writeln!(text, "firewall  {} ({})", backend.kind, backend.reason);
        }
        for verdict in &self.verdicts {
            let _ = writeln!(
                text,
                "{:<8}  {}: {}",
                verdict.level, verdict.guard, verdict.message
            );
        }
        for note in self.distinct_notes() {
            let _ = writeln!(text, "note      {note}");
        }
        text.push('\n');
        let name = |index| self.device_name(index);
        let context = Context {
            device_name: &name,
            ownership,
            style,
        };
        let steps = render(&self.plan, &context);
        if !steps.is_empty() {
            let _ = writeln!(text, "{steps}");
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn document_to_text(&self, text: &mut String) {
        match self.sync_token {
            Some(token) => {
                let _ = writeln!(
                    text,
                    "document  sync token {token}, published {}",
                    self.create_date
                );
            }
            None => {
                let _ = writeln!(text, "document  none in force");
            }
        }
        for family in Family::ALL {
            let _ = writeln!(
                text,
                "{family}      {} prefixes selected, {} after aggregation",
                self.selected.get(family),
                self.aggregated.get(family)
            );
        }
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let totals = totals(&self.plan);
        let took = format!("{:.1} ms", self.duration.as_secs_f64() * 1e3);
        match self.outcome {
            Outcome::InSync if self.cache_only => {
                format!("The document is in the state dir; the kernel was not compared ({took}).")
            }
            Outcome::InSync => format!("In sync: nothing to do ({took})."),
            Outcome::Changed => format!("Changed and verified: {totals} ({took})."),
            Outcome::Pending => format!("Plan: {totals}. Nothing was changed."),
            Outcome::Held if self.dry_run => {
                format!("Held by the guard. Plan: {totals}. Nothing was changed.")
            }
            Outcome::Held if self.plan.is_empty() => {
                format!("Held by the guard; what it lets through is in force ({took}).")
            }
            Outcome::Held => format!("Held by the guard; the rest is in force: {totals} ({took})."),
            Outcome::RolledBack => {
                "Rolled back: what was ours before is in force again.".to_owned()
            }
            Outcome::Stopped => {
                "Stopped between two steps; the next pass goes on from there.".to_owned()
            }
            Outcome::Failed => match self.applied {
                Applied::None => "Failed. Nothing was changed.",
                Applied::All => "Failed. The steps above are carried out and verified.",
                Applied::Part => "Failed. The steps above are carried out in part.",
            }
            .to_owned(),
        }
    }
}
