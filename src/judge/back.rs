//! NAT role: the way of answers back to a host, by the kernel's routing decision. Answers meet foreign
//! policy rules that select by the outer interface or by the hosts' addresses; our rules select by the
//! hosts' interfaces.

use std::net::IpAddr;

use super::culprit::{may_match, named_rule};
use super::expected::Promise;
use super::packet::{Lookup, RouteDecision};
use super::probes::{forwarded, inside, ordinary_partner, selected};
use super::reverse::refused;
use super::words::errno_text;
use crate::degraded::{Degradation, Part};
use crate::objects::{BypassPath, Rule, RuleAction};
use crate::types::{Family, IfIndex, Priority, TableId};

/// An answer as the kernel routes it, after the translation has restored the host's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub lookup: Lookup,
    family: Family,
    /// [`Part::Bypass`] from storage, [`Part::Translation`] from a partner.
    path: Part,
    /// The interface by which the answer comes in.
    input: IfIndex,
    /// The interface of the host.
    back: IfIndex,
}

/// The answers to ask the kernel about: from a partner and from storage, to a host of each network of
/// the sources; none while our rules are not in the kernel.
pub fn answers(promise: &Promise<'_>) -> Vec<Answer> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if !promise.forwards(family) || !promise.is_installed(family) {
            continue;
        }
        let paths = promise.desired.paths.get(family);
        let partner = ordinary_partner(promise, family);
        let storage = selected(promise, family).next().map(inside);
        let bypass = paths.bypass.iter().flat_map(BypassPath::devices);
        let bypass = bypass.map(|device| (device, storage, Part::Bypass));
        let outer = paths.leaves_by;
        let outer = outer.map(|device| (device, partner, Part::Translation));
        let ways: Vec<(IfIndex, Option<IpAddr>, Part)> = bypass.chain(outer).collect();
        for input in &paths.inputs {
            let host = forwarded(promise.facts, input, family.default_prefix().addr());
            let Some((host, back)) = host.and_then(|host| Some((host.source?, host.input?))) else {
                continue;
            };
            found.extend(ways.iter().filter_map(|(input, source, path)| {
                Some(Answer {
                    lookup: Lookup {
                        source: Some((*source)?),
                        input: Some(*input),
                        ..Lookup::from_socket(host)
                    },
                    family,
                    path: *path,
                    input: *input,
                    back,
                })
            }));
        }
    }
    found
}

/// The degradations if the reverse path check refuses the answer (IPv4), or if a foreign rule refuses it
/// or leads it elsewhere.
pub fn judge_answer(
    promise: &Promise<'_>,
    answer: &Answer,
    decision: &RouteDecision,
) -> impl Iterator<Item = Degradation> {
    let checked = (answer.family == Family::Ipv4)
        .then(|| refused(promise, answer.path, answer.input, decision));
    let by_rule = stopped_by_rule(promise, answer, decision);
    checked.flatten().into_iter().chain(by_rule)
}

fn stopped_by_rule(
    promise: &Promise<'_>,
    answer: &Answer,
    decision: &RouteDecision,
) -> Option<Degradation> {
    let (rule, fate) = match decision {
        RouteDecision::Route(route) => {
            let mut legs = route.target.legs().into_iter();
            if legs.any(|leg| leg.via.device == answer.back) {
                return None;
            }
            let leads = |rule: &&Rule| looks_up(rule, |table| table == route.key.table);
            let rule = foreign(promise, answer).find(leads)?;
            (rule, "leads elsewhere".to_owned())
        }
        RouteDecision::Errno(errno) => {
            // The kernel's own table answers every packet that a foreign rule leaves alone.
            let refuses = |rule: &&Rule| {
                matches!(rule.action, RuleAction::Other(_))
                    || looks_up(rule, |table| table != TableId::MAIN)
            };
            let rule = foreign(promise, answer).find(refuses)?;
            (rule, format!("refuses ({})", errno_text(*errno)))
        }
    };
    let flag = if answer.family == Family::Ipv6 {
        "-6 "
    } else {
        ""
    };
    let sender = match answer.path {
        Part::Bypass => "storage",
        _ => "partners",
    };
    let reason = format!(
        "foreign {} {fate} the answers of {sender} to hosts of [nat] sources",
        named_rule(rule)
    );
    Some(
        Degradation::new(Part::Forwarding, answer.family, reason).with_advice(format!(
            "remove the rule (ip {flag}rule del pref {}), or give it a selector without the hosts' addresses",
            rule.priority
        )),
    )
}

/// The foreign rules before the kernel's rule of the main table that the answer may match.
fn foreign<'p>(promise: &Promise<'p>, answer: &Answer) -> impl Iterator<Item = &'p Rule> {
    let (promise, lookup) = (*promise, answer.lookup.clone());
    promise
        .foreign_rules(answer.family)
        .filter(move |rule| rule.priority < Priority::MAIN && may_match(rule, &lookup, &promise))
}

fn looks_up(rule: &Rule, asked: impl Fn(TableId) -> bool) -> bool {
    matches!(rule.action, RuleAction::Lookup { table, .. } if asked(table))
}
