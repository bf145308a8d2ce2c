//! The objects that open flows need after all objects that decide about new flows are gone
//! (`flush --drain`). Pure.
//!
//! A flow keeps its mark, the rule for the mark, and the table of its path. The main table decides about
//! new flows, and nothing marks them. So a path needs its table only if packets would leave the path
//! without a mark, that is, unless the path is the main table's default.
//!
//! A NAT instance translates no new flow. Conntrack goes on to translate the open ones as long as rules
//! match flows and a nat chain exists, although the chain is empty.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::chains::keeps_flows;
use super::counting::{Counting, PathMatches};
use super::pins::marking;
use super::place;
use crate::config::{Config, Role};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, Chain, FwRule, Hook, Match, Path, Ruleset};
use crate::objects::{BypassPath, Leg, Route, RouteTarget, Rule, RuleAction, Via};
use crate::ownership::Ownership;
use crate::types::{Family, FlowCounts, IfIndex, Mark, PinMarks, Slot, TableId};

/// Open flows of one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowsLeft {
    pub family: Family,
    pub path: Path,
    /// Host role: the gateway of an egress path.
    pub gateway: Option<IpAddr>,
    pub flows: u64,
}

/// The objects in the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    pub rules: &'a [Rule],
    pub routes: &'a [Route],
    pub ownership: &'a Ownership,
    /// True with rules of ours in a firewall.
    pub has_firewall: bool,
    /// `None` if unreadable: every path keeps its table.
    pub facts: Option<&'a HostFacts>,
}

impl Present<'_> {
    fn has_ours(self) -> bool {
        let Present {
            rules,
            routes,
            ownership,
            ..
        } = self;
        self.has_firewall
            || rules.iter().any(|rule| ownership.owns_rule(rule))
            || routes.iter().any(|route| ownership.owns_route(route))
    }
}

/// The objects that open flows need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    role: Role,
    marks: PinMarks,
    paths: Vec<PinnedPath>,
    /// NAT role: conntrack goes on to translate open flows.
    translates: bool,
    /// The rules for the main table without its default, before the tables of the paths.
    before: Vec<Rule>,
}

/// A path with a table of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PinnedPath {
    family: Family,
    slot: Slot,
    gateway: Option<IpAddr>,
    hops: Vec<Via>,
    rule: Rule,
    packet: Mark,
    routes: Vec<Route>,
}

/// True if a rule of ours decides about packets of new flows.
pub fn decides(rules: &[Rule], ownership: &Ownership) -> bool {
    let stays = |rule: &Rule| {
        ownership.leads_to_pins(rule) || rule.iif.is_none() && is_main_without_default(rule)
    };
    let mut ours = rules.iter().filter(|rule| ownership.owns_rule(rule));
    ours.any(|rule| !stays(rule))
}

impl Drain {
    /// The paths of pinned flows, as the kernel has them.
    ///
    /// # Errors
    /// A rule of ours has another mark than the config gives the slot.
    pub fn of(config: &Config, role: Option<Role>, present: Present<'_>) -> Result<Drain, String> {
        let marks = config.kernel.pin_marks();
        let ours = || {
            let rules = present.rules.iter();
            rules.filter(|rule| present.ownership.owns_rule(rule))
        };
        let mut paths = Vec::new();
        for rule in ours() {
            paths.extend(pinned(rule, marks, present)?);
        }
        let is_nat = |rule: &Rule| {
            let pins = present.ownership.current.priority.0 + place::PINS_OF_NAT;
            rule.iif.is_some() || present.ownership.leads_to_pins(rule) && rule.priority.0 == pins
        };
        let found = if ours().any(is_nat) {
            Role::Nat
        } else {
            Role::Host
        };
        let role = role.unwrap_or(found);
        paths.retain(|path: &PinnedPath| !is_default(path, present.facts));
        let before = ours().filter(|rule| rule.iif.is_none() && is_main_without_default(rule));
        Ok(Drain {
            role,
            marks,
            before: before.cloned().collect(),
            paths,
            translates: role == Role::Nat && present.has_ours(),
        })
    }

    /// True if rules of a host without pins decide about the packets of open flows.
    pub fn breaks_flows(&self, rules: &[Rule], ownership: &Ownership) -> bool {
        let pinned = |rule: &Rule| ownership.leads_to_pins(rule) && ownership.owns_rule(rule);
        self.role == Role::Host && decides(rules, ownership) && !rules.iter().any(pinned)
    }

    /// Leaves out the paths without an open flow.
    pub fn keep(&mut self, flows: &FlowCounts) {
        let marks = self.marks;
        self.paths
            .retain(|path| flows.with(path.family, flow_mark(marks, path.slot)) > 0);
        self.translates &= !self.left(flows).is_empty();
    }

    /// The open flows that need our objects.
    pub fn left(&self, flows: &FlowCounts) -> Vec<FlowsLeft> {
        let mut left: Vec<FlowsLeft> = match self.role {
            Role::Host => {
                let paths = self.paths.iter();
                paths
                    .map(|path| FlowsLeft {
                        family: path.family,
                        path: path.path(),
                        gateway: path.gateway,
                        flows: flows.with(path.family, flow_mark(self.marks, path.slot)),
                    })
                    .collect()
            }
            Role::Nat => {
                let both = [
                    (Path::Bypass, self.marks.bypass_flow()),
                    (Path::Egress, self.marks.egress_flow()),
                ];
                let of = |family| {
                    both.map(|(path, mark)| FlowsLeft {
                        family,
                        path,
                        gateway: None,
                        flows: flows.with(family, mark),
                    })
                };
                Family::ALL.into_iter().flat_map(of).collect()
            }
        };
        left.retain(|left| left.flows > 0);
        left.sort();
        left
    }

    /// The rules that stay.
    pub fn rules(&self) -> Vec<Rule> {
        let families: BTreeSet<Family> = self.paths.iter().map(|path| path.family).collect();
        let before = self.before.iter();
        let before = before.filter(|rule| families.contains(&rule.family));
        let paths = self.paths.iter().map(|path| &path.rule);
        before.chain(paths).cloned().collect()
    }

    /// The routes that stay, sorted.
    pub fn routes(&self) -> Vec<Route> {
        let mut routes: Vec<Route> = self
            .paths
            .iter()
            .flat_map(|path| path.routes.iter().cloned())
            .collect();
        routes.sort();
        routes.dedup();
        routes
    }

    /// The rules of the firewall: marks for packets of flows that would leave their path, and none
    /// for flows. `None` without a need for rules.
    ///
    /// Beside iptables the marks of a host lie in nf_tables (`nf_tables_beside`). Without nf_tables no rule
    /// matches the next hop, so that all packets of the flows are marked.
    pub fn firewall(
        &self,
        config: &Config,
        backend: BackendKind,
        nf_tables_beside: bool,
    ) -> Option<Ruleset> {
        let mut policy = Ruleset::default();
        let mut add = |hook: Hook, rules: Vec<FwRule>| {
            if !rules.is_empty() {
                policy.chains.push(Chain { hook, rules });
            }
        };
        let marks = |rule: &dyn Fn(&PinnedPath) -> FwRule| self.paths.iter().map(rule).collect();
        let forwarded = marks(&|path| path.forwarded(self.marks));
        match self.role {
            Role::Host => {
                let by_hop = backend.matches_next_hop() || nf_tables_beside;
                let displaced = marks(&|path| path.displaced(self.marks, by_hop));
                if backend.matches_next_hop() || !nf_tables_beside {
                    add(Hook::Prerouting, forwarded);
                    add(Hook::OutputReroute, displaced);
                } else {
                    add(Hook::PreroutingPin, forwarded);
                    add(Hook::OutputPin, displaced);
                }
            }
            Role::Nat if self.translates => {
                add(Hook::PreroutingMark, forwarded);
                policy.chains.extend(keeps_flows(backend));
                // Rules that match flows keep conntrack switched on.
                let mut counting = Counting::default();
                for family in Family::ALL {
                    counting.add(config, family, PathMatches::default(), None);
                }
                counting.complete(backend, &mut policy);
            }
            Role::Nat => {}
        }
        (!policy.chains.is_empty()).then_some(policy)
    }
}

impl PinnedPath {
    fn path(&self) -> Path {
        match self.slot {
            0 => Path::Bypass,
            _ => Path::Egress,
        }
    }

    fn marking(&self, marks: PinMarks, matches: Vec<Match>) -> FwRule {
        let flow = flow_mark(marks, self.slot);
        marking(marks, self.family, (flow, self.packet), matches)
    }

    /// Forwarded packets are routed once, so that the mark must be there before.
    fn forwarded(&self, marks: PinMarks) -> FwRule {
        let outside = Match::NotInputInterface("lo".to_owned());
        self.marking(marks, vec![outside])
    }

    /// Packets of this host whose next hop is none of the path. The next hop of a route without a
    /// gateway is the destination, so that such a path marks all packets of its flows.
    fn displaced(&self, marks: PinMarks, by_hop: bool) -> FwRule {
        if !by_hop {
            return self.marking(marks, Vec::new());
        }
        let gateway = |hop: &Via| {
            let gateway = hop.gateway?;
            (Family::of(gateway) == self.family).then_some(Match::NotNextHop(gateway))
        };
        let others: Option<Vec<Match>> = match self.gateway {
            Some(gateway) => Some(vec![Match::NotNextHop(gateway)]),
            None => self.hops.iter().map(gateway).collect(),
        };
        self.marking(marks, others.unwrap_or_default())
    }
}

/// The mark of the flows of a slot.
fn flow_mark(marks: PinMarks, slot: Slot) -> Mark {
    match slot {
        0 => marks.bypass_flow(),
        slot => marks.slot(slot),
    }
}

fn pin_table(rule: &Rule, ownership: &Ownership) -> Option<(TableId, Slot)> {
    match rule.action {
        RuleAction::Lookup { table, .. } => Some((table, ownership.slot_of(table)?)),
        _ => None,
    }
}

fn is_main_without_default(rule: &Rule) -> bool {
    let RuleAction::Lookup {
        table,
        suppress_prefixlength,
    } = rule.action
    else {
        return false;
    };
    table == TableId::MAIN && suppress_prefixlength.is_some() && rule.mark.is_none()
}

/// The path that a rule of ours leads to; `None` for other rules.
fn pinned(
    rule: &Rule,
    marks: PinMarks,
    present: Present<'_>,
) -> Result<Option<PinnedPath>, String> {
    let Some((table, slot)) = pin_table(rule, present.ownership) else {
        return Ok(None);
    };
    let packet = match slot {
        0 => marks.bypass_packet(),
        slot => marks.slot(slot),
    };
    if rule.mark != Some(packet) {
        let mark = rule.mark.map(|mark| mark.to_string()).unwrap_or_default();
        return Err(format!(
            "{} rule {}: the mark {mark} of table {table} is not {packet} of the config: drain with -c and the config in force, or flush",
            rule.family, rule.priority
        ));
    }
    let routes = present.routes.iter();
    let routes: Vec<Route> = routes
        .filter(|route| {
            let key = route.key;
            (key.table, key.family()) == (table, rule.family) && present.ownership.owns_route(route)
        })
        .cloned()
        .collect();
    let default = routes.iter().find(|route| route.target.forwards());
    let hops = default.map_or_else(Vec::new, |route| route.target.legs());
    let label = routes.iter().find(|route| {
        let dst = route.key.dst;
        route.target == RouteTarget::Throw && dst.prefix_len() == dst.max_prefix_len()
    });
    Ok(Some(PinnedPath {
        family: rule.family,
        slot,
        gateway: label.map(|route| route.key.dst.addr()).filter(|_| slot > 0),
        hops: hops.iter().map(|leg: &Leg| leg.via).collect(),
        rule: rule.clone(),
        packet,
        routes,
    }))
}

/// True if packets take the path without a mark: the path is the main table's default, and no route in
/// disguise precedes this default.
fn is_default(path: &PinnedPath, facts: Option<&HostFacts>) -> bool {
    let Some(facts) = facts else { return false };
    let hops = |vias: &mut dyn Iterator<Item = Via>| -> BTreeSet<(Option<IpAddr>, IfIndex)> {
        vias.map(|via| via.hop()).collect()
    };
    let own = hops(&mut path.hops.iter().copied());
    let default = facts.default_path(path.family, None);
    let by_default = default
        .as_ref()
        .map(|default: &BypassPath| hops(&mut default.vias()));
    !own.is_empty()
        && Some(own) == by_default
        && facts.disguised_defaults(path.family).next().is_none()
}

#[cfg(test)]
mod tests;
