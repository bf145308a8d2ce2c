//! The host role's paths: the next hop tells, else the interface, else the realm.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Told;
use crate::desired::{DesiredState, EgressPath, Inputs, disjoint, gateway, realm, special};
use crate::firewall::Match;
use crate::objects::Via;
use crate::ownership::Numbers;
use crate::types::{Family, Realm};

/// How many routes of the administrator beside a path are left out of its traffic by name; each
/// is an interval of a set or a rule of iptables. A host with more has a routing daemon, each of
/// whose changes would replace our rules.
const MOST_BESIDE: usize = 64;

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hop {
    gateway: Option<IpAddr>,
    device: String,
}

/// How the host role tells a family's paths apart; `None` where it can't.
pub fn of_host(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    state: &mut DesiredState,
) -> Option<Told> {
    let teller = Teller {
        inputs,
        family,
        by_next_hop: inputs.backend.matches_next_hop(),
        through_ours: !inputs.config.egress.gateways_of(family).is_empty(),
    };
    let egress = teller.egress_hops();
    let Some(bypass) = state.paths.get(family).bypass else {
        return teller
            .through_ours
            .then(|| teller.egress_only(realm::of(numbers), &egress));
    };
    let bypass = teller.hop(bypass);
    if egress.contains(&bypass) {
        // Both paths are one: nothing goes past anything.
        return None;
    }
    let device_tells = egress.iter().all(|hop| hop.device != bypass.device);
    let mut told = Told::default();
    if device_tells || teller.by_next_hop {
        told.bypass.extend(teller.past(&bypass, &egress));
        told.egress = egress
            .iter()
            .filter_map(|hop| teller.through(hop, Some(&bypass), None))
            .collect();
    } else if family == Family::Ipv4 {
        let realm = realm::on_bypass_routes(numbers, family, &bypass.device, state);
        // Exact without leaving anything out: only our own routes carry it.
        let leaves = Match::OutputInterface(bypass.device);
        told.bypass.push(vec![leaves, Match::Realm(realm)]);
        told.egress = egress
            .iter()
            .filter_map(|hop| teller.through(hop, None, Some(realm)))
            .collect();
    } else {
        state.notes.push(format!(
            "{family}: both paths leave by {} and iptables can't ask for the next hop; {family} traffic is not counted by path",
            bypass.device
        ));
        return None;
    }
    // Several gateways on one interface, and only the interface to tell by.
    told.egress.dedup();
    let too_many = |path: &str| {
        format!(
            "{family}: more than {MOST_BESIDE} routes of the main table lead the {path} path's way too; {path} traffic is not counted"
        )
    };
    if told.bypass.is_empty() {
        state.notes.push(too_many("bypass"));
    }
    if told.egress.is_empty() && !egress.is_empty() {
        state.notes.push(too_many("egress"));
    }
    if teller.through_ours && state.paths.get(family).egress == EgressPath::Main {
        // [egress] when_down = "bypass", and it is: everything takes the bypass path's way, of
        // which only a realm would be exact.
        told.bypass.retain(|conditions| {
            let exact = |condition: &Match| matches!(condition, Match::Realm(_));
            conditions.iter().any(exact)
        });
    }
    Some(told)
}

struct Teller<'a> {
    inputs: &'a Inputs<'a>,
    family: Family,
    /// The firewall can ask for the next hop.
    by_next_hop: bool,
    /// The egress path is ours, not the main table's.
    through_ours: bool,
}

impl Teller<'_> {
    fn hop(&self, via: Via) -> Hop {
        Hop {
            gateway: self.asked(via.gateway),
            device: self.inputs.facts.device_name(via.device),
        }
    }

    /// The gateway as the firewall sees it. For an IPv4 route via an IPv6 gateway (RFC 8950) the
    /// kernel answers with the destination, as for a route without a gateway (`rt_nexthop`,
    /// include/net/route.h).
    fn asked(&self, gateway: Option<IpAddr>) -> Option<IpAddr> {
        gateway.filter(|gateway| Family::of(*gateway) == self.family)
    }

    /// The ways out of the egress path as configured, usable now or not: a link that goes down
    /// shall not change the rules.
    fn egress_hops(&self) -> Vec<Hop> {
        let facts = self.inputs.facts;
        let config = &self.inputs.config.egress;
        if self.through_ours {
            let hop = |address| {
                let device = match gateway::egress(facts, address).ok()? {
                    Ok(via) => facts.device_name(via.device),
                    Err(down) => down,
                };
                Some(Hop {
                    gateway: Some(address),
                    device,
                })
            };
            let gateways = config.gateways_of(self.family);
            return gateways.into_iter().filter_map(hop).collect();
        }
        if config.close.contains(&self.family) {
            return Vec::new();
        }
        let defaults = facts.defaults(self.family);
        let hop = defaults.first().and_then(|route| {
            Some(Hop {
                gateway: self.asked(route.gateway),
                device: facts.device_name(route.device?),
            })
        });
        hop.into_iter().collect()
    }

    /// A packet leaves by the bypass path. Nothing, where too much else takes the same way.
    fn past(&self, bypass: &Hop, egress: &[Hop]) -> Option<Vec<Match>> {
        let mut conditions = self.by_hop(bypass);
        if self.by_next_hop && bypass.gateway.is_none() {
            // Its next hop is the destination itself.
            let others = egress.iter().filter(|hop| hop.device == bypass.device);
            conditions.extend(others.filter_map(|hop| hop.gateway.map(Match::NotNextHop)));
        }
        let mut beside = special::thrown(self.family, self.inputs.vpc_cidrs);
        beside.extend(self.beside(bypass)?);
        conditions.push(Match::DestinationNoneOf(disjoint(beside)));
        Some(conditions)
    }

    /// A packet leaves by this way of the egress path, and not by the bypass path's.
    fn through(&self, hop: &Hop, bypass: Option<&Hop>, not: Option<Realm>) -> Option<Vec<Match>> {
        let mut conditions = self.by_hop(hop);
        if self.by_next_hop && hop.gateway.is_none() {
            let other = bypass.filter(|bypass| bypass.device == hop.device);
            conditions.extend(other.and_then(|bypass| bypass.gateway.map(Match::NotNextHop)));
        }
        conditions.extend(not.map(Match::NotRealm));
        let mut beside = self.beside(hop)?;
        // Our egress table throws private networks back, so that none has its next hop.
        if !(self.through_ours && self.by_next_hop) {
            beside.extend(special::thrown(self.family, self.inputs.vpc_cidrs));
        }
        if !beside.is_empty() {
            conditions.push(Match::DestinationNoneOf(disjoint(beside)));
        }
        Some(conditions)
    }

    /// Without a bypass path of ours now, all that leaves by our egress path is egress. Routes of
    /// an earlier bypass path may lie there still (`DesiredState::frozen`).
    fn egress_only(&self, realm: Realm, egress: &[Hop]) -> Told {
        let selected = self.inputs.config.select.families.contains(&self.family);
        let frozen = selected && !self.by_next_hop;
        if frozen && self.family == Family::Ipv6 {
            return Told::default();
        }
        let not = frozen.then_some(realm);
        let lines = egress.iter().filter_map(|hop| self.through(hop, None, not));
        let mut told = Told {
            egress: lines.collect(),
            ..Told::default()
        };
        told.egress.dedup();
        told
    }

    fn by_hop(&self, hop: &Hop) -> Vec<Match> {
        let mut conditions = vec![Match::OutputInterface(hop.device.clone())];
        if self.by_next_hop {
            conditions.extend(hop.gateway.map(Match::NextHop));
        }
        conditions
    }

    /// The administrator's own routes that take this way too; none with too many of them.
    fn beside(&self, hop: &Hop) -> Option<Vec<IpNet>> {
        let facts = self.inputs.facts;
        let found: Vec<IpNet> = facts
            .main_routes
            .iter()
            .filter(|route| {
                let device = route.device.map(|device| facts.device_name(device));
                Family::of_net(&route.dst) == self.family
                    && route.unicast
                    && route.dst.prefix_len() > 0
                    && device.as_ref() == Some(&hop.device)
                    && (!self.by_next_hop || hop.gateway.is_none() || route.gateway == hop.gateway)
            })
            .map(|route| route.dst.trunc())
            .collect();
        (found.len() <= MOST_BESIDE).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, parse};
    use crate::desired::desired;
    use crate::facts::{Address, HostFacts, Link, MainRoute};
    use crate::firewall::{Hook, Path, Ruleset, Verdict};
    use crate::types::{IfIndex, Metric, PerFamily, Protocol};

    /// One interface, the VPC router and a NAT instance, and the administrator's own routes.
    fn policy(routes: u32) -> (Ruleset, Vec<String>) {
        let route = |dst: &str, gateway: Option<&str>| MainRoute {
            dst: dst.parse().unwrap(),
            metric: Metric(0),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            device: Some(IfIndex(2)),
            onlink: false,
            protocol: Protocol(4),
            unicast: true,
        };
        let router = Some("10.0.1.1");
        let mut main_routes = vec![route("0.0.0.0/0", router), route("10.0.1.0/24", None)];
        main_routes.extend((0..routes).map(|n| route(&format!("198.18.{n}.0/24"), router)));
        let facts = HostFacts {
            links: vec![Link {
                index: IfIndex(2),
                name: "eth0".to_owned(),
                altnames: Vec::new(),
                up: true,
                loopback: false,
                mac: Vec::new(),
            }],
            addresses: vec![Address {
                link: IfIndex(2),
                net: "10.0.1.11/24".parse().unwrap(),
            }],
            main_routes,
            ..HostFacts::default()
        };
        let text = "role = \"host\"\n[egress]\ngateways = [\"10.0.1.10\"]\n";
        let state = desired(&Inputs {
            config: &parse(text, "test").unwrap(),
            role: Role::Host,
            prefixes: None,
            facts: &facts,
            vpc_cidrs: &[],
            backend: crate::firewall::BackendKind::Nftables,
            last_bypass: PerFamily::default(),
            available: PerFamily {
                ipv4: true,
                ipv6: false,
            },
        })
        .unwrap();
        (state.firewall.unwrap(), state.notes)
    }

    /// The paths that are told, and those that are counted.
    fn told_and_counted(ruleset: &Ruleset) -> (usize, usize) {
        let chain = |hook| ruleset.chains.iter().find(|chain| chain.hook == hook);
        let rules = &chain(Hook::PostroutingCount).unwrap().rules;
        let told =
            |rule: &&crate::firewall::FwRule| matches!(rule.verdict, Verdict::SetFlowMark(_));
        let told = rules.iter().filter(told).count();
        (told, rules.len() - told)
    }

    #[test]
    fn a_router_with_too_many_routes_beside_ours_counts_what_it_can_tell() {
        let most = MOST_BESIDE as u32;
        let (few, notes) = policy(most);
        assert_eq!(told_and_counted(&few), (2, Path::ALL.len()));
        assert!(!notes.iter().any(|note| note.contains("not counted")));
        let (many, notes) = policy(most + 1);
        assert_eq!(told_and_counted(&many), (1, Path::ALL.len()));
        assert!(
            notes
                .iter()
                .any(|note| note.contains("bypass traffic is not counted"))
        );
    }
}
