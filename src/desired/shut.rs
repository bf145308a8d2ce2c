//! The host role before the first pass: the egress, shut by the settings alone.
//!
//! Nothing is known yet of interfaces, addresses and gateways, and the host must not be locked out,
//! so neither the routes alone nor the firewall alone shut the egress.
//!
//! The routes are those of a host without a usable gateway: private networks go back to the main
//! table, everything else is unreachable. Connections from outside would be unreachable too: the
//! kernel looks up the route of the first answer, and the way back of the reverse path filter,
//! before any chain can mark the packet. Both look-ups name an address of this host as the source,
//! and the first look-up of a connection that this host opens names none. So rules by source send
//! look-ups with a source to the main table, for IPv6 those of servers' ports and of ICMP alone.
//!
//! A program that binds a source address passes these rules as well. The firewall therefore marks
//! packets of this host in the direction of their flow, and the rules by source leave marked packets
//! alone: the kernel routes such a packet again, and the last rule refuses the packet. A chain after the
//! last routing decision drops the marked packets that leave nevertheless, and those of guests.
//!
//! A flush of the firewall by another program opens the path for bound sources alone.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DesiredState, EgressPath, Inputs, desired, inbound, lookup, main_without_default, place, realm,
    rule, special::thrown,
};
use crate::firewall::{FwRule, Hook, Match, Statement};
use crate::objects::{ForeignSelector, Route, Rule, RuleAction};
use crate::ownership::Numbers;
use crate::types::{Family, Mark, PerFamily, Realm};

/// Every IPv4 address but the unspecified one. A prefix of length 0 would match look-ups without a
/// source.
const SOURCES: [&str; 8] = [
    "128.0.0.0/1",
    "64.0.0.0/2",
    "32.0.0.0/3",
    "16.0.0.0/4",
    "8.0.0.0/5",
    "4.0.0.0/6",
    "2.0.0.0/7",
    "1.0.0.0/8",
];
/// RFC 4291, global unicast: no other IPv6 source reaches the internet.
const SOURCES6: &str = "2000::/3";

/// IP protocols (RFC 790, RFC 768, RFC 4443).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The kernel refuses 65535 in a rule (`fib_rule_port_range_valid`, net/fib_rules.h).
const LAST_PORT: u16 = 65_534;

/// `linux/fib_rules.h`. IPv6 passes over an unreachable route where the socket is bound to an interface
/// (`RT6_LOOKUP_F_IFACE`, net/ipv6/route.c), and obeys a rule.
pub(super) const FR_ACT_UNREACHABLE: u8 = 7;

/// The shut state: without rules if the settings leave the egress open.
pub fn shut(inputs: &Inputs) -> DesiredState {
    let whole = desired(inputs);
    let numbers = Numbers::of(inputs.config);
    let path = inputs.config.kernel.path_mask;
    let is_shut = |family: Family| whole.paths.get(family).egress != EgressPath::Main;
    let mut state = DesiredState {
        paths: whole.paths.clone(),
        frozen: PerFamily::from_fn(|_| true),
        ..DesiredState::default()
    };
    let routes = whole.routes.into_iter();
    state.routes = routes
        .filter(|route| route.key.table == numbers.egress_table && is_shut(route.key.family()))
        .collect();
    let bypass = lookup(numbers.bypass_table);
    let rules = whole.rules.into_iter();
    state.rules = rules
        .filter(|rule| rule.action != bypass && is_shut(rule.family))
        .collect();
    let near = |rule: &&mut Rule| {
        rule.family == Family::Ipv4 && rule.action == main_without_default(rule.family)
    };
    for rule in state.rules.iter_mut().filter(near) {
        let realm = ForeignSelector::Realms(u32::from(realm::of(&numbers).0));
        rule.foreign_selectors.push(realm);
    }
    for family in Family::ALL.into_iter().filter(|family| is_shut(*family)) {
        let mut own = rule(
            &numbers,
            family,
            place::OWN,
            RuleAction::Other(FR_ACT_UNREACHABLE),
        );
        own.mark = Some(path.shut());
        state.rules.push(own);
        for (at, selectors) in (place::ANSWERS..).zip(answers(inputs, family)) {
            let mut answers = rule(&numbers, family, at, RuleAction::Goto(numbers.landing()));
            answers.iif = Some("lo".to_owned());
            answers.mark = Some(Mark {
                value: 0,
                mask: path.shut().mask,
            });
            answers.foreign_selectors = selectors;
            state.rules.push(answers);
        }
    }
    state.rules.sort();
    if !state.rules.is_empty() {
        let mut policy = inbound::marks(inputs, &state);
        let leaving = policy
            .chains
            .iter_mut()
            .filter(|chain| chain.hook == Hook::OutputReroute);
        for chain in leaving {
            let families = Family::ALL.into_iter().filter(|family| is_shut(*family));
            chain
                .rules
                .extend(families.flat_map(|family| own(inputs, family)));
        }
        let families = Family::ALL.into_iter().filter(|family| is_shut(*family));
        let stopped: Vec<FwRule> = families
            .flat_map(|family| stopped(inputs, &numbers, family, &state.routes))
            .collect();
        policy.extend(Hook::PostroutingClosed, stopped);
        state.firewall = Some(policy);
    }
    state
}

/// Drops packets of this host and of its guests that have found a way to the internet: a socket bound to
/// an interface passes over IPv4's unreachable route, and another program may have taken our rules away or
/// put one before them.
///
/// The networks of the main table stay reachable, and gateways that a route leads to already. IPv4: the
/// rule to the main table has a realm. IPv6: no packet to a neighbour has another next hop than its
/// destination, and routers advertise link-local addresses.
fn stopped(inputs: &Inputs, numbers: &Numbers, family: Family, egress: &[Route]) -> Vec<FwRule> {
    let rule = |matches: Vec<Match>, verdict| FwRule {
        family: Some(family),
        matches,
        verdict,
    };
    let near = Match::DestinationNoneOf(near(inputs, family));
    let guests = vec![Match::Forwarded, Match::OriginalDirection, near.clone()];
    // Neighbour discovery is not tracked either, and has no next hop but its destination.
    let untracked = vec![Match::NotTracked, near];
    let own = vec![Match::PacketMark(inputs.config.kernel.path_mask.shut())];
    let mut all = Vec::new();
    let mut by = None;
    match family {
        Family::Ipv4 => {
            let loopback = Match::OutputInterface("lo".to_owned());
            let main = Match::Realm(realm::of(numbers));
            let gateways = egress.iter().flat_map(by_gateway);
            let passing = [loopback, main].into_iter().chain(gateways);
            all.extend(passing.map(|it| rule(vec![it], Statement::Accept)));
        }
        Family::Ipv6 => by = Some(Match::LinkLocalHop),
    }
    all.extend([own, guests, untracked].map(|mut matches| {
        matches.extend(by.clone());
        rule(matches, Statement::Drop)
    }));
    all
}

/// The matches of packets on an IPv4 route of the egress path.
fn by_gateway(route: &Route) -> Vec<Match> {
    if route.key.family() != Family::Ipv4 {
        return Vec::new();
    }
    // iptables cannot match the next hop, and its egress routes have realms.
    if route.realm != Realm(0) {
        return vec![Match::Realm(route.realm)];
    }
    let legs = route.target.legs();
    let gateways = legs.iter().filter_map(|leg| leg.via.gateway);
    gateways.map(Match::NextHop).collect()
}

/// The destinations that are no part of the internet.
fn near(inputs: &Inputs, family: Family) -> Vec<IpNet> {
    let mut near = thrown(family, inputs.vpc_cidrs);
    // DHCP. The kernel sends a broadcast by the interface of the socket.
    near.extend((family == Family::Ipv4).then(|| IpNet::from(IpAddr::from([255; 4]))));
    near
}

/// The selectors of the rules for answers, a list for each rule.
///
/// IPv6 repeats a failed look-up without a source with the source that the host would choose
/// (`ip6_dst_lookup_tail`, net/ipv6/ip6_output.c), so that the source alone tells nothing. A client's
/// look-up has no port yet (TCP) or a port of `ip_local_port_range`.
fn answers(inputs: &Inputs, family: Family) -> Vec<Vec<ForeignSelector>> {
    let from = |source: &str| source.parse().ok().map(ForeignSelector::From);
    if family == Family::Ipv4 {
        let sources = SOURCES.iter();
        return sources
            .filter_map(|source| Some(vec![from(source)?]))
            .collect();
    }
    let Some(from) = from(SOURCES6) else {
        return Vec::new();
    };
    let of = |protocol| vec![from.clone(), ForeignSelector::IpProtocol(protocol)];
    let mut all = vec![of(ICMPV6)];
    for protocol in [TCP, UDP] {
        for ports in inbound::local_ports(inputs.config, &inputs.facts.sysctls).others() {
            let last = ports.last.min(LAST_PORT);
            if ports.first <= last {
                let mut selectors = of(protocol);
                selectors.push(ForeignSelector::SourcePorts(ports.first, last));
                all.push(selectors);
            }
        }
    }
    all
}

/// Marks the packets of flows that this host opens.
fn own(inputs: &Inputs, family: Family) -> Vec<FwRule> {
    let path = inputs.config.kernel.path_mask;
    let near = near(inputs, family);
    let unmarked = Match::PacketMark(Mark {
        value: 0,
        mask: path.0,
    });
    let rule = |flow| FwRule {
        family: Some(family),
        matches: vec![
            flow,
            unmarked.clone(),
            Match::DestinationNoneOf(near.clone()),
        ],
        verdict: Statement::SetPacketMark(path.shut()),
    };
    let mut rules = vec![rule(Match::OriginalDirection)];
    // Neighbour discovery is not tracked either, and stays on its link.
    rules.extend((family == Family::Ipv4).then(|| rule(Match::NotTracked)));
    rules
}
