//! A small, strict kernel: the effect of a step on tables, rules and nexthop objects, and the path
//! of a packet through them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use trailblazer::facts::HostFacts;
use trailblazer::firewall::{BackendKind, ObservedFirewall, OwnedFirewall, SavedRules};
use trailblazer::objects::{
    ForwardPolicy, NexthopKind, NexthopObject, Route, RouteKey, RouteTarget, Rule, RuleAction,
};
use trailblazer::observed::{ObservedPolicies, ObservedState};
use trailblazer::ownership::Ownership;
use trailblazer::plan::{Action, FirewallAfter, Step};
use trailblazer::types::{Family, IfIndex, NexthopId, TableId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub routes: BTreeMap<RouteKey, Route>,
    pub rules: Vec<Rule>,
    pub nexthops: BTreeMap<NexthopId, NexthopObject>,
    pub firewalls: BTreeMap<BackendKind, ObservedFirewall>,
    pub policies: BTreeSet<ForwardPolicy>,
}

impl Model {
    pub fn of(state: &ObservedState) -> Model {
        Model {
            routes: state
                .routes
                .iter()
                .map(|route| (route.key, route.clone()))
                .collect(),
            rules: state.rules.clone(),
            nexthops: state
                .nexthops
                .iter()
                .map(|nexthop| (nexthop.id, nexthop.clone()))
                .collect(),
            firewalls: state.firewalls.clone(),
            policies: state.policies.ours.iter().copied().collect(),
        }
    }

    pub fn observed(&self) -> ObservedState {
        ObservedState {
            routes: self.routes.values().cloned().collect(),
            rules: self.rules.clone(),
            nexthops: self.nexthops.values().cloned().collect(),
            firewalls: self.firewalls.clone(),
            policies: ObservedPolicies {
                ours: self.policies.iter().copied().collect(),
                ..ObservedPolicies::default()
            },
        }
    }

    /// The foreign objects.
    pub fn foreign(&self, ownership: &Ownership) -> (Vec<Route>, Vec<Rule>, Vec<NexthopObject>) {
        let routes = self.routes.values().filter(|r| !ownership.owns_route(r));
        let rules = self.rules.iter().filter(|r| !ownership.owns_rule(r));
        let nexthops = self.nexthops.values();
        let nexthops = nexthops.filter(|n| !ownership.owns_nexthop(n));
        (
            routes.cloned().collect(),
            rules.cloned().collect(),
            nexthops.cloned().collect(),
        )
    }

    /// Applies a step as the kernel would. Steps that the kernel refuses, or that would remove
    /// another object too, are errors.
    pub fn apply(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Sysctl(_) => Ok(()),
            Step::Route { action, route, .. } => self.route(*action, route),
            Step::Rule { action, rule } => self.rule(*action, rule),
            Step::Nexthop(nexthop) => self.delete_nexthop(nexthop),
            Step::Policy { action, policy } => self.policy(*action, policy),
            Step::Firewall {
                backend,
                action,
                after,
                after_text,
                ..
            } => {
                let there = matches!(
                    self.firewalls.get(backend),
                    Some(ObservedFirewall::Owned(_))
                );
                if there == (*action == Action::Add) {
                    return Err(format!("{action:?} of the {backend} rules, there: {there}"));
                }
                let now = match after {
                    FirewallAfter::Nothing => ObservedFirewall::Absent,
                    FirewallAfter::Earlier(owned) => ObservedFirewall::Owned(owned.clone()),
                    FirewallAfter::Policy(_) => ObservedFirewall::Owned(OwnedFirewall {
                        text: after_text.clone(),
                        snapshot: SavedRules::default(),
                    }),
                };
                self.firewalls.insert(*backend, now);
                Ok(())
            }
        }
    }

    fn policy(&mut self, action: Action, policy: &ForwardPolicy) -> Result<(), String> {
        let done = match action {
            Action::Add => self.policies.insert(*policy),
            Action::Delete => self.policies.remove(policy),
            Action::Replace => false,
        };
        done.then_some(())
            .ok_or_else(|| format!("{action} {policy}"))
    }

    fn route(&mut self, action: Action, route: &Route) -> Result<(), String> {
        if action != Action::Delete && matches!(route.target, RouteTarget::Nexthop(_)) {
            return Err(format!(
                "{route:?}: no plan of this version uses a nexthop object"
            ));
        }
        match (action, self.routes.get(&route.key)) {
            (Action::Add, Some(there)) => Err(format!("EEXIST: {route:?}, there: {there:?}")),
            (Action::Replace, None) => Err(format!("ENOENT: {route:?}")),
            (Action::Delete, Some(there)) if there == route => {
                self.routes.remove(&route.key);
                Ok(())
            }
            (Action::Delete, there) => Err(format!("ESRCH: {route:?}, there: {there:?}")),
            _ => {
                self.routes.insert(route.key, route.clone());
                Ok(())
            }
        }
    }

    fn rule(&mut self, action: Action, rule: &Rule) -> Result<(), String> {
        if action == Action::Delete {
            let place = self.rules.iter().position(|there| there == rule);
            let place = place.ok_or_else(|| format!("ENOENT: {rule:?}"))?;
            self.rules.remove(place);
            return Ok(());
        }
        // Behind rules of the same priority (fib_nl_newrule, net/core/fib_rules.c).
        let place = self
            .rules
            .iter()
            .position(|there| there.family == rule.family && there.priority > rule.priority)
            .unwrap_or(self.rules.len());
        self.rules.insert(place, rule.clone());
        Ok(())
    }

    fn delete_nexthop(&mut self, nexthop: &NexthopObject) -> Result<(), String> {
        let id = nexthop.id;
        if !self.nexthops.contains_key(&id) {
            return Err(format!("ENOENT: {nexthop:?}"));
        }
        let used = self
            .routes
            .values()
            .any(|route| route.target == RouteTarget::Nexthop(id));
        let member = self
            .nexthops
            .values()
            .any(|other| matches!(&other.kind, NexthopKind::Group(all) if all.iter().any(|member| member.id == id)));
        if used || member {
            return Err(format!(
                "{nexthop:?} is in use: what uses it would go along"
            ));
        }
        self.nexthops.remove(&id);
        Ok(())
    }

    /// The way a packet takes.
    pub fn way(&self, facts: &HostFacts, ownership: &Ownership, packet: &Packet) -> Way {
        let family = Family::of(packet.destination);
        let mut rules = self
            .rules
            .iter()
            .filter(|rule| rule.family == family)
            .collect::<Vec<_>>();
        rules.sort_by_key(|rule| rule.priority);
        let mut at = 0;
        while let Some(rule) = rules.get(at) {
            at += 1;
            if !matches(rule, packet) {
                continue;
            }
            match rule.action {
                RuleAction::Nop | RuleAction::Other(_) => {}
                RuleAction::Goto(target) => {
                    // A goto without its target does not match.
                    let place = rules.iter().position(|rule| rule.priority == target);
                    at = place.unwrap_or(at);
                }
                RuleAction::Lookup {
                    table: TableId::MAIN,
                    suppress_prefixlength,
                } => match facts.main_lookup(packet.destination) {
                    Some(route)
                        if suppress_prefixlength
                            .is_none_or(|most| u32::from(route.dst.prefix_len()) > most) =>
                    {
                        return Way::Main;
                    }
                    _ => {}
                },
                RuleAction::Lookup { table, .. } => {
                    if let Some(way) = self.table(table, ownership, packet.destination) {
                        return way;
                    }
                }
            }
        }
        Way::Main
    }

    fn table(&self, table: TableId, ownership: &Ownership, address: IpAddr) -> Option<Way> {
        let found = self
            .routes
            .values()
            .filter(|route| route.key.table == table && route.key.dst.contains(&address))
            .max_by_key(|route| {
                (
                    route.key.dst.prefix_len(),
                    std::cmp::Reverse(route.key.metric),
                )
            })?;
        match found.target {
            RouteTarget::Throw => None,
            _ if !ownership.owns_route(found) => Some(Way::Foreign),
            RouteTarget::Unreachable => Some(Way::Closed),
            // A default belongs to the egress path, in any table.
            _ if found.key.dst.prefix_len() == 0 => Some(Way::Egress),
            _ => Some(Way::Bypass),
        }
    }
}

fn matches(rule: &Rule, packet: &Packet) -> bool {
    rule.foreign_selectors.is_empty()
        && rule
            .iif
            .as_deref()
            .is_none_or(|iif| Some(iif) == packet.input.as_deref())
        && rule
            .mark
            .is_none_or(|mark| packet.mark & mark.mask == mark.value)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub destination: IpAddr,
    pub mark: u32,
    pub input: Option<String>,
}

/// The path of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The main table: as without us.
    Main,
    Bypass,
    Egress,
    /// The egress path is shut.
    Closed,
    /// A foreign route in one of our tables.
    Foreign,
}

impl Way {
    /// The egress path, open or shut.
    pub fn is_egress(self) -> bool {
        matches!(self, Way::Egress | Way::Closed)
    }
}

/// The link of that index, for generators.
pub const ETH0: IfIndex = IfIndex(100);
pub const ETH1: IfIndex = IfIndex(101);
