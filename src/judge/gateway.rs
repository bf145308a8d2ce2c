//! The gateways of the paths, and those that answer no address resolution: the route is right, and no
//! packet arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::expected::Promise;
use crate::degraded::{Degradation, Part};
use crate::facts::HostFacts;
use crate::objects::Route;
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// A gateway and the interface that leads to it.
pub type Hop = (IpAddr, IfIndex);
/// The gateways that packets need, each with the parts that fail without the gateway. Both paths of a
/// NAT often have the same one.
pub type Gateways = BTreeMap<Hop, BTreeSet<Part>>;

/// The gateways of routes. `forwards`: packets of a NAT leave by the main default.
pub fn gateways(
    routes: &[Route],
    numbers: &Numbers,
    facts: &HostFacts,
    forwards: impl Fn(Family) -> bool,
) -> Gateways {
    let mut found = Gateways::new();
    let mut add = |hop, part| {
        found.entry(hop).or_default().insert(part);
    };
    for family in Family::ALL {
        let first = |table| {
            let mut routes = routes.iter().filter(move |route| {
                route.key.table == table
                    && Family::of_net(&route.key.dst) == family
                    && route.target.forwards()
            });
            routes.next().map(|route| route.target.legs())
        };
        // All bypass routes have the same next hops.
        for (table, part) in [
            (numbers.bypass_table, Part::Bypass),
            (numbers.egress_table, Part::Egress),
        ] {
            for leg in first(table).into_iter().flatten() {
                if let Some(gateway) = leg.via.gateway {
                    add((gateway, leg.via.device), part);
                }
            }
        }
        if forwards(family) {
            let default = facts.used_default(family);
            if let Some(hop) = default.and_then(|route| Some((route.gateway?, route.device?))) {
                add(hop, Part::Egress);
            }
        }
    }
    found
}

/// The gateways of the promise.
pub fn gateways_of(promise: &Promise<'_>) -> Gateways {
    let routes = &promise.desired.routes;
    gateways(routes, promise.numbers(), promise.facts, |family| {
        promise.forwards(family)
    })
}

/// A gateway that answers no address resolution.
pub fn silent(facts: &HostFacts, (gateway, device): (IpAddr, IfIndex), part: Part) -> Degradation {
    let how = match gateway {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    };
    let name = facts.device_name(device);
    let reason =
        format!("the gateway {gateway} on {name} answers no {how}: packets to it are lost");
    Degradation::new(part, Family::of(gateway), reason).with_advice(format!(
        "check that the machine with {gateway} runs, and that {name} leads to its network"
    ))
}

/// A gateway with a fixed entry in the table of neighbours. No look-up shows a wrong entry.
pub fn unverified(
    facts: &HostFacts,
    (gateway, device): (IpAddr, IfIndex),
    part: Part,
    link_address: &str,
) -> Degradation {
    let name = facts.device_name(device);
    let reason = format!(
        "the gateway {gateway} on {name} has a permanent neighbour entry, {link_address}: the kernel never asks whether the entry is right"
    );
    Degradation::new(part, Family::of(gateway), reason).with_advice(format!(
        "compare {link_address} with the address of the machine with {gateway}"
    ))
}

/// A filter of traffic control on an interface of the paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    pub device: IfIndex,
    /// True for packets that leave.
    pub leaves: bool,
    /// The kind of the filter, such as `bpf` or `u32`.
    pub kind: String,
}

/// The doubt about a filter, whose effect on a packet is unknown.
pub fn doubt_about(facts: &HostFacts, filter: &Filter) -> Degradation {
    let name = facts.device_name(filter.device);
    let (direction, what) = if filter.leaves {
        ("egress", "packets that leave")
    } else {
        ("ingress", "packets that come in")
    };
    let kind = &filter.kind;
    let reason =
        format!("tc filter {kind} at {direction} of {name} perhaps drops or redirects {what}");
    Degradation::new(Part::Egress, None, reason)
        .with_advice(format!("tc filter show dev {name} {direction}"))
}
