//! The egress by itself, after a pass that failed.
//!
//! A pass leaves out the parts that cannot be had, but a few errors still end it: the kernel
//! cannot be read for a moment, or a part was rolled back. The egress path must not depend on any
//! of that, so its missing objects are added one by one.

use super::attempt::Machine;
use super::flows::OpenFlows;
use super::view::View;
use super::{Job, PassError};
use crate::apply::{ApplyError, apply_each};
use crate::notes::Notes;
use crate::plan::{Action, Plan, Step};
use crate::types::Family;

/// The steps that add missing objects of the egress. Present firewall rules stay: their full text
/// may depend on facts that only the rest of the pass knows.
pub(super) fn plan_egress(machine: &mut Machine<'_>, job: Job<'_>) -> Plan {
    let view = &machine.view;
    let desired = view.desired(job.config, job.role);
    // The rest of the pass met the same error and reports it.
    let Ok(mut steps) = view.plan(machine.kernel, desired) else {
        return Plan::default();
    };
    let unreadable = view.unreadable_firewalls();
    steps.steps.retain(|step| {
        let wanted = match step {
            Step::Firewall { action, .. } => *action == Action::Add,
            Step::Rule { rule, action } => {
                *action == Action::Add && !has_other_numbers(view, rule.family)
            }
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

/// Carries the steps out, each by itself: a refused step holds up no other. Returns notes.
///
/// # Errors
/// The process shall end.
pub(super) fn put_in(
    machine: &mut Machine<'_>,
    job: Job<'_>,
    steps: &Plan,
) -> Result<Notes, PassError> {
    let mut flows = OpenFlows::new(job, &machine.view);
    let (kernel, view, interposer) = machine.parts();
    let added = apply_each(steps, kernel, &view.ownership, interposer, &mut || {
        flows.keep();
    });
    let mut notes = flows.notes;
    match added {
        Err(ApplyError::Stopped) => return Err(PassError::Stopped),
        Err(error) => notes.push(format!("the egress alone was not put in: {error}")),
        Ok(failures) => notes.extend(
            failures
                .iter()
                .map(|failure| format!("the egress alone: {failure}")),
        ),
    }
    Ok(notes)
}
