//! The choice among the gateways of the egress path: which ones new flows take, and why not the others.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::commands::agent_health::AgentView;
use crate::config::{Config, Gateway, Spread};
use crate::desired::spread::{self, Unused};
use crate::desired::{DesiredState, EgressPath};
use crate::reconcile::View;
use crate::status::snapshot::GatewayStatus;
use crate::status::text::figures::span;
use crate::types::Family;

/// A gateway of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Candidate {
    address: IpAddr,
    /// True if new flows take the gateway.
    used: bool,
    weight: u8,
    zone: Option<String>,
    /// The reason in one word.
    why: &'static str,
    /// The reason for people.
    reason: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate {
            address, reason, ..
        } = self;
        match self.used {
            true => write!(f, "{address} for new flows: {reason}"),
            false => write!(f, "{address} skipped: {reason}"),
        }
    }
}

/// The gateways of a family as a pass chooses among them, those for new flows first, else in the order
/// of the settings.
pub(super) fn candidates(
    config: &Config,
    view: &View,
    desired: &DesiredState,
    family: Family,
    agent: &AgentView,
) -> Vec<Candidate> {
    let egress = &config.egress;
    let paths = desired.paths.get(family);
    let is_unused = |address: IpAddr| {
        let mut unused = paths.unused.iter();
        unused.find(|(other, _)| *other == address).map(|it| it.1)
    };
    let used = in_use(desired, family);
    let choice = Choice {
        spread: egress.spread,
        used: &used,
        zone: spread::zone(egress, &view.facts),
        weight: egress
            .ordered(family)
            .filter(|gateway| used.contains(&gateway.address))
            .map(|gateway| u32::from(gateway.weight))
            .sum(),
        others: egress.ordered(family).count().saturating_sub(1),
    };
    let of = |gateway: &Gateway| {
        let address = gateway.address.to_string();
        let mut known = agent.gateways.iter();
        let known = known.find(|it| it.path == "egress" && it.address == address);
        let is_used = used.contains(&gateway.address);
        let (why, reason) = match is_unused(gateway.address) {
            _ if is_used => choice.used(gateway, known),
            Some(unused) => (unused.as_str(), choice.unused(unused, gateway, known)),
            None => ("left_out", "no usable route leads to it".to_owned()),
        };
        Candidate {
            address: gateway.address,
            used: is_used,
            weight: gateway.weight,
            zone: gateway.zone.clone(),
            why,
            reason,
        }
    };
    let mut found: Vec<Candidate> = egress.ordered(family).map(of).collect();
    found.sort_by_key(|candidate| !candidate.used);
    found
}

fn in_use(desired: &DesiredState, family: Family) -> Vec<IpAddr> {
    match &desired.paths.get(family).egress {
        EgressPath::Gateways(gateways) => gateways.clone(),
        _ => Vec::new(),
    }
}

/// The choice of a family.
struct Choice<'a> {
    spread: Spread,
    used: &'a [IpAddr],
    /// The zone of this host, if zones count.
    zone: Option<&'a str>,
    /// The sum of the weights of the gateways for new flows.
    weight: u32,
    /// The number of other gateways in the settings.
    others: usize,
}

impl Choice<'_> {
    fn used(&self, gateway: &Gateway, known: Option<&GatewayStatus>) -> (&'static str, String) {
        let place = match (self.spread, self.used.len()) {
            _ if self.others == 0 => return ("only", "the only gateway".to_owned()),
            (Spread::Flow, count @ 2..) => format!(
                "one of {count}, each flow takes one by its hash (weight {} of {})",
                gateway.weight, self.weight
            ),
            (Spread::Flow, _) => "no other gateway is left".to_owned(),
            (Spread::Order, _) => "the first in the list that is well".to_owned(),
            (Spread::Host, _) => format!(
                "the first in this host's ranking that is well (weight {})",
                gateway.weight
            ),
        };
        let zone = match (&gateway.zone, self.zone) {
            (Some(own), Some(here)) if own == here => format!(", in this host's zone {own}"),
            (Some(other), Some(here)) => {
                format!(", in zone {other}: none of zone {here} is left")
            }
            _ => String::new(),
        };
        let despite = known.map_or_else(String::new, |known| {
            let verdict = match (&known.drained, known.is_down()) {
                (_, true) => "the probes have found it down",
                (Some(_), false) => "it is drained",
                (None, false) => return String::new(),
            };
            format!(", although {verdict}: no other one is better")
        });
        (self.spread.as_str(), format!("{place}{zone}{despite}"))
    }

    fn unused(&self, why: Unused, gateway: &Gateway, known: Option<&GatewayStatus>) -> String {
        let used: Vec<String> = self.used.iter().map(IpAddr::to_string).collect();
        let used = used.join(", ");
        match why {
            Unused::Health => known.and_then(|known| known.health.as_ref()).map_or_else(
                || "down by the verdict of the probes".to_owned(),
                |health| {
                    let since = span(health.since_s);
                    match health.held_for_s {
                        Some(left) => format!(
                            "down for {since}, answers again, and is held for {}",
                            span(left)
                        ),
                        None => format!("{} for {since}: {}", health.state, health.why),
                    }
                },
            ),
            Unused::Drained => known.and_then(|known| known.drained.as_ref()).map_or_else(
                || "drained".to_owned(),
                |drain| {
                    format!(
                        "drained for {}, asked for by {}",
                        span(drain.since_s),
                        drain.by
                    )
                },
            ),
            Unused::Zone => format!(
                "in {}, and this host is in zone {}, as {used}",
                match &gateway.zone {
                    Some(zone) => format!("zone {zone}"),
                    None => "no zone".to_owned(),
                },
                self.zone.unwrap_or("?")
            ),
            Unused::Rank => match self.spread {
                Spread::Order => format!("after {used} in the list"),
                Spread::Host | Spread::Flow => format!("after {used} in this host's ranking"),
            },
        }
    }
}
