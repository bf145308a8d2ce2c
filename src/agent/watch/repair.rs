//! The repair of single objects: a pass's plan and apply, for what has gone alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Watcher, name_of};
use crate::agent::shared::locked;
use crate::apply::apply_each;
use crate::kernel::Kernel;
use crate::objects::{Route, Rule};
use crate::observed::{ObservedState, OwnedState};
use crate::plan::{FirewallGoal, Goal, ObjectKey, Plan, plan};
use crate::reconcile::InForce;
use crate::state::lock;

/// What has gone and is to come back.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    /// The netlink port of whoever took each of them.
    pub(super) ports: Vec<(ObjectKey, u32)>,
}

impl Gone {
    pub(super) fn len(&self) -> usize {
        self.routes.len() + self.rules.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Watcher {
    /// Puts back what has gone. Whether something is left for a pass to look at soon.
    pub(super) fn put_back(
        &self,
        in_force: &Arc<InForce>,
        kernel: &mut Kernel,
        gone: Gone,
        now: Instant,
    ) -> bool {
        let turn = locked(&self.shared.turn);
        // A pass, or a pause, may have come in between.
        let same =
            |still: Arc<InForce>| Arc::ptr_eq(&still, in_force) || still.goal == in_force.goal;
        if !self.shared.in_force().is_some_and(same) {
            return true;
        }
        // Another process of ours (`reconcile`, `flush`) may be at it.
        let passing = self.shared.is_passing();
        if !passing && !matches!(lock::holder(&self.state_dir), Ok(None)) {
            return true;
        }
        let mut steps = plan_for(in_force, gone.routes, gone.rules);
        let mut refused = Vec::new();
        let mut left = false;
        {
            let mut limiter = locked(&self.shared.limiter);
            steps.steps.retain(|step| {
                let key = step.key();
                let paused = limiter.is_paused(&key, now);
                if passing && !paused && limiter.is_fought(&key, now) {
                    // After a pause it gets one repair, which that pass may have made just now.
                    left = true;
                    return false;
                }
                let allowed = limiter.allow(&key, now);
                if !allowed && !paused {
                    refused.push(key);
                }
                allowed
            });
        }
        // A route whose link is away can't come back now, and the rules must not wait for it.
        let mended = apply_each(&steps, kernel, &in_force.ownership, None, &mut || {});
        drop(turn);
        // Names are asked for after the repair: it comes first.
        for (key, port) in gone.ports.into_iter().take(4) {
            self.shared.blame(key, name_of(port));
        }
        let mut noticed = locked(&self.shared.noticed);
        noticed.refused.append(&mut refused);
        match mended {
            // From now: a pass that had begun to look may have missed it.
            Ok(refused) => {
                for failure in &refused {
                    tracing::debug!("put back: {failure}");
                    noticed.event = Some(now);
                }
                let steps = steps.steps.into_iter().enumerate();
                let done = steps.filter(|(place, _)| refused.iter().all(|it| it.index != *place));
                let done: Vec<_> = done.map(|(_, step)| step).collect();
                noticed.mended(done, Instant::now());
            }
            Err(error) => {
                tracing::debug!("put back: {error}");
                noticed.event = Some(now);
            }
        }
        left
    }
}

/// The plan of a pass, for these objects alone: nothing else is wanted, nothing is seen.
fn plan_for(in_force: &InForce, mut routes: Vec<Route>, rules: Vec<Rule>) -> Plan {
    routes.sort();
    routes.dedup();
    let goal = Goal {
        routes,
        rules,
        firewall: FirewallGoal::Earlier(BTreeMap::new()),
        ..Goal::earlier(OwnedState::default())
    };
    let nothing = ObservedState {
        firewalls: BTreeMap::new(),
        ..ObservedState::empty()
    };
    plan(&goal, &nothing, &in_force.ownership)
}
