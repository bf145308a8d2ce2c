//! The log of the vpc role: one line for a pass with changes, none for a pass without, and each warning
//! once.

use std::collections::BTreeSet;

use super::worker::Ended;
use crate::guard::Level;
use crate::vpc::drift::Drift;
use crate::vpc::report::VpcReport;

/// The logged messages, so that no pass repeats a message.
#[derive(Debug, Default)]
pub(super) struct Told {
    error: Option<String>,
    messages: BTreeSet<String>,
    /// The changes of other programs that are left.
    drift: Vec<Drift>,
}

impl Told {
    /// Logs a pass.
    pub fn pass(&mut self, ended: &Ended, report: &VpcReport) {
        if report.done > 0 {
            tracing::info!(
                cause = %ended.cause,
                outcome = report.outcome.as_str(),
                steps = report.steps.len(),
                done = report.done,
                sync_token = report.sync_token.map(|token| token.0),
                duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
                "pass {}: {}",
                ended.cause,
                report.summary(),
            );
        }
        for drift in &report.drift {
            if !self.drift.contains(drift) {
                tracing::warn!("drift: {drift}");
            }
        }
        let left = report.drift.iter();
        let left = left.filter(|drift| !report.repaired.contains(drift));
        self.drift = left.cloned().collect();
        self.error(report);
        self.messages(report);
    }

    fn error(&mut self, report: &VpcReport) {
        if report.error == self.error {
            return;
        }
        match &report.error {
            Some(error) => tracing::error!("{error}"),
            None => tracing::info!("EC2 and the source answer again: the last pass succeeded"),
        }
        self.error.clone_from(&report.error);
    }

    fn messages(&mut self, report: &VpcReport) {
        let found = messages(report);
        for (key, text) in &found {
            if !self.messages.contains(key) {
                tracing::warn!("{text}");
            }
        }
        // A failed pass says nothing about the messages of the pass before.
        if report.error.is_none() {
            self.messages.clear();
        }
        self.messages.extend(found.into_iter().map(|(key, _)| key));
    }
}

/// The warnings of a report, each with the key that identifies it.
fn messages(report: &VpcReport) -> Vec<(String, String)> {
    let same = |text: String| (text.clone(), text);
    let degraded = report.degraded.iter();
    let degraded = degraded.map(|missing| same(format!("degraded: {missing}")));
    let holds = report
        .holds
        .iter()
        .map(|hold| same(format!("held: {hold}")));
    // The figures of a verdict change with each pass: level and guard identify a verdict.
    let verdicts = report.verdicts.iter();
    let verdicts = verdicts.filter(|verdict| verdict.level != Level::Note);
    let verdicts = verdicts.map(|verdict| {
        let key = format!("guard: {} {}", verdict.level, verdict.guard);
        let text = format!("{key}: {}", verdict.message);
        (key, text)
    });
    degraded.chain(holds).chain(verdicts).collect()
}
