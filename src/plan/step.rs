//! One change of one kernel object.

use std::fmt;

use crate::desired::SysctlSetting;
use crate::firewall::{BackendKind, OwnedFirewall, Ruleset};
use crate::objects::{
    ForwardPolicy, NexthopKind, NexthopObject, Route, RouteKey, RouteTarget, Rule,
};
use crate::ownership::Ownership;
use crate::types::NexthopId;

/// The effect of a step on its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Add,
    /// Overwrite an object that was observed as ours.
    Replace,
    Delete,
}

words!(Action { Add => "add", Replace => "replace", Delete => "delete" });

/// The contents of a firewall after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallAfter {
    Policy(Ruleset),
    /// The contents as read before the pass (rollback).
    Earlier(OwnedFirewall),
    Nothing,
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A sysctl listed in `[kernel] manage`.
    Sysctl(SysctlSetting),
    /// All of our rules in one firewall, in one transaction.
    Firewall {
        backend: BackendKind,
        action: Action,
        /// The present contents, as canonical text.
        before: Vec<String>,
        /// The wanted contents, as canonical text.
        after_text: Vec<String>,
        /// The wanted contents, as a value.
        after: FirewallAfter,
    },
    /// Deletes a nexthop object that an earlier version left.
    Nexthop(NexthopObject),
    Route {
        action: Action,
        /// On delete: the route as observed.
        route: Route,
        /// On replace: the present route.
        before: Option<Box<Route>>,
    },
    /// A policy rule. The kernel has no replace for rules: the action is add or delete.
    Rule { action: Action, rule: Rule },
    /// A forward policy of IPsec: the action is add or delete.
    Policy {
        action: Action,
        policy: ForwardPolicy,
    },
}

impl Step {
    /// The object that the step changes.
    pub fn key(&self) -> ObjectKey {
        match self {
            Step::Sysctl(setting) => ObjectKey::Sysctl(setting.path.clone()),
            Step::Firewall { backend, .. } => ObjectKey::Firewall(*backend),
            Step::Nexthop(nexthop) => ObjectKey::Nexthop(nexthop.id),
            Step::Route { route, .. } => ObjectKey::Route(route.key),
            Step::Rule { rule, .. } => ObjectKey::of_rule(rule),
            Step::Policy { policy, .. } => ObjectKey::Policy(*policy),
        }
    }

    /// The effect of the step on the object.
    pub fn action(&self) -> Action {
        match self {
            Step::Sysctl(_) => Action::Replace,
            Step::Nexthop(_) => Action::Delete,
            Step::Firewall { action, .. }
            | Step::Route { action, .. }
            | Step::Rule { action, .. }
            | Step::Policy { action, .. } => *action,
        }
    }

    /// `route`, `rule`, `nexthop`, `nat`, `xfrm_policy` or `sysctl`, as in the JSON output.
    pub fn object(&self) -> &'static str {
        match self {
            Step::Sysctl(_) => "sysctl",
            Step::Firewall { .. } => "nat",
            Step::Nexthop(_) => "nexthop",
            Step::Route { .. } => "route",
            Step::Rule { .. } => "rule",
            Step::Policy { .. } => "xfrm_policy",
        }
    }
}

/// The step in words: `add route 3.5.0.0/19 via 10.0.1.1 in table 1083`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action().as_str();
        match self {
            Step::Sysctl(setting) => write!(
                f,
                "write {} to sysctl {}",
                setting.to,
                setting.path.replace('/', ".")
            ),
            Step::Nexthop(object) if matches!(object.kind, NexthopKind::Group(_)) => {
                write!(f, "{action} nexthop group {}", object.id)
            }
            Step::Route { route, .. } => {
                write!(f, "{action} route {}", route.key.dst)?;
                match &route.target {
                    RouteTarget::Via(via) => {
                        if let Some(gateway) = via.gateway {
                            write!(f, " via {gateway}")?;
                        }
                    }
                    RouteTarget::Multipath(legs) => {
                        let gateways = legs.iter().filter_map(|leg| leg.via.gateway);
                        for (place, gateway) in gateways.enumerate() {
                            let word = if place == 0 { "via" } else { "or" };
                            write!(f, " {word} {gateway}")?;
                        }
                    }
                    RouteTarget::Unreachable => f.write_str(" (unreachable)")?,
                    RouteTarget::Throw => f.write_str(" (throw)")?,
                    RouteTarget::Nexthop(_) | RouteTarget::Other(_) => {}
                }
                write!(f, " in table {}", route.key.table)
            }
            _ => write!(f, "{action} {}", self.key()),
        }
    }
}

/// The identity of an object, independent of any change to the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The path below `/proc/sys`.
    Sysctl(String),
    Firewall(BackendKind),
    Nexthop(NexthopId),
    Route(RouteKey),
    /// The whole rule: the kernel changes no rule, and several rules may have one priority.
    Rule(Box<Rule>),
    Policy(ForwardPolicy),
}

impl ObjectKey {
    /// The identity of a policy rule.
    pub fn of_rule(rule: &Rule) -> ObjectKey {
        ObjectKey::Rule(Box::new(rule.clone()))
    }

    /// True for an object of the egress: the rules, the firewall and the routes of the egress
    /// table. Nothing withholds such an object.
    pub fn is_of_egress(&self, ownership: &Ownership) -> bool {
        match self {
            ObjectKey::Route(key) => !ownership.is_bypass_table(key.table),
            ObjectKey::Rule(..) | ObjectKey::Firewall(_) | ObjectKey::Policy(_) => true,
            ObjectKey::Sysctl(_) | ObjectKey::Nexthop(_) => false,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectKey::Sysctl(path) => write!(f, "sysctl {}", path.replace('/', ".")),
            ObjectKey::Firewall(backend) => write!(f, "our {backend} rules"),
            ObjectKey::Nexthop(id) => write!(f, "nexthop {id}"),
            ObjectKey::Route(key) => write!(f, "route {} in table {}", key.dst, key.table),
            ObjectKey::Rule(rule) => write!(f, "{} rule {}", rule.family, rule.priority),
            ObjectKey::Policy(policy) => write!(f, "xfrm policy {policy} {}", policy.action),
        }
    }
}
