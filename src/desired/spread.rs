//! The choice among several egress gateways (`[egress] spread`, `zone`, weights, health).
//!
//! ```text
//! usable gateways ─▶ in use by their health ─▶ not drained ─▶ own zone ─▶ spread ─▶ next hops
//! ```
//!
//! Each of the first three steps is skipped if no gateway would be left: probes alone never take the
//! last gateway, and a drained gateway or one of another zone is better than none.

use std::net::IpAddr;

use super::Inputs;
use crate::config::{AutoOr, EgressConfig, Gateway, Spread};
use crate::facts::{Address, HostFacts};
use crate::health::{Health, WayId};
use crate::objects::Via;
use crate::types::Family;

/// The reason for which a usable gateway gets no new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unused {
    /// Probes have found the gateway down, or it is held after an outage.
    Health,
    /// An operator has drained the gateway.
    Drained,
    /// A gateway of the host's own zone is in use.
    Zone,
    /// Another gateway comes first: by the host's ranking (`"host"`) or in the list (`"order"`).
    Rank,
}

words!(Unused {
    Health => "health",
    Drained => "drained",
    Zone => "zone",
    Rank => "rank",
});

/// The gateways for new flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// One gateway, or several with `spread = "flow"`, each with its weight.
    pub used: Vec<(IpAddr, u8)>,
    /// The other usable gateways.
    pub unused: Vec<(IpAddr, Unused)>,
}

/// This host, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chooser<'a> {
    /// An address that no other host behind the gateways has; without one the list's order decides.
    pub identity: Option<IpAddr>,
    /// The availability zone.
    pub zone: Option<&'a str>,
}

/// The gateways that are left, and those sorted out.
struct Candidates<'g> {
    left: Vec<&'g Gateway>,
    unused: Vec<(IpAddr, Unused)>,
}

impl Candidates<'_> {
    /// Keeps the gateways that fit; all if none does.
    fn prefer(&mut self, reason: Unused, fits: impl Fn(&Gateway) -> bool) {
        if self.left.iter().any(|gateway| fits(gateway)) {
            let others = self.left.extract_if(.., |gateway| !fits(gateway));
            self.unused.extend(others.map(|it| (it.address, reason)));
        }
    }
}

/// Chooses among usable gateways, given in the order of the settings.
pub fn choose(
    usable: &[&Gateway],
    spread: Spread,
    chooser: Chooser<'_>,
    health: &Health,
) -> Choice {
    let mut all = Candidates {
        left: usable.to_vec(),
        unused: Vec::new(),
    };
    all.prefer(Unused::Health, |gateway| {
        health.is_in_use(WayId::Gateway(gateway.address))
    });
    all.prefer(Unused::Drained, |gateway| {
        !health.drained().contains(&gateway.address)
    });
    all.prefer(Unused::Zone, |gateway| {
        chooser.zone.is_some() && gateway.zone.as_deref() == chooser.zone
    });
    let first = match spread {
        Spread::Flow => None,
        Spread::Order => all.left.first().map(|gateway| gateway.address),
        Spread::Host => favourite(&all.left, chooser.identity),
    };
    if let Some(first) = first {
        all.prefer(Unused::Rank, |gateway| gateway.address == first);
    }
    let used = all.left.iter();
    Choice {
        used: used.map(|it| (it.address, it.weight)).collect(),
        unused: all.unused,
    }
}

/// The gateway with the highest score of a host (weighted rendezvous hashing). A gateway of weight n
/// has n tickets, and its score is that of its best ticket, so that its share is n of all tickets. A
/// gateway that comes or goes moves only hosts to itself or from itself.
fn favourite(gateways: &[&Gateway], host: Option<IpAddr>) -> Option<IpAddr> {
    let Some(host) = host else {
        return gateways.first().map(|gateway| gateway.address);
    };
    let best = |gateway: &&Gateway| {
        let tickets = 0..gateway.weight;
        tickets
            .map(|ticket| score(host, gateway.address, ticket))
            .max()
    };
    let scored = gateways
        .iter()
        .map(|gateway| (best(gateway), gateway.address));
    scored.max().map(|(_, address)| address)
}

/// FNV-1a over both addresses and the ticket, then the finalizer of SplitMix64, which mixes the last
/// bytes into all bits. The function must never change: every host would move.
fn score(host: IpAddr, gateway: IpAddr, ticket: u8) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let bytes = octets(host).into_iter().chain(octets(gateway));
    let bytes = bytes.chain(std::iter::once(ticket));
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The choice for a family, among gateways with these next hops.
pub(super) fn of(inputs: &Inputs, family: Family, vias: &[Via]) -> Choice {
    let config = &inputs.config.egress;
    let hop = |gateway: &&Gateway| {
        let vias = &mut vias.iter();
        vias.any(|via| via.gateway == Some(gateway.address))
    };
    let usable: Vec<&Gateway> = config.ordered(family).filter(hop).collect();
    let chooser = Chooser {
        identity: identity(inputs.facts, config, vias),
        zone: zone(config, inputs.facts),
    };
    choose(&usable, config.spread, chooser, &inputs.health)
}

/// The zone of this host; `None` if unknown, or if no gateway has one.
pub fn zone<'a>(config: &'a EgressConfig, facts: &'a HostFacts) -> Option<&'a str> {
    if !config.has_zones() {
        return None;
    }
    match &config.zone {
        AutoOr::Set(zone) => Some(zone),
        AutoOr::Auto => facts.instance.as_ref()?.zone.as_deref(),
    }
}

/// The address that stands for this host: the lowest IPv4 address in the network of a gateway, else the
/// lowest one on its link, else an IPv6 address. IPv4 first for both families: IPv6 addresses of a host
/// may change every day (RFC 8981). A network with the gateway first: a floating address has none. Not
/// an address of any link: bridges of containers have the same address on every host.
///
/// The networks are those of all gateways in the settings, usable at the moment or not: a lost link must
/// not move the host between gateways of another link.
fn identity(facts: &HostFacts, config: &EgressConfig, vias: &[Via]) -> Option<IpAddr> {
    let network = |own: &Address| {
        let mut gateways = config.addresses();
        gateways.any(|gateway| own.net.contains(&gateway))
    };
    let on_link = |own: &&Address| network(own) || vias.iter().any(|via| via.device == own.link);
    let shared = facts.addresses.iter().filter(on_link);
    let ranked = shared.filter_map(|own| {
        let address = own.net.addr();
        let family = Family::of(address);
        let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let alone = own.net.prefix_len() == family.bits();
        let rank = (family == Family::Ipv6, alone, !network(own));
        (!local).then_some((rank, address))
    });
    ranked.min().map(|(_, address)| address)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;

    use super::*;

    fn gateway(last: u8, weight: u8, zone: Option<&str>) -> Gateway {
        Gateway {
            address: IpAddr::from([10, 0, 1, last]),
            weight,
            zone: zone.map(str::to_owned),
        }
    }

    fn hosts() -> impl Iterator<Item = IpAddr> {
        (0..10_000_u32).map(|number| Ipv4Addr::from(0x0a00_2000 + number).into())
    }

    fn host(address: IpAddr) -> Chooser<'static> {
        Chooser {
            identity: Some(address),
            zone: None,
        }
    }

    /// The gateway of each host.
    fn fleet(gateways: &[Gateway], health: &Health) -> Vec<IpAddr> {
        let usable: Vec<&Gateway> = gateways.iter().collect();
        let choices = hosts().map(|it| choose(&usable, Spread::Host, host(it), health));
        choices
            .map(|choice| {
                assert_eq!(choice.used.len(), 1, "one address for partners");
                choice.used[0].0
            })
            .collect()
    }

    fn shares(fleet: &[IpAddr]) -> BTreeMap<IpAddr, usize> {
        let mut shares = BTreeMap::new();
        for gateway in fleet {
            *shares.entry(*gateway).or_default() += 1;
        }
        shares
    }

    #[test]
    fn hosts_spread_over_gateways_by_weight() {
        let equal = [1, 2, 3, 4].map(|last| gateway(last, 1, None));
        for (_, share) in shares(&fleet(&equal, &Health::default())) {
            assert!((2_300..2_700).contains(&share), "{share}");
        }
        let weighted = [gateway(1, 3, None), gateway(2, 1, None)];
        let found = shares(&fleet(&weighted, &Health::default()));
        let heavy = found[&weighted[0].address];
        assert!((7_300..7_700).contains(&heavy), "{heavy}");
    }

    #[test]
    fn gateway_that_leaves_or_returns_moves_its_own_hosts_alone() {
        let gateways = [(1, 2), (2, 1), (3, 255)].map(|(last, weight)| gateway(last, weight, None));
        let before = fleet(&gateways, &Health::default());
        for lost in &gateways {
            let others = gateways.iter().filter(|gateway| *gateway != lost);
            let others: Vec<Gateway> = others.cloned().collect();
            let down = Health::without([WayId::Gateway(lost.address)]);
            let (removed, fallen) = (fleet(&others, &Health::default()), fleet(&gateways, &down));
            assert_eq!(
                removed, fallen,
                "down or removed, the hosts go the same way"
            );
            for (was, is) in before.iter().zip(&fallen) {
                assert!(was == is || *was == lost.address);
                assert_ne!(*is, lost.address);
            }
        }
        let reversed: Vec<Gateway> = gateways.iter().rev().cloned().collect();
        assert_eq!(
            before,
            fleet(&reversed, &Health::default()),
            "no order counts"
        );
    }

    #[test]
    fn choice_of_a_host_is_the_same_for_ever() {
        let gateways = [1, 2, 3].map(|last| gateway(last, 1, None));
        let fleet = fleet(&gateways, &Health::default());
        let last = |gateway: &IpAddr| gateway.to_string().pop();
        let first: String = fleet.iter().take(24).filter_map(last).collect();
        assert_eq!(first, "121232222231211221132232");
    }

    #[test]
    fn own_zone_comes_first_while_one_of_its_gateways_is_in_use() {
        let gateways = [
            gateway(1, 1, Some("a")),
            gateway(2, 1, Some("b")),
            gateway(3, 1, Some("b")),
            gateway(4, 1, None),
        ];
        let usable: Vec<&Gateway> = gateways.iter().collect();
        let down = |lasts: &[usize]| {
            Health::without(lasts.iter().map(|at| WayId::Gateway(gateways[*at].address)))
        };
        let used = |zone, health: &Health| {
            let chooser = Chooser {
                identity: None,
                zone,
            };
            let choice = choose(&usable, Spread::Flow, chooser, health);
            assert_eq!(choice.used.len() + choice.unused.len(), 4, "all are told");
            let last = |(address, _): &(IpAddr, u8)| address.to_string().pop();
            choice.used.iter().filter_map(last).collect::<String>()
        };
        assert_eq!(used(Some("b"), &down(&[])), "23");
        assert_eq!(used(Some("b"), &down(&[1])), "3");
        assert_eq!(
            used(Some("b"), &down(&[1, 2])),
            "14",
            "better far than none"
        );
        assert_eq!(
            used(Some("b"), &down(&[0, 1, 2, 3])),
            "23",
            "the last stays"
        );
        assert_eq!(used(Some("c"), &down(&[])), "1234");
        assert_eq!(used(None, &down(&[0])), "234");
    }

    #[test]
    fn drained_gateway_gets_new_flows_only_if_all_others_are_down() {
        let gateways = [gateway(1, 1, None), gateway(2, 1, None)];
        let usable: Vec<&Gateway> = gateways.iter().collect();
        let drained = BTreeSet::from([gateways[0].address]);
        let used = |out: &[usize]| {
            let out = out.iter().map(|at| WayId::Gateway(gateways[*at].address));
            let health = Health::without(out).with_drained(drained.clone());
            let choice = choose(&usable, Spread::Order, Chooser::default(), &health);
            (choice.used[0].0, choice.unused)
        };
        let [first, second] = [gateways[0].address, gateways[1].address];
        assert_eq!(used(&[]), (second, vec![(first, Unused::Drained)]));
        assert_eq!(used(&[0]), (second, vec![(first, Unused::Health)]));
        assert_eq!(used(&[1]), (first, vec![(second, Unused::Health)]));
        assert_eq!(used(&[0, 1]), (second, vec![(first, Unused::Drained)]));
    }

    #[test]
    fn order_takes_the_first_that_is_in_use() {
        let gateways = [gateway(9, 1, None), gateway(2, 200, None)];
        let usable: Vec<&Gateway> = gateways.iter().collect();
        let chooser = host(IpAddr::from([10, 0, 2, 1]));
        let choice = choose(&usable, Spread::Order, chooser, &Health::default());
        assert_eq!(choice.used, [(gateways[0].address, 1)]);
        assert_eq!(choice.unused, [(gateways[1].address, Unused::Rank)]);
        let down = Health::without([WayId::Gateway(gateways[0].address)]);
        let choice = choose(&usable, Spread::Order, chooser, &down);
        assert_eq!(choice.used, [(gateways[1].address, 200)]);
        assert_eq!(choice.unused, [(gateways[0].address, Unused::Health)]);
        let nothing = choose(&[], Spread::Host, chooser, &Health::default());
        assert_eq!(nothing, Choice::default());
    }
}
