//! The egress by itself, after a pass that failed.
//!
//! A pass leaves out the parts that cannot be had, but a few errors still end it: the kernel
//! cannot be read for a moment, a part was rolled back, or another pass holds the lock and hangs. The
//! egress path must not depend on any of that, so its missing objects are added one by one.

use std::collections::BTreeSet;

use super::attempt::Machine;
use super::flows::OpenFlows;
use super::pass::Pass;
use super::report::Applied;
use super::view::{Firewalls, View};
use super::{Job, Mode, PassError};
use crate::apply::{ApplyError, Interposer, apply_each};
use crate::kernel::Kernel;
use crate::notes::Notes;
use crate::plan::{Action, Plan, Step};
use crate::types::Family;

impl Pass<'_> {
    /// Puts the egress in by itself, by the settings alone. A failure is a note: the caller knows why
    /// the rest of the pass has to wait.
    ///
    /// # Errors
    /// The process shall end.
    pub(super) fn egress_alone(
        &mut self,
        kernel: &mut Kernel,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        if self.job.options.mode != Mode::Apply {
            return Ok(());
        }
        match self.close_by_settings(kernel, interposer) {
            Err(error) if !matches!(error, PassError::Stopped) => {
                self.note(Notes::from(format!(
                    "the egress alone was not put in: {error}"
                )));
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn close_by_settings(
        &mut self,
        kernel: &mut Kernel,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        let ownership = self.numbers.ownership(self.job.config);
        let facts = kernel.facts()?;
        let view = self.open_view(kernel, ownership, Firewalls::Chosen, facts)?;
        let mut machine = Machine {
            kernel,
            view,
            interposer: interposer.map(|it| it as &mut dyn Interposer),
        };
        self.close(&mut machine)
    }

    /// Puts the egress in by itself, after an error.
    pub(super) fn close(&mut self, machine: &mut Machine<'_>) -> Result<(), PassError> {
        if self.job.options.mode != Mode::Apply || machine.view.refresh(machine.kernel).is_err() {
            return Ok(());
        }
        let steps = plan_egress(machine, self.job);
        if !steps.is_empty() {
            let (executed, notes) = put_in(machine, self.job, steps)?;
            self.note(notes);
            if !executed.is_empty() {
                self.report.applied = Applied::Part;
            }
            self.report.plan.steps.extend(executed);
            self.laps.end("apply");
        }
        Ok(())
    }
}

/// The steps that add missing objects of the egress. Present firewall rules stay: their full text
/// may depend on facts that only the rest of the pass knows.
fn plan_egress(machine: &mut Machine<'_>, job: Job<'_>) -> Plan {
    let view = &machine.view;
    let desired = view.desired(job.config, job.role);
    // The rest of the pass met the same error and reports it.
    let Ok(mut steps) = view.plan(machine.kernel, desired) else {
        return Plan::default();
    };
    // The firewall of an earlier version may mark no packets.
    let replaces =
        |step: &Step| matches!(step, Step::Firewall { action, .. } if *action == Action::Replace);
    let marks = !steps.steps.iter().any(replaces);
    let unreadable = view.unreadable_firewalls();
    steps.steps.retain(|step| {
        let wanted = match step {
            Step::Firewall { action, .. } => *action == Action::Add,
            Step::Rule { rule, action } => {
                *action == Action::Add && !has_other_numbers(view, rule.family)
            }
            Step::Policy { action, .. } => *action == Action::Add && marks,
            _ => step.action() != Action::Delete && step.key().is_of_egress(&view.ownership),
        };
        wanted && !unreadable.contains(&step.key())
    });
    steps.conflicts.clear();
    steps.notes.clear();
    steps
}

/// True if rules of ours stand at other priorities: a pass with other settings has closed the
/// egress, and new rules before the new bypass routes would take storage traffic off its path.
fn has_other_numbers(view: &View, family: Family) -> bool {
    let numbers = view.ownership.current;
    view.observed.rules.iter().any(|rule| {
        rule.family == family
            && rule.protocol == numbers.protocol
            && !view.ownership.owns_rule(rule)
    })
}

/// Carries the steps out, each by itself: a refused step holds up no other. Returns the accepted steps
/// and notes.
///
/// # Errors
/// The process shall end.
pub(super) fn put_in(
    machine: &mut Machine<'_>,
    job: Job<'_>,
    steps: Plan,
) -> Result<(Vec<Step>, Notes), PassError> {
    let desired = machine.view.desired(job.config, job.role);
    let mut flows = OpenFlows::new(job, &machine.view, &desired);
    let (kernel, view, interposer) = machine.parts();
    let added = apply_each(&steps, kernel, &view.ownership, interposer, &mut || {
        flows.keep();
    });
    let mut notes = flows.notes;
    let failures = match added {
        Err(ApplyError::Stopped) => return Err(PassError::Stopped),
        Err(error) => {
            notes.push(format!("the egress alone was not put in: {error}"));
            return Ok((Vec::new(), notes));
        }
        Ok(failures) => failures,
    };
    let refused: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
    notes.extend(
        failures
            .iter()
            .map(|failure| format!("the egress alone: {failure}")),
    );
    let steps = steps.steps.into_iter().enumerate();
    let accepted = steps.filter(|(place, _)| !refused.contains(place));
    Ok((accepted.map(|(_, step)| step).collect(), notes))
}
