//! The present kernel state as values: the input of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::firewall::{BackendKind, ObservedFirewall, OwnedFirewall};
use crate::objects::{BypassPath, ForwardPolicy, NexthopObject, Route, RouteTarget, Rule};
use crate::ownership::{Numbers, Ownership};
use crate::types::{Family, PerFamily, Slot};

/// The state that the plan compares with the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedState {
    /// All routes of our tables, ours and foreign, sorted by key.
    pub routes: Vec<Route>,
    /// All policy rules, both families, in the kernel's order.
    pub rules: Vec<Rule>,
    pub nexthops: Vec<NexthopObject>,
    pub firewalls: BTreeMap<BackendKind, ObservedFirewall>,
    pub policies: ObservedPolicies,
}

/// The forward policies of ours in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedPolicies {
    /// Sorted; empty if unreadable.
    pub ours: Vec<ForwardPolicy>,
    /// The reason if the kernel has no policies, or refuses ours.
    pub unusable: Option<String>,
    /// The reason if this process may not read policies: nothing is known.
    pub unreadable: Option<String>,
}

impl ObservedState {
    /// An empty kernel without firewalls: the start of many tests.
    pub fn empty() -> Self {
        ObservedState {
            routes: Vec::new(),
            rules: Vec::new(),
            nexthops: Vec::new(),
            firewalls: BTreeMap::from(
                BackendKind::ALL.map(|kind| (kind, ObservedFirewall::Absent)),
            ),
            policies: ObservedPolicies::default(),
        }
    }

    /// True before the first pass on a host whose egress is shut since the boot.
    pub fn is_shut(&self, ownership: &Ownership) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.is_of_shut() && ownership.owns_rule(rule))
    }

    /// Our objects.
    pub fn owned(&self, ownership: &Ownership) -> OwnedState {
        OwnedState {
            routes: self
                .routes
                .iter()
                .filter(|r| ownership.owns_route(r))
                .cloned()
                .collect(),
            rules: self
                .rules
                .iter()
                .filter(|r| ownership.owns_rule(r))
                .cloned()
                .collect(),
            nexthops: self
                .nexthops
                .iter()
                .filter(|n| ownership.owns_nexthop(n))
                .cloned()
                .collect(),
            firewalls: self
                .firewalls
                .iter()
                .filter_map(|(kind, observed)| match observed {
                    ObservedFirewall::Owned(owned) => Some((*kind, owned.clone())),
                    _ => None,
                })
                .collect(),
            policies: self.policies.ours.clone(),
        }
    }

    /// The earlier numbers that still mark an object of ours.
    pub fn earlier_numbers_in_use(&self, ownership: &Ownership) -> Vec<Numbers> {
        let current = Ownership::new(ownership.current, []);
        ownership
            .earlier
            .iter()
            .copied()
            .filter(|numbers| {
                let old = Ownership::new(*numbers, []);
                let routes = self.routes.iter();
                let rules = self.rules.iter();
                let nexthops = self.nexthops.iter();
                routes
                    .filter(|route| !current.owns_route(route))
                    .any(|route| old.owns_route(route))
                    || rules
                        .filter(|rule| !current.owns_rule(rule))
                        .any(|rule| old.owns_rule(rule))
                    || nexthops
                        .filter(|nexthop| !current.owns_nexthop(nexthop))
                        .any(|nexthop| old.owns_nexthop(nexthop))
            })
            .collect()
    }

    /// The gateways of pinned flows.
    pub fn slots(&self, ownership: &Ownership) -> PerFamily<BTreeMap<Slot, IpAddr>> {
        slots(&self.routes, ownership)
    }

    /// The gateways of our present defaults in the egress table.
    pub fn leading(&self, ownership: &Ownership) -> PerFamily<BTreeSet<IpAddr>> {
        PerFamily::from_fn(|family| {
            let routes = self.routes.iter().filter(|route| {
                route.key.table == ownership.current.egress_table
                    && route.key.dst == family.default_prefix()
                    && ownership.owns_route(route)
            });
            let legs = routes.flat_map(|route| route.target.legs());
            legs.filter_map(|leg| leg.via.gateway).collect()
        })
    }

    /// The present path of our bypass routes: a family without a default route for the moment (a
    /// DHCP restart) keeps this path.
    pub fn last_bypass(&self, ownership: &Ownership) -> PerFamily<Option<BypassPath>> {
        PerFamily::from_fn(|family| {
            let mut routes = self.routes.iter().filter(|route| {
                route.key.family() == family
                    && ownership.is_bypass_table(route.key.table)
                    && ownership.owns_route(route)
            });
            routes.find_map(|route| BypassPath::new(route.target.legs(), route.options.clone()))
        })
    }
}

/// The gateways of pinned flows, by the labels in their tables: a `throw` for one address.
pub fn slots(routes: &[Route], ownership: &Ownership) -> PerFamily<BTreeMap<Slot, IpAddr>> {
    let mut found: PerFamily<BTreeMap<Slot, IpAddr>> = PerFamily::default();
    for route in routes.iter().filter(|it| ownership.owns_route(it)) {
        let label = route.key.dst;
        let is_label =
            route.target == RouteTarget::Throw && label.prefix_len() == label.max_prefix_len();
        if let (true, Some(slot @ 1..)) = (is_label, ownership.slot_of(route.key.table)) {
            let slots = found.get_mut(route.key.family());
            slots.insert(slot, label.addr());
        }
    }
    found
}

/// Our objects in the kernel: the state that a rollback restores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedState {
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub nexthops: Vec<NexthopObject>,
    pub firewalls: BTreeMap<BackendKind, OwnedFirewall>,
    /// Sorted.
    pub policies: Vec<ForwardPolicy>,
}

impl OwnedState {
    /// True without any object.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
            && self.rules.is_empty()
            && self.nexthops.is_empty()
            && self.firewalls.is_empty()
            && self.policies.is_empty()
    }

    /// The number of our routes of a family.
    pub fn routes_of(&self, family: Family) -> usize {
        self.routes
            .iter()
            .filter(|route| route.key.family() == family)
            .count()
    }
}
