//! Host role: the drop of packets to the internet on neither path (`[egress] enforce`).
//!
//! Routes and rules lead packets to their path, and a program may still lead them elsewhere: a flush of
//! the rules, a rule before ours, a socket bound to an interface (IPv6 passes over an unreachable route
//! then). So a chain after the last routing decision looks at packets that leave by an interface of the
//! paths:
//!
//! ```text
//! answers to clients outside, exempt sources, near destinations  → accept
//! marked for another path than the one by which it leaves        → count and drop
//! next hop is an egress gateway                                  → accept
//! IPv4: the route has the realm of the rule of the bypass table  → accept
//! IPv6: the bypass table has a route to the destination          → accept
//! other packets by these interfaces                              → count and drop
//! ```
//!
//! Most packets carry no mark and are on the path of their flow. The chain begins with the rules that
//! accept those, before the look-up of near destinations.
//!
//! The proof is the kernel's route and no list of prefixes, so that a new document changes no rule of the
//! firewall. IPv6 has no realms: the firewall asks the policy rules about the destination with two marks
//! that no packet carries outside of this chain. With the first mark every destination is unreachable:
//! the policy rules are there. With the second mark the bypass table decides.

mod in_place;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::counting::MOST_BESIDE;
use super::pins::Pins;
use super::shut::FR_ACT_UNREACHABLE;
use super::{DesiredState, EgressPath, Inputs, disjoint, gateway, inbound, lookup, place, rule};
use crate::config::{AutoOr, Exemption};
use crate::degraded::{Degradation, Part};
use crate::facts::MainRoute;
use crate::firewall::{DropReason, FwRule, Hook, Match, RouteKind, Ruleset, Statement};
use crate::objects::{BypassPath, Rule, RuleAction, Via};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex, PerFamily};

const NOTHING: &str = "[egress] enforce: there is nothing to enforce, since the settings leave the egress of each family open";

const OPEN: &str = "[egress] enforce = false: a flush of our rules, a rule of another program or a socket bound to an interface lets packets out past the egress gateways";

/// True if packets of the family on neither path are dropped.
pub(super) fn is_closed(inputs: &Inputs, family: Family, state: &DesiredState) -> bool {
    can_enforce(inputs, family).is_ok()
        && inputs.config.egress.enforces()
        && state.paths.get(family).egress != EgressPath::Main
}

/// The reason if the firewall cannot tell packets on neither path.
fn can_enforce(inputs: &Inputs, family: Family) -> Result<(), &'static str> {
    if is_by_realm(inputs) && family == Family::Ipv6 {
        return Err(
            "iptables cannot match the next hop, and the kernel takes no rules of nf_tables beside iptables",
        );
    }
    if inputs.config.kernel.gateway_mask.count_ones() < 2 {
        return Err("kernel.marks.gateway needs two bits");
    }
    Ok(())
}

/// True if only iptables is there: realms stand in for next hops.
pub(super) fn is_by_realm(inputs: &Inputs) -> bool {
    !inputs.backend.matches_next_hop() && !inputs.nf_tables_beside
}

/// The policy rules of the look-ups about IPv6 destinations.
pub(super) fn proof(inputs: &Inputs, numbers: &Numbers, family: Family) -> Vec<Rule> {
    if family == Family::Ipv4 {
        return Vec::new();
    }
    let marks = inputs.config.kernel.pin_marks();
    let unreachable = RuleAction::Other(FR_ACT_UNREACHABLE);
    let rules = [
        (marks.lookup_bypass(), lookup(numbers.bypass_table)),
        (marks.lookup_bypass(), unreachable.clone()),
        (marks.lookup_none(), unreachable),
    ];
    let rules = (place::PROOF..)
        .zip(rules)
        .map(|(at, (mark, action))| Rule {
            mark: Some(mark),
            ..rule(numbers, family, at, action)
        });
    rules.collect()
}

/// Adds the chain to the policy of a host.
pub(super) fn complete(
    inputs: &Inputs,
    numbers: &Numbers,
    pins: &PerFamily<Option<Pins>>,
    state: &mut DesiredState,
    policy: &mut Ruleset,
) {
    let asked = inputs.config.egress.enforce == AutoOr::Set(true);
    if !inputs.config.egress.enforces() {
        let of_ours = |family| state.paths.get(family).egress != EgressPath::Main;
        let open = Family::ALL
            .into_iter()
            .any(of_ours)
            .then(|| OPEN.to_owned());
        state.notes.extend(open);
        return;
    }
    if name_open(inputs, asked, state) {
        return;
    }
    let families = Family::ALL.into_iter();
    let closed: Vec<Family> = families
        .filter(|family| is_closed(inputs, *family, state))
        .collect();
    if closed.is_empty() {
        state.notes.extend(asked.then(|| NOTHING.to_owned()));
        return;
    }
    let mut passing = passing(inputs);
    if is_by_realm(inputs) {
        // A rule of both families would leave a chain without effect in ip6tables.
        passing = of_ipv4(passing);
    }
    let leaving = |family: &Family| Leaving {
        inputs,
        family: *family,
        bypass: state.paths.get(*family).bypass.as_ref(),
        pins: pins.get(*family).as_ref(),
    };
    let leaving: Vec<Leaving> = closed.iter().map(leaving).collect();
    let in_place = leaving.iter().flat_map(|it| it.in_place(numbers));
    let mut rules: Vec<FwRule> = in_place.chain(passing).collect();
    rules.extend(leaving.iter().flat_map(|it| it.rules(numbers)));
    policy.extend(Hook::PostroutingClosed, rules);
}

/// Names the families whose packets the firewall cannot tell. Returns true if no other family is there.
fn name_open(inputs: &Inputs, asked: bool, state: &mut DesiredState) -> bool {
    let closable = |family: &Family| state.paths.get(*family).egress != EgressPath::Main;
    let families: Vec<Family> = Family::ALL.into_iter().filter(closable).collect();
    let mut open = 0;
    for family in &families {
        let Err(reason) = can_enforce(inputs, *family) else {
            continue;
        };
        open += 1;
        let reason = format!(
            "{family}: packets on neither path are not dropped, and open flows are not pinned: {reason}"
        );
        if asked {
            let advice = "use a kernel with nf_tables, or remove the key enforce";
            let degraded = Degradation::new(Part::Egress, Some(*family), reason);
            state.degraded.push(degraded.with_advice(advice));
        } else {
            state.notes.push(reason);
        }
    }
    open > 0 && open == families.len()
}

/// The rules for IPv4.
fn of_ipv4(rules: Vec<FwRule>) -> Vec<FwRule> {
    let of_ipv6 = |condition: &Match| match condition {
        Match::Source(net) => Family::of_net(net) == Family::Ipv6,
        _ => false,
    };
    let rules = rules.into_iter();
    let rules = rules.filter(|rule| !rule.matches.iter().any(of_ipv6));
    let only = |rule| FwRule {
        family: Some(Family::Ipv4),
        ..rule
    };
    rules.map(only).collect()
}

/// The packets of both families that pass.
fn passing(inputs: &Inputs) -> Vec<FwRule> {
    let path = inputs.config.kernel.path_mask;
    let sources = inputs.config.egress.exempt.iter();
    let sources = sources.filter_map(|exemption| match exemption {
        Exemption::Source(net) => Some(Match::Source(*net)),
        Exemption::Interface(_) => None,
    });
    let marks = [
        Match::FlowMark(path.inbound()),
        Match::PacketMark(path.packet()),
    ];
    let passing = marks.into_iter().chain(sources);
    passing.map(|it| accept(None, vec![it])).collect()
}

fn accept(family: Option<Family>, matches: Vec<Match>) -> FwRule {
    FwRule {
        family,
        matches,
        verdict: Statement::Accept,
    }
}

/// The packets of one family that leave by an interface of the paths.
struct Leaving<'a> {
    inputs: &'a Inputs<'a>,
    family: Family,
    bypass: Option<&'a BypassPath>,
    pins: Option<&'a Pins>,
}

impl Leaving<'_> {
    fn rules(&self, numbers: &Numbers) -> Vec<FwRule> {
        let family = Some(self.family);
        let devices = self.devices();
        if devices.is_empty() {
            return Vec::new();
        }
        let mut rules = vec![accept(
            family,
            vec![Match::DestinationAnyOf(self.near(&devices))],
        )];
        rules.extend(self.astray(&devices));
        let egress = self.egress(numbers).into_iter();
        rules.extend(egress.map(|hop| accept(family, vec![hop])));
        if !is_by_realm(self.inputs) {
            rules.extend(self.pinned(&devices));
        }
        match self.by_bypass(numbers) {
            Some(realm) => rules.push(accept(family, vec![realm])),
            None if self.bypass.is_some() => rules.extend(self.prove(&devices)),
            None => {}
        }
        // By name and by number: an interface comes back with another number, and a rename keeps it.
        let facts = self.inputs.facts;
        let named = devices.iter().map(|device| facts.device_name(*device));
        let named = named.map(Match::OutputInterface);
        // No rule of iptables matches the number.
        let numbered = devices.iter().filter(|_| !is_by_realm(self.inputs));
        let numbered = numbered.copied().map(Match::OutputIndex);
        rules.extend(named.chain(numbered).map(|out| FwRule {
            family,
            matches: vec![out],
            verdict: Statement::DropCounted(DropReason::Closed),
        }));
        rules
    }

    /// The packets that the bypass table leads to their next hop; the others on that hop are dropped.
    fn prove(&self, devices: &BTreeSet<IfIndex>) -> Vec<FwRule> {
        let marks = self.inputs.config.kernel.pin_marks();
        let (none, bypass) = (marks.lookup_none(), marks.lookup_bypass());
        let rule = |matches: Vec<Match>, verdict| FwRule {
            family: Some(self.family),
            matches,
            verdict,
        };
        let hops = self.bypass_hops(devices);
        let mut rules: Vec<FwRule> = hops
            .iter()
            .map(|hop| rule(hop.clone(), Statement::SetPacketMark(none)))
            .collect();
        for (mark, kind, then) in [
            (none, RouteKind::Unreachable, bypass),
            (bypass, RouteKind::Unicast, marks.clear()),
        ] {
            let matches = vec![Match::PacketMark(mark), Match::DestinationByMark(kind)];
            rules.push(rule(matches, Statement::SetPacketMark(then)));
        }
        for hop in hops {
            for mark in [none, bypass] {
                let unproven = [hop.clone(), vec![Match::PacketMark(mark)]].concat();
                rules.push(rule(unproven, Statement::DropCounted(DropReason::Closed)));
            }
            rules.push(accept(Some(self.family), hop));
        }
        rules
    }

    /// The next hops of the bypass path.
    fn bypass_hops(&self, devices: &BTreeSet<IfIndex>) -> BTreeSet<Vec<Match>> {
        let vias = self.bypass.into_iter().flat_map(BypassPath::vias);
        let hop = |via: Via| {
            let of_family = |gateway: &IpAddr| Family::of(*gateway) == self.family;
            let gateway = via.gateway.filter(of_family).map(Match::NextHop);
            let out = [Match::OutputIndex(via.device)].into_iter();
            out.chain(gateway).collect()
        };
        vias.filter(|via| devices.contains(&via.device))
            .map(hop)
            .collect()
    }

    /// The packets of pinned flows on another path than their flow, while another program has taken the
    /// rule that leads them there: the peer would see another source and reset the connection.
    fn astray(&self, devices: &BTreeSet<IfIndex>) -> Vec<FwRule> {
        let astray = self.pins.map_or_else(Vec::new, Pins::astray);
        let by = |device: &IfIndex| {
            let out = if is_by_realm(self.inputs) {
                Match::OutputInterface(self.inputs.facts.device_name(*device))
            } else {
                Match::OutputIndex(*device)
            };
            let all = astray.iter().cloned();
            let all = all.map(move |matches| [matches, vec![out.clone()]].concat());
            all.collect::<Vec<_>>()
        };
        let all = devices.iter().flat_map(by);
        all.map(|matches| FwRule {
            family: Some(self.family),
            matches,
            verdict: Statement::DropCounted(DropReason::Closed),
        })
        .collect()
    }

    /// The packets of pinned flows: their first packet was on the path.
    fn pinned(&self, devices: &BTreeSet<IfIndex>) -> Vec<FwRule> {
        let Some(pins) = self.pins else {
            return Vec::new();
        };
        let by_bypass = self.pinned_bypass(pins, devices).into_iter();
        let by_slot = pins.draining().map(|(slot, gateway)| {
            let flow = Match::FlowMark(pins.marks.slot(slot));
            vec![Match::NextHop(gateway), flow]
        });
        let passing = by_bypass.chain(by_slot);
        passing
            .map(|matches| accept(Some(self.family), matches))
            .collect()
    }

    /// The interfaces of the paths and of the main table's default, without the exempt ones.
    fn devices(&self) -> BTreeSet<IfIndex> {
        let facts = self.inputs.facts;
        let gateways = self.inputs.config.egress.gateways_of(self.family);
        let draining = self.pins.into_iter().flat_map(Pins::draining);
        let draining = draining.map(|(_, gateway)| gateway);
        let gateways = gateways.into_iter().chain(draining);
        let through: Vec<Option<String>> = gateways
            .map(|gateway| gateway::egress_device(self.inputs, gateway))
            .collect();
        let lost = through.iter().any(Option::is_none);
        let names = through.into_iter().flatten();
        let through = names.filter_map(|name| facts.link_named(&name).map(|link| link.index));
        let default = facts.default_path(self.family, None);
        let paths = default.iter().chain(self.bypass);
        let mut devices: BTreeSet<IfIndex> = paths.flat_map(BypassPath::devices).collect();
        devices.extend(through);
        if lost || devices.is_empty() {
            devices.extend(self.unready());
        }
        let exempt = self.inputs.config.egress.exempt.iter();
        let exempt = exempt.filter_map(|exemption| match exemption {
            Exemption::Interface(name) => facts.link_named(name),
            Exemption::Source(_) => None,
        });
        for link in exempt {
            devices.remove(&link.index);
        }
        devices
    }

    /// The interfaces without carrier or address: a default may come back with them before a pass does.
    fn unready(&self) -> impl Iterator<Item = IfIndex> {
        let facts = self.inputs.facts;
        let links = facts.links.iter();
        let links = links.filter(move |link| !link.loopback && !facts.is_ready(link, self.family));
        links.map(|link| link.index)
    }

    /// The destinations that the main table decides about: private networks, the VPC, connected networks
    /// and the administrator's own routes.
    fn near(&self, devices: &BTreeSet<IfIndex>) -> Vec<IpNet> {
        let (facts, family) = (self.inputs.facts, self.family);
        let own = |route: &&MainRoute| route.device.is_some_and(|it| devices.contains(&it));
        let beside = facts.narrow_routes(family).filter(own);
        let beside = beside.map(|route| route.dst.trunc()).take(MOST_BESIDE);
        let inside = devices
            .iter()
            .flat_map(|device| inbound::inside(self.inputs, family, *device));
        let mut near: Vec<IpNet> = inside.chain(beside).collect();
        if family == Family::Ipv4 {
            // DHCP.
            near.push(IpNet::from(IpAddr::from(std::net::Ipv4Addr::BROADCAST)));
        }
        disjoint(near)
    }
}
