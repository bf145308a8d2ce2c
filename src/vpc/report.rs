//! The result of a pass over a VPC, for people and programs.

use std::fmt::Write as _;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::drift::Drift;
use super::ec2::Sent;
use super::error::VpcError;
use super::objects::Entry;
use super::plan::PlanePlan;
use super::step::Step;
use super::summary::PlaneSummary;
use crate::columns::{Colour, Style};
use crate::degraded::{self, Degradation, Part};
use crate::exit;
use crate::guard::{GuardState, Judgement, Verdict, figures};
use crate::notes::Notes;
use crate::printable::indented;
use crate::ranges::Group;
use crate::reconcile::{FetchOutcome, Mode, Outcome};
use crate::types::{Family, PerFamily, SyncToken};
use crate::words::counted;

/// The result of a pass.
#[derive(Debug)]
pub struct VpcReport {
    pub outcome: Outcome,
    pub mode: Mode,
    pub sync_token: Option<SyncToken>,
    /// The date of the document in force, in the format of AWS.
    pub create_date: String,
    /// Counts of selected prefixes.
    pub selected: PerFamily<usize>,
    /// Selected prefixes by service, region and family.
    pub groups: Vec<(Group, usize)>,
    /// Counts of entries after aggregation.
    pub aggregated: PerFamily<usize>,
    /// The steps, carried out or pending.
    pub steps: Vec<Step>,
    /// How many of the steps are carried out.
    pub done: usize,
    pub conflicts: Vec<String>,
    /// Changes that wait for an operator or for another writer.
    pub holds: Vec<String>,
    /// Changes of our entries by other programs.
    pub drift: Vec<Drift>,
    /// Those whose objects are right in the last reading.
    pub repaired: Vec<Drift>,
    pub verdicts: Vec<Verdict>,
    /// True if the guard holds a document.
    pub held: bool,
    pub guard_state: GuardState,
    /// The last reading; `None` if no reading was complete.
    pub plane: Option<PlaneSummary>,
    /// True if no document is in force: only the source can help.
    pub without_document: bool,
    pub fetch: FetchOutcome,
    /// The time of the answer of the source.
    pub fetch_took: Duration,
    pub notes: Notes,
    pub degraded: Vec<Degradation>,
    pub error: Option<String>,
    /// True if the pass failed because another program changed objects meanwhile.
    pub contended: bool,
    /// The requests to EC2.
    pub sent: Sent,
    pub duration: Duration,
    judged: bool,
    /// Parts that are missing by the judgement of the guard.
    judged_degraded: Vec<Degradation>,
}

impl VpcReport {
    /// An empty report.
    pub fn new(mode: Mode) -> VpcReport {
        VpcReport {
            outcome: Outcome::InSync,
            mode,
            sync_token: None,
            create_date: String::new(),
            selected: PerFamily::default(),
            groups: Vec::new(),
            aggregated: PerFamily::default(),
            steps: Vec::new(),
            done: 0,
            conflicts: Vec::new(),
            holds: Vec::new(),
            drift: Vec::new(),
            repaired: Vec::new(),
            verdicts: Vec::new(),
            held: false,
            guard_state: GuardState::default(),
            plane: None,
            without_document: false,
            fetch: FetchOutcome::NotAsked,
            fetch_took: Duration::ZERO,
            notes: Notes::default(),
            degraded: Vec::new(),
            error: None,
            contended: false,
            sent: Sent::default(),
            duration: Duration::ZERO,
            judged: false,
            judged_degraded: Vec::new(),
        }
    }

    /// The report of a pass that failed before its first request.
    pub fn failed(mode: Mode, error: &VpcError) -> VpcReport {
        let mut report = VpcReport::new(mode);
        report.settle(Some(error));
        report
    }

    /// Takes over the judgement of the guard.
    pub(super) fn take_judgement(&mut self, judgement: &Judgement) {
        self.judged = true;
        self.sync_token = judgement.ranges.sync_token;
        self.create_date.clone_from(&judgement.ranges.create_date);
        self.selected = judgement.ranges.selected;
        self.aggregated = judgement.ranges.aggregated();
        self.verdicts.clone_from(&judgement.verdicts);
        self.held = judgement.held;
        self.without_document = judgement.nothing_in_force;
        self.groups = judgement.ranges.selected_groups();
        self.guard_state.clone_from(&judgement.state);
        self.judged_degraded.clone_from(&judgement.degraded);
        degraded::merge(&mut self.degraded, judgement.degraded.iter().cloned());
    }

    /// Forgets the missing parts of earlier plans: after the changes only the last reading counts.
    pub(super) fn drop_planned_parts(&mut self) {
        let judged = &self.judged_degraded;
        self.degraded
            .retain(|missing| missing.part == Part::State || judged.contains(missing));
    }

    /// True if the guard has judged the document.
    pub fn was_judged(&self) -> bool {
        self.judged
    }

    /// The digest of the held selection.
    pub(super) fn held_digest(&self) -> Option<&str> {
        let hold = self.guard_state.hold.as_ref().filter(|_| self.held)?;
        Some(&hold.digest)
    }

    /// Takes over a plan; the first plan with steps is the one that people see, and the removal of
    /// spare lists that follows it.
    pub(super) fn take_plan(&mut self, plan: &PlanePlan) {
        if self.steps.is_empty() {
            self.steps.clone_from(&plan.steps);
        }
        let spare = plan.steps.iter().filter(|step| step.concerns_spare());
        for step in spare {
            if !self.steps.contains(step) {
                self.steps.push(step.clone());
            }
        }
        self.conflicts.clone_from(&plan.conflicts);
        self.holds.clone_from(&plan.holds);
        if self.drift.is_empty() {
            self.drift.clone_from(&plan.drift);
        }
        degraded::merge(&mut self.degraded, plan.degraded.iter().cloned());
    }

    /// Ends the pass.
    pub(super) fn settle(&mut self, error: Option<&VpcError>) {
        let waits = self.held || !self.holds.is_empty();
        self.outcome = match error {
            Some(_) => Outcome::Failed,
            None if waits => Outcome::Held,
            None if self.mode == Mode::DryRun && !self.steps.is_empty() => Outcome::Pending,
            None if self.steps.is_empty() => Outcome::InSync,
            None => Outcome::Changed,
        };
        self.error = error.map(ToString::to_string);
        self.contended = error.is_some_and(VpcError::is_contention);
    }

    /// The exit code for scripts: a missing part is a failure, unless steps are pending or held.
    pub fn exit_code(&self) -> u8 {
        match self.outcome.exit_code() {
            exit::OK if !self.degraded.is_empty() => exit::FAILED,
            code => code,
        }
    }

    /// The object that `reconcile -o json` prints.
    pub fn to_json(&self) -> Value {
        json!({
            "outcome": self.outcome.as_str(),
            "role": "vpc",
            "dry_run": !self.mode.writes(),
            "sync_token": self.sync_token,
            "create_date": self.create_date,
            "selected": self.selected,
            "aggregated": self.aggregated,
            "applied": self.applied(),
            "steps": self.steps.iter().map(Step::to_json).collect::<Vec<_>>(),
            "conflicts": self.conflicts,
            "holds": self.holds,
            "drift": self.drift.iter().map(Drift::to_string).collect::<Vec<_>>(),
            "verdicts": self.verdicts,
            "notes": self.notes.texts().collect::<Vec<_>>(),
            "degraded": self.degraded,
            "error": self.error,
            "requests": {"reads": self.sent.reads, "changes": self.sent.changes},
            "duration_ms": u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn applied(&self) -> &'static str {
        match (self.done, self.error.is_some()) {
            (0, _) => "none",
            (_, true) => "part",
            (_, false) => "all",
        }
    }

    /// The text for people, on standard output.
    pub fn to_text(&self, style: Style) -> String {
        let mut text = String::new();
        if self.judged {
            self.document_to_text(&mut text);
        } else {
            text.push_str("document  not read\n");
        }
        for verdict in &self.verdicts {
            let message = indented(&verdict.message, 10);
            let _ = writeln!(text, "{:<8}  {}: {message}", verdict.level, verdict.guard);
        }
        for note in self.notes.texts() {
            let _ = writeln!(text, "note      {note}");
        }
        for drift in &self.drift {
            let _ = writeln!(text, "drift     {drift}");
        }
        for hold in &self.holds {
            let _ = writeln!(text, "hold      {hold}");
        }
        text.push('\n');
        for family in Family::ALL {
            let steps = self.steps.iter().filter(|step| step.family() == family);
            let lines: Vec<String> = steps.flat_map(|step| lines(step, style)).collect();
            if !lines.is_empty() {
                let _ = writeln!(text, "{}", style.heading(&family.to_string()));
                text.push_str(&lines.join("\n"));
                text.push('\n');
            }
        }
        for conflict in &self.conflicts {
            let _ = writeln!(text, "! conflict: {}", indented(conflict, 2));
        }
        for missing in &self.degraded {
            let _ = writeln!(text, "Degraded: {missing}");
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn document_to_text(&self, text: &mut String) {
        let _ = match self.sync_token {
            Some(token) => writeln!(
                text,
                "document  sync token {token}, published {}",
                self.create_date
            ),
            None => writeln!(text, "document  none in force"),
        };
        for family in Family::ALL {
            let selected = figures::prefixes(*self.selected.get(family));
            let aggregated = self.aggregated.get(family);
            let _ = writeln!(
                text,
                "{family}      {selected} selected, {aggregated} after aggregation"
            );
        }
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let took = format!(
            "{} reads and {} changes in {:.1} s",
            self.sent.reads,
            self.sent.changes,
            self.duration.as_secs_f64()
        );
        let steps = counted(self.steps.len() as u64, "step");
        match self.outcome {
            Outcome::InSync if !self.degraded.is_empty() => {
                format!("Degraded: parts are missing; the rest is in sync ({took}).")
            }
            Outcome::InSync => format!("In sync: nothing to do ({took})."),
            Outcome::Pending => format!("Plan: {steps}. Nothing was changed."),
            Outcome::Changed if !self.degraded.is_empty() => {
                format!("Degraded: parts are missing; changed and verified: {steps} ({took}).")
            }
            Outcome::Changed => format!("Changed and verified: {steps} ({took})."),
            Outcome::Held if self.mode.writes() && !self.steps.is_empty() => {
                format!("Held; changed and verified: {steps} ({took}).")
            }
            Outcome::Held => format!("Held: changes wait. Nothing was changed ({took})."),
            _ => format!("Failed: {} of {steps} done ({took}).", self.done),
        }
    }
}

/// The destination of a route.
fn name(prefix: &Option<IpNet>) -> String {
    prefix.map_or_else(|| "the list".to_owned(), |prefix| prefix.to_string())
}

/// The lines of a step.
fn lines(step: &Step, style: Style) -> Vec<String> {
    let plus = |text: String| style.paint(Colour::Green, &format!("+ {text}"));
    let change = |text: String| style.paint(Colour::Yellow, &format!("~ {text}"));
    let minus = |text: String| style.paint(Colour::Red, &format!("- {text}"));
    let entry = |entry: &Entry| {
        let description = entry.description.as_deref().unwrap_or_default();
        plus(format!(
            "entry {:<20}  {description}",
            entry.cidr.to_string()
        ))
    };
    match step {
        Step::CreateList {
            name,
            max_entries,
            entries,
            ..
        } => {
            let head = plus(format!("prefix list {name}, at most {max_entries} entries"));
            std::iter::once(head)
                .chain(entries.iter().map(entry))
                .collect()
        }
        Step::ResizeList { from, to, .. } => {
            vec![change(format!(
                "prefix list: at most {to} entries (was {from})"
            ))]
        }
        Step::RaiseToken { from, to, .. } => {
            let from = from.map_or_else(|| "none".to_owned(), |from| from.to_string());
            vec![change(format!("document {to} (was {from})"))]
        }
        Step::DropTokens { keys, .. } => vec![minus(format!("{} old marks", keys.len()))],
        Step::ModifyEntries { add, remove, .. } => {
            let gone = remove.iter().map(|cidr| minus(format!("entry {cidr}")));
            add.iter().map(entry).chain(gone).collect()
        }
        Step::CreateRoute {
            table,
            prefix,
            target,
            ..
        } => vec![plus(format!("route {table}: {} to {target}", name(prefix)))],
        Step::ReplaceRoute {
            table,
            prefix,
            from,
            target,
            ..
        } => vec![change(format!(
            "route {table}: {} to {target} (was {from})",
            name(prefix)
        ))],
        Step::DeleteRoute { table, prefix, .. } => {
            vec![minus(format!("route {table}: {}", name(prefix)))]
        }
        Step::TagTable { table, tags } => {
            let keys: Vec<&str> = tags.keys().map(String::as_str).collect();
            vec![change(format!("tags of {table}: {}", keys.join(", ")))]
        }
        Step::UntagTable { table, keys } => {
            vec![minus(format!("{} old marks of {table}", keys.len()))]
        }
        Step::DeleteList { .. } => vec![minus("prefix list".to_owned())],
        Step::DeleteSpareRoute { table, list, .. } => {
            vec![minus(format!("route {table}: the spare list {list}"))]
        }
        Step::DeleteSpare { list, .. } => vec![minus(format!("spare prefix list {list}"))],
    }
}
