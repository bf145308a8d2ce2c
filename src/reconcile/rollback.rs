//! The way back after a failed part.

use super::attempt::Machine;
use super::view::View;
use crate::apply::apply;
use crate::desired::SysctlSetting;
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::sysctl;
use crate::notes::Notes;
use crate::observed::OwnedState;
use crate::plan::{Action, Goal, Plan, Step};
use crate::words::counted;

/// Readings, plans and applications before the rollback fails.
const ATTEMPTS: usize = 3;

const LEFT_OUT: &str = "rollback: routes on a link that is down or gone, or with a gateway that no link reaches any more, can't be restored";

/// Restores our objects as they were `before`, and reads them back. Plans from a fresh view
/// instead of inverting the steps, since other programs may have changed objects meanwhile. The
/// egress is not undone: its new objects stay, and missing ones return. `sysctls` are those that
/// the part wrote.
///
/// Returns notes, or the failure.
pub(super) fn roll_back(
    machine: &mut Machine<'_>,
    before: OwnedState,
    sysctls: &[SysctlSetting],
) -> Result<Notes, String> {
    let Machine { kernel, view, .. } = machine;
    for kind in BackendKind::ALL {
        if before.firewalls.contains_key(&kind) {
            let firewalls = &mut view.observed.firewalls;
            firewalls.entry(kind).or_insert(ObservedFirewall::Absent);
        }
    }
    let mut goal = Goal::earlier(before);
    let mut last_error = String::new();
    let mut notes = Notes::default();
    for setting in sysctls.iter().rev() {
        if let Err(error) = sysctl::write(&setting.path, &setting.from) {
            last_error = format!("{}: {error}", setting.path);
        }
    }
    let way_back = |view: &View, goal: &Goal| {
        let mut steps = view.plan_to(goal);
        // The firewall as before may mark no packets.
        let replaces = |step: &Step| matches!(step, Step::Firewall { .. });
        let marks = !steps.steps.iter().any(replaces);
        steps.steps.retain(|step| match step {
            Step::Policy { .. } if !marks => true,
            _ => step.action() != Action::Delete || !step.key().is_of_egress(&view.ownership),
        });
        steps
    };
    for _ in 0..ATTEMPTS {
        if let Err(error) = view.refresh(kernel) {
            last_error = error.to_string();
            continue;
        }
        if goal.keep_possible(&view.facts, &view.observed) {
            notes = Notes::from(LEFT_OUT.to_owned());
        }
        let steps = way_back(view, &goal);
        if steps.is_empty() {
            return without_conflict(&steps).map(|()| notes);
        }
        match apply(&steps, kernel, &view.ownership, None, &mut || {}) {
            Ok(()) => {}
            Err(error) if error.worth_another_look() => last_error = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
    }
    view.refresh(kernel).map_err(|error| error.to_string())?;
    let steps = way_back(view, &goal);
    match steps.steps.len() {
        0 => without_conflict(&steps).map(|()| notes),
        left => {
            let left = counted(left as u64, "step");
            Err(format!("{left} left; {last_error}"))
        }
    }
}

/// An empty plan with a conflict restores nothing: a foreign firewall table has our name by now.
fn without_conflict(rest: &Plan) -> Result<(), String> {
    match rest.conflicts.first() {
        None => Ok(()),
        Some(conflict) => Err(conflict.message.clone()),
    }
}
