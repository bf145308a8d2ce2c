//! Host role: foreign chains in the way of the host's own packets. The routes are right, and a filter
//! drops the packets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Field, Packet};
use super::clients::destinations;
use super::expected::{Expected, Promise};
use super::fate::Fate;
use super::forwarding::{bypass_devices, meets, seen_at};
use super::probes::{inside, is_partner, ordinary_partner, selected};
use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
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
        for way in ways(promise, family) {
            // The kernel's choice of the source is known for the way of partners alone.
            let source = own.get(family).filter(|_| way.has_partners_source);
            let (part, out, destination) = (way.part, way.device, way.destination);
            let packet = Packet {
                // A packet of the host has no input interface.
                input: (IfIndex(0), String::new()),
                output: (out, promise.facts.device_name(out)),
                source: source.unwrap_or(destination),
                destination,
                opens: true,
                unseen: match source {
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

/// An interface by which packets leave, with a destination.
struct Way {
    part: Part,
    device: IfIndex,
    destination: IpAddr,
    /// A socket without an address has the same source here as for a partner.
    has_partners_source: bool,
}

fn ways(promise: &Promise<'_>, family: Family) -> Vec<Way> {
    let paths = promise.desired.paths.get(family);
    let partner = matches!(paths.egress, EgressPath::Gateways(_))
        .then(|| ordinary_partner(promise, family))
        .flatten();
    let egress = match partner {
        Some(_) => egress_devices(promise, family),
        None => Vec::new(),
    };
    let storage = selected(promise, family).next().map(inside);
    let bypass = paths.bypass.as_ref().map(bypass_devices);
    let bypass = bypass.unwrap_or_default().into_iter().filter_map(|device| {
        Some(Way {
            part: Part::Bypass,
            device,
            destination: storage?,
            has_partners_source: egress.is_empty() || egress == [device],
        })
    });
    let egress = egress.iter().filter_map(|device| {
        Some(Way {
            part: Part::Egress,
            device: *device,
            destination: partner?,
            has_partners_source: egress.len() == 1,
        })
    });
    bypass.chain(egress).collect()
}

/// The interfaces of the egress default, each once.
fn egress_devices(promise: &Promise<'_>, family: Family) -> Vec<IfIndex> {
    let mut defaults = promise.desired.routes.iter().filter(|route| {
        route.key.table == promise.numbers().egress_table
            && route.key.dst == family.default_prefix()
            && route.target.forwards()
    });
    let legs = defaults.next().map(|default| default.target.legs());
    let legs = legs.into_iter().flatten();
    let devices: BTreeSet<IfIndex> = legs.map(|leg| leg.via.device).collect();
    devices.into_iter().collect()
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
        _ => matches!(promise.expected(*address), Expected::Bypass(_)),
    };
    let named = || destinations(chain, family, usable);
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
            let named = named();
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
                verdicts.behind_the_route(found);
            }
            return;
        }
    };
    // An administrator may allow some destinations alone, on purpose.
    let selective = named()
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
        verdicts.behind_the_route(found);
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
