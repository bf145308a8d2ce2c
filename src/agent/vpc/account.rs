//! The status of the vpc role, updated with each pass.

use super::super::bookkeeping::{Account, count};
use super::worker::Ended;
use crate::reconcile::Outcome;
use crate::status::snapshot::{GroupCount, State};
use crate::vpc::report::VpcReport;

impl Account {
    /// Records a pass. Returns true if the pass has restored objects that were in force before.
    pub(super) fn passed_over_vpc(&mut self, ended: &Ended, report: &VpcReport) -> bool {
        let took = ended.ended.duration_since(ended.started);
        let steps = report.steps.len();
        self.record_pass(ended.cause, (report.outcome, steps), &report.error, took);
        let drifted = self.has_drifted(report);
        if drifted {
            self.count_repairs(report);
        }
        if report.outcome == Outcome::Failed && !report.without_document {
            // Without a reading, or with foreign objects in the way, the fault is outside.
            let outside = report.plane.is_none() || !report.conflicts.is_empty();
            let whose = if outside { "others" } else { "ours" };
            count(&mut self.snapshot.faults, whose);
        }
        self.snapshot.degraded.clone_from(&report.degraded);
        self.snapshot.conflicts.clone_from(&report.conflicts);
        self.snapshot.notes = report.notes.texts().map(str::to_owned).collect();
        if report.was_judged() {
            self.document = report
                .sync_token
                .map(|token| (token, report.create_date.clone()));
            let groups = report.groups.iter().map(|(group, prefixes)| GroupCount {
                service: group.service.to_string(),
                region: group.region.to_string(),
                family: group.family,
                prefixes: *prefixes,
            });
            self.snapshot.selection = groups.collect();
            self.snapshot.hold_down_total = report.guard_state.hold_down.len();
        }
        drifted
    }

    /// True if the same document was in force, and the pass had something to do: another program has
    /// changed lists or routes.
    fn has_drifted(&self, report: &VpcReport) -> bool {
        let before = self.document.as_ref().map(|(token, _)| *token);
        self.state() == State::InForce && report.done > 0 && report.sync_token == before
            || !report.drift.is_empty() && report.done > 0
    }

    fn count_repairs(&mut self, report: &VpcReport) {
        for step in report.steps.iter().take(report.done) {
            let step = step.to_json();
            let object = step["object"].as_str().unwrap_or("object");
            let what = report.drift.first().map(ToString::to_string);
            self.mended(object, 1, what.or_else(|| Some(step.to_string())));
        }
    }
}
