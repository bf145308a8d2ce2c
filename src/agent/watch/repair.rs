//! The repair of single objects, with the plan and apply functions of a pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Watcher;
use crate::agent::repair_log::may_wait;
use crate::agent::shared::locked;
use crate::apply::apply_each;
use crate::kernel::Kernel;
use crate::objects::{Route, Rule};
use crate::observed::{ObservedState, OwnedState};
use crate::ownership::Ownership;
use crate::plan::{FirewallGoal, Goal, ObjectKey, Plan, plan};
use crate::reconcile::InForce;
use crate::state::lock::{self, LockError};

/// The minimum time between two rounds of repairs in a conflict over the egress path. Bounds the CPU
/// time of the agent, and the time in which the path is open.
const ROUND: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    /// Each object with the netlink port of the program that deleted the object.
    pub(super) ports: Vec<(ObjectKey, u32)>,
}

impl Gone {
    pub(super) fn len(&self) -> usize {
        self.routes.len() + self.rules.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out the routes with such a key.
    pub(super) fn split(&mut self, is_taken: impl Fn(&ObjectKey) -> bool) -> Gone {
        let of_route = |route: &mut Route| is_taken(&ObjectKey::Route(route.key));
        Gone {
            routes: self.routes.extract_if(.., of_route).collect(),
            rules: Vec::new(),
            ports: self
                .ports
                .extract_if(.., |(key, _)| is_taken(key))
                .collect(),
        }
    }

    /// Adds the objects of `other`.
    pub(super) fn append(&mut self, mut other: Gone) {
        self.routes.append(&mut other.routes);
        self.rules.append(&mut other.rules);
        self.ports.append(&mut other.ports);
    }

    /// Removes the objects that can wait for a pass. Returns true if there were any.
    pub(super) fn postpone(&mut self, ownership: &Ownership) -> bool {
        let before = self.len();
        self.routes
            .retain(|route| !may_wait(&ObjectKey::Route(route.key), ownership));
        self.ports.retain(|(key, _)| !may_wait(key, ownership));
        self.len() < before
    }
}

/// True if another process holds the pass lock, or may hold it. On a silent disk, the half of the
/// lock without a disk decides alone.
fn another_passes(dir: &Path) -> bool {
    match lock::holder(dir) {
        Ok(holder) => holder.is_some(),
        Err(LockError::State(error)) if error.is_silent() => lock::exclusive_holder(dir).is_some(),
        Err(_) => true,
    }
}

impl Watcher {
    /// Restores deleted objects. Returns true if some are left to a pass.
    pub(super) fn restore(
        &mut self,
        in_force: &Arc<InForce>,
        kernel: &mut Kernel,
        gone: Gone,
        now: Instant,
    ) -> bool {
        self.rest_between_rounds(&gone);
        let turn = locked(&self.shared.turn);
        // A pass or a pause may have begun meanwhile.
        let same =
            |still: Arc<InForce>| Arc::ptr_eq(&still, in_force) || still.goal == in_force.goal;
        if !self.shared.in_force().is_some_and(same) {
            return true;
        }
        // Another process (`reconcile`, `flush`) may be changing the same objects.
        let passing = self.shared.is_passing();
        if !passing && another_passes(&self.state_dir) {
            return true;
        }
        let mut steps = plan_for(in_force, gone.routes, gone.rules);
        let mut fought = Vec::new();
        let mut left = false;
        {
            let mut limiter = locked(&self.shared.limiter);
            let mut log = locked(&self.shared.repair_log);
            steps.steps.retain(|step| {
                let key = step.key();
                if !may_wait(&key, &in_force.ownership) {
                    if log.record(&key, now) {
                        fought.push(key);
                    }
                    return true;
                }
                let paused = limiter.is_paused(&key, now);
                if passing && !paused && limiter.is_fought(&key, now) {
                    // After a pause an object gets one repair, and the running pass may have just
                    // made that repair.
                    left = true;
                    return false;
                }
                let allowed = limiter.allow(&key, now);
                if !allowed && !paused {
                    fought.push(key);
                }
                allowed
            });
        }
        // Each step alone: the kernel refuses a route without a link, and the rules must not wait
        // for the link.
        let repaired = apply_each(&steps, kernel, &in_force.ownership, None, &mut || {});
        drop(turn);
        self.restored_at = Some(Instant::now());
        // The repair comes before the look-up of program names.
        for (key, port) in gone.ports.into_iter().take(4) {
            let name = self.culprits.name_of(port, now);
            self.shared.blame(key, name);
        }
        let mut noticed = locked(&self.shared.noticed);
        noticed.fought.append(&mut fought);
        match repaired {
            // The time after the repair: a pass that observed before may have missed the repair.
            Ok(refused) => {
                for failure in &refused {
                    tracing::debug!("repair: {failure}");
                    noticed.event = Some(now);
                }
                let steps = steps.steps.into_iter().enumerate();
                let done = steps.filter(|(place, _)| refused.iter().all(|it| it.index != *place));
                let done: Vec<_> = done.map(|(_, step)| step).collect();
                noticed.repaired(done, Instant::now());
            }
            Err(error) => {
                tracing::debug!("repair: {error}");
                noticed.event = Some(now);
            }
        }
        left
    }

    /// In a conflict over the egress path, waits for the time of the next round.
    fn rest_between_rounds(&self, gone: &Gone) {
        let log = locked(&self.shared.repair_log);
        let fought = gone.ports.iter().any(|(key, _)| log.is_fought(key));
        drop(log);
        if let Some(last) = self.restored_at
            && fought
        {
            std::thread::sleep((last + ROUND).saturating_duration_since(Instant::now()));
        }
    }
}

/// The plan that adds these objects: the goal holds nothing else, and the observed state is empty.
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
