//! The report of a flush, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::columns::Style;
use crate::desired::drain::FlowsLeft;
use crate::journal::{MAX_LISTED, Record};
use crate::kernel::{Kernel, ObserveError, link};
use crate::objects::Rule;
use crate::ownership::Ownership;
use crate::plan::rule_text::orphaned_rules;
use crate::plan::text::{done, render, totals};
use crate::plan::{Devices, Plan, Step, json as plan_json};
use crate::printable::indented;
use crate::words::{counted, first_few};

pub(super) struct Flushed {
    /// The objects found by the first reading, as steps of removal.
    pub plan: Plan,
    pub notes: Vec<String>,
    /// Failures. Without errors, no object is left.
    pub errors: Vec<String>,
    /// The open flows that need the objects left; empty without any object.
    pub left: Vec<FlowsLeft>,
    /// True after a wait for the end of the flows.
    pub waited: bool,
    /// `paused`, `not_running` or `unreachable`; `None` if not asked.
    pub agent: Option<&'static str>,
    pub duration: Duration,
    preview: bool,
    devices: Devices,
}

impl Flushed {
    pub(super) fn new(notes: Vec<String>) -> Flushed {
        Flushed {
            plan: Plan::default(),
            notes,
            errors: Vec::new(),
            left: Vec::new(),
            waited: false,
            agent: None,
            duration: Duration::ZERO,
            preview: false,
            devices: Devices::default(),
        }
    }

    /// The report of a dry run.
    pub(super) fn preview(notes: Vec<String>) -> Flushed {
        Flushed {
            preview: true,
            ..Flushed::new(notes)
        }
    }

    pub(super) fn take_first(&mut self, kernel: &mut Kernel, plan: Plan, notes: Vec<String>) {
        self.notes.extend(notes);
        self.plan = plan;
        self.name_devices(kernel);
    }

    /// Adds the result of a later removal.
    pub(super) fn follow(&mut self, next: Flushed) {
        self.plan.steps.extend(next.plan.steps);
        for note in next.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.errors.extend(next.errors);
        self.left = next.left;
        self.duration += next.duration;
    }

    fn name_devices(&mut self, kernel: &mut Kernel) {
        // Only for device names: without them the report shows numbers.
        if let Ok(links) = link::dump_links(kernel.socket()) {
            self.devices = links
                .into_iter()
                .map(|link| (link.index, link.name))
                .collect();
        }
    }

    /// True if only firewall objects of ours were found. The numbers may then be wrong.
    pub(super) fn firewall_alone(&self) -> bool {
        !self.plan.is_empty() && self.plan.steps.iter().all(is_firewall)
    }

    /// The open flows, a line each.
    fn flows(&self) -> String {
        let lines = self.left.iter();
        lines
            .map(|left| format!("\n  {}", flows_text(left)))
            .collect()
    }

    fn would_stay(&self) -> String {
        if self.left.is_empty() {
            return String::new();
        }
        format!(" Open flows would keep their path:{}", self.flows())
    }

    fn left_text(&self, took: &str) -> String {
        let mut text = if self.plan.is_empty() {
            format!("Nothing to remove yet ({took}).")
        } else {
            format!("Changed: {} ({took}).", done(&self.plan))
        };
        text.push_str(" New flows take the path without Trailblazer. Open flows keep theirs:");
        text.push_str(&self.flows());
        text.push_str(
            "\nWhen they have ended, `trailblazer flush --drain` removes the rest; `trailblazer flush` removes it now and breaks them.",
        );
        text
    }

    /// `changed`, `in_sync` or `failed`; `pending` for a dry run with objects; `draining` while open
    /// flows need objects.
    pub(super) fn outcome(&self) -> &'static str {
        let is_final = !self.preview || self.plan.is_empty();
        if self.errors.is_empty() && !self.left.is_empty() && is_final {
            return "draining";
        }
        match (self.errors.is_empty(), self.plan.is_empty()) {
            (false, _) => "failed",
            (true, true) => "in_sync",
            (true, false) if self.preview => "pending",
            (true, false) => "changed",
        }
    }

    /// The outcome in the journal, which knows passes.
    pub(super) fn recorded(&self) -> &'static str {
        match self.outcome() {
            "draining" if self.plan.is_empty() => "in_sync",
            "draining" => "changed",
            other => other,
        }
    }

    /// A journal line with the steps.
    pub(super) fn filled(&self, record: Record) -> Record {
        let first = plan_json::values(&self.plan.steps, MAX_LISTED, &self.devices);
        record.with_first_steps(first, self.plan.steps.len())
    }

    /// The object of `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let left = |left: &FlowsLeft| {
            json!({
                "family": left.family.as_str(),
                "path": left.path.as_str(),
                "gateway": left.gateway,
                "flows": left.flows,
            })
        };
        json!({
            "outcome": self.outcome(),
            "agent": self.agent,
            "flows_left": self.left.iter().map(left).collect::<Vec<_>>(),
            "steps": plan_json::values(&self.plan.steps, usize::MAX, &self.devices),
            "notes": self.notes,
            "error": (!self.errors.is_empty()).then(|| self.errors.join("; ")),
            "errors": self.errors,
            "duration_ms": u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn to_text(&self, ownership: &Ownership, style: Style) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "note      {}", indented(note, 10));
        }
        if !self.notes.is_empty() && !self.plan.is_empty() {
            text.push('\n');
        }
        text.push_str(&render(&self.plan, &self.devices, ownership, style));
        let took = format!("{:.1} ms", self.duration.as_secs_f64() * 1e3);
        let _ = match self.outcome() {
            "in_sync" => writeln!(text, "No objects of Trailblazer found ({took})."),
            "pending" => writeln!(
                text,
                "To remove: {}. Nothing was changed.{}",
                totals(&self.plan),
                self.would_stay()
            ),
            "changed" => writeln!(
                text,
                "Removed: {} ({took}). The host is as it was before Trailblazer.",
                done(&self.plan)
            ),
            "draining" => writeln!(text, "{}", self.left_text(&took)),
            _ if self.preview => writeln!(
                text,
                "Failed: a flush would not remove everything (see the errors)."
            ),
            _ => writeln!(
                text,
                "Failed: correct the errors above, then run flush again."
            ),
        };
        text
    }
}

/// `ipv4 egress path by 10.0.1.10: 12 flows`.
fn flows_text(left: &FlowsLeft) -> String {
    let by = left.gateway.map(|gateway| format!(" by {gateway}"));
    format!(
        "{} {} path{}: {}",
        left.family,
        left.path.as_str(),
        by.unwrap_or_default(),
        counted(left.flows, "flow")
    )
}

fn is_firewall(step: &Step) -> bool {
    matches!(step, Step::Firewall { .. })
}

/// Names the objects left after the last round.
pub(super) fn left_text(left: &Plan) -> String {
    const NAMED: usize = 5;
    let steps = left.steps.iter().map(ToString::to_string);
    let names = steps.map(|step| step.trim_start_matches("delete ").to_owned());
    format!("not removed: {}", first_few(names, NAMED, ", "))
}

/// Names the rules and routes of a config with other numbers and another state dir.
pub(super) fn orphans(
    kernel: &mut Kernel,
    rules: &[Rule],
    ownership: &Ownership,
) -> Result<Vec<String>, ObserveError> {
    const ADVICE: &str =
        "run flush again with -c and that config, or with --state-dir and its directory";
    let mut texts = Vec::new();
    texts.extend(orphaned_rules(rules, ownership).map(|text| format!("{text}: {ADVICE}")));
    let tables = kernel.orphaned_routes(ownership)?;
    if let Some(table) = tables.keys().next() {
        const NAMED: usize = 5;
        let counts = tables
            .iter()
            .map(|(table, routes)| format!("{routes} in table {table}"));
        let protocol = ownership.current.protocol;
        texts.push(format!(
            "routes of another config remain, with Trailblazer's protocol number in unknown tables ({}): {ADVICE}; or look at them and remove them (ip route flush table {table} proto {protocol}, likewise with -6)",
            first_few(counts, NAMED, ", ")
        ));
    }
    Ok(texts)
}
