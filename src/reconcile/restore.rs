//! A pass that is refused (the host doesn't fit the settings at the moment, something foreign has
//! the place of one of ours) changes nothing. Where an agent runs it, what was in force under
//! these very settings is in force no more, though, as soon as somebody takes it away: so it is
//! put back all the same, as far as the host lets it and nobody else has its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::report::{Applied, InForce, Outcome};
use super::{Pass, PassError, View};
use crate::apply::{ApplyError, Interposer, apply_each};
use crate::firewall::ObservedFirewall;
use crate::kernel::Kernel;
use crate::kernel::errno::ErrorClass;
use crate::plan::{Action, Goal, ObjectKey, taken_places};

impl Pass<'_> {
    /// Puts back what has gone of what was in force, and returns why the pass is refused.
    pub(super) fn restore(
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
        let failure = match self.put_back(kernel, view, &earlier, interposer) {
            Ok(None) => return refused,
            Ok(Some(failure)) => failure.to_string(),
            Err(PassError::Stopped) => return PassError::Stopped,
            Err(error) => error.to_string(),
        };
        let note = format!("not all that has gone could be put back: {failure}");
        self.report.notes.push(note);
        refused
    }

    /// What could not be put back, if anything.
    fn put_back(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        earlier: &Arc<InForce>,
        mut interposer: Option<&mut dyn Interposer>,
    ) -> Result<Option<ApplyError>, PassError> {
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
            return Ok(None);
        }
        steps.conflicts.clone_from(&self.report.plan.conflicts);
        self.report.take_plan(steps.clone());
        self.write_begin()?;
        self.report.applied = Applied::Part;
        // Carried out in part or not at all, too, the watcher goes on from there.
        self.report.in_force = Some(Box::new(InForce {
            facts: view.facts.clone(),
            ..(**earlier).clone()
        }));
        if let Some(interposer) = &mut interposer {
            interposer.heads_for(&earlier.goal);
        }
        let refused = apply_each(
            &steps,
            kernel,
            &view.ownership,
            interposer,
            &mut self.keep_open_flows(view),
        );
        self.report.end_stage("apply");
        let mut missing = match refused {
            Ok(refused) => refused,
            Err(ApplyError::Stopped) => return Err(PassError::Stopped),
            Err(error) => return Ok(Some(error)),
        };
        // The watcher was faster.
        missing.retain(|failure| failure.class != ErrorClass::Exists);
        if missing.is_empty() {
            self.report.outcome = Outcome::Changed;
            return Ok(None);
        }
        Ok(Some(ApplyError::Steps(missing)))
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
