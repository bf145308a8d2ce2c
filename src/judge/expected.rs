//! The promise: the path of each address under the desired state.

use std::net::IpAddr;

use ipnet::IpNet;

use super::chain::BaseChain;
use crate::desired::{DesiredState, EgressPath, special};
use crate::facts::HostFacts;
use crate::firewall::BackendKind;
use crate::objects::{Route, Rule, RuleAction};
use crate::ownership::{Numbers, Ownership};
use crate::types::{Family, Priority, TableId};

/// The state that the kernel's answers are compared with, and the foreign state that may explain a
/// difference.
#[derive(Debug, Clone, Copy)]
pub struct Promise<'a> {
    pub desired: &'a DesiredState,
    pub facts: &'a HostFacts,
    pub ownership: &'a Ownership,
    pub vpc_cidrs: &'a [IpNet],
    /// All policy rules, in the kernel's order.
    pub rules: &'a [Rule],
    /// Foreign routes in our tables.
    pub foreign: &'a [Route],
    pub backend: BackendKind,
    /// NAT role: the foreign chains in the way of forwarded packets.
    pub chains: &'a [BaseChain],
}

impl<'a> Promise<'a> {
    /// The numbers of our objects.
    pub fn numbers(&self) -> &Numbers {
        &self.ownership.current
    }

    /// The path that the desired state promises for the address.
    pub fn expected(&self, address: IpAddr) -> Expected {
        expected(self.desired, self.numbers(), self.vpc_cidrs, address)
    }

    /// The longest prefix of the main table that our rule for it skips.
    pub fn suppressed(&self, family: Family) -> u32 {
        let lengths = self
            .desired
            .rules
            .iter()
            .filter_map(|rule| match rule.action {
                RuleAction::Lookup {
                    table: TableId::MAIN,
                    suppress_prefixlength,
                } if rule.family == family => suppress_prefixlength,
                _ => None,
            });
        lengths.min().unwrap_or(0)
    }

    /// True for a default of the main table, which our rules skip.
    pub fn is_default(&self, prefix: &IpNet) -> bool {
        u32::from(prefix.prefix_len()) <= self.suppressed(Family::of_net(prefix))
    }

    /// The foreign policy rules of a family before the main table's own, except the kernel's, in the
    /// kernel's order.
    pub fn foreign_rules(&self, family: Family) -> impl Iterator<Item = &'a Rule> + use<'a> {
        let ownership = self.ownership;
        self.rules.iter().filter(move |rule| {
            rule.family == family
                && rule.priority.0 != 0
                && rule.priority < Priority::MAIN
                && !ownership.owns_rule(rule)
        })
    }

    /// True if the kernel has our rules. Before, packets take the promised path by chance only.
    pub fn is_installed(&self, family: Family) -> bool {
        let mut wanted = self.desired.rules.iter();
        wanted.all(|rule| rule.family != family || self.rules.contains(rule))
    }

    /// The longest foreign route of our tables that packets to the address may find.
    pub fn foreign_route(&self, address: IpAddr) -> Option<&Route> {
        let all = self.foreign.iter();
        all.filter(|route| route.key.dst.contains(&address))
            .max_by_key(|route| route.key.dst.prefix_len())
    }

    /// True for packets that this host forwards for others (NAT role).
    pub fn forwards(&self, family: Family) -> bool {
        !self.desired.paths.get(family).inputs.is_empty()
    }
}

/// The promised path of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The bypass table's route of this prefix.
    Bypass(IpNet),
    Egress,
    Closed,
    Main,
}

/// Computes the path of an address from the routes and paths of the desired state.
pub fn expected(
    desired: &DesiredState,
    numbers: &Numbers,
    vpc_cidrs: &[IpNet],
    address: IpAddr,
) -> Expected {
    let family = Family::of(address);
    let paths = desired.paths.get(family);
    if paths.bypass.is_some()
        && !paths.diverted
        && let Some(prefix) = bypass_prefix(&desired.routes, numbers.bypass_table, address)
    {
        return Expected::Bypass(prefix);
    }
    if special::thrown(family, vpc_cidrs)
        .iter()
        .any(|prefix| prefix.contains(&address))
    {
        return Expected::Main;
    }
    match paths.egress {
        EgressPath::Main => Expected::Main,
        EgressPath::Gateways(_) => Expected::Egress,
        EgressPath::Closed => Expected::Closed,
    }
}

/// The prefix among the sorted, disjoint routes of the table that holds the address.
fn bypass_prefix(routes: &[Route], table: TableId, address: IpAddr) -> Option<IpNet> {
    let after =
        routes.partition_point(|route| (route.key.table, route.key.dst.addr()) <= (table, address));
    routes[..after]
        .last()
        .filter(|route| route.key.table == table && route.key.dst.contains(&address))
        .map(|route| route.key.dst)
}
