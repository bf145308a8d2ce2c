//! The journal lines of a pass.

use jiff::Timestamp;

use super::report::Report;
use super::{Cause, Job, Options, Outcome};
use crate::journal::{Journal, MAX_LISTED, PassId, Record, values};
use crate::state::error::StateError;

/// Writes `begin` and `end` of one pass.
pub(super) struct PassJournal<'a> {
    journal: Journal,
    id: PassId,
    options: &'a Options,
}

impl<'a> PassJournal<'a> {
    /// The lines of a pass that starts now.
    pub fn new(job: Job<'a>) -> Self {
        let state_dir = &job.config.source.state_dir;
        PassJournal {
            journal: Journal::new(state_dir).with_sync(job.options.sync),
            id: PassId::new(Timestamp::now()),
            options: job.options,
        }
    }

    /// Repairs by the watcher before the pass, as a pass of their own.
    pub fn write_repairs(&self, report: &Report) -> Result<(), StateError> {
        let watched = self.options.watched.as_ref();
        let repaired = watched.map_or(&[][..], |watched| &watched.repaired);
        if repaired.is_empty() {
            return Ok(());
        }
        let cause = Cause::Repair.as_str();
        let record = Record::end(
            Timestamp::now(),
            PassId(format!("{}-{cause}", self.id)),
            cause,
            Outcome::Changed.as_str(),
            std::time::Duration::ZERO,
        );
        let steps = crate::plan::json::values(repaired, MAX_LISTED, &report.devices);
        let record = record.with_first_steps(steps, repaired.len());
        self.journal.append(&record)
    }

    /// True if a pass without a change needs no line: an agent's, unless the use of a way has changed.
    pub fn may_be_quiet(&self) -> bool {
        self.options.watched.is_some() && self.options.ways.is_empty()
    }

    /// The line before an attempt, with the steps of all attempts so far.
    pub fn write_begin(&self, report: &Report) -> Result<(), StateError> {
        let record = Record::begin(
            Timestamp::now(),
            self.id.clone(),
            self.options.cause.as_str(),
        );
        self.journal.append(&filled(record, report))
    }

    /// The line after the pass.
    pub fn write_end(&self, report: &Report) -> Result<(), StateError> {
        let record = Record::end(
            Timestamp::now(),
            self.id.clone(),
            self.options.cause.as_str(),
            report.outcome.as_str(),
            report.duration,
        );
        let record = filled(record, report)
            .with_degraded(&report.degraded)
            .with_hold(report.held_digest().map(str::to_owned))
            .with_ways(self.options.ways.clone())
            .with_error(report.error.clone());
        self.journal.append(&record)
    }
}

fn filled(record: Record, report: &Report) -> Record {
    let steps = &report.plan.steps;
    record
        .with_first_steps(
            crate::plan::json::values(steps, MAX_LISTED, &report.devices),
            steps.len(),
        )
        .with_sync_token(report.sync_token.map(|token| token.0))
        .with_verdicts(values(&report.verdicts))
}
