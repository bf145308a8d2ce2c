//! The pass: the only code that knows every stage.

use std::borrow::BorrowMut;
use std::sync::Arc;
use std::time::Instant;

use super::attempt::{Aim, Machine, Part, Work};
use super::documents::{self, Documents};
use super::egress::{plan_egress, put_in};
use super::fights::Fights;
use super::gather::Gathered;
use super::in_force::InForce;
use super::instance;
use super::memory::Memory;
use super::pass_journal::PassJournal;
use super::persist::{StoredNumbers, store_documents};
use super::report::{Applied, Laps, Outcome, Report};
use super::restore::{add_missing, not_writable, plan_missing};
use super::rollback::roll_back;
use super::view::{Firewalls, View};
use super::{Job, LOCK_WAIT, Mode, PassError};
use crate::apply::Interposer;
use crate::config::Role;
use crate::degraded::{self, Degradation};
use crate::firewall::ObservedFirewall;
use crate::kernel::{Kernel, ObserveError};
use crate::notes::Notes;
use crate::ownership::{Numbers, Ownership};
use crate::plan::{Conflict, Goal, Plan, Step};
use crate::state::lock::{LockError, PassLock};
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
/// - *Part*: a share of the goal with a plan, attempts and a rollback of its own. A pass has two
///   parts: the egress, and the whole goal.
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
/// - The egress goes in before the state dir or a document is looked at, and no failure of a later
///   stage withholds or undoes the egress. A refused step or a foreign object leaves out one
///   object; everything else goes in, and the pass fails afterwards.
///
/// # Stages
///
/// 0. [`Pass::close`]: put the egress in.
/// 1. [`Pass::look`]: read the kernel, read the state dir, let the guard judge the document.
/// 2. [`Pass::bring_about`]: store the documents, so that the state on disk is never behind the
///    kernel, then reach the goal. If the disk refuses, no prefix is withdrawn.
/// 3. [`Pass::plan`]: compute goal and plan. The pass may be *refused* here, if the host does not
///    fit the settings; then [`Pass::restore`] repairs the objects of earlier passes.
/// 4. [`Pass::carry_out`]: apply and verify a part with a few attempts, or roll the part back.
/// 5. [`Pass::end`]: settle the report and write the journal.
pub(super) struct Pass<'a> {
    job: Job<'a>,
    started: Instant,
    store: Store,
    journal: PassJournal<'a>,
    /// An agent's. Dry runs have none.
    memory: Option<&'a mut Memory>,
    numbers: StoredNumbers,
    fights: Fights,
    locked: bool,
    /// The steps carried out by [`Pass::close`].
    closed: Vec<Step>,
    /// Errors that held up nothing. The first one is the error of the pass.
    late: Vec<PassError>,
    laps: Laps,
    pub(super) report: Report,
}

/// The result of the first stages.
pub(super) struct Seen {
    pub view: View,
    /// An error leaves the bypass path as it is.
    pub documents: Result<Documents, PassError>,
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
    pass.finish(gathered, kernel, interposer)
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
            locked: false,
            closed: Vec::new(),
            late: Vec::new(),
            laps: Laps::start(),
            report: Report::new(job.role, job.options.mode),
        }
    }

    /// Runs the pass to its end.
    pub(super) fn finish<K: BorrowMut<Kernel>>(
        mut self,
        gathered: Gathered,
        kernel: impl FnOnce() -> Result<K, ObserveError>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Report {
        let result = self.run(gathered, kernel, interposer);
        self.end(result)
    }

    /// Ends the pass with an error.
    pub(super) fn fail(self, error: PassError) -> Report {
        self.end(Err(error))
    }

    fn run<K: BorrowMut<Kernel>>(
        &mut self,
        gathered: Gathered,
        kernel: impl FnOnce() -> Result<K, ObserveError>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        self.job.check_privilege()?;
        let mut interposer = interposer;
        let mut lock = self.exclude_others()?;
        let mut kernel = kernel()?;
        let kernel = kernel.borrow_mut();
        let view = self.close(kernel, reborrow(&mut interposer))?;
        self.lock_state_dir(lock.as_mut())?;
        let Seen { view, documents } = self.look(kernel, gathered, Firewalls::Chosen, view)?;
        if self.job.options.mode.documents_only() {
            let documents = documents?;
            self.store_documents(&documents)?;
            return documents.complain();
        }
        let mut machine = Machine {
            kernel,
            view,
            interposer: interposer.map(|it| it as &mut dyn Interposer),
        };
        self.bring_about(&mut machine, documents.as_ref().ok())?;
        let documents = documents?;
        let mut late = std::mem::take(&mut self.late).into_iter();
        if let Some(first) = late.next() {
            self.report
                .notes
                .extend(late.map(|error| error.to_string()));
            return Err(first);
        }
        documents.complain()
    }

    /// Takes the half of the lock that needs no disk.
    fn exclude_others(&self) -> Result<Option<PassLock>, PassError> {
        let options = self.job.options;
        if !options.mode.writes() {
            return Ok(None);
        }
        let directory = &self.job.config.source.state_dir;
        Ok(Some(PassLock::exclude(
            directory,
            options.cause.as_str(),
            LOCK_WAIT,
        )?))
    }

    /// Takes the other half of the lock. A disk that refuses is a degradation.
    fn lock_state_dir(&mut self, lock: Option<&mut PassLock>) -> Result<(), PassError> {
        let Some(lock) = lock else {
            return Ok(());
        };
        lock.lock_file(LOCK_WAIT)?;
        self.locked = true;
        self.report.notes.extend(lock.warning().map(str::to_owned));
        if let Some(failure) = lock.failure() {
            if self.job.options.mode.documents_only() || failure.is_silent() {
                // A further access to a silent disk would never return.
                self.locked = !failure.is_silent();
                return Err(PassError::NoStateDir(failure.to_string()));
            }
            self.degrade_state(&failure.to_string());
        }
        Ok(())
    }

    /// Puts the egress in. Returns the view for the rest of the pass; `None` if the kernel can't be
    /// read by the settings alone.
    fn close(
        &mut self,
        kernel: &mut Kernel,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<Option<View>, PassError> {
        let config = self.job.config;
        if self.job.options.mode != Mode::Apply {
            return Ok(None);
        }
        let ownership = Ownership::new(Numbers::of(config), []);
        let facts = kernel.facts()?;
        let open = |kernel: &mut Kernel, firewalls| {
            View::open(kernel, config, ownership.clone(), firewalls, facts.clone())
        };
        let (view, whole) = match open(kernel, Firewalls::Chosen) {
            Ok(view) => (view, true),
            // Rules and routes need no firewall.
            Err(_) => (open(kernel, Firewalls::Ignored)?, false),
        };
        let mut machine = Machine {
            kernel,
            view,
            interposer: interposer.map(|it| it as &mut dyn Interposer),
        };
        let earlier = self.earlier().cloned();
        let steps = plan_egress(&mut machine, self.job, earlier.as_deref());
        self.laps.end("observe");
        if !steps.is_empty() {
            let notes = put_in(
                &mut machine,
                self.job,
                &steps,
                earlier.as_deref(),
                self.closed.len(),
            )?;
            self.note(notes);
            self.closed.extend(steps.steps);
            self.report.applied = Applied::Part;
            self.report.take_plan(self.with_closed(Plan::default()));
            machine.view.refresh(machine.kernel)?;
            self.laps.end("apply");
        }
        Ok(whole.then_some(machine.view))
    }

    /// Puts the egress in before any remote service is asked. The pass follows.
    pub(super) fn close_first(
        &mut self,
        kernel: &mut Kernel,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        if self.job.options.mode != Mode::Apply {
            return Ok(());
        }
        let directory = &self.job.config.source.state_dir;
        let cause = self.job.options.cause.as_str();
        match PassLock::exclude(directory, cause, std::time::Duration::ZERO) {
            Ok(_lock) => self.close(kernel, interposer).map(drop),
            // The other pass closes the egress, or `flush` opens it on purpose.
            Err(LockError::Held { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A plan after the steps that are carried out already.
    fn with_closed(&self, mut plan: Plan) -> Plan {
        plan.steps.splice(0..0, self.closed.iter().cloned());
        plan
    }

    /// Reads kernel and state dir, and lets the guard judge the document.
    pub(super) fn look(
        &mut self,
        kernel: &mut Kernel,
        gathered: Gathered,
        firewalls: Firewalls,
        view: Option<View>,
    ) -> Result<Seen, PassError> {
        let Job {
            config,
            role,
            options,
        } = self.job;
        self.note(gathered.notes);
        match self.numbers.read(&self.store, options) {
            Ok(notes) => self.note(notes),
            Err(error) if options.mode == Mode::Apply => self.degrade_state(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
        let facts = match &view {
            Some(view) => view.facts.clone(),
            None => kernel.facts()?,
        };
        let memory = self.memory.as_deref_mut();
        let (instance, notes) =
            instance::learn(gathered.metadata, self.job, &self.store, &facts, memory);
        self.note(notes);
        // Neither the egress path of a host nor the objects of an earlier pass need the answer, so
        // the pass takes care of both before it fails.
        let goes_on = role == Role::Host || self.earlier().is_some();
        let (instance, instance_error) = match instance {
            Ok(instance) => (instance, None),
            Err(error) if goes_on => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let ownership = self.numbers.ownership(config);
        let mut view = match view {
            Some(view) if view.ownership == ownership => view,
            _ => self.open_view(kernel, ownership, firewalls, facts)?,
        };
        view.set_instance(config, instance);
        view.instance_error = instance_error;
        if firewalls == Firewalls::Chosen {
            self.report.backend = Some(view.backend.clone());
        }
        let links = view.facts.links.iter();
        self.report.devices = links.map(|link| (link.index, link.name.clone())).collect();
        self.laps.end("observe");
        if options.mode.writes() {
            let written = self.journal.write_repairs(&self.report);
            self.allow_state(written)?;
        }
        let found = documents::find(
            self.job,
            &self.store,
            &view,
            (gathered.source, gathered.read_ahead),
            self.memory.as_deref_mut(),
            &mut self.laps,
        );
        let documents = match found {
            Ok((documents, notes)) => {
                self.note(notes);
                self.report.take_judgement(&documents.judgement);
                self.report.fetch = documents.fetch.clone();
                view.prefixes = documents.prefixes_in_force();
                Ok(documents)
            }
            Err(error) => Err(error),
        };
        Ok(Seen { view, documents })
    }

    /// Reads the kernel. A pass that has no firewall does without.
    fn open_view(
        &mut self,
        kernel: &mut Kernel,
        ownership: Ownership,
        firewalls: Firewalls,
        facts: crate::facts::HostFacts,
    ) -> Result<View, PassError> {
        let config = self.job.config;
        match View::open(kernel, config, ownership.clone(), firewalls, facts.clone()) {
            Err(error @ PassError::NoFirewall(_)) if self.job.options.mode == Mode::Apply => {
                self.late.push(error);
                View::open(kernel, config, ownership, Firewalls::Ignored, facts)
            }
            opened => opened,
        }
    }

    /// Stores the documents and reaches the goal.
    fn bring_about(
        &mut self,
        machine: &mut Machine<'_>,
        documents: Option<&Documents>,
    ) -> Result<(), PassError> {
        let Job { config, role, .. } = self.job;
        let dry = self.job.options.mode == Mode::DryRun;
        let stored = match documents {
            Some(documents) if documents.on_disk.unreadable.is_some() => {
                let reason = documents.on_disk.unreadable.clone().unwrap_or_default();
                self.degrade_state(&reason);
                false
            }
            Some(documents) if !dry => {
                let stored = self.store_documents(documents);
                let is_stored = stored.is_ok();
                self.allow_state(stored)?;
                is_stored
            }
            _ => true,
        };
        let whole = |view: &View| {
            let mut desired = view.desired(config, role)?;
            if !stored {
                // The record of the withdrawn prefixes is not on disk: they keep their routes.
                desired.frozen = PerFamily::from_fn(|_| true);
            }
            Ok(desired)
        };
        let (aim, steps) = match self.plan(machine, &whole) {
            Ok(planned) => planned,
            Err(refused) => return Err(self.restore(machine, refused)),
        };
        if dry {
            return Ok(());
        }
        let written = self.numbers.store(&self.store, &machine.view, false);
        self.allow_state(written)?;
        let goal = self.carry_out(machine, &whole, aim, steps)?;
        let written = self.numbers.store(&self.store, &machine.view, true);
        self.allow_state(written)?;
        self.report.in_force = Some(Box::new(InForce {
            goal,
            ownership: machine.view.ownership.clone(),
            facts: machine.view.facts.clone(),
        }));
        self.laps.end("store");
        self.late.extend(self.fights.refusal());
        Ok(())
    }

    /// Computes the aim of a part and the steps to it.
    ///
    /// # Errors
    /// The pass is refused: the part can't be planned on this host at the moment.
    fn plan(
        &mut self,
        machine: &mut Machine<'_>,
        part: Part<'_>,
    ) -> Result<(Aim, Plan), PassError> {
        if self.job.role == Role::Nat
            && let Some(refused) = machine.view.instance_error.take()
        {
            return Err(refused);
        }
        let aim = Aim::of(part, machine)?;
        let mut steps = machine.view.plan_to(&aim.goal);
        self.fights.strip_and_report(&mut steps);
        self.report.notes.extend(aim.desired.notes.iter().cloned());
        self.report.notes.extend(steps.notes.iter().cloned());
        if !steps.conflicts.is_empty() {
            self.fights.leave(not_writable(&aim.goal, machine));
            self.fights.strip(&mut steps);
            self.conflict(&steps.conflicts);
        }
        let backend = machine.view.backend.kind;
        let firewall = machine.view.observed.firewalls.get(&backend);
        if self.job.options.mode == Mode::Apply
            && let Some(ObservedFirewall::Unreadable(why)) = firewall
        {
            // Unknown rules allow neither a plan nor a rollback of the firewall.
            let error = PassError::NoFirewall(format!("{backend}: {why}"));
            self.late.push(error);
            self.fights.leave(not_writable(&aim.goal, machine));
            self.fights.strip(&mut steps);
        }
        self.report.take_plan(self.with_closed(steps.clone()));
        self.laps.end("plan");
        Ok((aim, steps))
    }

    fn conflict(&mut self, conflicts: &[Conflict]) {
        let messages = conflicts.iter().map(|conflict| conflict.message.clone());
        self.late.push(PassError::Conflict(messages.collect()));
    }

    /// Carries a part out and verifies the result, or rolls the part back. Returns the goal
    /// reached.
    fn carry_out(
        &mut self,
        machine: &mut Machine<'_>,
        part: Part<'_>,
        aim: Aim,
        steps: Plan,
    ) -> Result<Goal, PassError> {
        if steps.is_empty() {
            return Ok(aim.goal);
        }
        let before = machine.view.observed.owned(&machine.view.ownership);
        let sysctls: Vec<_> = steps
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Sysctl(setting) => Some(setting.clone()),
                _ => None,
            })
            .collect();
        let closed = self.closed.clone();
        let (journal, report) = (&self.journal, &mut self.report);
        let mut begin = |steps: &Plan| {
            let mut told = steps.clone();
            told.steps.splice(0..0, closed.iter().cloned());
            report.take_plan(told);
            if let Err(error) = journal.write_begin(report) {
                report.degrade(&[state_fault(&error.to_string())]);
            }
        };
        begin(&steps);
        self.laps.end("store");
        let mut work = Work {
            job: self.job,
            part,
            fights: &mut self.fights,
            laps: &mut self.laps,
            notes: Notes::default(),
            conflicts: steps.conflicts.clone(),
            done: closed.len(),
        };
        let known = work.conflicts.len();
        let reached = work.reach(machine, aim, steps, &mut begin);
        let (notes, conflicts) = (work.notes, work.conflicts);
        self.note(notes);
        if let Some(new) = conflicts.get(known..)
            && !new.is_empty()
        {
            self.conflict(new);
        }
        let reason = match reached {
            Ok(goal) => {
                self.report.outcome = Outcome::Changed;
                self.laps.end("verify");
                return Ok(goal);
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
        self.report.take_plan(self.with_closed(steps.clone()));
        let written = self.journal.write_begin(&self.report);
        if let Err(error) = written {
            self.degrade_state(&error.to_string());
        }
        self.report.applied = Applied::Part;
        // The watcher repairs towards the earlier goal, even if steps fail here.
        self.report.in_force = Some(Box::new(InForce {
            facts: machine.view.facts.clone(),
            ..(*earlier).clone()
        }));
        let added = add_missing(machine, self.job, &steps, &earlier);
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
        } else if !self.closed.is_empty() && report.outcome == Outcome::InSync {
            report.outcome = Outcome::Changed;
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
            report.degrade(&[state_fault(&format!(
                "the journal lacks this pass: {error}"
            ))]);
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

    /// Goes on after a failure to write to the state dir, except where the files are the purpose.
    fn allow_state(&mut self, written: Result<(), impl Into<PassError>>) -> Result<(), PassError> {
        match written.map_err(Into::into) {
            Err(PassError::State(error)) if self.job.options.mode == Mode::Apply => {
                self.degrade_state(&error.to_string());
                Ok(())
            }
            other => other,
        }
    }

    fn degrade_state(&mut self, reason: &str) {
        self.report.degrade(&[state_fault(reason)]);
    }

    fn note(&mut self, mut notes: Notes) {
        self.report.notes.append(&mut notes);
    }
}

fn state_fault(reason: &str) -> Degradation {
    Degradation::new(degraded::Part::State, None, reason)
}

pub(super) fn reborrow<'i>(
    interposer: &'i mut Option<&mut dyn Interposer>,
) -> Option<&'i mut (dyn Interposer + 'i)> {
    match interposer {
        Some(interposer) => Some(&mut **interposer),
        None => None,
    }
}
