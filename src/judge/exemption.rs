//! Foreign state that wins on purpose for a few packets: rules with a selector of their own, and the
//! administrator's routes of selected prefixes. Named once, and no fault.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::culprit::{main_route_text, named_rule, route_text, takes_ordinary_packets};
use super::expected::Promise;
use super::packet::Lookup;
use super::probes::{deciding, foreign_before, inside, own_source, selected};
use crate::degraded::{Degradation, Part};
use crate::desired::special;
use crate::facts::MainRoute;
use crate::objects::{ForeignSelector, Route, Rule};
use crate::types::{Family, PerFamily};

/// Bound of the objects named of one kind.
const NAMED: usize = 4;

/// Foreign state that takes its own packets before our rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exemption {
    /// A rule, as [`named_rule`] names a rule.
    Rule(String),
    Route(String),
    /// Sources that the kernel refuses, with the remedy.
    Refused(String),
    /// The number of further rules or routes like those named.
    More(usize),
}

impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exemption::Rule(named) => {
                write!(f, "foreign {named} takes precedence for its own packets")
            }
            Exemption::Route(named) => write!(f, "foreign {named} takes precedence"),
            Exemption::Refused(text) => f.write_str(text),
            Exemption::More(count) => write!(f, "{count} more foreign rules or routes like these"),
        }
    }
}

/// The exemptions of both families. `own` are the addresses of sockets without one, `marks` those
/// that ordinary packets carry.
pub(super) fn all(
    promise: &Promise<'_>,
    own: &PerFamily<Option<IpAddr>>,
    marks: &BTreeSet<u32>,
) -> Vec<Exemption> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let rules = foreign_before(promise, family)
            .filter(|rule| is_exemption(promise, rule, own, marks))
            .map(|rule| Exemption::Rule(named_rule(rule)));
        name_some(&mut found, rules);
        let routes = overlapping(promise, family).into_iter();
        name_some(&mut found, routes.map(Exemption::Route));
        let inside = in_our_tables(promise, family).into_iter();
        name_some(&mut found, inside.map(Exemption::Route));
    }
    found
}

/// Narrow foreign routes of our tables. The rule of the main table's routes comes first, so that a
/// route of the main table for the same addresses decides.
fn in_our_tables(promise: &Promise<'_>, family: Family) -> Vec<String> {
    if deciding(promise, family).is_none() {
        return Vec::new();
    }
    let narrow = |route: &&Route| {
        let dst = &route.key.dst;
        let by_main = promise.facts.main_lookup(inside(*dst));
        Family::of_net(dst) == family
            && !Family::is_wide(dst)
            && by_main.is_none_or(|best| promise.is_default(&best.dst))
    };
    let routes = promise.foreign.iter().filter(narrow);
    routes
        .map(|route| route_text(route, promise.facts))
        .collect()
}

/// Routes of the main table that refuse the packets to whole selected prefixes, each with the share
/// of the prefixes lost.
pub(super) fn rejected_prefixes(promise: &Promise<'_>) -> Vec<Degradation> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if deciding(promise, family).is_none() {
            continue;
        }
        let selected: Vec<IpNet> = selected(promise, family).collect();
        let rejecting = promise.facts.main_routes.iter().filter(|route| {
            Family::of_net(&route.dst) == family
                && route.rejects.is_some()
                && !route.selective
                && !promise.is_default(&route.dst)
        });
        for route in rejecting.take(NAMED) {
            // A better route inside passes the packets.
            let lost = selected.iter().filter(|prefix| {
                let best = promise.facts.main_lookup(inside(**prefix));
                let decides = |best: &MainRoute| best.dst == route.dst && best.rejects.is_some();
                route.dst.contains(*prefix) && best.is_some_and(decides)
            });
            let lost = lost.count();
            if lost == 0 {
                continue;
            }
            let percent = (100 * lost).div_ceil(selected.len());
            let kind = route.rejects.unwrap_or("rejecting");
            let named = main_route_text(route, kind, promise.facts);
            let reason = format!(
                "foreign {named} refuses packets to {lost} of {} selected prefixes ({percent} %)",
                selected.len()
            );
            let flag = if family == Family::Ipv6 { "-6 " } else { "" };
            let advice = format!(
                "remove the route (ip {flag}route del {}), or name the prefixes in [select] exclude",
                route.dst
            );
            found.push(Degradation::new(Part::Bypass, family, reason).with_advice(advice));
        }
    }
    found
}

fn name_some(found: &mut Vec<Exemption>, mut all: impl Iterator<Item = Exemption>) {
    found.extend(all.by_ref().take(NAMED));
    let rest = all.count();
    if rest > 0 {
        found.push(Exemption::More(rest));
    }
}

fn is_exemption(
    promise: &Promise<'_>,
    rule: &Rule,
    own: &PerFamily<Option<IpAddr>>,
    marks: &BTreeSet<u32>,
) -> bool {
    let family = rule.family;
    let forwards = promise.forwards(family);
    let inputs = &promise.desired.paths.get(family).inputs;
    let concerns = match &rule.iif {
        None => true,
        Some(iif) if forwards => inputs.iter().any(|input| input.device == *iif),
        Some(iif) => iif == "lo",
    };
    // Private destinations follow the main table anyway.
    let thrown = special::thrown(family, promise.vpc_cidrs);
    let is_private = rule
        .foreign_selectors
        .iter()
        .filter_map(ForeignSelector::destination)
        .any(|to| thrown.iter().any(|net| net.contains(to)));
    let input = inputs
        .first()
        .and_then(|input| promise.facts.link_named(&input.device))
        .map(|link| link.index);
    let packet = Lookup {
        source: own_source(promise, family, own),
        input,
        ..Lookup::from_socket(family.default_prefix().addr())
    };
    let takes = |mark: &u32| {
        let marked = Lookup {
            mark: *mark,
            ..packet.clone()
        };
        takes_ordinary_packets(rule, &marked, promise)
    };
    concerns && !is_private && !marks.iter().chain([&0]).any(takes)
}

/// Narrow routes of the main table that take a selected prefix or a part of one.
fn overlapping(promise: &Promise<'_>, family: Family) -> Vec<String> {
    if deciding(promise, family).is_none() {
        return Vec::new();
    }
    let selected: BTreeSet<IpNet> = selected(promise, family).collect();
    let holds = |net: &IpNet| {
        let above = (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.addr(), length).ok());
        above
            .map(|wider| wider.trunc())
            .any(|wider| selected.contains(&wider))
            || selected
                .range(*net..)
                .next()
                .is_some_and(|prefix| net.contains(prefix))
    };
    let narrow = |route: &&MainRoute| {
        Family::of_net(&route.dst) == family && !Family::is_wide(&route.dst) && holds(&route.dst)
    };
    let routes = promise.facts.main_routes.iter().filter(narrow);
    routes
        .map(|route| main_route_text(route, route.rejects.unwrap_or("rejecting"), promise.facts))
        .collect()
}
