//! A pass that is refused (the host doesn't fit the settings at the moment, something foreign has
//! the place of one of ours) changes nothing. Where an agent runs it, what was in force under
//! these very settings is in force no more, though, as soon as somebody takes it away: so it is
//! put back all the same, as far as the host lets it and nobody else has its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::report::{Applied, InForce, Outcome};
use super::{Pass, PassError, View};
use crate::apply::Interposer;
use crate::firewall::ObservedFirewall;
use crate::journal::MAX_LISTED;
use crate::kernel::Kernel;
use crate::plan::{Action, Goal, ObjectKey, taken_places};

impl Pass<'_> {
    /// Puts back what has gone of what was in force, and returns why the pass is refused.
    pub(super) fn hold_on(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        refused: PassError,
        interposer: Option<&mut dyn Interposer>,
    ) -> PassError {
        let Some(earlier) = self.options.earlier.clone() else {
            return refused;
        };
        if self.options.dry_run {
            return refused;
        }
        match self.put_back(kernel, view, &earlier, interposer) {
            Ok(()) => refused,
            Err(PassError::Stopped) => PassError::Stopped,
            Err(error) => {
                let note = format!("what has gone could not be put back: {error}");
                self.report.notes.push(note);
                refused
            }
        }
    }

    fn put_back(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        earlier: &Arc<InForce>,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        let mut goal = Goal {
            refuse_conflicts: false,
            ..earlier.goal.clone()
        };
        goal.keep_possible(&view.facts, &view.observed);
        view.leave_alone(not_ours_to_write(&goal, view));
        let mut steps = view.plan_to(&goal);
        // Nothing is taken away: what is too much may be what the settings want by now.
        steps.steps.retain(|step| step.action() != Action::Delete);
        if steps.is_empty() {
            return Ok(());
        }
        steps.conflicts.clone_from(&self.report.plan.conflicts);
        self.report.take_plan(steps.clone());
        self.write_begin(self.report.first_steps(MAX_LISTED))?;
        self.report.applied = Applied::Part;
        // Carried out in part or not at all, too, the watcher goes on from there.
        self.report.in_force = Some(Box::new(InForce {
            facts: view.facts.clone(),
            ..(**earlier).clone()
        }));
        let mut interposer = interposer;
        if let Some(interposer) = &mut interposer {
            interposer.heads_for(&earlier.goal);
        }
        use crate::apply::ApplyError::{Netlink, Steps, Stopped};
        match self.carry_out(kernel, view, &steps, interposer) {
            Ok(()) => {}
            Err(error) if self.options.watched && error.is_there_already() => {}
            Err(Stopped) => return Err(PassError::Stopped),
            Err(error @ (Steps(_) | Netlink(_))) => {
                return Err(PassError::RolledBack {
                    reason: error.to_string(),
                });
            }
        }
        self.report.outcome = Outcome::Changed;
        Ok(())
    }
}

/// What somebody else has in the place of one of ours, and firewalls of which nobody knows what
/// they hold.
fn not_ours_to_write(goal: &Goal, view: &View) -> BTreeSet<ObjectKey> {
    let mut objects = taken_places(goal, &view.observed, &view.ownership);
    let firewalls = view.observed.firewalls.iter();
    let unreadable =
        firewalls.filter(|(_, found)| matches!(found, ObservedFirewall::Unreadable(_)));
    objects.extend(unreadable.map(|(kind, _)| ObjectKey::Firewall(*kind)));
    objects
}
