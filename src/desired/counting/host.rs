//! Matches for the paths of the host role: by next hop, else by interface, else by realm.

use std::net::IpAddr;

use ipnet::IpNet;

use super::PathMatches;
use crate::desired::{DesiredState, EgressPath, Inputs, disjoint, gateway, realm, special};
use crate::firewall::Match;
use crate::objects::Via;
use crate::ownership::Numbers;
use crate::types::{Family, Realm};

/// At most this many of the administrator's routes over the same next hop are excepted from a path;
/// each is an interval of a set or an iptables rule. A host with more routes runs a routing daemon,
/// and each change of a route would replace our rules.
pub const MOST_BESIDE: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClassifiedHop {
    gateway: Option<IpAddr>,
    device: String,
}

/// The path matches of a family in the host role; `None` if no match tells the paths apart. `pinned`
/// flows get their mark in nf_tables, beside iptables too.
pub fn of_host(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    pinned: bool,
    state: &mut DesiredState,
) -> Option<PathMatches> {
    let teller = Teller {
        inputs,
        family,
        by_next_hop: pinned || inputs.backend.matches_next_hop(),
        through_ours: inputs.config.egress.has_gateway(family),
    };
    let egress = teller.egress_hops();
    let Some(path) = &state.paths.get(family).bypass else {
        return teller
            .through_ours
            .then(|| teller.egress_only(realm::of(numbers), &egress));
    };
    let mut bypass: Vec<ClassifiedHop> = path.vias().map(|via| teller.hop(via)).collect();
    bypass.dedup();
    if bypass.iter().any(|hop| egress.contains(hop)) {
        // Both paths share a next hop: no packet shows which path it took.
        return None;
    }
    let mut devices: Vec<String> = bypass.iter().map(|hop| hop.device.clone()).collect();
    devices.dedup();
    let device_tells = egress.iter().all(|hop| !devices.contains(&hop.device));
    let mut paths = PathMatches::default();
    if device_tells || teller.by_next_hop {
        let lines: Option<Vec<_>> = bypass.iter().map(|hop| teller.past(hop, &egress)).collect();
        paths.bypass = lines.unwrap_or_default();
        paths.egress = egress
            .iter()
            .filter_map(|hop| teller.through(hop, &bypass, None))
            .collect();
    } else if family == Family::Ipv4 {
        let realm = realm::on_bypass_routes(
            numbers,
            family,
            &realm::same_look(&devices.join(" and ")),
            state,
        );
        // Exact without exceptions: only our own routes carry the realm.
        let line = |device| vec![Match::OutputInterface(device), Match::Realm(realm)];
        paths.bypass = devices.into_iter().map(line).collect();
        paths.egress = egress
            .iter()
            .filter_map(|hop| teller.through(hop, &[], Some(realm)))
            .collect();
    } else {
        state.notes.push(format!(
            "{family}: both paths leave by {} and iptables cannot match the next hop; {family} traffic is not counted by path",
            devices.join(" and ")
        ));
        return None;
    }
    // Several gateways on one interface have equal matches if only the interface is matched.
    paths.egress.dedup();
    let too_many = |path: &str| {
        format!(
            "{family}: more than {MOST_BESIDE} routes of the main table use the next hop of the {path} path; {path} traffic is not counted"
        )
    };
    if paths.bypass.is_empty() {
        state.notes.push(too_many("bypass"));
    }
    if paths.egress.is_empty() && !egress.is_empty() {
        state.notes.push(too_many("egress"));
    }
    if teller.through_ours && state.paths.get(family).egress == EgressPath::Main {
        // With [egress] when_down = "bypass" and no gateway, all traffic uses the next hop of the
        // bypass path, and only a realm tells bypass traffic apart.
        paths.bypass.retain(|conditions| {
            let exact = |condition: &Match| matches!(condition, Match::Realm(_));
            conditions.iter().any(exact)
        });
    }
    Some(paths)
}

struct Teller<'a> {
    inputs: &'a Inputs<'a>,
    family: Family,
    /// The firewall can match the next hop.
    by_next_hop: bool,
    /// The egress path uses our gateways, not the default of the main table.
    through_ours: bool,
}

impl Teller<'_> {
    fn hop(&self, via: Via) -> ClassifiedHop {
        ClassifiedHop {
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

    /// The next hops of the configured egress path, usable or not, so that a link that goes down
    /// changes no rule.
    fn egress_hops(&self) -> Vec<ClassifiedHop> {
        let facts = self.inputs.facts;
        let config = &self.inputs.config.egress;
        if self.through_ours {
            let hop = |address| {
                Some(ClassifiedHop {
                    gateway: Some(address),
                    device: gateway::egress_device(self.inputs, address)?,
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
            Some(ClassifiedHop {
                gateway: self.asked(route.gateway),
                device: facts.device_name(route.device?),
            })
        });
        hop.into_iter().collect()
    }

    /// Matches packets that leave by the bypass path; `None` with too many exceptions.
    fn past(&self, bypass: &ClassifiedHop, egress: &[ClassifiedHop]) -> Option<Vec<Match>> {
        let mut conditions = self.by_hop(bypass);
        if self.by_next_hop && bypass.gateway.is_none() {
            // Without a gateway the next hop is the destination itself.
            let others = egress.iter().filter(|hop| hop.device == bypass.device);
            conditions.extend(others.filter_map(|hop| hop.gateway.map(Match::NotNextHop)));
        }
        let mut beside = special::thrown(self.family, self.inputs.vpc_cidrs);
        beside.extend(self.beside(bypass)?);
        conditions.push(Match::DestinationNoneOf(disjoint(beside)));
        Some(conditions)
    }

    /// Matches packets that leave by this next hop of the egress path and not by the bypass path.
    fn through(
        &self,
        hop: &ClassifiedHop,
        bypass: &[ClassifiedHop],
        not: Option<Realm>,
    ) -> Option<Vec<Match>> {
        let mut conditions = self.by_hop(hop);
        if self.by_next_hop && hop.gateway.is_none() {
            let others = bypass.iter().filter(|other| other.device == hop.device);
            conditions.extend(others.filter_map(|other| other.gateway.map(Match::NotNextHop)));
        }
        conditions.extend(not.map(Match::NotRealm));
        let mut beside = self.beside(hop)?;
        // Our egress table throws private networks back: no private destination has this next hop.
        if !(self.through_ours && self.by_next_hop) {
            beside.extend(special::thrown(self.family, self.inputs.vpc_cidrs));
        }
        if !beside.is_empty() {
            conditions.push(Match::DestinationNoneOf(disjoint(beside)));
        }
        Some(conditions)
    }

    /// The matches without a bypass path: all packets that leave by our egress path. Routes of an
    /// earlier bypass path may still exist (`DesiredState::frozen`).
    fn egress_only(&self, realm: Realm, egress: &[ClassifiedHop]) -> PathMatches {
        let selected = self.inputs.config.select.families.contains(&self.family);
        let frozen = selected && !self.by_next_hop;
        if frozen && self.family == Family::Ipv6 {
            return PathMatches::default();
        }
        let not = frozen.then_some(realm);
        let lines = egress.iter().filter_map(|hop| self.through(hop, &[], not));
        let mut paths = PathMatches {
            egress: lines.collect(),
            ..PathMatches::default()
        };
        paths.egress.dedup();
        paths
    }

    fn by_hop(&self, hop: &ClassifiedHop) -> Vec<Match> {
        let mut conditions = vec![Match::OutputInterface(hop.device.clone())];
        if self.by_next_hop {
            conditions.extend(hop.gateway.map(Match::NextHop));
        }
        conditions
    }

    /// The administrator's routes over the same next hop; `None` for too many.
    fn beside(&self, hop: &ClassifiedHop) -> Option<Vec<IpNet>> {
        let facts = self.inputs.facts;
        let found: Vec<IpNet> = facts
            .main_routes
            .iter()
            .filter(|route| {
                let device = route.device.map(|device| facts.device_name(device));
                Family::of_net(&route.dst) == self.family
                    && route.unicast
                    && !Family::is_default(&route.dst)
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
    use crate::facts::{HostFacts, MainRoute};
    use crate::firewall::{Hook, Path, Ruleset, Statement};
    use crate::types::{IfIndex, Protocol};

    /// One interface, the VPC router and a NAT instance, and the administrator's own routes.
    fn policy(routes: u32) -> (Ruleset, Vec<String>) {
        let route = |dst: &str, gateway: Option<&str>| MainRoute {
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            device: Some(IfIndex(2)),
            protocol: Protocol(4),
            ..MainRoute::unicast(dst.parse().unwrap())
        };
        let router = Some("10.0.1.1");
        let mut main_routes = vec![route("0.0.0.0/0", router), route("10.0.1.0/24", None)];
        main_routes.extend((0..routes).map(|n| route(&format!("198.18.{n}.0/24"), router)));
        let facts = HostFacts::of_one_interface("10.0.1.11/24", main_routes);
        let text = "role = \"host\"\n[egress]\ngateways = [\"10.0.1.10\"]\n";
        let config = parse(text, "test").unwrap();
        let shares = crate::desired::shares::Shares::default();
        let state = desired(&Inputs::of_one_family(
            (&config, &facts, &shares),
            Role::Host,
            Family::Ipv4,
        ));
        (state.firewall.unwrap(), state.notes)
    }

    /// The numbers of classifying and of counting rules.
    fn classified_and_counted(ruleset: &Ruleset) -> (usize, usize) {
        let chain = |hook| ruleset.chains.iter().find(|chain| chain.hook == hook);
        let rules = &chain(Hook::PostroutingCount).unwrap().rules;
        let classifies =
            |rule: &&crate::firewall::FwRule| matches!(rule.verdict, Statement::SetFlowMark(_));
        let classifying = rules.iter().filter(classifies).count();
        (classifying, rules.len() - classifying)
    }

    #[test]
    fn too_many_routes_over_the_bypass_next_hop_leave_only_egress_counted() {
        let most = MOST_BESIDE as u32;
        let (few, notes) = policy(most);
        // Flows that keep their mark are counted before, the packets that give it behind, and egress flows
        // without a slot last.
        let counted = 2 * Path::ALL.len() + 1;
        assert_eq!(classified_and_counted(&few), (2, counted));
        assert!(!notes.iter().any(|note| note.contains("not counted")));
        let (many, notes) = policy(most + 1);
        assert_eq!(classified_and_counted(&many), (1, counted));
        assert!(
            notes
                .iter()
                .any(|note| note.contains("bypass traffic is not counted"))
        );
    }
}
