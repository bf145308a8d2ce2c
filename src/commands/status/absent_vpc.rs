//! The page of the vpc role without an agent: a dry run against EC2, and the journal.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::timer::{self, Timer};
use crate::columns::Style;
use crate::config::Config;
use crate::exit;
use crate::journal::{History, Journal, history_json, history_text};
use crate::printable::indented;
use crate::reconcile::{Asking, Mode, Options, Outcome};
use crate::state::lock;
use crate::status::control::AskError;
use crate::status::text::lines::painted;
use crate::vpc::pass::{PassMemory, pass};
use crate::vpc::report::VpcReport;
use crate::vpc::session::Session;

/// Passes to show, as many as in a snapshot.
const PASSES: usize = 10;

/// The state of the VPC without the agent's answer.
pub(super) struct AbsentVpc {
    /// The reason for a missing answer.
    pub error: AskError,
    /// A dry run with the stored document.
    report: VpcReport,
    history: History,
    /// Single passes in place of the agent.
    timer: Option<Timer>,
    pub notes: Vec<String>,
}

/// Reads EC2 and the journal. Changes nothing, and asks no source.
pub(super) async fn look(config: &Config, error: AskError) -> AbsentVpc {
    let options = Options {
        mode: Mode::DryRun,
        asking: Asking::Nobody,
        ..Options::default()
    };
    let report = match Session::open(config).await {
        Ok(session) => {
            let mut memory = PassMemory::default();
            pass(&session.ec2, &session.config, &options, &mut memory).await
        }
        Err(error) => VpcReport::failed(options.mode, &error),
    };
    let mut absent = AbsentVpc {
        error,
        report,
        history: History::default(),
        timer: None,
        notes: Vec::new(),
    };
    let state_dir = &config.source.state_dir;
    match Journal::new(state_dir).read() {
        Ok(history) => {
            let holder = lock::holder(state_dir).ok().flatten();
            let running = holder.map(|holder| holder.pid);
            if absent.certainly() {
                absent.timer = Timer::look(timer::VPC, &history, Timestamp::now());
            }
            absent.history = history.with_running(running).last(PASSES);
        }
        Err(error) => absent.notes.push(error.to_string()),
    }
    absent
}

impl AbsentVpc {
    /// True if no agent runs; otherwise an agent may run without answering.
    pub(super) fn certainly(&self) -> bool {
        matches!(self.error, AskError::NoAgent { .. })
    }

    /// True if the timer keeps the VPC in sync in place of an agent.
    pub(super) fn is_kept_by_timer(&self) -> bool {
        let on_time = self.timer.as_ref().is_some_and(Timer::is_on_time);
        on_time && self.report.exit_code() == exit::OK
    }

    /// True if a pass with the stored document would change nothing; `None` if the dry run failed.
    fn in_sync(&self) -> Option<bool> {
        let report = &self.report;
        match report.outcome {
            Outcome::Failed if report.conflicts.is_empty() => None,
            outcome => Some(outcome == Outcome::InSync && report.degraded.is_empty()),
        }
    }

    pub(super) fn to_text(&self, style: Style) -> String {
        let (colour, word, why) = match (&self.error, &self.timer) {
            (_, Some(timer)) if self.is_kept_by_timer() => ("32", "IN SYNC", timer.text()),
            (_, Some(timer)) if timer.is_on_time() => ("31", "NOT IN SYNC", timer.text()),
            (_, Some(timer)) => ("31", "NO PASSES", timer.text()),
            (AskError::NoAgent { path }, None) => (
                "31",
                "NOT RUNNING",
                format!("no process listens at {}", path.display()),
            ),
            (error, None) => ("31", "NO ANSWER", error.to_string()),
        };
        let mut text = format!(
            "{} {}\nDry run against EC2 with the stored document at {:.0}:\n\n{}",
            painted(style, colour, word),
            indented(&why, 2),
            Timestamp::now(),
            self.report.to_text(style),
        );
        if let Some(error) = &self.report.error {
            text.push_str(&format!("error     {}\n", indented(error, 10)));
        }
        for note in &self.notes {
            text.push_str(&format!("note      {}\n", indented(note, 10)));
        }
        format!("{text}\n{}", history_text(&self.history))
    }

    /// The object of `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let history = history_json(&self.history);
        json!({
            "agent": if self.certainly() { "not_running" } else { "unreachable" },
            "role": "vpc",
            "timer": self.timer.as_ref().map(Timer::text),
            "error": self.error.to_string(),
            "in_sync": self.in_sync(),
            "dry_run": self.report.to_json(),
            "lists": self.report.plane.as_ref().map(|plane| &plane.lists),
            "tables": self.report.plane.as_ref().map(|plane| &plane.tables),
            "passes": history["passes"],
            "damaged": history["damaged"],
            "notes": self.notes,
        })
    }
}
