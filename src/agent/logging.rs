//! The agent's log: one line for a pass with changes, none for a pass without, and each warning
//! once, with advice.

use std::collections::BTreeSet;
use std::time::Instant;

use super::bookkeeping::Account;
use super::worker::Ended;
use super::{AgentError, FetchSchedule};
use crate::config::AgentConfig;
use crate::degraded::Degradation;
use crate::guard::Level;
use crate::notes::Notes;
use crate::plan::ObjectKey;
use crate::plan::text::done;
use crate::reconcile::report::Applied;
use crate::reconcile::{FetchOutcome, Outcome, Report};
use crate::status::control::{ControlError, ControlSocket};
use crate::status::snapshot::{BreakerState, Freshness, State};
use crate::types::{Family, SyncToken};
use crate::words::counted;

/// Another running agent is an error; after any other failure the agent runs without the socket.
pub(super) fn or_warn(
    served: Result<ControlSocket, ControlError>,
) -> Result<Option<ControlSocket>, AgentError> {
    match served {
        Ok(socket) => Ok(Some(socket)),
        Err(error @ ControlError::AnotherAgent { .. }) => Err(AgentError::Control(error)),
        Err(error) => {
            tracing::warn!("{error}");
            Ok(None)
        }
    }
}

/// Objects named in a warning; the others are counted.
pub(super) const NAMED: usize = 5;

/// Warns about objects that another program keeps changing, and names the program.
/// The third value is true if repairs pause.
pub(super) fn conflicts(fought: &[(&ObjectKey, String, bool)]) {
    for (key, culprit, pauses) in fought.iter().take(NAMED) {
        let repairs = if *pauses {
            "repairs pause for a growing time"
        } else {
            "each change is repaired at once"
        };
        tracing::warn!(
            object = %key,
            by = culprit,
            "conflict: {key} was restored five times in ten seconds and was changed again by {culprit}; {repairs}: stop that program, or choose other numbers ([bypass] table, [egress] table, [kernel] priority)"
        );
    }
    if fought.len() > NAMED {
        let more = fought.len() - NAMED;
        tracing::warn!("conflict: other programs keep changing {more} more objects of Trailblazer");
    }
}

/// The logged messages, so that no pass repeats a message.
#[derive(Debug, Default)]
pub(super) struct Told {
    error: Option<String>,
    degraded: Vec<Degradation>,
    notes: Notes,
    verdicts: Vec<String>,
    pub conflicts: BTreeSet<ObjectKey>,
    freshness: Freshness,
    /// Repairs by the watcher since the last pass.
    pub put_back: u64,
}

impl Told {
    /// Logs a pass.
    pub fn pass(&mut self, ended: &Ended, heard: Vec<String>) {
        let report = &ended.report;
        let heard = heard.join(", ");
        let put_back = std::mem::take(&mut self.put_back);
        if put_back > 0 {
            tracing::info!(
                put_back,
                "repaired drift: another program deleted {} of Trailblazer, now restored ({heard})",
                counted(put_back, "object")
            );
        }
        let because = if ended.drift && !heard.is_empty() {
            format!(" ({heard})")
        } else {
            String::new()
        };
        let mended = ended.drift && report.applied == Applied::All;
        let changed = mended || matches!(report.outcome, Outcome::Changed | Outcome::Held);
        if changed && !report.plan.is_empty() {
            tracing::info!(
                cause = %ended.cause,
                outcome = report.outcome.as_str(),
                steps = report.plan.steps.len(),
                sync_token = report.sync_token.map(|token| token.0),
                duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
                "pass {}{because}: {}, verified",
                ended.cause,
                done(&report.plan),
            );
        }
        self.error(report);
        self.degraded(report);
        self.notes(report);
    }

    fn error(&mut self, report: &Report) {
        if report.error == self.error {
            return;
        }
        match &report.error {
            Some(error) if report.outcome == Outcome::Stopped => tracing::info!("{error}"),
            // The first pass asks no source.
            Some(error) if report.without_document && report.fetch == FetchOutcome::NotAsked => {
                tracing::info!("{error}");
            }
            Some(error) => tracing::error!("{error}"),
            None => tracing::info!("in force again"),
        }
        self.error.clone_from(&report.error);
    }

    fn degraded(&mut self, report: &Report) {
        for missing in &report.degraded {
            if !self.degraded.contains(missing) {
                tracing::warn!(part = missing.part.as_str(), "degraded: {missing}");
            }
        }
        if report.degraded.is_empty() && !self.degraded.is_empty() {
            tracing::info!("no part is missing any more");
        }
        self.degraded.clone_from(&report.degraded);
    }

    fn notes(&mut self, report: &Report) {
        for note in report.notes.iter() {
            if !self.notes.iter().any(|told| told == note) {
                tracing::info!("note: {note}");
            }
        }
        self.notes.clone_from(&report.notes);
        // The figures of a verdict change with each pass: level and guard identify a verdict.
        let mut verdicts = Vec::new();
        for verdict in &report.verdicts {
            let name = format!("{} {}", verdict.level, verdict.guard);
            if !self.verdicts.contains(&name) && !verdicts.contains(&name) {
                match verdict.level {
                    Level::Note => tracing::info!("guard: {}: {}", verdict.guard, verdict.message),
                    _ => tracing::warn!("guard: {name}: {}", verdict.message),
                }
            }
            verdicts.push(name);
        }
        self.verdicts = verdicts;
    }

    /// Logs the result of a fetch.
    pub fn fetch(
        &mut self,
        fetch: &FetchOutcome,
        before: BreakerState,
        schedule: &FetchSchedule,
        now: Instant,
    ) {
        let next = schedule.due().saturating_duration_since(now).as_secs();
        match fetch {
            FetchOutcome::Failed(why) | FetchOutcome::Rejected(why) => {
                let failures = schedule.failures_in_a_row();
                let opened =
                    schedule.breaker() == BreakerState::Open && before != BreakerState::HalfOpen;
                if failures == 1 || opened {
                    tracing::warn!(
                        failures,
                        "cannot fetch the document: {}; the present routes stay in force, next attempt in {next} s{}",
                        why,
                        if opened {
                            " (repeated failures: the breaker is open, attempts are rare)"
                        } else {
                            ""
                        }
                    );
                }
            }
            _ if before != BreakerState::Closed => {
                tracing::info!("the source answers again");
            }
            _ => {}
        }
    }

    /// Logs that the document's age crossed a threshold.
    pub fn age(&mut self, account: &Account, config: &AgentConfig) {
        let freshness = account.freshness(config);
        if freshness != self.freshness {
            let hours = account.document_age().unwrap_or(0) / 3600;
            match freshness {
                Freshness::Fresh => tracing::info!("the document is confirmed again"),
                _ => tracing::warn!(
                    "no source has confirmed the document in force for {hours} h: see `trailblazer status` for the last error"
                ),
            }
            self.freshness = freshness;
        }
    }
}

/// The line for `systemctl status`.
pub(super) fn status_line(report: &Report, account: &Account) -> String {
    let prefixes: usize = Family::ALL
        .iter()
        .map(|family| report.aggregated.get(*family))
        .sum();
    let prefixes = counted(prefixes as u64, "prefix");
    state_line(account, report.sync_token, report.held, &prefixes)
}

/// The state, or in force: these objects, from the document of the token.
pub(super) fn state_line(
    account: &Account,
    token: Option<SyncToken>,
    held: bool,
    objects: &str,
) -> String {
    match (account.state(), account.reason()) {
        (State::InForce, _) => {
            let document = match token {
                Some(token) => format!("document {token}"),
                None => "no document".to_owned(),
            };
            let held = if held { ", held by the guard" } else { "" };
            format!("in force: {objects}, {document}{held}")
        }
        (state, Some(reason)) => format!("{}: {reason}", state.as_str()),
        (state, None) => state.as_str().to_owned(),
    }
}
