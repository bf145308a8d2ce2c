//! The state dir and the journal of a pass. No fault of the disk holds up an addition: the pass leaves
//! out withdrawals alone, and says so.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::drift::{self, Left};
use super::goal::PlaneGoal;
use super::ledger::Ledger;
use super::observed::ObservedPlane;
use super::pass::Pass;
use super::refused::Refused;
use super::report::VpcReport;
use super::routes::{self, Ledgers};
use super::step::Step;
use crate::config::{AutoOr, DriftUse, PlaneMode};
use crate::degraded;
use crate::journal::{Record, values};
use crate::reconcile::{Elsewhere, state_fault};
use crate::state::StateFile;
use crate::state::error::{ReadError, StateError, StateFault};
use crate::types::{Family, PerFamily, Region};

impl Pass<'_> {
    /// Stores the documents. Returns false if the record of withdrawn prefixes is not on disk.
    pub(super) fn store_documents(&mut self, judged: &Elsewhere) -> bool {
        let documents = &mut self.memory.documents;
        match judged.store(self.config, self.options, documents) {
            Ok(mut notes) => {
                self.report.notes.append(&mut notes);
                true
            }
            Err(fault) => {
                self.degrade_state(fault);
                false
            }
        }
    }

    /// Reads the ledger of `mode = "routes"`. Without one the tag of the table decides.
    pub(super) fn read_ledger(&mut self) {
        if self.config.vpc_plane.mode == PlaneMode::PrefixList {
            return;
        }
        self.stored_ledger = match self.store.read_json(StateFile::VpcRoutes) {
            Ok(ledger) => Some(ledger),
            Err(ReadError::Unreadable(fault)) => {
                self.ledger_unreadable = true;
                self.degrade_state(&fault);
                None
            }
            Err(_) => None,
        };
        self.ledger = Refused::newest(self.memory.ledger.as_ref(), self.stored_ledger.clone());
        self.keep_ledger();
        self.verified = self.store.read_json(StateFile::Vpc).ok();
    }

    /// Stores the routes that are about to be ours: a route that no ledger knows could not be deleted
    /// later. Returns false if the disk refuses; then the tag of the table is the only record.
    pub(super) fn write_ahead(&mut self, ledgers: Option<&Ledgers>) -> bool {
        match ledgers {
            Some(ledgers) if self.options.mode.writes() => self.write_ledger(&ledgers.before),
            _ => true,
        }
    }

    /// Keeps the ledger for a time in which the disk refuses it. An unreadable file may come back as it was.
    fn keep_ledger(&mut self) {
        let before = self.memory.ledger.as_ref().and_then(Refused::on_disk);
        let on_disk = match self.ledger_unreadable {
            true => before.cloned(),
            false => self.stored_ledger.clone(),
        };
        if let Some(ledger) = self.ledger.clone() {
            self.memory.ledger = Some(Refused::new(ledger, on_disk));
        }
    }

    /// Takes back the routes that were stored ahead, and whose calls were not sent: `sent` has the steps
    /// with a call.
    pub(super) fn forget_unsent(
        &mut self,
        ledgers: Option<&Ledgers>,
        steps: &[Step],
        sent: &[Step],
    ) {
        let (Some(ledgers), Some(mut ledger)) = (ledgers, self.ledger.clone()) else {
            return;
        };
        for step in steps.iter().filter(|step| !sent.contains(step)) {
            if let Step::CreateRoute {
                table,
                prefix: Some(prefix),
                ..
            } = step
                && let Some(routes) = ledger.0.get_mut(table)
                && !ledgers
                    .known
                    .0
                    .get(table)
                    .is_some_and(|it| it.contains(prefix))
            {
                routes.remove(prefix);
            }
        }
        self.write_ledger(&ledger);
    }

    fn write_ledger(&mut self, ledger: &Ledger) -> bool {
        self.ledger = Some(ledger.clone());
        if self.stored_ledger.as_ref() == Some(ledger) {
            self.keep_ledger();
            return true;
        }
        let written = match self.ledger_unreadable {
            true => None,
            false => Some(self.write(StateFile::VpcRoutes, ledger)),
        };
        if let Some(Ok(())) = written {
            self.stored_ledger = Some(ledger.clone());
            self.keep_ledger();
            return true;
        }
        self.keep_ledger();
        if let Some(Err(error)) = written {
            self.degrade_state(&error);
        }
        false
    }

    fn write<T: serde::Serialize>(&self, file: StateFile, value: &T) -> Result<(), StateError> {
        let directory = self.store.create_directory();
        directory.and_then(|()| self.store.write_json(file, value))
    }

    /// The lists as the last pass left them.
    pub(super) fn read_left(&mut self) -> PerFamily<Option<Left>> {
        self.stored_left = self.store.read_json(StateFile::Vpc).ok();
        let on_disk = self.stored_left.clone();
        let left = Refused::newest(self.memory.left.as_ref(), on_disk).unwrap_or_default();
        // Lists of another region are out of sight, and not deleted.
        let is_here = |left: &Left| left.region.is_none() || left.region == self.region();
        PerFamily::from_fn(|family| left.get(family).clone().filter(is_here))
    }

    fn region(&self) -> Option<Region> {
        match &self.config.vpc_plane.region {
            AutoOr::Set(region) => Some(region.clone()),
            AutoOr::Auto => None,
        }
    }

    /// Remembers lists and routes as they are now, to find later changes of other programs. `earlier` has
    /// the lists as this writer left them.
    pub(super) fn remember(
        &mut self,
        goal: &PlaneGoal,
        observed: &ObservedPlane,
        ledgers: Option<Ledgers>,
        earlier: &PerFamily<Option<Left>>,
    ) {
        if !self.options.mode.writes() {
            return;
        }
        let drift = self.report.drift.iter();
        let repaired = drift.filter(|it| drift::is_repaired(it, observed, goal));
        self.report.repaired = repaired.cloned().collect();
        if let Some(ledgers) = ledgers {
            self.write_ledger(&ledgers.after);
            let verified = routes::fingerprint(&ledgers.after, goal);
            if self.verified.as_ref() != Some(&verified)
                && let Err(error) = self.write(StateFile::Vpc, &verified)
            {
                self.degrade_state(&error);
            }
            return;
        }
        if self.config.vpc_plane.mode == PlaneMode::Routes {
            return;
        }
        let now = PerFamily::from_fn(|family| {
            let ours = observed.lists.get(family).ours()?;
            let left = earlier.get(family).as_ref();
            let target = goal.families.get(family).as_ref();
            let wanted = target.map_or(&[][..], |wanted| &wanted.entries);
            if (self.config.vpc_plane.drift == DriftUse::Hold || goal.frozen)
                && drift::of(family, left, ours, wanted).is_some()
            {
                // The entries of another program are held until somebody takes them back, or until
                // withdrawals go in again.
                return left.cloned();
            }
            Left::of(ours, &observed.tables, target.map(|wanted| &wanted.target))
        });
        self.write_left(&now);
    }

    /// Stores the lists as left, with the document that these steps begin to bring about: after the end
    /// of this process an edit must not pass for that of a writer with a newer document.
    pub(super) fn write_begun(
        &mut self,
        steps: &[Step],
        goal: &PlaneGoal,
        observed: &ObservedPlane,
        left: &mut PerFamily<Option<Left>>,
    ) {
        let changed = steps.iter().filter(|step| step.changes_list());
        for family in changed.map(Step::family).collect::<BTreeSet<_>>() {
            let now = observed.lists.get(family).ours();
            if let (Some(now), Some(wanted)) = (now, goal.families.get(family)) {
                let earlier = left.get(family).as_ref();
                let found = (now, &*observed.tables);
                *left.get_mut(family) = drift::begun(family, earlier, found, wanted, goal.token);
            }
        }
        self.write_left(left);
    }

    /// Stores the lists as left.
    pub(super) fn write_left(&mut self, now: &PerFamily<Option<Left>>) {
        if self.config.vpc_plane.mode == PlaneMode::Routes {
            return;
        }
        let mut now = now.clone();
        for family in Family::ALL {
            if let Some(left) = now.get_mut(family) {
                left.region = self.region();
            }
        }
        self.memory.left = None;
        if self.stored_left.as_ref() == Some(&now) {
            return;
        }
        match self.write(StateFile::Vpc, &now) {
            Ok(()) => self.stored_left = Some(now),
            Err(error) => {
                self.memory.left = Some(Refused::new(now, self.stored_left.clone()));
                self.degrade_state(&error);
            }
        }
    }

    fn tolerate(&mut self, written: Result<(), StateError>) {
        if let Err(error) = written {
            self.degrade_state(StateFault::from(&error).after("the journal lacks this pass: "));
        }
    }

    /// A fault of the state dir holds up no addition.
    pub(super) fn degrade_state(&mut self, fault: impl Into<StateFault>) {
        degraded::merge(&mut self.report.degraded, [state_fault(fault)]);
    }

    /// Writes the line before the changes.
    pub(super) fn write_begin(&mut self) {
        let cause = self.options.cause.as_str();
        let record = Record::begin(Timestamp::now(), self.id.clone(), cause);
        let written = self.journal.append(&filled(record, &self.report, false));
        self.tolerate(written);
    }

    /// Writes the line of the finished pass, unless an agent's pass has nothing to tell.
    pub(super) fn write_end(&mut self) {
        let quiet = self.options.watched.is_some() && self.report.outcome.exit_code() == 0;
        if !self.options.mode.writes() || quiet && self.report.steps.is_empty() {
            return;
        }
        let report = &self.report;
        let record = Record::end(
            Timestamp::now(),
            self.id.clone(),
            self.options.cause.as_str(),
            report.outcome.as_str(),
            report.duration,
        );
        let record = filled(record, report, true)
            .with_degraded(&report.degraded)
            .with_hold(report.held_digest().map(str::to_owned))
            .with_error(report.error.clone());
        let written = self.journal.append(&record);
        self.tolerate(written);
    }
}

/// The lines of the plan, and its words about parts without steps, for the journal. `has_ended` is true
/// at the end of a pass.
fn filled(record: Record, report: &VpcReport, has_ended: bool) -> Record {
    let holds = report.holds.iter();
    let holds = holds.map(|it| json!({"guard": "vpc", "level": "hold", "message": it}));
    let drift = report.drift.iter().map(|drift| {
        let mut value = json!({"guard": "drift", "level": "note", "message": drift.to_string()});
        value["drift"] = json!(drift);
        if has_ended {
            value["repaired"] = report.repaired.contains(drift).into();
        }
        value
    });
    let verdicts: Vec<_> = values(&report.verdicts).chain(holds).chain(drift).collect();
    record
        .with_steps(report.steps.iter().map(Step::to_json))
        .with_sync_token(report.sync_token.map(|token| token.0))
        .with_verdicts(verdicts)
}
