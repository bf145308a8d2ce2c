//! The pass: the only code that knows every stage.

use std::borrow::BorrowMut;
use std::time::Instant;

use super::attempt::{Aim, Machine, PartialGoal, Work};
use super::documents::{Documents, Seen};
use super::fights::Fights;
use super::flows;
use super::gather::Gathered;
use super::in_force::InForce;
use super::memory::Memory;
use super::pass_journal::PassJournal;
use super::persist::StoredNumbers;
use super::report::{Laps, Outcome, Report};
use super::rollback::roll_back;
use super::view::{Firewalls, View};
use super::{Job, Mode, PassError};
use crate::apply::Interposer;
use crate::desired::SysctlSetting;
use crate::firewall::ObservedFirewall;
use crate::kernel::{Kernel, ObserveError};
use crate::notes::Notes;
use crate::ownership::{Numbers, Ownership};
use crate::plan::Plan;
use crate::state::StateFile;
use crate::state::error::StateFault;
use crate::state::lock::FLUSH;
use crate::state::store::Store;
use crate::types::PerFamily;

/// One pass: compares the kernel with the settings and the document, and changes the kernel where
/// the two differ.
///
/// # Terms
///
/// - *Gathered*: the answers of the metadata service and the source, requested before the pass.
///   The pass itself talks to the kernel and the state dir only.
/// - *View*: one reading of the host and the kernel.
/// - *Goal*: the objects that should exist, computed from settings, prefixes and view.
/// - *Plan*: the ordered steps from the view to the goal.
/// - *Part*: a share of the goal with a plan, attempts and a rollback of its own. Today a pass has
///   one part, the whole goal.
/// - *Attempt*: one application of a plan, with a new reading to verify the result.
/// - *Fight*: another program keeps undoing a change, see [`super::fights`].
///
/// # Invariants
///
/// - The lock is held from the first look to the last write, and no remote service is contacted
///   meanwhile. So a silent server never keeps another pass or `flush` waiting.
/// - After each step, traffic takes a valid path (the order of the plan ensures this). A pass may
///   be killed between any two steps, and the next pass does the rest.
/// - A part ends verified or rolled back. If the rollback fails as well, the report says so. The
///   egress is never rolled back, and goes in by itself after any error.
/// - A fault leaves out one object or one part: a foreign object in the place of ours, a step that
///   the kernel refuses, a document or a state dir that cannot be read. The pass does the rest.
/// - Only the pass writes to the report. A stage is a function that returns a value and notes.
///
/// # Stages
///
/// 1. [`Pass::look`]: read the kernel, read the state dir, let the guard judge the document.
/// 2. [`Pass::bring_about`]: store the documents, so that the state on disk is never behind the
///    kernel, then reach the goal. If the disk refuses, no prefix loses its route.
/// 3. [`Pass::plan`]: compute goal and plan, without the objects whose place a foreign object has.
/// 4. [`Pass::carry_out`]: apply and verify a part with a few attempts, or roll the part back.
/// 5. [`Pass::end`]: settle the report and write the journal.
pub(super) struct Pass<'a> {
    pub(super) job: Job<'a>,
    started: Instant,
    pub(super) store: Store,
    pub(super) journal: PassJournal<'a>,
    /// An agent's. Dry runs have none.
    pub(super) memory: Option<&'a mut Memory>,
    pub(super) numbers: StoredNumbers,
    fights: Fights,
    /// True if the guard held the same before.
    hold_is_known: bool,
    /// True with the lock of the state dir, which answers.
    pub(super) locked: bool,
    /// Errors that held up nothing. The first one is the error of the pass.
    pub(super) late: Vec<PassError>,
    pub(super) laps: Laps,
    pub(super) report: Report,
}

/// Runs a pass on gathered answers; it waits for the lock only. `kernel` is called once the lock
/// is held. Errors are in the report.
pub(super) fn run<K: BorrowMut<Kernel>>(
    job: Job<'_>,
    gathered: Gathered,
    memory: Option<&mut Memory>,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let mut pass = Pass::new(job);
    pass.memory = memory.filter(|_| job.options.mode.writes());
    let result = pass.run(gathered, kernel, interposer);
    pass.end(result)
}

impl<'a> Pass<'a> {
    pub(super) fn new(job: Job<'a>) -> Self {
        Pass {
            job,
            started: Instant::now(),
            store: Store::open(&job.config.source.state_dir).with_sync(job.options.sync),
            journal: PassJournal::new(job),
            memory: None,
            numbers: StoredNumbers::default(),
            fights: Fights::new(
                job.options.watched.as_ref(),
                Ownership::new(Numbers::of(job.config), []),
            ),
            hold_is_known: false,
            locked: false,
            late: Vec::new(),
            laps: Laps::start(),
            report: Report::new(job.role, job.options.mode),
        }
    }

    fn run<K: BorrowMut<Kernel>>(
        &mut self,
        gathered: Gathered,
        kernel: impl FnOnce() -> Result<K, ObserveError>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        self.job.check_privilege()?;
        let lock = match self.exclude_others() {
            // The objects are about to go.
            Err(held) if held.holder_is(FLUSH) => return Err(held.into()),
            other => other,
        };
        let mut kernel = kernel()?;
        let kernel = kernel.borrow_mut();
        let mut interposer = interposer.map(|it| it as &mut dyn Interposer);
        let again = interposer
            .as_mut()
            .map(|it| &mut **it as &mut dyn Interposer);
        let mut lock = match lock {
            Ok(lock) => lock,
            // The other pass may hang.
            Err(held) => {
                self.egress_alone(kernel, again)?;
                return Err(held.into());
            }
        };
        let answers = self.lock_state_dir(lock.as_mut(), kernel, again)?;
        let Seen { view, documents } = self.look(kernel, gathered, Firewalls::Chosen, answers)?;
        let documents = match documents {
            Ok(documents) if self.job.options.mode.documents_only() => {
                self.persist(&documents)?;
                return documents.complain();
            }
            Ok(documents) => Some(documents),
            Err(error) if self.job.options.mode == Mode::Apply => {
                self.late.push(error);
                None
            }
            Err(error) => return Err(error),
        };
        let mut machine = Machine {
            kernel,
            view,
            interposer,
        };
        let brought_about = self.bring_about(&mut machine, documents.as_ref());
        self.forget_time_in_force();
        // Conntrack alone is concerned, not the state dir.
        if self.job.options.mode == Mode::Apply {
            let memory = self.memory.as_deref_mut();
            let notes = flows::end_dead(self.job, &machine.view, memory);
            self.note(notes);
        }
        if let Err(error) = brought_about {
            if !matches!(error, PassError::Stopped) {
                self.close(&mut machine)?;
            }
            return Err(error);
        }
        self.late.extend(self.fights.refusal());
        let mut late = std::mem::take(&mut self.late).into_iter();
        let first = late.next();
        let others = late.map(|error| error.to_string());
        self.report.notes.extend(others);
        match (first, documents) {
            (Some(first), _) => Err(first),
            (None, Some(documents)) => documents.complain(),
            (None, None) => Ok(()),
        }
    }

    /// Stores the documents and reaches the goal. Without documents, or if the record of withdrawn
    /// prefixes is not on disk, no prefix loses its route.
    fn bring_about(
        &mut self,
        machine: &mut Machine<'_>,
        documents: Option<&Documents>,
    ) -> Result<(), PassError> {
        let Job { config, role, .. } = self.job;
        let stored = match documents {
            Some(documents) => {
                self.hold_is_known = documents.holds_as_before();
                self.persist(documents)?
            }
            None => false,
        };
        let whole = |view: &View| {
            let mut desired = view.desired(config, role);
            if !stored {
                desired.frozen = PerFamily::from_fn(|_| true);
            }
            desired
        };
        let (aim, steps) = self.plan(machine, &whole)?;
        if self.job.options.mode == Mode::DryRun {
            // Answers about pending objects would mean nothing.
            if steps.is_empty() {
                self.judge(machine, &aim);
            }
            return Ok(());
        }
        self.store_numbers(&machine.view, false)?;
        let aim = self.carry_out(machine, &whole, aim, steps)?;
        self.judge(machine, &aim);
        let forgotten = flows::forget_former_marks(self.job.config, &machine.view);
        self.note(forgotten);
        self.store_numbers(&machine.view, true)?;
        self.store_shares(&machine.view, &aim)?;
        if !machine.view.observed.firewalls.is_empty() {
            self.report.in_force = Some(Box::new(InForce {
                goal: aim.goal,
                ownership: machine.view.ownership.clone(),
                facts: machine.view.facts.clone(),
            }));
        }
        self.laps.end("store");
        Ok(())
    }

    /// A stopped agent's time in force ends with a change by a single pass; a running agent keeps its
    /// own time.
    fn forget_time_in_force(&mut self) {
        let single = self.job.options.watched.is_none() && self.memory.is_none();
        if single && self.writes_state() && !self.report.plan.steps.is_empty() {
            // A disk fault is in the report already.
            let _ = self.store.remove_json(StateFile::InForce);
        }
    }

    fn store_numbers(&mut self, view: &View, done: bool) -> Result<(), PassError> {
        if self.locked {
            let written = self.numbers.store(&self.store, view, done);
            self.tolerate(written)?;
        }
        Ok(())
    }

    fn store_shares(&mut self, view: &View, aim: &Aim) -> Result<(), PassError> {
        let shares = &aim.desired.shares;
        if self.locked && *shares != view.shares {
            let written = self.store.write_json(StateFile::Shares, shares);
            self.tolerate(written)?;
        }
        Ok(())
    }

    /// Computes the aim of a part and the steps to it. Objects whose place a foreign object has, and
    /// a firewall with unreadable content, are left out and become errors of the finished pass.
    fn plan(
        &mut self,
        machine: &mut Machine<'_>,
        part: PartialGoal<'_>,
    ) -> Result<(Aim, Plan), PassError> {
        let aim = Aim::of(part, machine)?;
        let mut steps = machine.view.plan_to(&aim.goal);
        if self.job.options.mode == Mode::Apply {
            self.fights.leave(machine.view.unreadable_firewalls());
        }
        self.fights.strip_and_report(&mut steps);
        self.report.notes.extend(aim.desired.messages().cloned());
        self.report.degrade(&aim.desired.degraded);
        self.report.notes.extend(steps.notes.iter().cloned());
        if !steps.conflicts.is_empty() {
            let messages = steps.conflicts.iter().map(|it| it.message.clone());
            self.late.push(PassError::Conflict(messages.collect()));
        }
        let backend = machine.view.backend.kind;
        let firewall = machine.view.observed.firewalls.get(&backend);
        if self.job.options.mode == Mode::Apply
            && let Some(ObservedFirewall::Unreadable(why)) = firewall
        {
            self.late
                .push(PassError::NoFirewall(format!("{backend}: {why}")));
        }
        self.report.take_plan(steps.clone());
        self.laps.end("plan");
        Ok((aim, steps))
    }

    /// Carries a part out and verifies the result, or rolls the part back. Returns the aim
    /// reached.
    fn carry_out(
        &mut self,
        machine: &mut Machine<'_>,
        part: PartialGoal<'_>,
        aim: Aim,
        steps: Plan,
    ) -> Result<Aim, PassError> {
        if steps.is_empty() {
            return Ok(aim);
        }
        let planned = aim.desired.degraded.clone();
        let before = machine.view.observed.owned(&machine.view.ownership);
        let sysctls: Vec<SysctlSetting> = steps.sysctls().cloned().collect();
        let (journal, report, locked) = (&self.journal, &mut self.report, self.locked);
        let mut begin = |further: Option<&Plan>| {
            if let Some(steps) = further {
                report.take_plan(steps.clone());
            }
            if locked && let Err(error) = journal.write_begin(report) {
                report.degrade_state(&error);
            }
        };
        begin(None);
        self.laps.end("store");
        let mut work = Work {
            job: self.job,
            part,
            fights: &mut self.fights,
            laps: &mut self.laps,
            notes: Notes::default(),
            conflicts: steps.conflicts.clone(),
        };
        let reached = work.reach(machine, aim, steps, &mut |steps| begin(Some(steps)));
        let (notes, conflicts) = (work.notes, work.conflicts);
        self.note(notes);
        let new = conflicts.into_iter().skip(self.report.plan.conflicts.len());
        let new: Vec<String> = new.map(|conflict| conflict.message).collect();
        if !new.is_empty() {
            self.late.push(PassError::Conflict(new));
        }
        let reason = match reached {
            Ok(aim) => {
                self.report
                    .drop_idle(&before.firewalls, &machine.view.observed);
                if !self.report.plan.is_empty() {
                    self.report.outcome = Outcome::Changed;
                }
                // The host may have changed since the first attempt.
                self.report.degraded.retain(|it| !planned.contains(it));
                self.report.degrade(&aim.desired.degraded);
                self.laps.end("verify");
                return Ok(aim);
            }
            Err(PassError::Stopped) => return Err(PassError::Stopped),
            Err(PassError::RolledBack { reason }) => reason,
            Err(other) => other.to_string(),
        };
        match roll_back(machine, before, &sysctls) {
            Ok(notes) => self.note(notes),
            Err(rollback) => return Err(PassError::RollbackFailed { reason, rollback }),
        }
        self.report.outcome = Outcome::RolledBack;
        Err(PassError::RolledBack { reason })
    }

    /// Settles the report and writes the last line of the journal.
    pub(super) fn end(mut self, result: Result<(), PassError>) -> Report {
        let report = &mut self.report;
        if let Err(error) = result {
            report.fail(&error);
        }
        report.settle();
        report.fought = self.fights.fought;
        report.stages = self.laps.into_stages();
        report.duration = self.started.elapsed();
        // A hold is one line until it changes.
        let held_on = report.outcome == Outcome::Held && self.hold_is_known;
        let unchanged = held_on && report.plan.is_empty();
        let nothing_new = report.outcome == Outcome::InSync || unchanged;
        if self.locked && !(nothing_new && self.journal.may_be_quiet()) {
            match self.journal.write_end(report) {
                Ok(()) => report.is_recorded = true,
                Err(error) => report
                    .degrade_state(StateFault::from(&error).after("the journal lacks this pass: ")),
            }
        }
        self.report
    }

    /// The state in force after the last pass under the same settings; an agent's passes only.
    pub(super) fn earlier(&self) -> Option<&InForce> {
        self.job.options.watched.as_ref()?.earlier.as_deref()
    }

    pub(super) fn note(&mut self, mut notes: Notes) {
        self.report.notes.append(&mut notes);
    }
}
