//! The first part of a pass: the egress, by itself.
//!
//! The part needs the settings and the host alone. No document, state file, answer of the metadata
//! service or bypass route is looked at, so that no trouble with any of them leaves a host open.

use super::attempt::{Aim, Machine, Shifted};
use super::flows::OpenFlows;
use super::in_force::InForce;
use super::restore::{not_writable, plan_missing};
use super::view::View;
use super::{Job, PassError};
use crate::apply::{ApplyError, apply_each};
use crate::notes::Notes;
use crate::plan::{Action, Plan, Step};
use crate::types::Family;

/// The steps that add missing objects of the egress. Nothing is deleted, and present firewall rules
/// stay: their full text may depend on facts that only the rest of the pass knows.
///
/// `earlier` is the state in force after the last pass under the same settings.
pub(super) fn plan_egress(
    machine: &mut Machine<'_>,
    job: Job<'_>,
    earlier: Option<&InForce>,
) -> Plan {
    let mut steps = if let Some(earlier) = earlier {
        let mut steps = plan_missing(machine, earlier);
        steps.steps.retain(|step| step.action() == Action::Add);
        steps
    } else {
        let desired = |view: &View| view.desired(job.config, job.role);
        // The rest of the pass meets the same error and reports it.
        let Ok(aim) = Aim::of(&desired, machine) else {
            return Plan::default();
        };
        let taken = not_writable(&aim.goal, machine);
        let mut steps = machine.view.plan_to(&aim.goal);
        steps.steps.retain(|step| !taken.contains(&step.key()));
        steps
    };
    let view = &machine.view;
    steps.steps.retain(|step| match step {
        Step::Firewall { action, .. } => *action == Action::Add,
        Step::Rule { rule, action } => {
            *action == Action::Add && !has_other_numbers(view, rule.family)
        }
        _ => step.action() != Action::Delete && step.key().is_of_egress(&view.ownership),
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

/// Carries the steps out, each by itself: a refused step holds up no other, and the rest of the
/// pass tries the step again. Returns notes.
///
/// # Errors
/// The process shall end.
pub(super) fn put_in(
    machine: &mut Machine<'_>,
    job: Job<'_>,
    steps: &Plan,
    earlier: Option<&InForce>,
    done: usize,
) -> Result<Notes, PassError> {
    let mut flows = OpenFlows::new(job, &machine.view);
    let (kernel, view, interposer) = machine.parts();
    let mut interposer = interposer.map(|inner| Shifted { inner, by: done });
    if let (Some(interposer), Some(earlier)) = (&mut interposer, earlier) {
        interposer.inner.heads_for(&earlier.goal);
    }
    let interposer = interposer.as_mut().map(|it| it as _);
    let added = apply_each(steps, kernel, &view.ownership, interposer, &mut || {
        flows.keep();
    });
    match added {
        Err(ApplyError::Stopped) => Err(PassError::Stopped),
        Err(error) => {
            flows
                .notes
                .push(format!("the egress alone was not put in: {error}"));
            Ok(flows.notes)
        }
        Ok(_) => Ok(flows.notes),
    }
}
