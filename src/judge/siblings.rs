//! The packets that foreign rules tell apart: by protocol, by user, or by client. A question about
//! one packet stands for all packets only where no rule tells them apart.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expected::Promise;
use super::hosts::{first_hosts, is_network};
use super::ordinary::{PEOPLE, SERVICES, Transport, is_everybody};
use super::packet::Lookup;
use crate::objects::ForeignSelector;
use crate::types::{Family, IfIndex};

/// Bound of the networks of clients to ask about, of one question.
const MOST_CLIENTS: usize = 8;

/// The packet, and its siblings: one for each protocol, user, and network of clients that foreign
/// rules tell apart. A socket belongs to a user that no rule singles out.
pub fn siblings(promise: &Promise<'_>, packet: &Lookup) -> Vec<Lookup> {
    let family = Family::of(packet.destination);
    let selectors: Vec<&ForeignSelector> = promise
        .foreign_rules(family)
        .flat_map(|rule| &rule.foreign_selectors)
        .collect();
    let sources = sources(promise, packet, &selectors);
    let users = users(packet, &selectors);
    let mut all = Vec::new();
    for transport in transports(&selectors) {
        for user in &users {
            let packets = sources.iter().map(|source| Lookup {
                source: *source,
                transport: *transport,
                user: *user,
                ..packet.clone()
            });
            all.extend(packets);
        }
    }
    all
}

fn transports(selectors: &[&ForeignSelector]) -> &'static [Transport] {
    use ForeignSelector::{DestinationPorts, IpProtocol, SourcePorts};
    let tells = |selector: &&ForeignSelector| {
        matches!(
            selector,
            IpProtocol(_) | DestinationPorts(..) | SourcePorts(..)
        )
    };
    if selectors.iter().any(tells) {
        &Transport::ALL
    } else {
        &[Transport::Tcp]
    }
}

fn users(packet: &Lookup, selectors: &[&ForeignSelector]) -> Vec<u32> {
    let ranges: Vec<(u32, u32)> = selectors
        .iter()
        .filter_map(|selector| match selector {
            ForeignSelector::Users(first, last) => Some((*first, *last)),
            _ => None,
        })
        .collect();
    if ranges.is_empty() || packet.input.is_some() {
        return vec![packet.user];
    }
    let is_single = |user: &u32| {
        let mut single = ranges
            .iter()
            .filter(|(first, last)| !is_everybody(*first, *last));
        single.any(|(first, last)| (*first..=*last).contains(user))
    };
    let of = |(least, most): (u32, u32)| {
        let mut all = least..=most;
        all.find(|user| !is_single(user)).unwrap_or(least)
    };
    vec![of(SERVICES), of(PEOPLE)]
}

/// The source of the packet, and a client of each network inside the same sources that a rule names.
fn sources(
    promise: &Promise<'_>,
    packet: &Lookup,
    selectors: &[&ForeignSelector],
) -> Vec<Option<IpAddr>> {
    let mut found = vec![packet.source];
    let (Some(source), Some(input)) = (packet.source, packet.input) else {
        return found;
    };
    let networks = networks(promise, source, input);
    let is_inside = |net: &IpNet| is_network(net) && networks.iter().any(|wide| wide.contains(net));
    let named = selectors.iter().filter_map(|selector| match selector {
        ForeignSelector::From(net) if is_inside(net) => Some(*net),
        _ => None,
    });
    let clients = named.filter_map(|net| {
        let mut hosts = first_hosts(net);
        hosts.find(|host| !promise.facts.is_own(*host) && *host != source)
    });
    found.extend(clients.take(MOST_CLIENTS).map(Some));
    found
}

/// The configured sources of packets like this one.
fn networks(promise: &Promise<'_>, source: IpAddr, input: IfIndex) -> Vec<IpNet> {
    let inputs = &promise.desired.paths.get(Family::of(source)).inputs;
    let of_device = inputs.iter().filter(|path| {
        let link = promise.facts.link_named(&path.device);
        link.is_some_and(|link| link.index == input)
    });
    of_device.map(|path| path.source).collect()
}
