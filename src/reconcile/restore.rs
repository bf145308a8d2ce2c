//! Repairs by a refused pass. A pass is refused if the host doesn't fit the settings at the
//! moment, or if a foreign object has the place of one of ours. A refused pass makes no change
//! towards the new goal. Traffic still needs the objects of earlier passes under the same
//! settings, though, so an agent's pass adds the missing objects of these passes, except where the
//! host doesn't allow an object or a foreign object has the place.

use std::collections::BTreeSet;

use super::attempt::Machine;
use super::flows::OpenFlows;
use super::in_force::InForce;
use super::{Job, PassError};
use crate::apply::{ApplyError, apply_each};
use crate::firewall::ObservedFirewall;
use crate::kernel::errno::ErrorClass;
use crate::notes::Notes;
use crate::plan::{Action, Goal, ObjectKey, Plan, Step, taken_places};

/// The steps that add the missing objects of an earlier pass. Surplus objects stay: the settings
/// may need them by now.
pub(super) fn plan_missing(machine: &Machine<'_>, earlier: &InForce) -> Plan {
    let view = &machine.view;
    let mut goal = Goal {
        refuse_conflicts: false,
        ..earlier.goal.clone()
    };
    goal.keep_possible(&view.facts, &view.observed);
    let mut steps = view.plan_to(&goal);
    let foreign = not_writable(&goal, machine);
    steps
        .steps
        .retain(|step: &Step| step.action() != Action::Delete && !foreign.contains(&step.key()));
    steps
}

/// Adds the missing objects; the failure of one holds up no other. Returns true if none is
/// missing any more, and notes.
///
/// # Errors
/// The process shall end.
pub(super) fn add_missing(
    machine: &mut Machine<'_>,
    job: Job<'_>,
    steps: &Plan,
    earlier: &InForce,
) -> Result<(bool, Notes), PassError> {
    let mut flows = OpenFlows::new(job, &machine.view);
    let (kernel, view, mut interposer) = machine.parts();
    if let Some(interposer) = &mut interposer {
        interposer.heads_for(&earlier.goal);
    }
    let added = apply_each(steps, kernel, &view.ownership, interposer, &mut || {
        flows.keep();
    });
    let mut notes = flows.notes;
    let failure = match added {
        Err(ApplyError::Stopped) => return Err(PassError::Stopped),
        Err(error) => Some(error),
        Ok(mut failures) => {
            // An object that exists was added by the watcher.
            failures.retain(|failure| failure.class != ErrorClass::Exists);
            (!failures.is_empty()).then_some(ApplyError::Steps(failures))
        }
    };
    notes.extend(failure.iter().map(|error| not_restored(error)));
    Ok((failure.is_none(), notes))
}

pub(super) fn not_restored(error: &dyn std::error::Error) -> String {
    format!("some missing objects could not be restored: {error}")
}

/// Objects whose place a foreign object has, and firewalls with unreadable content.
fn not_writable(goal: &Goal, machine: &Machine<'_>) -> BTreeSet<ObjectKey> {
    let view = &machine.view;
    let mut objects = taken_places(goal, &view.observed, &view.ownership);
    let firewalls = view.observed.firewalls.iter();
    let unreadable =
        firewalls.filter(|(_, found)| matches!(found, ObservedFirewall::Unreadable(_)));
    objects.extend(unreadable.map(|(kind, _)| ObjectKey::Firewall(*kind)));
    objects
}
