//! Host role, iptables on a kernel without nf_tables: IPv4 by realm.
//!
//! No rule of iptables matches the next hop, and a realm stands in:
//!
//! ```text
//! 83      rule of the bypass table, and default of the table of its pinned flows
//! 84      egress route through a gateway without a slot
//! 84 + k  egress route through the gateway of slot k, and default of the table of its pinned flows
//! ```
//!
//! The rules of the other tables have no realm. For a socket bound to an interface the kernel passes over
//! an unreachable route, assumes a destination on the link, and gives the packet the realm of
//! the rule that has ended the look-up (`__fib_lookup`, net/ipv4/fib_rules.c). Only our routes and rules
//! have these realms. IPv6 has no realms: there nothing is closed and pinned.

use super::DesiredState;
use super::counting::PathMatches;
use super::pins::Pins;
use super::realm::Realms;
use crate::firewall::Match;
use crate::objects::{RouteTarget, Via};
use crate::ownership::Numbers;
use crate::types::Family;

/// The matches of the paths.
pub(super) fn paths(realms: Realms, pins: Option<&Pins>) -> PathMatches {
    let slots = pins.into_iter().flat_map(|pins| pins.realms_of_slots());
    let egress = std::iter::once(realms.egress()).chain(slots);
    PathMatches {
        bypass: vec![vec![Match::Realm(realms.bypass())]],
        egress: egress.map(|realm| vec![Match::Realm(realm)]).collect(),
        ..PathMatches::default()
    }
}

/// Gives the egress routes the realm of their gateway.
pub(super) fn label(
    realms: Realms,
    pins: Option<&Pins>,
    numbers: &Numbers,
    state: &mut DesiredState,
) {
    let realm = |via: &Via| {
        let slot = pins.zip(via.gateway);
        let slot = slot.and_then(|(pins, gateway)| pins.realm_of(gateway));
        slot.unwrap_or(realms.egress())
    };
    for route in &mut state.routes {
        let ours = route.key.table == numbers.egress_table && route.key.family() == Family::Ipv4;
        match &mut route.target {
            RouteTarget::Via(via) if ours => route.realm = realm(via),
            // Equal realms of all legs are the realm of the route.
            RouteTarget::Multipath(_) if ours && pins.is_none() => route.realm = realms.egress(),
            RouteTarget::Multipath(legs) if ours => {
                legs.iter_mut().for_each(|leg| leg.realm = realm(&leg.via));
            }
            _ => {}
        }
    }
}
