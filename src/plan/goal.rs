//! The state that a plan leads to.

use std::collections::BTreeMap;

use crate::desired::{DesiredState, SysctlSetting};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, OwnedFirewall, Ruleset};
use crate::objects::{ForwardPolicy, Leg, NexthopKind, NexthopObject, Route, RouteTarget, Rule};
use crate::observed::{ObservedState, OwnedState};
use crate::types::{NexthopId, PerFamily};

/// The wanted contents of the firewalls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallGoal {
    /// A policy in one backend, and no object of ours in the others.
    Policy {
        backend: BackendKind,
        ruleset: Ruleset,
        /// The canonical text of `ruleset` in that backend.
        text: Vec<String>,
    },
    /// The contents of each backend as read earlier; a missing backend had no object of ours.
    Earlier(BTreeMap<BackendKind, OwnedFirewall>),
}

/// The state that a plan leads to: the desired state of a pass, the state before a pass (rollback)
/// or no object of ours (`flush`).
///
/// Invariant: `routes` is sorted and each key occurs once, so that the plan compares by merging
/// and a look-up is a binary search. No route uses a nexthop object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub firewall: FirewallGoal,
    /// The firewall in the chosen backend while the egress routes change, and its canonical text.
    pub on_the_way: Option<(Ruleset, Vec<String>)>,
    /// Sorted. Only a firewall that marks forwarded packets makes these possible.
    pub policies: Vec<ForwardPolicy>,
    pub sysctls: Vec<SysctlSetting>,
    /// Families with bypass routes and rules that no step deletes.
    pub frozen: PerFamily<bool>,
    /// Refuse the plan if a foreign route occupies the key of one of ours. False in a rollback,
    /// which only restores objects that coexisted with the foreign route before.
    pub refuse_conflicts: bool,
}

impl Goal {
    /// The goal of a pass. `text` is the policy as the chosen backend renders it.
    pub fn of(desired: DesiredState, backend: BackendKind, text: Vec<String>) -> Self {
        Goal {
            routes: desired.routes,
            rules: desired.rules,
            firewall: match desired.firewall {
                Some(ruleset) => FirewallGoal::Policy {
                    backend,
                    ruleset,
                    text,
                },
                None => FirewallGoal::Earlier(BTreeMap::new()),
            },
            on_the_way: None,
            policies: desired.policies,
            sysctls: desired.sysctls,
            frozen: desired.frozen,
            refuse_conflicts: true,
        }
    }

    /// The goal of a rollback: our objects as they were before the pass. A route through nexthop
    /// objects of an earlier version becomes an equal multipath route, so that a rollback after
    /// an upgrade has no nexthop object to create.
    pub fn earlier(owned: OwnedState) -> Self {
        let mut routes = owned.routes;
        routes.retain_mut(|route| {
            let RouteTarget::Nexthop(id) = route.target else {
                return true;
            };
            retarget(
                route,
                RouteTarget::through(legs_behind(id, &owned.nexthops)),
            )
        });
        Goal {
            routes,
            rules: owned.rules,
            firewall: FirewallGoal::Earlier(owned.firewalls),
            on_the_way: None,
            policies: owned.policies,
            sysctls: Vec::new(),
            frozen: PerFamily::default(),
            refuse_conflicts: false,
        }
    }

    /// The goal of `flush`: no object of ours.
    pub fn nothing() -> Self {
        Goal::earlier(OwnedState::default())
    }

    /// Leaves out routes that the kernel removed by itself and would refuse now: those over a link
    /// that is gone or down, or to a gateway that is no longer on-link. A route that still exists
    /// stays in the goal. Returns true if a route or a leg was left out.
    pub fn keep_possible(&mut self, facts: &HostFacts, observed: &ObservedState) -> bool {
        let mut left_out = false;
        self.routes.retain_mut(|route| {
            if observed.routes.binary_search(route).is_ok() {
                return true;
            }
            left_out |= drop_lost_source(route, facts);
            let possible = match &route.target {
                RouteTarget::Via(via) => facts.reaches(via).then_some(RouteTarget::Via(*via)),
                RouteTarget::Multipath(legs) => {
                    let legs = legs.iter().filter(|leg| facts.reaches(&leg.via));
                    RouteTarget::through(legs.copied().collect())
                }
                _ => return true,
            };
            if possible.as_ref() == Some(&route.target) {
                return true;
            }
            left_out = true;
            retarget(route, possible)
        });
        left_out
    }
}

/// Removes a preferred source that is no address of the host any more; returns true if there was
/// one.
fn drop_lost_source(route: &mut Route, facts: &HostFacts) -> bool {
    let Some(options) = &route.options else {
        return false;
    };
    let legs = route.target.legs();
    let lost = options.source.is_some_and(|source| {
        let kept = |leg: &Leg| facts.accepts_source(source, leg.via.device);
        !legs.iter().all(kept)
    });
    if lost {
        route.options = options.without_source();
    }
    lost
}

/// Sets the target, if there is one; returns false for a route that is left without a target.
fn retarget(route: &mut Route, target: Option<RouteTarget>) -> bool {
    target.map(|target| route.target = target).is_some()
}

/// The legs that a nexthop object stands for, by the objects that were read.
fn legs_behind(id: NexthopId, objects: &[NexthopObject]) -> Vec<Leg> {
    let kind = |id: &NexthopId| {
        let object = objects.iter().find(|object| object.id == *id);
        object.map(|object| &object.kind)
    };
    let leg = |id: &NexthopId| match kind(id) {
        Some(NexthopKind::Single(via)) => Some(Leg::only(*via)),
        _ => None,
    };
    match kind(&id) {
        Some(NexthopKind::Group(members)) => members
            .iter()
            .filter_map(|member| leg(&member.id))
            .collect(),
        _ => leg(&id).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{GroupMember, RouteKey, Via};
    use crate::types::{Family, IfIndex, Metric, Protocol, Realm, TableId};

    fn via(last: u8) -> Via {
        Via {
            gateway: Some([10, 0, 1, last].into()),
            device: IfIndex(2),
            onlink: false,
        }
    }

    fn default_over(id: u32) -> Route {
        Route {
            key: RouteKey {
                table: TableId(1084),
                dst: Family::Ipv4.default_prefix(),
                tos: 0,
                metric: Metric(0),
            },
            target: RouteTarget::Nexthop(NexthopId(id)),
            realm: Realm(0),
            options: None,
            protocol: Protocol(83),
        }
    }

    fn object(id: u32, kind: NexthopKind) -> NexthopObject {
        NexthopObject {
            id: NexthopId(id),
            family: Family::Ipv4,
            kind,
            protocol: Protocol(83),
        }
    }

    #[test]
    fn rollback_after_an_upgrade_restores_the_gateways_without_nexthop_objects() {
        let members = [108_402, 108_401].map(|id| GroupMember {
            id: NexthopId(id),
            weight: 1,
        });
        let nexthops = vec![
            object(108_400, NexthopKind::Group(members.to_vec())),
            object(108_401, NexthopKind::Single(via(10))),
            object(108_402, NexthopKind::Single(via(20))),
        ];
        let target_over = |id| {
            let goal = Goal::earlier(OwnedState {
                routes: vec![default_over(id)],
                nexthops: nexthops.clone(),
                ..OwnedState::default()
            });
            goal.routes.first().map(|route| route.target.clone())
        };
        let leg = |last| Leg::only(via(last));
        let both = RouteTarget::Multipath(vec![leg(10), leg(20)]);
        assert_eq!(target_over(108_400), Some(both));
        assert_eq!(target_over(108_401), Some(RouteTarget::Via(via(10))));
        assert_eq!(target_over(7), None, "an object that is gone");
    }
}
