//! Promise and decision, compared for one question.

use super::culprit::{Culprit, culprit, named_rule, route_text};
use super::exemption::Exemption;
use super::expected::{Expected, Promise};
use super::packet::RouteDecision;
use super::probes::Question;
use super::words::{decision_text, errno_text, promised_text};
use crate::degraded::Part;
use crate::desired::EgressPath;
use crate::objects::{ForeignSelector, Leg, RouteTarget, Rule, RuleAction};
use crate::types::{Family, IfIndex, TableId};

/// The errnos of an `unreachable` route for IPv4 and IPv6 programs: `EHOSTUNREACH`, `ENETUNREACH`.
const UNREACHABLE: [i32; 2] = [113, 101];

/// The agreement of promise and decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    Yes,
    /// Foreign state takes these packets first, on purpose.
    Foreign(Exemption),
    /// Foreign state takes ordinary packets.
    Defeated {
        reason: String,
        /// Empty if no remedy is known to help.
        advice: String,
    },
    /// Foreign state perhaps takes ordinary packets: a chain marks them under a condition outside
    /// our knowledge.
    PerhapsDefeated {
        reason: String,
    },
    /// Our own objects are not as planned.
    No,
}

/// Compares an expectation with the kernel's decision.
pub fn agreement(
    promise: &Promise<'_>,
    question: &Question,
    decision: &RouteDecision,
) -> Agreement {
    let found = compared(promise, question, decision);
    let Some(marked) = &question.marked else {
        return match found {
            Agreement::Defeated { reason, advice } if question.lookup.mark != 0 => {
                of_our_mark(question.lookup.mark, &reason, &advice)
            }
            other => other,
        };
    };
    let (reason, advice) = match found {
        Agreement::Defeated { reason, advice } => (reason, advice),
        Agreement::No => (
            format!(
                "packets get another path: promised {}, but the kernel says {}",
                promised_text(promise, &question.expected),
                decision_text(promise, decision)
            ),
            String::new(),
        ),
        other => return other,
    };
    let reason = format!("{reason}, {}", marked.text(question.lookup.mark));
    if !marked.certain {
        return Agreement::PerhapsDefeated { reason };
    }
    let exclude = "let that chain leave ordinary packets unmarked";
    let advice = if advice.is_empty() {
        exclude.to_owned()
    } else {
        format!("{exclude}, or {advice}")
    };
    Agreement::Defeated { reason, advice }
}

/// A defeat of packets with the mark of our own firewall.
fn of_our_mark(mark: u32, reason: &str, advice: &str) -> Agreement {
    let mut remedy = "set [kernel] marks.path to bits that no foreign rule compares".to_owned();
    if !advice.is_empty() {
        remedy = format!("{remedy}, or {advice}");
    }
    Agreement::Defeated {
        reason: format!(
            "{reason}, since packets of [nat] sources carry the mark {mark:#x} of [kernel] marks.path"
        ),
        advice: remedy,
    }
}

fn compared(promise: &Promise<'_>, question: &Question, decision: &RouteDecision) -> Agreement {
    let Question {
        lookup, expected, ..
    } = question;
    if question.part == Part::Translation {
        return translated(promise, question, decision);
    }
    let agrees = match decision {
        RouteDecision::Errno(errno) => match expected {
            Expected::Closed => UNREACHABLE.contains(errno),
            // Without a route of its own the main table refuses too.
            Expected::Main => true,
            Expected::Bypass(_) | Expected::Egress => false,
        },
        RouteDecision::Route(route) => {
            let numbers = promise.numbers();
            let ours = promise.ownership.owns_route(route);
            match expected {
                Expected::Bypass(prefix) => {
                    ours && route.key.table == numbers.bypass_table && route.key.dst == *prefix
                        || leaves_as_promised(promise, question, &route.target)
                }
                Expected::Egress => {
                    ours && route.key.table == numbers.egress_table
                        && Family::is_default(&route.key.dst)
                        || leaves_as_promised(promise, question, &route.target)
                }
                Expected::Closed => false,
                Expected::Main => {
                    ![numbers.bypass_table, numbers.egress_table].contains(&route.key.table)
                }
            }
        }
    };
    if agrees {
        return Agreement::Yes;
    }
    if let (Some(_), RouteDecision::Errno(errno)) = (lookup.input, decision)
        && !UNREACHABLE.contains(errno)
        && culprit(promise, lookup, expected, decision).is_none()
    {
        return refused_source(promise, question, *errno);
    }
    let effect = match expected {
        Expected::Bypass(_) => "takes packets to selected prefixes",
        Expected::Egress | Expected::Closed => "takes packets to partners",
        Expected::Main => "takes packets",
    };
    let Some(found) = culprit(promise, lookup, expected, decision) else {
        return Agreement::No;
    };
    explained(promise, &found, effect, decision, question.family())
}

fn explained(
    promise: &Promise<'_>,
    found: &Culprit,
    effect: &str,
    decision: &RouteDecision,
    family: Family,
) -> Agreement {
    let flag = match family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    };
    let defeated = |what: &str, reason: String, advice: String| Agreement::Defeated {
        reason: format!("foreign {what} {reason} before ours"),
        advice,
    };
    match found {
        Culprit::SelectiveRule(named) => Agreement::Foreign(Exemption::Rule(named.clone())),
        Culprit::NarrowRoute(named) => Agreement::Foreign(Exemption::Route(named.clone())),
        Culprit::Rule(named) => {
            let advice = rule_advice(promise, named, family, flag);
            defeated(named, effect.to_owned(), advice)
        }
        Culprit::WideRoute(named) => {
            let advice = match decision {
                RouteDecision::Route(route) if route.key.table != TableId::MAIN => format!(
                    "remove the route (ip {flag} route del {} table {})",
                    route.key.dst, route.key.table
                ),
                _ => {
                    "let its program add routes of its own networks only, not one for every address"
                        .to_owned()
                }
            };
            defeated(named, effect.to_owned(), advice)
        }
        Culprit::RejectingDefault(named) => Agreement::Defeated {
            reason: format!(
                "foreign {named} rejects the packets before ours: the main table has no better default, and no rule can skip a route that rejects"
            ),
            advice: format!(
                "restore the default of the main table, or move this route into a table of its own behind ours (ip {flag} rule add pref 32800 lookup TABLE)"
            ),
        },
    }
}

/// The remedy for a rule. The only rule that leads to the main table must not go.
fn rule_advice(promise: &Promise<'_>, named: &str, family: Family, flag: &str) -> String {
    let is_main = |rule: &&Rule| {
        rule.family == family
            && matches!(
                rule.action,
                RuleAction::Lookup {
                    table: TableId::MAIN,
                    suppress_prefixlength: None
                }
            )
    };
    let (Some(rule), landing) = (
        promise.rules.iter().find(|rule| named_rule(rule) == named),
        promise.numbers().landing(),
    ) else {
        return String::new();
    };
    let priority = rule.priority;
    let others = promise
        .rules
        .iter()
        .filter(is_main)
        .filter(|other| *other != rule);
    if is_main(&rule) && others.count() == 0 {
        return format!(
            "no other rule leads to the main table: add `ip {flag} rule add pref 32766 lookup main` first, then remove this one (ip {flag} rule del pref {priority})"
        );
    }
    if rule
        .foreign_selectors
        .iter()
        .any(|selector| matches!(selector, ForeignSelector::To(_)))
    {
        return format!(
            "remove the rule (ip {flag} rule del pref {priority}); for an exemption on purpose, use a route of the main table instead"
        );
    }
    format!(
        "give the rule a selector for its own packets or a priority above {landing}, or remove the rule (ip {flag} rule del pref {priority})"
    )
}

/// True if the packet leaves by the promised gateway, whatever route leads there. Only the host
/// role looks at the result alone: the translation of a NAT depends on the table.
fn leaves_as_promised(promise: &Promise<'_>, question: &Question, target: &RouteTarget) -> bool {
    let family = question.family();
    let forwarded = promise.forwards(family) || question.lookup.input.is_some();
    if forwarded || !promise.is_installed(family) {
        return false;
    }
    let paths = promise.desired.paths.get(family);
    let legs = target.legs();
    if legs.is_empty() {
        return false;
    }
    match &question.expected {
        Expected::Bypass(_) => paths.bypass.as_ref().is_some_and(|bypass| {
            let promised = |leg: &Leg| {
                let via = leg.via;
                bypass
                    .vias()
                    .any(|leg| (leg.gateway, leg.device) == (via.gateway, via.device))
            };
            legs.iter().all(promised)
        }),
        Expected::Egress => match &paths.egress {
            EgressPath::Gateways(gateways) => legs.iter().all(|leg| {
                leg.via
                    .gateway
                    .is_some_and(|gateway| gateways.contains(&gateway))
            }),
            _ => false,
        },
        Expected::Closed | Expected::Main => false,
    }
}

/// NAT role: packets to partners must leave by the interface of the translation.
fn translated(promise: &Promise<'_>, question: &Question, decision: &RouteDecision) -> Agreement {
    let family = question.family();
    let Some(out) = promise.desired.paths.get(family).leaves_by else {
        return Agreement::Yes;
    };
    let found = culprit(promise, &question.lookup, &question.expected, decision);
    let route = match decision {
        RouteDecision::Errno(errno) if found.is_none() && !UNREACHABLE.contains(errno) => {
            return refused_source(promise, question, *errno);
        }
        RouteDecision::Errno(_) => {
            return match found {
                Some(found) => explained(
                    promise,
                    &found,
                    "takes packets to partners",
                    decision,
                    family,
                ),
                None => Agreement::Yes,
            };
        }
        RouteDecision::Route(route) => route,
    };
    let numbers = promise.numbers();
    if promise.ownership.owns_route(route) && route.key.table == numbers.bypass_table {
        return Agreement::No;
    }
    let elsewhere: Vec<IfIndex> = route
        .target
        .legs()
        .iter()
        .map(|leg| leg.via.device)
        .filter(|device| *device != out)
        .collect();
    let Some(device) = elsewhere.first() else {
        return Agreement::Yes;
    };
    let name = |index| promise.facts.device_name(index);
    let effect = format!(
        "leads packets to partners out by {}, where nothing is translated: only {} translates",
        name(*device),
        name(out)
    );
    match found {
        Some(Culprit::NarrowRoute(named)) => Agreement::Foreign(Exemption::Route(format!(
            "{named} (out by {}, untranslated)",
            name(*device)
        ))),
        Some(found) => explained(promise, &found, &effect, decision, family),
        None => Agreement::Defeated {
            reason: format!("{} {effect}", route_text(route, promise.facts)),
            advice: format!(
                "let the routes of the main table to partners leave by {} alone",
                name(out)
            ),
        },
    }
}

/// The kernel refuses the source of a forwarded packet, for example by rp_filter.
fn refused_source(promise: &Promise<'_>, question: &Question, errno: i32) -> Agreement {
    let reason = format!(
        "the kernel refuses packets{}: {}",
        question.sender_text(promise),
        errno_text(errno)
    );
    let advice =
        "check the sysctl rp_filter, and the route to the hosts behind this NAT".to_owned();
    if question.connected {
        Agreement::Defeated { reason, advice }
    } else {
        Agreement::Foreign(Exemption::Refused(format!("{reason}; {advice}")))
    }
}
