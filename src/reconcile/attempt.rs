//! Attempts to reach the goal of a part: apply a plan, read the kernel back, and ask it for routing
//! decisions.

use std::collections::BTreeSet;

use super::fights::{Fights, Setback};
use super::flows::OpenFlows;
use super::report::Laps;
use super::view::View;
use super::{Job, PassError};
use crate::apply::{ApplyError, Interposer, apply};
use crate::desired::DesiredState;
use crate::kernel::Kernel;
use crate::notes::Notes;
use crate::plan::{Conflict, Goal, ObjectKey, Plan, Step};
use crate::verify::judge_routes;
use crate::words::counted;

/// Attempts before objects are given up or the part is rolled back.
const ATTEMPTS: usize = 3;

/// Attempts including those after objects were given up. An attempt ends at the first group of
/// steps with a refused one, and each group may hold another.
const MOST_ATTEMPTS: usize = 32;

/// The machine that a pass changes: the kernel, and the last reading of it.
pub(super) struct Machine<'k> {
    pub kernel: &'k mut Kernel,
    pub view: View,
    pub interposer: Option<&'k mut dyn Interposer>,
}

impl Machine<'_> {
    /// Kernel, view and interposer for one call.
    pub fn parts(&mut self) -> (&mut Kernel, &View, Option<&mut dyn Interposer>) {
        let interposer = self.interposer.as_mut();
        let interposer = interposer.map(|it| &mut **it as &mut dyn Interposer);
        (self.kernel, &self.view, interposer)
    }
}

/// A part of the goal: computes the desired state from a view.
///
/// A pass may have several parts, each with attempts and a rollback of its own, so that the
/// failure of a later part leaves an earlier one in force.
pub(super) type PartialGoal<'p> = &'p dyn Fn(&View) -> DesiredState;

/// A desired state, and the same as the goal of a plan.
pub(super) struct Aim {
    pub desired: DesiredState,
    pub goal: Goal,
}

impl Aim {
    /// The aim of a part, by the present view.
    pub fn of(part: PartialGoal<'_>, machine: &mut Machine<'_>) -> Result<Aim, PassError> {
        let mut desired = part(&machine.view);
        let mut goal = machine.view.goal(machine.kernel, desired.clone())?;
        if machine.view.learn_refusals(machine.kernel) {
            // A family without translation has its path closed by routes instead.
            desired = part(&machine.view);
            goal = machine.view.goal(machine.kernel, desired.clone())?;
        }
        Ok(Aim { desired, goal })
    }
}

pub(super) struct Work<'a> {
    pub job: Job<'a>,
    pub part: PartialGoal<'a>,
    pub fights: &'a mut Fights,
    pub laps: &'a mut Laps,
    pub notes: Notes,
    /// Foreign objects in the place of ours.
    pub conflicts: Vec<Conflict>,
}

impl Work<'_> {
    /// Makes attempts, each after a setback with a new view and a new plan. Returns the aim
    /// reached. `begin` is called before each further attempt with the steps of all attempts so
    /// far.
    pub fn reach(
        &mut self,
        machine: &mut Machine<'_>,
        mut aim: Aim,
        mut steps: Plan,
        begin: &mut dyn FnMut(&Plan),
    ) -> Result<Aim, PassError> {
        // A copy of a million steps takes 100 MB: only after a setback.
        let mut told: Option<Plan> = None;
        let mut tried: Vec<Step> = Vec::new();
        let mut number = 1;
        loop {
            let setback = match self.attempt(machine, &aim, &steps, &tried) {
                Ok(()) if machine.view.refused.is_empty() => return Ok(aim),
                // The goal is the policy as far as the kernel accepts the rules.
                Ok(()) => return Aim::of(self.part, machine),
                Err(FailedAttempt::Final(error)) => return Err(error),
                Err(FailedAttempt::Setback(setback)) => setback,
            };
            if self.is_watched() {
                // The agent logs a fight once, not at each attempt.
                tracing::debug!("{setback}; reading the kernel again");
            } else {
                tracing::warn!("{setback}; reading the kernel again");
            }
            let told = told.get_or_insert_with(|| steps.clone());
            let cut = number == 1 && cut_at_firewall(told, &setback);
            tried.append(&mut steps.steps);
            machine.view.refresh(machine.kernel)?;
            aim = Aim::of(self.part, machine)?;
            steps = machine.view.plan_to(&aim.goal);
            self.fights.strip(&mut steps);
            // A foreign object may have come meanwhile. The plan leaves the place.
            for conflict in steps.conflicts.drain(..) {
                if !self.conflicts.contains(&conflict) {
                    self.conflicts.push(conflict);
                }
            }
            // Objects are given up after the last regular attempt. The attempts after that one
            // may meet further objects to give up.
            let last = number >= ATTEMPTS;
            let gave_up = self.fights.give_up(&setback, &tried, &mut steps, last);
            if last && !gave_up || number == MOST_ATTEMPTS {
                let reason = format!("{setback} ({ATTEMPTS} attempts)");
                return Err(PassError::RolledBack { reason });
            }
            let refused = |step: &Step| self.fights.refused.contains_key(&step.key());
            if cut || !steps.is_empty() || told.steps.iter().any(refused) {
                told.steps.retain(|step| !refused(step));
                tell_more(told, &steps, &setback);
                begin(told);
            }
            number += 1;
        }
    }

    /// True if another thread repairs single objects meanwhile, see [`super::Watched`].
    fn is_watched(&self) -> bool {
        self.job.options.watched.is_some()
    }

    /// Applies and verifies. `tried` are the steps of earlier attempts.
    fn attempt(
        &mut self,
        machine: &mut Machine<'_>,
        aim: &Aim,
        steps: &Plan,
        tried: &[Step],
    ) -> Result<(), FailedAttempt> {
        let mut flows = OpenFlows::new(self.job, &machine.view, &aim.desired);
        let (kernel, view, mut interposer) = machine.parts();
        if let Some(interposer) = &mut interposer {
            interposer.heads_for(&aim.goal);
        }
        let applied = apply(steps, kernel, &view.ownership, interposer, &mut || {
            flows.keep();
        });
        self.notes.append(&mut flows.notes);
        self.laps.end("apply");
        // Another program's hand in the objects, or an earlier setback, is a reason to read everything.
        let is_clean = applied.is_ok() && tried.is_empty();
        match applied {
            Ok(()) => {}
            // The watcher was faster. If a foreign object has the place instead, the new plan
            // below has a conflict.
            Err(error) if self.is_watched() && error.is_there_already() => {}
            Err(error) if error.worth_another_look() || matches!(error, ApplyError::Steps(_)) => {
                return Err(FailedAttempt::Setback(Setback::Refused(error)));
            }
            Err(ApplyError::Stopped) => return Err(FailedAttempt::Final(PassError::Stopped)),
            Err(error) => {
                let reason = error.to_string();
                return Err(FailedAttempt::Final(PassError::RolledBack { reason }));
            }
        }
        let tried: Vec<&Step> = tried.iter().chain(&steps.steps).collect();
        if is_clean {
            let (kernel, desired) = (&mut *machine.kernel, &aim.desired);
            machine.view.refresh_after(kernel, desired, steps)?;
        } else {
            machine.view.refresh(machine.kernel)?;
        }
        self.read_back(machine, &tried)?;
        self.ask_for_routes(machine, aim, &tried)
    }

    /// Plans again: the new plan must be empty. A watched pass answers for its own steps only.
    fn read_back(&self, machine: &mut Machine<'_>, tried: &[&Step]) -> Result<(), FailedAttempt> {
        let again = (self.part)(&machine.view);
        let mut second = machine.view.plan(machine.kernel, again)?;
        self.fights.strip_verified(&mut second);
        if self.is_watched() && !second.is_empty() {
            let tried: BTreeSet<ObjectKey> = tried.iter().map(|step| step.key()).collect();
            second.steps.retain(|step| tried.contains(&step.key()));
        }
        if let Some(first) = second.steps.first() {
            return Err(undone(format!(
                "verify: {} left after applying all, the first: {}",
                counted(second.steps.len() as u64, "step"),
                first
            )));
        }
        let conflicts = &mut second.conflicts.iter();
        match conflicts.find(|conflict| !self.conflicts.contains(conflict)) {
            Some(conflict) if self.is_watched() => {
                Err(undone(format!("verify: {}", conflict.message)))
            }
            _ => Ok(()),
        }
    }

    /// Asks the kernel for the path of sample addresses, which must be the desired one. A difference
    /// with a foreign cause is no failure of the attempt: our objects are in, and the judgement at
    /// the end of the pass names the cause.
    fn ask_for_routes(
        &mut self,
        machine: &mut Machine<'_>,
        aim: &Aim,
        tried: &[&Step],
    ) -> Result<(), FailedAttempt> {
        let promise = machine.view.promise(&aim.desired);
        let verdicts = judge_routes(&promise, tried.iter().copied(), machine.kernel)?;
        let exempt = verdicts.exempt.iter().map(ToString::to_string);
        self.notes.extend(exempt);
        let Some(first) = verdicts.mismatches.first() else {
            return Ok(());
        };
        if self.fights.leaves_any_alone() || !self.conflicts.is_empty() {
            // Probably the fault of an object that is left alone; the others must not suffer.
            return Ok(());
        }
        let more = match verdicts.mismatches.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Err(undone(format!("verify: {}{more}", first.reason)))
    }
}

/// Takes out the steps after a firewall step that ended the first attempt: these were not carried
/// out, and the next plan may do without them.
fn cut_at_firewall(told: &mut Plan, setback: &Setback) -> bool {
    let Setback::Refused(ApplyError::Steps(failures)) = setback else {
        return false;
    };
    let [only] = failures.as_slice() else {
        return false;
    };
    let of_firewall = matches!(only.object, ObjectKey::Firewall(_));
    if of_firewall {
        told.steps.truncate(only.index + 1);
    }
    of_firewall
}

/// Adds the steps of a further attempt to those told. A step that was carried out and has to be
/// repeated was undone by another program, so both are told; a refused step is told once.
fn tell_more(told: &mut Plan, further: &Plan, setback: &Setback) {
    if !setback.was_carried_out() {
        let again: BTreeSet<ObjectKey> = further.steps.iter().map(Step::key).collect();
        told.steps.retain(|step| !again.contains(&step.key()));
    }
    told.steps.extend_from_slice(&further.steps);
}

enum FailedAttempt {
    /// Another attempt may succeed.
    Setback(Setback),
    /// No other attempt is made.
    Final(PassError),
}

impl<E: Into<PassError>> From<E> for FailedAttempt {
    fn from(error: E) -> Self {
        FailedAttempt::Final(error.into())
    }
}

fn undone(difference: String) -> FailedAttempt {
    FailedAttempt::Setback(Setback::Undone(difference))
}
