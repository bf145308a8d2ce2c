//! The few questions about ordinary packets: an address in each of some selected prefixes, and
//! addresses that stand for partners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::expected::{Expected, Promise};
use super::hosts::first_hosts;
use super::packet::Lookup;
use super::siblings::siblings;
use super::stopping::Marked;
use crate::degraded::Part;
use crate::desired::{EgressPath, InputPath, special};
use crate::facts::HostFacts;
use crate::objects::{Rule, RuleAction};
use crate::types::{Family, PerFamily, Priority};

/// Bound of the wide routes to ask about, one address each.
const WIDE: usize = 16;

/// A question to the kernel, with the promised answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub part: Part,
    pub expected: Expected,
    pub lookup: Lookup,
    /// False for a forwarded packet whose source no connected network holds: the kernel may refuse
    /// such a source rightly.
    pub connected: bool,
    /// The foreign chain behind the packet's mark.
    pub marked: Option<Marked>,
}

impl Question {
    /// The question about an address, with the part of the promise that the answer concerns.
    pub fn about(promise: &Promise<'_>, lookup: Lookup) -> Question {
        let expected = promise.expected(lookup.destination);
        let family = Family::of(lookup.destination);
        let thrown = special::thrown(family, promise.vpc_cidrs);
        let home = thrown.iter().any(|net| net.contains(&lookup.destination));
        let part = match expected {
            Expected::Bypass(_) => Part::Bypass,
            Expected::Main if lookup.input.is_some() && !home => Part::Translation,
            Expected::Main | Expected::Egress | Expected::Closed => Part::Egress,
        };
        let connected = match (lookup.source, lookup.input) {
            (Some(source), Some(input)) => promise.facts.on_link(source, Some(input)).is_some(),
            _ => true,
        };
        Question {
            part,
            expected,
            lookup,
            connected,
            marked: None,
        }
    }

    /// The family of the question.
    pub fn family(&self) -> Family {
        Family::of(self.lookup.destination)
    }

    /// ` from SOURCE on DEVICE`, as far as the question names them.
    pub(super) fn sender_text(&self, promise: &Promise<'_>) -> String {
        let source = self.lookup.source.map(|source| format!(" from {source}"));
        let device = self
            .lookup
            .input
            .map(|index| format!(" on {}", promise.facts.device_name(index)));
        source.unwrap_or_default() + &device.unwrap_or_default()
    }
}

/// The questions of a pass, with the packets that foreign rules tell apart. `own` are the addresses that the kernel chooses for sockets without
/// one, for packets to partners: after the choice, the kernel routes a TCP connection again by
/// that address (`ip_route_connect`, include/net/route.h).
pub fn questions(promise: &Promise<'_>, own: &PerFamily<Option<IpAddr>>) -> Vec<Question> {
    let about = |packet: Lookup| {
        let packets = siblings(promise, &packet).into_iter();
        packets.map(|packet| Question::about(promise, packet))
    };
    let mut all = Vec::new();
    for family in Family::ALL {
        let addresses = addresses(promise, family);
        if promise.forwards(family) {
            for input in &promise.desired.paths.get(family).inputs {
                let asks = addresses
                    .iter()
                    .filter_map(|address| forwarded(promise.facts, input, *address));
                all.extend(asks.flat_map(about));
            }
            continue;
        }
        for address in addresses {
            let mut lookup = Lookup::from_socket(address);
            all.extend(about(lookup.clone()));
            if let Some(own) = own.get(family) {
                lookup.source = Some(*own);
                all.extend(about(lookup));
            }
        }
    }
    all
}

/// The address that stands for partners of a family; `None` without a promise about partners.
pub fn ordinary_partner(promise: &Promise<'_>, family: Family) -> Option<IpAddr> {
    partners(promise, family).first().copied()
}

/// The priority of our last rule that leads to a path; `None` without one.
pub fn deciding(promise: &Promise<'_>, family: Family) -> Option<Priority> {
    let tables = [
        promise.numbers().bypass_table,
        promise.numbers().egress_table,
    ];
    let leads = |rule: &&Rule| {
        rule.family == family
            && matches!(rule.action, RuleAction::Lookup { table, .. } if tables.contains(&table))
    };
    let rules = promise.desired.rules.iter().filter(leads);
    rules.map(|rule| rule.priority).max()
}

/// The foreign rules before our last one, except the kernel's own.
pub(super) fn foreign_before<'p>(
    promise: &Promise<'p>,
    family: Family,
) -> impl Iterator<Item = &'p Rule> {
    let last = deciding(promise, family);
    let foreign = promise.foreign_rules(family);
    foreign.filter(move |rule| last.is_some_and(|last| rule.priority <= last))
}

/// The source of an ordinary packet: the address that sockets get, or a host of the first input.
pub(super) fn own_source(
    promise: &Promise<'_>,
    family: Family,
    own: &PerFamily<Option<IpAddr>>,
) -> Option<IpAddr> {
    let inputs = &promise.desired.paths.get(family).inputs;
    match inputs.first() {
        Some(input) => forwarded(promise.facts, input, family.default_prefix().addr())?.source,
        None => *own.get(family),
    }
}

/// Addresses inside the destinations of foreign rules before ours: a selected one, and a partner's.
fn named_by_rules(promise: &Promise<'_>, family: Family) -> Vec<IpAddr> {
    let destinations = foreign_before(promise, family)
        .flat_map(|rule| &rule.foreign_selectors)
        .filter_map(|selector| selector.destination().copied())
        .take(WIDE);
    let mut found = Vec::new();
    for net in destinations {
        let free = |address: &IpAddr| {
            promise
                .facts
                .main_lookup(*address)
                .is_none_or(|route| Family::is_wide(&route.dst) || promise.is_default(&route.dst))
        };
        let partner = spread(net).find(|address| is_partner(promise, *address) && free(address));
        found.extend(partner.filter(|_| promises_partners(promise, family)));
        let inner = selected(promise, family).find_map(|prefix| match prefix {
            _ if net.contains(&prefix) => Some(prefix),
            _ if prefix.contains(&net) => Some(net),
            _ => None,
        });
        found.extend(inner.map(inside).filter(free));
    }
    found
}

fn addresses(promise: &Promise<'_>, family: Family) -> Vec<IpAddr> {
    let mut all = bypass(promise, family);
    all.extend(partners(promise, family));
    all.extend(named_by_rules(promise, family));
    all.sort();
    all.dedup();
    all
}

/// The prefixes of the bypass routes, sorted.
pub(super) fn selected<'p>(
    promise: &Promise<'p>,
    family: Family,
) -> impl Iterator<Item = IpNet> + use<'p> {
    let table = promise.numbers().bypass_table;
    let routes = promise.desired.routes.iter();
    routes
        .filter(move |route| route.key.table == table && route.key.family() == family)
        .filter(|route| route.target.forwards())
        .map(|route| route.key.dst)
}

/// The first, the middle and the last selected prefix, and one inside each wide route of the main
/// table.
fn bypass(promise: &Promise<'_>, family: Family) -> Vec<IpAddr> {
    if promise.desired.paths.get(family).bypass.is_none() {
        return Vec::new();
    }
    let routes: Vec<IpNet> = selected(promise, family).collect();
    // Prefixes with a narrower or equal foreign route are somebody's own choice.
    let free = |prefix: &&IpNet| {
        promise
            .facts
            .main_lookup(inside(**prefix))
            .is_none_or(|found| Family::is_wide(&found.dst))
    };
    let last = routes.len().saturating_sub(1);
    let spread = [0, routes.len() / 2, last];
    let some = spread
        .iter()
        .filter_map(|index| routes.get(*index))
        .filter(free);
    let of_wide = wide(promise, family).into_iter().filter_map(|wide| {
        let mut held = routes.iter().filter(|prefix| wide.contains(*prefix));
        held.find(free)
    });
    some.chain(of_wide).map(|prefix| inside(*prefix)).collect()
}

/// The wide routes of the main table, those that refuse packets included.
fn wide(promise: &Promise<'_>, family: Family) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = promise
        .facts
        .main_routes
        .iter()
        .map(|route| route.dst)
        .filter(|dst| Family::of_net(dst) == family && dst.prefix_len() > 0 && Family::is_wide(dst))
        .collect();
    found.sort();
    found.dedup();
    found.truncate(WIDE);
    found
}

/// An address inside a prefix: the second where there is one, since the first may be special.
pub(crate) fn inside(prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(v4) if v4.prefix_len() < 32 => {
            IpAddr::V4(Ipv4Addr::from_bits(v4.network().to_bits() | 1))
        }
        IpNet::V6(v6) if v6.prefix_len() < 128 => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.network().to_bits() | 1))
        }
        single => single.addr(),
    }
}

/// Addresses that stand for partners: public, in no bypass prefix, without a narrow route in the
/// main table. One from the documentation blocks (RFC 5737, RFC 3849), or any, one in each
/// quarter of the space, and one inside each wide route.
fn partners(promise: &Promise<'_>, family: Family) -> Vec<IpAddr> {
    if !promises_partners(promise, family) {
        return Vec::new();
    }
    // A narrow foreign route of our tables concerns its own addresses only.
    let foreign = || promise.foreign.iter().map(|route| route.key.dst);
    let free = |address: &IpAddr| {
        let mut narrow = foreign().filter(|dst| !Family::is_wide(dst));
        is_partner(promise, *address) && !narrow.any(|dst| dst.contains(address))
    };
    let led_by = |address: &IpAddr| promise.facts.main_lookup(*address).map(|route| route.dst);
    let examples: &[&str] = match family {
        Family::Ipv4 => &["203.0.113.1", "192.0.2.1", "198.51.100.1"],
        Family::Ipv6 => &["2001:db8::1", "2001:db8:ffff::1"],
    };
    let examples = examples.iter().filter_map(|text| text.parse().ok());
    let general = match family {
        Family::Ipv4 => family.default_prefix(),
        Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::new_assert(
            Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
            3,
        )),
    };
    let unled = |address: &IpAddr| led_by(address).is_none_or(|dst| promise.is_default(&dst));
    let mut found: Vec<IpAddr> = examples
        .chain(spread(general))
        .find(|address| free(address) && unled(address))
        .into_iter()
        .collect();
    // A foreign route of our tables may take a part of the space only.
    let quarters = general
        .subnets(general.prefix_len() + 2)
        .into_iter()
        .flatten();
    found.extend(quarters.filter_map(|part| {
        let mut inside = spread(part);
        inside.find(|address| free(address) && unled(address))
    }));
    found.extend(wide(promise, family).into_iter().filter_map(|wide| {
        spread(wide).find(|address| free(address) && led_by(address) == Some(wide))
    }));
    // A foreign route in our tables.
    let foreign = foreign().filter(|dst| Family::of_net(dst) == family && Family::is_wide(dst));
    found.extend(
        foreign
            .take(WIDE)
            .filter_map(|dst| spread(dst).find(|address| free(address) && unled(address))),
    );
    found
}

fn promises_partners(promise: &Promise<'_>, family: Family) -> bool {
    let paths = promise.desired.paths.get(family);
    match paths.egress {
        EgressPath::Main => promise.forwards(family) && paths.leaves_by.is_some(),
        EgressPath::Gateways(_) | EgressPath::Closed => true,
    }
}

/// True for a public address in no bypass prefix and in no exempt destination.
pub(super) fn is_partner(promise: &Promise<'_>, address: IpAddr) -> bool {
    let family = Family::of(address);
    let thrown = special::thrown(family, promise.vpc_cidrs);
    let exempt = &promise.desired.paths.get(family).exempt;
    let mut others = thrown.iter().chain(exempt);
    !is_reserved(address)
        && !others.any(|net| net.contains(&address))
        && !matches!(promise.expected(address), Expected::Bypass(_))
}

/// Space that no partner has: `0.0.0.0/8`, `127.0.0.0/8` and `240.0.0.0/4`, and for IPv6 everything
/// outside of `2000::/3`.
fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 240..),
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 != 0x2000,
    }
}

/// Addresses spread evenly over a prefix, several times the same in a narrow one.
fn spread(prefix: IpNet) -> impl Iterator<Item = IpAddr> {
    const COUNT: u32 = 64;
    (0..COUNT).map(move |part| match prefix {
        IpNet::V4(v4) => {
            let last = u32::MAX.checked_shr(v4.prefix_len().into()).unwrap_or(0);
            let offset = (last / COUNT * part).saturating_add(1).min(last);
            IpAddr::V4(Ipv4Addr::from_bits(v4.network().to_bits() | offset))
        }
        IpNet::V6(v6) => {
            let last = u128::MAX.checked_shr(v6.prefix_len().into()).unwrap_or(0);
            let offset = (last / u128::from(COUNT) * u128::from(part)).saturating_add(1);
            let offset = offset.min(last);
            IpAddr::V6(Ipv6Addr::from_bits(v6.network().to_bits() | offset))
        }
    })
}

/// The question about a packet of one of our sources; `None` if the interface is missing, or if
/// this host owns each address tried.
pub fn forwarded(facts: &HostFacts, path: &InputPath, destination: IpAddr) -> Option<Lookup> {
    let device = facts.link_named(&path.device)?.index;
    // A connected part of the source network passes the reverse path check for certain.
    let network = facts
        .main_routes
        .iter()
        .filter(|route| route.device == Some(device) && route.gateway.is_none())
        .map(|route| route.dst)
        .find(|dst| path.source.contains(dst))
        .unwrap_or(path.source);
    let source = first_hosts(network).find(|candidate| !facts.is_own(*candidate))?;
    Some(Lookup {
        source: Some(source),
        input: Some(device),
        ..Lookup::from_socket(destination)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn addresses_of_a_prefix_lie_inside() {
        for text in [
            "10.0.0.7/32",
            "10.0.0.6/31",
            "10.0.0.0/26",
            "0.0.0.0/0",
            "128.0.0.0/1",
            "2600::7/128",
            "2600::6/127",
            "2600::/64",
            "::/0",
            "8000::/1",
        ] {
            let prefix: IpNet = text.parse().unwrap();
            let all: BTreeSet<IpAddr> = spread(prefix).collect();
            assert!(all.iter().all(|address| prefix.contains(address)), "{text}");
            let hosts = prefix.max_prefix_len() - prefix.prefix_len();
            assert!(all.len() == 64 || hosts <= 6, "{text}: {all:?}");
        }
    }
}
