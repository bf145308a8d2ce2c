//! NAT role: the packets to follow through a chain of translation. Beside the ordinary packet, a
//! chain may single out a client or a destination by its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chain::{BaseChain, Condition, Effect, Field, Packet, Test};
use super::expected::Promise;
use super::marked::our_bits;
use super::marks::Marks;
use super::probes::{forwarded, is_partner};
use crate::desired::InputPath;
use crate::types::{Family, IfIndex};

/// Bounds of the addresses that conditions name, and of the packets with them.
const MOST_ADDRESSES: usize = 16;
/// Most networks to look at: a set of a firewall may have thousands, and none of them need be usable.
const MOST_NETWORKS: usize = 4096;
const MOST_PACKETS: usize = 64;

/// The first packet of an ordinary connection, forwarded from an input interface.
pub(super) fn opening(
    promise: &Promise<'_>,
    input: &InputPath,
    out: IfIndex,
    destination: IpAddr,
) -> Option<Packet> {
    let lookup = forwarded(promise.facts, input, destination)?;
    Some(Packet {
        marks: Marks::none(our_bits(promise)),
        ..Packet::opening(
            (lookup.input?, input.device.clone()),
            (out, promise.facts.device_name(out)),
            lookup.source?,
            destination,
        )
    })
}

/// The ordinary packet, and packets with addresses that the chain's conditions name: clients of the
/// input's network, and partners.
pub(super) fn packets(
    promise: &Promise<'_>,
    chain: &BaseChain,
    input: &InputPath,
    ordinary: &Packet,
) -> Vec<Packet> {
    let family = ordinary.family();
    let conditions = conditions(chain);
    let mut sources = vec![ordinary.source];
    let is_client =
        |address: &IpAddr| input.source.contains(address) && !promise.facts.is_own(*address);
    sources.extend(named(&conditions, Field::Source(family), is_client));
    let mut destinations = vec![ordinary.destination];
    let is_other = |address: &IpAddr| is_partner(promise, *address);
    destinations.extend(named(&conditions, Field::Destination(family), is_other));
    let pairs = sources.iter().flat_map(|source| {
        let with = move |destination: &IpAddr| (*source, *destination);
        destinations.iter().map(with)
    });
    let packets = pairs.map(|(source, destination)| Packet {
        source,
        destination,
        ..ordinary.clone()
    });
    packets.take(MOST_PACKETS).collect()
}

/// The destinations at the edges of the networks that the chain's conditions name, as far as they are
/// `usable`.
pub(super) fn destinations(
    chain: &BaseChain,
    family: Family,
    usable: impl Fn(&IpAddr) -> bool,
) -> Vec<IpAddr> {
    named(&conditions(chain), Field::Destination(family), usable)
}

/// The same for sources.
pub(super) fn sources(
    chain: &BaseChain,
    family: Family,
    usable: impl Fn(&IpAddr) -> bool,
) -> Vec<IpAddr> {
    named(&conditions(chain), Field::Source(family), usable)
}

fn conditions(chain: &BaseChain) -> Vec<&Condition> {
    let mut conditions = Vec::new();
    for rule in chain.chains.values().flatten() {
        conditions.extend(&rule.conditions);
        of_effect(&rule.effect, &mut conditions);
    }
    conditions
}

fn of_effect<'c>(effect: &'c Effect, conditions: &mut Vec<&'c Condition>) {
    if let Effect::Map(elements) = effect {
        for (key, effect) in elements {
            conditions.extend(key);
            of_effect(effect, conditions);
        }
    }
}

/// The addresses at the edges of the networks in conditions on a field, inside and outside, as far
/// as they are `usable`.
fn named(conditions: &[&Condition], field: Field, usable: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut left = MOST_NETWORKS;
    let mut open: Vec<&Condition> = conditions.to_vec();
    while let Some(condition) = open.pop() {
        if let Test::AnyOf(lists) = &condition.test {
            open.extend(lists.iter().flatten());
        }
        if condition.field != field {
            continue;
        }
        for (low, high) in bounds(condition, field) {
            let edges = [
                low.saturating_add(1).min(high),
                low,
                low.saturating_sub(1),
                high.saturating_add(1),
            ];
            let edges = edges.into_iter().filter_map(|edge| address(edge, field));
            found.extend(edges.filter(&usable));
            found.sort();
            found.dedup();
            left -= 1;
            if found.len() >= MOST_ADDRESSES || left == 0 {
                return found;
            }
        }
    }
    found
}

/// The values of a condition as numbers, both ends included.
fn bounds(condition: &Condition, field: Field) -> Vec<(u128, u128)> {
    let filled = |bytes: &[u8], fill: u8| {
        (0..field.width()).fold(0, |number, place| {
            number << 8 | u128::from(bytes.get(place).copied().unwrap_or(fill))
        })
    };
    match &condition.test {
        Test::Equals(bytes) => {
            let mask = match condition.mask.as_slice() {
                [] => filled(&vec![0xff; bytes.len()], 0),
                mask => filled(mask, 0),
            };
            let all = filled(&[], 0xff);
            let low = filled(bytes, 0) & mask;
            vec![(low, low | (all & !mask))]
        }
        Test::InRanges(ranges) => {
            let ends = |(first, last): &(Vec<u8>, Vec<u8>)| (filled(first, 0), filled(last, 0xff));
            ranges.iter().map(ends).collect()
        }
        Test::AnyOf(_) | Test::Unknown => Vec::new(),
    }
}

fn address(number: u128, field: Field) -> Option<IpAddr> {
    match field {
        Field::Source(Family::Ipv4) | Field::Destination(Family::Ipv4) => {
            let number = u32::try_from(number).ok()?;
            Some(Ipv4Addr::from_bits(number).into())
        }
        _ => Some(Ipv6Addr::from_bits(number).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(test: Test, mask: &[u8]) -> Condition {
        Condition {
            field: Field::Source(Family::Ipv4),
            mask: mask.into(),
            test,
            negated: false,
        }
    }

    fn found(condition: &Condition) -> Vec<String> {
        let inside = |address: &IpAddr| {
            let net: ipnet::IpNet = "10.0.0.0/16".parse().unwrap();
            net.contains(address)
        };
        let found = named(&[condition], Field::Source(Family::Ipv4), inside);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn edges_of_networks_and_ranges_are_named() {
        let host = source(Test::Equals(vec![10, 0, 1, 55]), &[]);
        assert_eq!(found(&host), ["10.0.1.54", "10.0.1.55", "10.0.1.56"]);
        let net = source(Test::Equals(vec![10, 0, 255, 0]), &[255, 255, 255, 0]);
        assert_eq!(found(&net), ["10.0.254.255", "10.0.255.0", "10.0.255.1"]);
        let prefix = source(Test::Equals(vec![10, 0, 1]), &[]);
        assert_eq!(found(&prefix).len(), 4);
        let range = Test::InRanges(vec![(vec![10, 0, 0, 9], vec![192, 168, 0, 1])]);
        let edges = ["10.0.0.8", "10.0.0.9", "10.0.0.10"];
        assert_eq!(found(&source(range, &[])), edges);
        let joined = Condition {
            test: Test::AnyOf(vec![vec![host]]),
            ..Condition::unknown()
        };
        assert_eq!(found(&joined).len(), 3);
        assert!(found(&source(Test::Equals(vec![192, 0, 2, 1]), &[])).is_empty());
    }
}
