//! Flows that keep the path of their first packet (`[egress] pin`).
//!
//! ```text
//! count       first packet by the gateway of a slot, or by the bypass path  → flow mark, for good
//! output      flow of a slot, and the next hop is another one               → packet mark
//!             bypass flow, and the next hop is an egress gateway            → packet mark
//! prerouting  forwarded packet of such a flow                               → packet mark
//! rules       packet mark                                                   → table of the slot
//! ```
//!
//! The kernel routes a packet again whose mark changes in `output`. Only packets that would take another
//! path than their flow are marked, so that the packets of all other flows are routed once. Those leave
//! the chain by its first rules: most packets of a host belong to flows that are on their path.
//!
//! A slot belongs to the address of a gateway, for as long as the gateway is configured or flows carry
//! its mark. The slots are read from the tables themselves: each has a `throw` for the address of its
//! gateway, which stays when the link goes down.

mod ended;
mod first;
mod in_place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::realm::{self, Realms};
use super::{DesiredState, Inputs, WORST_METRIC, gateway, lookup, metric, place, route, rule};
use crate::config::Exemption;
use crate::firewall::{FwRule, Hook, Match, Ruleset, Statement};
use crate::objects::{BypassPath, Route, RouteTarget};
use crate::ownership::Numbers;
use crate::types::{Family, Mark, PinMarks, Realm, Slot};

/// The slot of the egress path of a NAT, which has no gateways.
pub const EGRESS_OF_NAT: Slot = 1;

/// The rule that gives packets of flows with a mark the mark that leads to their path.
pub(super) fn marking(
    marks: PinMarks,
    family: Family,
    (flow, packet): (Mark, Mark),
    matches: Vec<Match>,
) -> FwRule {
    let mut all = vec![Match::FlowMark(flow)];
    all.extend(matches);
    // A marked packet has a path of its own. Answers find their way by the main table.
    all.extend([Match::PacketMark(marks.clear()), Match::OriginalDirection]);
    FwRule {
        family: Some(family),
        matches: all,
        verdict: Statement::SetPacketMark(packet),
    }
}

/// The pins of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pins {
    pub(super) marks: PinMarks,
    family: Family,
    /// True if all rules lie in nf_tables, which counts the directions of each way.
    pub(super) in_nftables: bool,
    /// True if the rules lie in nf_tables beside iptables, which cannot match the next hop.
    pub(super) beside_iptables: bool,
    /// The realms that stand in for next hops, which iptables cannot match.
    realms: Option<Realms>,
    /// True if the agent may end flows by their mark. Only nf_tables has a place for the rules.
    ends_flows: bool,
    slots: BTreeMap<Slot, IpAddr>,
    /// The slot of egress flows through no gateway with a slot; 0 for none.
    other: Slot,
    configured: BTreeSet<IpAddr>,
    place: u32,
    /// Networks that the main table decides about.
    thrown: Vec<IpNet>,
}

impl Pins {
    /// The pins of a family whose packets are on one of the paths for certain.
    pub(super) fn of(
        inputs: &Inputs,
        family: Family,
        realms: Option<Realms>,
        notes: &mut Vec<String>,
    ) -> Pins {
        let config = &inputs.config.egress;
        let marks = inputs.config.kernel.pin_marks();
        let configured: BTreeSet<IpAddr> = config.gateways_of(family).into_iter().collect();
        let mut slots = inputs.slots.gateways.get(family).clone();
        let in_use = inputs.slots.in_use.get(family);
        slots.retain(|slot, gateway| configured.contains(gateway) || in_use.contains(slot));
        for gateway in &configured {
            if slots.values().any(|known| known == gateway) {
                continue;
            }
            let free = (1..=marks.slots()).find(|slot| !slots.contains_key(slot));
            match free {
                Some(slot) => drop(slots.insert(slot, *gateway)),
                None => notes.push(format!(
                    "{family}: kernel.marks.gateway has room for {} gateways with pinned flows: flows through {gateway} are not pinned",
                    marks.slots()
                )),
            }
        }
        Pins {
            marks,
            family,
            in_nftables: inputs.backend.matches_next_hop(),
            beside_iptables: !inputs.backend.matches_next_hop() && realms.is_none(),
            realms,
            ends_flows: inputs.config.probe.is_active() && realms.is_none(),
            slots,
            other: 0,
            configured,
            place: place::PINS,
            thrown: Vec::new(),
        }
    }

    /// The pins of a family of a NAT.
    pub(super) fn of_nat(inputs: &Inputs, family: Family, private: &[IpNet]) -> Pins {
        Pins {
            marks: inputs.config.kernel.pin_marks(),
            family,
            in_nftables: inputs.backend.matches_next_hop(),
            beside_iptables: false,
            realms: None,
            ends_flows: false,
            slots: BTreeMap::new(),
            other: EGRESS_OF_NAT,
            configured: BTreeSet::new(),
            place: place::PINS_OF_NAT,
            thrown: private.to_vec(),
        }
    }

    /// The slots whose gateway left the settings and still has open flows.
    pub(super) fn draining(&self) -> impl Iterator<Item = (Slot, IpAddr)> {
        let slots = self.slots.iter();
        slots
            .filter(|(_, gateway)| !self.configured.contains(gateway))
            .map(|(slot, gateway)| (*slot, *gateway))
    }

    /// Leaves out the sources that `[egress] exempt` lets pass: their path is another program's.
    pub(super) fn without_exempt(&self, inputs: &Inputs) -> Vec<Match> {
        let exempt = inputs.config.egress.exempt.iter();
        let sources = exempt.filter_map(|exemption| match exemption {
            Exemption::Source(net) if Family::of_net(net) == self.family => {
                Some(Match::NotSource(*net))
            }
            _ => None,
        });
        sources.collect()
    }

    /// Adds the tables and the rules that lead to them.
    pub(super) fn complete(&self, inputs: &Inputs, numbers: &Numbers, state: &mut DesiredState) {
        let bypass = state.paths.get(self.family).bypass.clone();
        state.paths.get_mut(self.family).slots = Some(self.slots.clone());
        self.path(numbers, 0, bypass.as_ref(), state);
        for (slot, gateway) in &self.slots {
            self.table(numbers, *slot, state);
            let via = gateway::egress(inputs, *gateway).ok();
            let through = via.map(RouteTarget::Via);
            state.routes.extend(self.default(numbers, *slot, through));
            let label = IpNet::from(*gateway);
            state.routes.extend(numbers.pin_table(*slot).map(|table| {
                route(
                    numbers,
                    table,
                    label,
                    metric(self.family),
                    RouteTarget::Throw,
                )
            }));
        }
    }

    /// Adds the tables of a NAT: the bypass path, and the default of the egress path.
    pub(super) fn complete_nat(
        &self,
        numbers: &Numbers,
        egress: Option<&BypassPath>,
        state: &mut DesiredState,
    ) {
        let bypass = state.paths.get(self.family).bypass.clone();
        state.paths.get_mut(self.family).slots = Some(BTreeMap::new());
        self.path(numbers, 0, bypass.as_ref(), state);
        self.path(numbers, EGRESS_OF_NAT, egress, state);
    }

    /// Adds the table of a path.
    fn path(
        &self,
        numbers: &Numbers,
        slot: Slot,
        path: Option<&BypassPath>,
        state: &mut DesiredState,
    ) {
        self.table(numbers, slot, state);
        let options = path.and_then(|path| path.options.clone());
        let target = path.map(BypassPath::target);
        let default = self.default(numbers, slot, target);
        state
            .routes
            .extend(default.map(|route| Route { options, ..route }));
    }

    fn default(
        &self,
        numbers: &Numbers,
        slot: Slot,
        through: Option<RouteTarget>,
    ) -> Option<Route> {
        let family = self.family;
        let table = numbers.pin_table(slot)?;
        let default = family.default_prefix();
        // On the route alone: see `by_realm`.
        let realm = match (slot, self.realms) {
            (0, _) => (family == Family::Ipv4).then(|| realm::of(numbers)),
            (slot, realms) => realms.map(|realms| realms.slot(slot)),
        };
        Some(Route {
            realm: realm.unwrap_or(Realm(0)),
            ..route(numbers, table, default, metric(family), through?)
        })
    }

    /// The rule of a slot, and the routes of its table besides the default: a pinned flow never falls
    /// through to another path, and the way back to a private source is the main table's.
    fn table(&self, numbers: &Numbers, slot: Slot, state: &mut DesiredState) {
        let family = self.family;
        let Some(table) = numbers.pin_table(slot) else {
            return;
        };
        let refusal = RouteTarget::Unreachable;
        state.routes.push(route(
            numbers,
            table,
            family.default_prefix(),
            WORST_METRIC,
            refusal,
        ));
        let throw = |prefix: &IpNet| {
            let target = RouteTarget::Throw;
            route(numbers, table, *prefix, metric(family), target)
        };
        state.routes.extend(self.thrown.iter().map(throw));
        let mut rule = rule(numbers, family, self.place, lookup(table));
        rule.mark = Some(match slot {
            0 => self.marks.bypass_packet(),
            slot => self.marks.slot(slot),
        });
        state.rules.push(rule);
    }

    /// The realm of routes through a gateway; `None` without a slot.
    pub(super) fn realm_of(&self, gateway: IpAddr) -> Option<Realm> {
        let mut slots = self.slots.iter();
        let slot = slots.find(|(_, known)| **known == gateway);
        slot.and_then(|(slot, _)| Some(self.realms?.slot(*slot)))
    }

    /// The realms of all slots.
    pub(super) fn realms_of_slots(&self) -> impl Iterator<Item = Realm> {
        let realms = self.realms.into_iter();
        realms.flat_map(|realms| self.slots.keys().map(move |slot| realms.slot(*slot)))
    }

    /// Matches packets through the gateway of a slot.
    fn through(&self, slot: Slot, gateway: IpAddr) -> Match {
        match self.realms {
            Some(realms) => Match::Realm(realms.slot(slot)),
            None => Match::NextHop(gateway),
        }
    }

    /// Matches packets through no gateway of the slot.
    fn elsewhere(&self, slot: Slot, gateway: IpAddr) -> Match {
        match self.realms {
            Some(realms) => Match::NotRealm(realms.slot(slot)),
            None => Match::NotNextHop(gateway),
        }
    }

    /// Matches packets by the egress path.
    fn egress(&self) -> BTreeSet<Match> {
        if let Some(realms) = self.realms {
            let all = std::iter::once(realms.egress()).chain(self.realms_of_slots());
            return all.map(Match::Realm).collect();
        }
        let gateways = self.slots.values().chain(&self.configured);
        gateways.copied().map(Match::NextHop).collect()
    }

    /// Adds the rules that mark packets of flows that would take another path.
    pub(super) fn mark(&self, policy: &mut Ruleset) {
        let (prerouting, output) = if self.beside_iptables {
            (Hook::PreroutingPin, Hook::OutputPin)
        } else {
            (Hook::Prerouting, Hook::OutputReroute)
        };
        policy.extend(prerouting, self.forwarded());
        policy.extend(output, self.displaced());
        if !self.beside_iptables {
            policy.lead(output, self.in_place());
        }
    }

    /// Flow mark and packet mark of each slot, and of the bypass path; for a slot with the match of
    /// packets on another path.
    fn of_flows(&self) -> impl Iterator<Item = (Mark, Mark, Option<Match>)> {
        let bypass = (self.marks.bypass_flow(), self.marks.bypass_packet(), None);
        let slot = |(slot, gateway): (&Slot, &IpAddr)| {
            let mark = self.marks.slot(*slot);
            (mark, mark, Some(self.elsewhere(*slot, *gateway)))
        };
        let other = (self.other != 0).then(|| {
            let mark = self.marks.slot(self.other);
            (mark, mark, None)
        });
        let slots = self.slots.iter().map(slot);
        std::iter::once(bypass).chain(other).chain(slots)
    }

    fn rule(&self, flow: Mark, packet: Mark, matches: Vec<Match>) -> FwRule {
        marking(self.marks, self.family, (flow, packet), matches)
    }

    /// The marked packets that leave by another path than their flow.
    pub(super) fn astray(&self) -> Vec<Vec<Match>> {
        let by = |mark, hop| vec![Match::PacketMark(mark), hop];
        let bypass = self.marks.bypass_packet();
        let bypass = self.egress().into_iter().map(|hop| by(bypass, hop));
        let slots = self.slots.iter();
        let slots = slots.map(|(slot, gateway)| {
            let elsewhere = self.elsewhere(*slot, *gateway);
            by(self.marks.slot(*slot), elsewhere)
        });
        bypass.chain(slots).collect()
    }

    fn displaced(&self) -> Vec<FwRule> {
        let egress = self.egress();
        let mut rules = self.begun_anew();
        for (flow, packet, elsewhere) in self.of_flows() {
            match elsewhere {
                Some(elsewhere) => rules.push(self.rule(flow, packet, vec![elsewhere])),
                // The bypass path may have several next hops, or none with an address.
                None => rules.extend(
                    egress
                        .iter()
                        .map(|other| self.rule(flow, packet, vec![other.clone()])),
                ),
            }
        }
        rules
    }

    /// Forwarded packets are routed once, so that the mark must be there before.
    pub(super) fn forwarded(&self) -> Vec<FwRule> {
        let outside = || vec![Match::NotInputInterface("lo".to_owned())];
        let flows = self.of_flows();
        let marked = flows.map(|(flow, packet, _)| self.rule(flow, packet, outside()));
        self.begun_anew().into_iter().chain(marked).collect()
    }
}
