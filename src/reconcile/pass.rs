//! The pass: the only code that knows every stage.

use std::borrow::BorrowMut;
use std::sync::Arc;
use std::time::Instant;

use super::attempt::{Aim, Machine, PartialGoal, Work};
use super::documents::{self, Documents};
use super::fights::Fights;
use super::flows;
use super::gather::Gathered;
use super::in_force::InForce;
use super::instance;
use super::memory::Memory;
use super::pass_journal::PassJournal;
use super::persist::{StoredNumbers, store_documents, store_silences};
use super::report::{Applied, Laps, Outcome, Report};
use super::restore::{add_missing, not_restored, plan_missing};
use super::rollback::roll_back;
use super::view::{Firewalls, View};
use super::{Job, LOCK_WAIT, Mode, PassError};
use crate::apply::Interposer;
use crate::firewall::ObservedFirewall;
use crate::kernel::{Kernel, ObserveError};
use crate::notes::Notes;
use crate::plan::Plan;
use crate::state::lock::PassLock;
use crate::state::store::Store;

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
/// - A part ends verified or rolled back. If the rollback fails as well, the report says so.
/// - Only the pass writes to the report. A stage is a function that returns a value and notes.
///
/// # Stages
///
/// 1. [`Pass::look`]: read the kernel, read the state dir, let the guard judge the document.
/// 2. [`Pass::plan`]: compute goal and plan. The pass may be *refused* here, for example for a
///    conflict with a foreign object; then [`Pass::restore`] repairs the objects of earlier passes.
/// 3. [`Pass::bring_about`]: store the documents, so that the state on disk is never behind the
///    kernel, then reach the goal.
/// 4. [`Pass::carry_out`]: apply and verify a part with a few attempts, or roll the part back.
/// 5. [`Pass::end`]: settle the report and write the journal.
pub(super) struct Pass<'a> {
    pub(super) job: Job<'a>,
    started: Instant,
    store: Store,
    journal: PassJournal<'a>,
    /// An agent's. Dry runs have none.
    memory: Option<&'a mut Memory>,
    numbers: StoredNumbers,
    fights: Fights,
    locked: bool,
    pub(super) laps: Laps,
    pub(super) report: Report,
}

/// The result of the first stages.
pub(super) struct Seen {
    pub view: View,
    pub documents: Documents,
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
            fights: Fights::new(job.options.watched.as_ref()),
            locked: false,
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
        let _lock = self.lock()?;
        let mut kernel = kernel()?;
        let kernel = kernel.borrow_mut();
        let Seen { view, documents } = self.look(kernel, gathered, Firewalls::Chosen)?;
        if self.job.options.mode.documents_only() {
            self.store_documents(&documents)?;
            return documents.complain();
        }
        let mut machine = Machine {
            kernel,
            view,
            interposer: interposer.map(|it| it as &mut dyn Interposer),
        };
        let brought_about = self.bring_about(&mut machine, &documents);
        if self.job.options.mode.writes() {
            let memory = self.memory.as_deref_mut();
            let notes = flows::end_dead(self.job, &machine.view, memory);
            self.note(notes);
        }
        brought_about?;
        documents.complain()
    }

    fn lock(&mut self) -> Result<Option<PassLock>, PassError> {
        let options = self.job.options;
        if !options.mode.writes() {
            return Ok(None);
        }
        let directory = &self.job.config.source.state_dir;
        let lock = PassLock::acquire(directory, options.cause.as_str(), LOCK_WAIT)?;
        self.locked = true;
        let warning = lock.warning().map(str::to_owned);
        self.report.notes.extend(warning);
        Ok(Some(lock))
    }

    /// Reads kernel and state dir, and lets the guard judge the document.
    pub(super) fn look(
        &mut self,
        kernel: &mut Kernel,
        gathered: Gathered,
        firewalls: Firewalls,
    ) -> Result<Seen, PassError> {
        let Job {
            config, options, ..
        } = self.job;
        self.note(gathered.notes);
        let notes = self.numbers.read(&self.store, options)?;
        self.note(notes);
        let facts = kernel.facts()?;
        let memory = self.memory.as_deref_mut();
        let (instance, notes) =
            instance::learn(gathered.metadata, self.job, &self.store, &facts, memory);
        self.note(notes);
        let (instance, instance_error) = match instance {
            Ok(instance) => (instance, None),
            Err(error) => (None, Some(error)),
        };
        let ownership = self.numbers.ownership(config);
        let mut view = View::open(kernel, config, ownership, firewalls, facts)?;
        view.set_instance(config, instance);
        view.instance_error = instance_error;
        if firewalls == Firewalls::Chosen {
            self.report.backend = Some(view.backend.clone());
        }
        self.report.devices = view.devices();
        self.laps.end("observe");
        if options.mode.writes() {
            self.journal.write_repairs(&self.report)?;
        }
        let (documents, notes) = documents::find(
            self.job,
            &self.store,
            &view,
            (gathered.source, gathered.read_ahead),
            self.memory.as_deref_mut(),
            &mut self.laps,
        )?;
        self.note(notes);
        self.note(store_silences(&self.store, options, &gathered.silences));
        self.report.take_judgement(&documents.judgement);
        self.report.fetch = documents.fetch.clone();
        view.prefixes = documents.prefixes_in_force();
        Ok(Seen { view, documents })
    }

    /// Stores the documents and reaches the goal.
    fn bring_about(
        &mut self,
        machine: &mut Machine<'_>,
        documents: &Documents,
    ) -> Result<(), PassError> {
        let Job { config, role, .. } = self.job;
        let whole = |view: &View| view.desired(config, role);
        let (aim, steps) = match self.plan(machine, &whole) {
            Ok(planned) => planned,
            Err(refused) => return Err(self.restore(machine, refused)),
        };
        if self.job.options.mode == Mode::DryRun {
            self.judge_unless_pending(machine, &aim, &steps);
            return Ok(());
        }
        self.store_documents(documents)?;
        self.numbers.store(&self.store, &machine.view, false)?;
        let aim = self.carry_out(machine, &whole, aim, steps)?;
        self.judge(machine, &aim);
        self.numbers.store(&self.store, &machine.view, true)?;
        self.report.in_force = Some(Box::new(InForce {
            goal: aim.goal,
            ownership: machine.view.ownership.clone(),
            facts: machine.view.facts.clone(),
        }));
        self.laps.end("store");
        match self.fights.refusal() {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// Computes the aim of a part and the steps to it.
    ///
    /// # Errors
    /// The pass is refused: the part can't be planned on this host at the moment.
    fn plan(
        &mut self,
        machine: &mut Machine<'_>,
        part: PartialGoal<'_>,
    ) -> Result<(Aim, Plan), PassError> {
        let aim = Aim::of(part, machine)?;
        let mut steps = machine.view.plan_to(&aim.goal);
        self.fights.strip_and_report(&mut steps);
        self.report.notes.extend(aim.desired.notes.iter().cloned());
        self.report.degrade(&aim.desired.degraded);
        self.report.notes.extend(steps.notes.iter().cloned());
        self.report.take_plan(steps.clone());
        self.laps.end("plan");
        if !steps.conflicts.is_empty() {
            let conflicts = steps.conflicts.into_iter();
            let messages = conflicts.map(|conflict| conflict.message).collect();
            return Err(PassError::Conflict(messages));
        }
        let backend = machine.view.backend.kind;
        let firewall = machine.view.observed.firewalls.get(&backend);
        if self.job.options.mode == Mode::Apply
            && let Some(ObservedFirewall::Unreadable(why)) = firewall
        {
            // Unknown rules allow neither a plan nor a rollback.
            return Err(PassError::NoFirewall(format!("{backend}: {why}")));
        }
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
        let (journal, report) = (&self.journal, &mut self.report);
        let mut begin = |steps: &Plan| {
            report.take_plan(steps.clone());
            journal.write_begin(report)
        };
        begin(&steps)?;
        self.laps.end("store");
        let mut work = Work {
            job: self.job,
            part,
            fights: &mut self.fights,
            laps: &mut self.laps,
            notes: Notes::default(),
        };
        let reached = work.reach(machine, aim, steps, &mut begin);
        let notes = work.notes;
        self.note(notes);
        let reason = match reached {
            Ok(aim) => {
                self.report.outcome = Outcome::Changed;
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
        match roll_back(machine, before) {
            Ok(notes) => self.note(notes),
            Err(rollback) => return Err(PassError::RollbackFailed { reason, rollback }),
        }
        self.report.outcome = Outcome::RolledBack;
        Err(PassError::RolledBack { reason })
    }

    /// Adds the missing objects of an earlier pass to the kernel, and returns the error of this
    /// one.
    fn restore(&mut self, machine: &mut Machine<'_>, refused: PassError) -> PassError {
        let Some(earlier) = self.earlier().cloned() else {
            return refused;
        };
        let mut steps = plan_missing(machine, &earlier);
        self.fights.strip_and_report(&mut steps);
        if steps.is_empty() {
            return refused;
        }
        steps.conflicts.clone_from(&self.report.plan.conflicts);
        self.report.take_plan(steps);
        if let Err(error) = self.journal.write_begin(&self.report) {
            self.report.notes.push(not_restored(&error));
            return refused;
        }
        self.report.applied = Applied::Part;
        // The watcher repairs towards the earlier goal, even if steps fail here.
        self.report.in_force = Some(Box::new(InForce {
            facts: machine.view.facts.clone(),
            ..(*earlier).clone()
        }));
        let added = add_missing(machine, self.job, &self.report.plan, &earlier);
        self.laps.end("apply");
        match added {
            Err(stopped) => return stopped,
            Ok((complete, notes)) => {
                if complete {
                    self.report.outcome = Outcome::Changed;
                }
                self.note(notes);
            }
        }
        refused
    }

    /// Settles the report and writes the last line of the journal.
    fn end(mut self, result: Result<(), PassError>) -> Report {
        let report = &mut self.report;
        if let Err(error) = result {
            report.fail(&error);
        }
        report.settle();
        report.fought = self.fights.fought;
        report.stages = self.laps.into_stages();
        report.duration = self.started.elapsed();
        let quiet = self.job.options.watched.is_some() && report.outcome == Outcome::InSync;
        if self.locked
            && !quiet
            && let Err(error) = self.journal.write_end(report)
        {
            // The pass is over, so the failure is only a note.
            let note = format!("the journal lacks this pass: {error}");
            report.notes.push(note);
        }
        self.report
    }

    /// The state in force after the last pass under the same settings; an agent's passes only.
    fn earlier(&self) -> Option<&Arc<InForce>> {
        self.job.options.watched.as_ref()?.earlier.as_ref()
    }

    fn store_documents(&mut self, documents: &Documents) -> Result<(), PassError> {
        if self.job.options.mode.writes() {
            let notes = store_documents(&self.store, documents)?;
            self.note(notes);
        }
        Ok(())
    }

    fn note(&mut self, mut notes: Notes) {
        self.report.notes.append(&mut notes);
    }
}
