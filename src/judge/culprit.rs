//! The foreign rule or route behind a decision, named as `ip rule` and `ip route` print it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expected::{Expected, Promise};
use super::hosts::is_network;
use super::ordinary;
use super::packet::{Lookup, RouteDecision};
use crate::facts::{HostFacts, MainRoute};
use crate::objects::{ForeignSelector, Route, RouteTarget, Rule, RuleAction, Via};
use crate::plan::rule_text::rule_text;
use crate::types::{Family, Mark, Priority, TableId};

/// The cause of a decision that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Culprit {
    /// A rule that takes ordinary packets before ours.
    Rule(String),
    /// A rule with a selector that ordinary packets don't match.
    SelectiveRule(String),
    /// A route of the main table, or a foreign one in ours, as wide as a default.
    WideRoute(String),
    /// A route that somebody added for a few addresses.
    NarrowRoute(String),
    /// A default of the main table that refuses packets: `suppress_prefixlength` suppresses no
    /// errors (`fib_rules_lookup`, net/core/fib_rules.c).
    RejectingDefault(String),
}

/// The foreign cause of a decision that differs from the expectation; `None` without one.
pub fn culprit(
    promise: &Promise<'_>,
    question: &Lookup,
    expected: &Expected,
    decision: &RouteDecision,
) -> Option<Culprit> {
    let found = match decision {
        RouteDecision::Route(route) => of_route(promise, question, expected, route),
        RouteDecision::Errno(errno) => of_errno(promise, question, expected, *errno),
    };
    // A foreign route in our tables that refuses packets, or throws them back.
    let behind = || {
        let route = promise.foreign_route(question.destination)?;
        let named = route_text(route, promise.facts);
        (!route.target.forwards()).then(|| by_width(&route.key.dst, named))
    };
    found.or_else(behind)
}

fn of_route(
    promise: &Promise<'_>,
    question: &Lookup,
    expected: &Expected,
    route: &Route,
) -> Option<Culprit> {
    let numbers = promise.numbers();
    let table = route.key.table;
    let ours = [numbers.bypass_table, numbers.egress_table].contains(&table);
    let named = |route: &Route| route_text(route, promise.facts);
    if ours && !promise.ownership.owns_route(route) {
        return Some(by_width(&route.key.dst, named(route)));
    }
    let leads = |rule: &&Rule| leads_to(rule, route, promise);
    let by_rule = precedents(promise, question, expected).find(leads);
    if table == TableId::MAIN && !promise.is_default(&route.key.dst) {
        // Our own rule leads to the main table's routes too: the route decides.
        return Some(by_width(&route.key.dst, named(route)));
    }
    if let Some(rule) = by_rule {
        return Some(by_selectors(rule, question, promise));
    }
    (table == TableId::LOCAL).then(|| by_width(&route.key.dst, named(route)))
}

fn of_errno(
    promise: &Promise<'_>,
    question: &Lookup,
    expected: &Expected,
    errno: i32,
) -> Option<Culprit> {
    let address = question.destination;
    let rejecting = precedents(promise, question, expected)
        .find(|rule| matches!(rule.action, RuleAction::Other(_)));
    if let Some(rule) = rejecting {
        return Some(by_selectors(rule, question, promise));
    }
    let kind = kind_of(errno);
    if let Some(route) = promise.facts.main_lookup(address)
        && !route.unicast
    {
        let named = main_route_text(route, kind, promise.facts);
        return Some(if promise.is_default(&route.dst) {
            Culprit::RejectingDefault(named)
        } else {
            by_width(&route.dst, named)
        });
    }
    // The table of a foreign rule may refuse the packet.
    let elsewhere = |rule: &&Rule| {
        matches!(rule.action, RuleAction::Lookup { table, .. }
            if table != TableId::MAIN && table != TableId::LOCAL)
    };
    let rule = precedents(promise, question, expected).find(elsewhere)?;
    Some(by_selectors(rule, question, promise))
}

fn by_width(dst: &IpNet, named: String) -> Culprit {
    if Family::is_wide(dst) {
        Culprit::WideRoute(named)
    } else {
        Culprit::NarrowRoute(named)
    }
}

/// True if the packets of ordinary programs match the rule: everything in the host role, the
/// packets of hosts in the NAT role.
fn by_selectors(rule: &Rule, question: &Lookup, promise: &Promise<'_>) -> Culprit {
    let named = named_rule(rule);
    if takes_ordinary_packets(rule, question, promise) {
        Culprit::Rule(named)
    } else {
        Culprit::SelectiveRule(named)
    }
}

/// A rule as `ip rule` prints it.
pub fn named_rule(rule: &Rule) -> String {
    format!("rule {}: {}", rule.priority, rule_text(rule))
}

/// The kernel's answer comes from the rule, so that the packet of the question matches. Whether
/// ordinary packets match too depends on the selectors.
pub(super) fn takes_ordinary_packets(
    rule: &Rule,
    question: &Lookup,
    promise: &Promise<'_>,
) -> bool {
    if is_inverted(rule) {
        // `not fwmark X`: everything without the mark.
        return true;
    }
    // A mark of the question is the work of a foreign chain.
    let carried = |mark: Mark| mark.value & mark.mask == question.mark & mark.mask;
    if rule.mark.is_some_and(|mark| !carried(mark)) {
        return false;
    }
    rule.foreign_selectors
        .iter()
        .all(|selector| match selector {
            // Every socket without an address may send there.
            ForeignSelector::To(_) => true,
            ForeignSelector::From(prefix) => is_ordinary_source(prefix, question, promise),
            other => ordinary::is_ordinary(other).unwrap_or(false),
        })
}

fn is_inverted(rule: &Rule) -> bool {
    rule.foreign_selectors.contains(&ForeignSelector::Not)
}

/// The source of a question from a socket is the address that the kernel chooses for sockets
/// without one. After the choice, the kernel routes connected IPv4 sockets again by that address
/// (`ip_route_connect`, include/net/route.h), and IPv6 connections at the next change of any route
/// (`inet6_sk_rebuild_header`, net/ipv6/af_inet6.c). For a
/// forwarded packet, the selector must hold a network of clients.
fn is_ordinary_source(selector: &IpNet, question: &Lookup, promise: &Promise<'_>) -> bool {
    let family = Family::of_net(selector);
    match (question.source, question.input) {
        (Some(source), None) => selector.contains(&source),
        (Some(_), Some(_)) => promise
            .desired
            .paths
            .get(family)
            .inputs
            .iter()
            .any(|input| {
                let inside = input.source.contains(selector) && is_network(selector);
                selector.contains(&input.source) || inside
            }),
        (None, _) => Family::is_wide(selector),
    }
}

/// True if the packet of the question may match the rule; the kernel says whether it does.
pub(super) fn may_match(rule: &Rule, question: &Lookup, promise: &Promise<'_>) -> bool {
    if is_inverted(rule) {
        return true;
    }
    let input = match question.input {
        Some(index) => promise.facts.device_name(index),
        // The kernel's look-ups for its own packets carry the loopback interface.
        None => "lo".to_owned(),
    };
    if rule.iif.as_ref().is_some_and(|iif| *iif != input) {
        return false;
    }
    if rule
        .mark
        .is_some_and(|mark| mark.value & mark.mask != question.mark & mark.mask)
    {
        return false;
    }
    rule.foreign_selectors
        .iter()
        .all(|selector| match selector {
            ForeignSelector::To(prefix) => holds(prefix, Some(question.destination)),
            ForeignSelector::From(prefix) => holds(prefix, question.source),
            other => {
                let (transport, user) = (question.transport, question.user);
                ordinary::matches_selector(other, transport, user).unwrap_or(true)
            }
        })
}

fn holds(prefix: &IpNet, address: Option<IpAddr>) -> bool {
    address.map_or(prefix.prefix_len() == 0, |address| {
        prefix.contains(&address)
    })
}

/// The foreign rules that a packet of the question meets before the rule of ours that should
/// decide.
fn precedents<'p>(
    promise: &Promise<'p>,
    question: &'p Lookup,
    expected: &Expected,
) -> impl Iterator<Item = &'p Rule> {
    let promise = *promise;
    let family = Family::of(question.destination);
    let numbers = promise.numbers();
    let table = match expected {
        Expected::Bypass(_) => Some(numbers.bypass_table),
        Expected::Egress | Expected::Closed => Some(numbers.egress_table),
        Expected::Main => None,
    };
    let deciding = promise
        .desired
        .rules
        .iter()
        .filter(|rule| {
            rule.family == family
                && matches!(rule.action, RuleAction::Lookup { table: found, .. } if Some(found) == table)
        })
        .map(|rule| rule.priority)
        .max();
    let before = deciding.unwrap_or(Priority::MAIN);
    let foreign = promise.foreign_rules(family);
    foreign.filter(move |rule| rule.priority <= before && may_match(rule, question, &promise))
}

/// True if the rule leads packets to a route, or past our rules to the main table.
fn leads_to(rule: &Rule, route: &Route, promise: &Promise<'_>) -> bool {
    match rule.action {
        RuleAction::Lookup {
            table,
            suppress_prefixlength,
        } => {
            let length = u32::from(route.key.dst.prefix_len());
            table == route.key.table && suppress_prefixlength.is_none_or(|least| length > least)
        }
        RuleAction::Goto(target) => target > promise.numbers().priority,
        RuleAction::Nop | RuleAction::Other(_) => false,
    }
}

/// The type of route behind an errno (`fib_props`, net/ipv4/fib_semantics.c).
fn kind_of(errno: i32) -> &'static str {
    const EACCES: i32 = 13;
    const EINVAL: i32 = 22;
    match errno {
        EACCES => "prohibit",
        EINVAL => "blackhole",
        _ => "unreachable",
    }
}

fn hop(via: &Via, facts: &HostFacts) -> String {
    let gateway = via.gateway.map(|gateway| format!(" via {gateway}"));
    let device = facts.device_name(via.device);
    format!("{} dev {device}", gateway.unwrap_or_default())
}

fn destination(dst: &IpNet) -> String {
    if dst.prefix_len() == 0 {
        "default".to_owned()
    } else {
        dst.to_string()
    }
}

/// A route as `ip route` prints it, with its table.
pub fn route_text(route: &Route, facts: &HostFacts) -> String {
    let via = match &route.target {
        RouteTarget::Via(via) => hop(via, facts),
        RouteTarget::Multipath(legs) => {
            let legs = legs.iter().map(|leg| hop(&leg.via, facts));
            legs.collect::<Vec<_>>().join(" or")
        }
        RouteTarget::Nexthop(id) => format!(" nhid {id}"),
        _ => String::new(),
    };
    let kind = match &route.target {
        RouteTarget::Unreachable => "unreachable ",
        RouteTarget::Throw => "throw ",
        RouteTarget::Other(_) => "rejecting ",
        _ => "",
    };
    format!(
        "route {kind}{}{via} of table {}",
        destination(&route.key.dst),
        table_text(route.key.table)
    )
}

pub(super) fn main_route_text(route: &MainRoute, kind: &str, facts: &HostFacts) -> String {
    let device = route
        .device
        .filter(|_| route.unicast)
        .map(|device| format!(" dev {}", facts.device_name(device)));
    let metric = match route.metric.0 {
        0 => String::new(),
        metric => format!(" metric {metric}"),
    };
    let kind = if route.unicast {
        String::new()
    } else {
        format!("{kind} ")
    };
    format!(
        "route {kind}{}{}{metric} of table main",
        destination(&route.dst),
        device.unwrap_or_default()
    )
}

/// The name of a table, as `ip route` prints it.
pub fn table_text(table: TableId) -> String {
    match table {
        TableId::MAIN => "main".to_owned(),
        TableId::LOCAL => "local".to_owned(),
        other => other.to_string(),
    }
}
