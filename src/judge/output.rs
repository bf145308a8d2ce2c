//! Host role: foreign chains in the way of the host's own packets. The routes are right, and a filter
//! drops the packets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Field, Packet};
use super::clients::destinations;
use super::expected::Promise;
use super::fate::Fate;
use super::forwarding::{meets, seen_at};
use super::probes::{inside, is_partner, ordinary_partner, selected};
use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
use crate::objects::BypassPath;
use crate::types::{Family, IfIndex, PerFamily};

/// Adds the chains that stop packets of this host. `own` are the addresses of sockets without one.
pub(super) fn judge(
    promise: &Promise<'_>,
    own: &PerFamily<Option<IpAddr>>,
    verdicts: &mut Verdicts,
) {
    for family in Family::ALL {
        if promise.forwards(family) {
            continue;
        }
        for (part, out, destination) in ways(promise, family) {
            let packet = Packet {
                // A packet of the host has no input interface.
                input: (IfIndex(0), String::new()),
                output: (out, promise.facts.device_name(out)),
                source: own.get(family).unwrap_or(destination),
                destination,
                opens: true,
                unseen: match own.get(family) {
                    Some(_) => Vec::new(),
                    None => vec![Field::Source(family)],
                },
            };
            for chain in promise
                .chains
                .iter()
                .filter(|chain| meets_own(chain, &packet))
            {
                judge_chain(promise, chain, &packet, part, verdicts);
            }
        }
    }
}

/// True for the chains that packets of the host pass.
fn meets_own(chain: &BaseChain, packet: &Packet) -> bool {
    use ChainPlace::{Egress, Output, Postrouting};
    matches!(chain.place, Output | Postrouting | Egress) && meets(chain, packet)
}

/// The interfaces by which packets leave, each with a destination.
fn ways(promise: &Promise<'_>, family: Family) -> Vec<(Part, IfIndex, IpAddr)> {
    let paths = promise.desired.paths.get(family);
    let storage = selected(promise, family).next().map(inside);
    let bypass = paths.bypass.iter().flat_map(BypassPath::vias).next();
    let bypass = bypass.zip(storage);
    let mut found: Vec<_> = bypass
        .map(|(via, storage)| (Part::Bypass, via.device, storage))
        .into_iter()
        .collect();
    if matches!(paths.egress, EgressPath::Gateways(_))
        && let Some(partner) = ordinary_partner(promise, family)
    {
        let mut routes = promise.desired.routes.iter().filter(|route| {
            route.key.table == promise.numbers().egress_table
                && route.key.dst == family.default_prefix()
                && route.target.forwards()
        });
        let leg = routes
            .next()
            .and_then(|it| it.target.legs().into_iter().next());
        found.extend(leg.map(|leg| (Part::Egress, leg.via.device, partner)));
    }
    found
}

fn judge_chain(
    promise: &Promise<'_>,
    chain: &BaseChain,
    packet: &Packet,
    part: Part,
    verdicts: &mut Verdicts,
) {
    let family = packet.family();
    let fate_of = |destination: IpAddr| {
        let packet = Packet {
            destination,
            ..packet.clone()
        };
        chain.fate(&seen_at(chain, &packet))
    };
    let usable = |address: &IpAddr| match part {
        Part::Egress => is_partner(promise, *address),
        _ => selected(promise, family).any(|prefix| prefix.contains(address)),
    };
    let named = destinations(chain, family, usable);
    let to = match part {
        Part::Egress => "partners",
        _ => "storage",
    };
    let (culprit, certain) = match fate_of(packet.destination) {
        Fate::Stopped(culprit) => (culprit, true),
        Fate::MayStop(culprit) => (culprit, false),
        _ if part == Part::Egress => return,
        _ => {
            // A rule for one selected prefix.
            let is_named = |prefix: &IpNet| named.iter().any(|address| prefix.contains(address));
            let mut prefixes = selected(promise, family).filter(is_named);
            let stopped = prefixes.find_map(|prefix| {
                let last = fate_of(prefix.broadcast());
                match fate_of(prefix.network()) {
                    Fate::Stopped(culprit) if matches!(last, Fate::Stopped(_)) => {
                        Some((culprit, prefix))
                    }
                    _ => None,
                }
            });
            if let Some((culprit, prefix)) = stopped {
                let reason = format!("{culprit} stops packets of this host to {prefix}");
                let found = finding(packet, part, reason);
                verdicts.degraded.push(found.clone());
                verdicts.filters.push(found);
            }
            return;
        }
    };
    // An administrator may allow some destinations alone, on purpose.
    let selective = named
        .into_iter()
        .any(|destination| !matches!(fate_of(destination), Fate::Stopped(_)));
    let verb = if certain && !selective {
        "stops"
    } else {
        "perhaps stops"
    };
    let only = if selective { "some " } else { "" };
    let name = &packet.output.1;
    let reason = format!("{culprit} {verb} {only}packets of this host to {to} by {name}");
    let found = finding(packet, part, reason);
    if certain && !selective {
        verdicts.degraded.push(found.clone());
        verdicts.filters.push(found);
    } else {
        verdicts.doubts.push(found);
    }
}

fn finding(packet: &Packet, part: Part, reason: String) -> Degradation {
    let name = &packet.output.1;
    Degradation::new(part, packet.family(), reason).with_advice(format!(
        "let packets of this host by {name} pass there, or remove the rule"
    ))
}
