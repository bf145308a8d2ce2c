//! The reaction to one notification: a decision about the object that changed, without I/O.

use std::fmt;

use ipnet::IpNet;

use super::repair::Gone;
use crate::firewall::BackendKind;
use crate::objects::{ForwardPolicy, Route, Rule};
use crate::plan::{FirewallGoal, ObjectKey};
use crate::reconcile::InForce;
use crate::types::{Family, Priority};

/// The reaction to an event, with its cause for the log.
pub(super) enum Reaction {
    Nothing,
    Repair(Trigger),
    AfterBurst(Trigger),
    Pass(Trigger),
    /// A pass at once, after a shorter rest: the egress path may be open.
    Urgent(Trigger),
    /// A pass at once: the kernel has removed routes with the link or address.
    LinkLost(Trigger),
    /// A pass at once, and a fetch: the source may be reachable again.
    PathChanged(Trigger),
}

/// The cause of a reaction. Only the first causes of a burst become text.
pub(super) enum Trigger {
    Added(ObjectKey),
    Deleted(ObjectKey),
    Text(String),
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Added(key) => write!(f, "{key} was added"),
            Trigger::Deleted(key) => write!(f, "{key} was deleted"),
            Trigger::Text(text) => f.write_str(text),
        }
    }
}

pub(super) fn route_gone(
    route: Route,
    port: u32,
    in_force: Option<&InForce>,
    gone: &mut Gone,
) -> Reaction {
    // Notifications from before the filter was set may concern other tables.
    if in_force.is_some_and(|in_force| !in_force.ownership.tables().contains(&route.key.table)) {
        return Reaction::Nothing;
    }
    let wanted = in_force.is_some_and(|in_force| {
        in_force.ownership.owns_route(&route) && in_force.goal.routes.binary_search(&route).is_ok()
    });
    let key = ObjectKey::Route(route.key);
    let cause = Trigger::Deleted(key.clone());
    if !wanted {
        Reaction::AfterBurst(cause)
    } else if port == 0 {
        // The kernel itself removed the route, with its link object: a repair of
        // the route alone would be refused.
        Reaction::Pass(cause)
    } else {
        gone.routes.push(route);
        gone.ports.push((key, port));
        Reaction::Repair(cause)
    }
}

/// The reaction to a connected network of the main table: a gateway on that network may have become
/// reachable, or unreachable. Networks of containers contain no address of this host.
pub(super) fn connected_changed(network: IpNet, in_force: Option<&InForce>) -> Reaction {
    let cause = Trigger::Text(format!("the connected network {network} changed"));
    let Some(in_force) = in_force else {
        return Reaction::PathChanged(cause);
    };
    let facts = &in_force.facts;
    let own = facts.addresses.iter().map(|own| own.net.addr());
    let gateways = facts.main_routes.iter().filter_map(|route| route.gateway);
    if own
        .chain(gateways)
        .any(|address| network.contains(&address))
        || in_force.is_closed()
    {
        Reaction::PathChanged(cause)
    } else {
        Reaction::Nothing
    }
}

/// The reaction to a route of the main table: a wide one may take ordinary traffic, and a firewall that
/// drops packets on neither path excepts the administrator's.
pub(super) fn main_route_changed(dst: IpNet, in_force: Option<&InForce>) -> Reaction {
    if Family::is_wide(&dst) || in_force.is_some_and(InForce::is_closed) {
        Reaction::Pass(Trigger::Text(format!(
            "the route {dst} of the main table changed"
        )))
    } else {
        Reaction::Nothing
    }
}

pub(super) fn rule_gone(
    rule: Rule,
    port: u32,
    in_force: Option<&InForce>,
    gone: &mut Gone,
) -> Reaction {
    if in_force.is_some_and(|in_force| !in_force.ownership.owns_rule(&rule)) {
        return foreign_rule(&rule, in_force, Trigger::Deleted);
    }
    let key = ObjectKey::of_rule(&rule);
    let wanted = in_force.is_some_and(|in_force| in_force.goal.rules.contains(&rule));
    let cause = Trigger::Deleted(key.clone());
    if !wanted {
        return Reaction::AfterBurst(cause);
    }
    gone.rules.push(rule);
    gone.ports.push((key, port));
    Reaction::Repair(cause)
}

pub(super) fn rule_came(rule: &Rule, in_force: Option<&InForce>) -> Reaction {
    let cause = Trigger::Added(ObjectKey::of_rule(rule));
    let Some(in_force) = in_force else {
        return Reaction::AfterBurst(cause);
    };
    let ownership = &in_force.ownership;
    if ownership.owns_rule(rule) {
        if in_force.goal.rules.contains(rule) {
            return Reaction::Nothing;
        }
        return Reaction::Pass(cause);
    }
    foreign_rule(rule, Some(in_force), Trigger::Added)
}

/// A foreign rule before our last one may take packets, and its end may give them back: a pass judges
/// again. On a NAT, answers meet the rules behind ours too.
fn foreign_rule(
    rule: &Rule,
    in_force: Option<&InForce>,
    cause: impl FnOnce(ObjectKey) -> Trigger,
) -> Reaction {
    let last = |known: &InForce| {
        let ours = known.goal.rules.iter().map(|rule| rule.priority).max();
        ours.map(|last| {
            if known.forwards() {
                last.max(Priority::MAIN)
            } else {
                last
            }
        })
    };
    match in_force.and_then(last) {
        Some(last) if rule.priority > last => Reaction::Nothing,
        _ => Reaction::AfterBurst(cause(ObjectKey::of_rule(rule))),
    }
}

/// The reaction to a deleted forward policy of ours, or to the flush of all.
pub(super) fn policy_gone(policy: Option<ForwardPolicy>, in_force: Option<&InForce>) -> Reaction {
    let wanted = in_force.is_some_and(|in_force| match &policy {
        Some(policy) => in_force.goal.policies.contains(policy),
        None => !in_force.goal.policies.is_empty(),
    });
    if wanted {
        Reaction::Urgent(Trigger::Text("xfrm policies were deleted".to_owned()))
    } else {
        Reaction::Nothing
    }
}

pub(super) fn firewall_of(in_force: &InForce) -> Option<BackendKind> {
    match &in_force.goal.firewall {
        FirewallGoal::Policy { backend, .. } => Some(*backend),
        FirewallGoal::Earlier(_) => None,
    }
}
