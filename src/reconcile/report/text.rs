//! The text of a report, for people.

use std::fmt::Write;

use super::{Applied, Outcome, Report};
use crate::columns::Style;
use crate::guard::figures;
use crate::ownership::Ownership;
use crate::plan::text::{done, render, totals};
use crate::printable::indented;
use crate::reconcile::Mode;
use crate::types::Family;

impl Report {
    /// The text for people, on standard output.
    pub fn to_text(&self, ownership: &Ownership, style: Style) -> String {
        let mut text = String::new();
        if self.judged {
            self.document_to_text(&mut text);
        } else {
            let _ = writeln!(text, "document  not read");
        }
        if let Some(backend) = &self.backend {
            let _ = writeln!(text, "firewall  {} ({})", backend.kind, backend.reason);
        }
        for verdict in &self.verdicts {
            let _ = writeln!(
                text,
                "{:<8}  {}: {}",
                verdict.level,
                verdict.guard,
                indented(&verdict.message, 10)
            );
        }
        for note in self.distinct_notes() {
            let _ = writeln!(text, "note      {note}");
        }
        text.push('\n');
        text.push_str(&render(&self.plan, &self.devices, ownership, style));
        for missing in &self.degraded {
            let _ = writeln!(text, "Degraded: {missing}");
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
                "{family}      {} selected, {} after aggregation",
                figures::prefixes(*self.selected.get(family)),
                self.aggregated.get(family)
            );
        }
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let (totals, done) = (totals(&self.plan), done(&self.plan));
        let took = format!("{:.1} ms", self.duration.as_secs_f64() * 1e3);
        match self.outcome {
            Outcome::InSync if self.mode == Mode::CacheOnlyDryRun => {
                "The state directory has the document already. Nothing was changed.".to_owned()
            }
            Outcome::Pending if self.mode.documents_only() => {
                "The document would be stored in the state directory. Nothing was changed."
                    .to_owned()
            }
            Outcome::Held if self.mode == Mode::CacheOnlyDryRun => {
                "The guard holds changes back. Nothing was changed.".to_owned()
            }
            Outcome::InSync if self.mode.documents_only() => {
                format!(
                    "The document is stored in the state directory; the kernel stays unchanged ({took})."
                )
            }
            Outcome::InSync if !self.degraded.is_empty() => {
                format!("Degraded: parts are missing; the rest is in sync ({took}).")
            }
            Outcome::InSync => format!("In sync: nothing to do ({took})."),
            Outcome::Changed if !self.degraded.is_empty() => {
                format!("Degraded: parts are missing; changed and verified: {done} ({took}).")
            }
            Outcome::Changed => format!("Changed and verified: {done} ({took})."),
            Outcome::Pending => format!("Plan: {totals}. Nothing was changed."),
            Outcome::Held if !self.mode.writes() => {
                format!(
                    "The guard holds changes back. Plan for the rest: {totals}. Nothing was changed."
                )
            }
            Outcome::Held if self.plan.is_empty() && self.sync_token.is_none() => {
                format!("The guard holds the document back; no document is in force ({took}).")
            }
            Outcome::Held if self.plan.is_empty() => {
                format!("The guard holds changes back; all other prefixes are in force ({took}).")
            }
            Outcome::Held => format!(
                "The guard holds changes back; the rest was changed and verified: {done} ({took})."
            ),
            Outcome::RolledBack => {
                "Rolled back: Trailblazer's objects are as they were before the pass.".to_owned()
            }
            Outcome::Stopped => {
                "Stopped between two steps; the next pass completes the changes.".to_owned()
            }
            Outcome::Waiting | Outcome::Failed => match self.applied {
                Applied::None => "Failed. Nothing was changed.",
                Applied::All => "Failed. The steps above were executed and verified.",
                Applied::Part => "Failed. Some of the steps above were executed.",
            }
            .to_owned(),
        }
    }
}
