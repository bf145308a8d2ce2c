//! Pinned flows that keep another path than a new flow would take.
//!
//! The question follows the firewall's own (`desired/pins.rs`). Host role: a flow of a gateway is
//! displaced if a new packet would have another next hop, and a bypass flow if the next hop would be a
//! gateway. A NAT has two paths and no gateways: a flow is displaced on the path that a new packet would
//! not take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{RouteDecision, table_text};
use crate::config::{Config, Role};
use crate::desired::EGRESS_OF_NAT;
use crate::objects::{Route, Rule, RuleAction};
use crate::observed::slots;
use crate::ownership::{Numbers, Ownership};
use crate::types::{Family, Mark, PerFamily, PinMarks, Slot, TableId};

/// The pins of a kernel: the tables of pinned flows that packets find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    marks: PinMarks,
    numbers: Numbers,
    configured: BTreeSet<IpAddr>,
    /// The gateway of each slot.
    gateways: PerFamily<BTreeMap<Slot, IpAddr>>,
    /// The next hops of bypass flows; `None` if nothing keeps a bypass flow on its path.
    bypass: PerFamily<Option<Vec<IpAddr>>>,
    /// NAT role: the same of egress flows.
    egress_of_nat: PerFamily<Option<Vec<IpAddr>>>,
    /// True if the firewall resets the forwarded connections with the mark of ended ones.
    pub resets_ended: bool,
}

/// The path of a pinned flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptPath<'a> {
    /// The next hops with an address.
    Bypass(&'a [IpAddr]),
    Gateway(IpAddr),
    /// NAT role: the next hops of the egress path.
    EgressOfNat(&'a [IpAddr]),
}

impl KeptPath<'_> {
    /// True for the bypass path.
    pub fn is_bypass(self) -> bool {
        matches!(self, KeptPath::Bypass(_))
    }

    /// The next hops with an address.
    pub fn gateways(self) -> Vec<IpAddr> {
        match self {
            KeptPath::Bypass(hops) | KeptPath::EgressOfNat(hops) => hops.to_vec(),
            KeptPath::Gateway(gateway) => vec![gateway],
        }
    }
}

/// The path of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewPath {
    Bypass,
    Egress,
    /// A route of another table.
    Other,
    /// The kernel refuses a new flow.
    Refused,
}

words!(NewPath {
    Bypass => "bypass",
    Egress => "egress",
    Other => "other",
    Refused => "refused",
});

/// The cause of a displacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    LeftBypass,
    EnteredBypass,
    /// The gateway is not in the settings.
    GatewayLeft,
    /// The gateway is in the settings, and the egress path leaves it out.
    GatewayUnused,
    OtherRoute,
    Refused,
}

words!(Why {
    LeftBypass => "left_bypass",
    EnteredBypass => "entered_bypass",
    GatewayLeft => "gateway_left",
    GatewayUnused => "gateway_unused",
    OtherRoute => "other_route",
    Refused => "refused",
});

/// The difference between a pinned flow and a new flow to the same destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displacement {
    pub why: Why,
    pub new_path: NewPath,
    /// The next hops of a new flow.
    pub gateways: Vec<IpAddr>,
    /// The route of a new flow.
    route: Option<(IpNet, TableId)>,
}

impl fmt::Display for Displacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.why {
            Why::LeftBypass => "prefix left the bypass table",
            Why::EnteredBypass => "prefix entered the bypass table",
            Why::GatewayLeft => "gateway left the settings",
            Why::GatewayUnused => "gateway is left out: new flows get another one",
            Why::Refused => "no path for new flows: the kernel refuses them",
            Why::OtherRoute => {
                return match self.route {
                    Some((prefix, table)) => {
                        let table = table_text(table);
                        write!(f, "route {prefix} of table {table} leads elsewhere")
                    }
                    None => f.write_str("another route leads elsewhere"),
                };
            }
        };
        f.write_str(text)
    }
}

impl Pins {
    /// The pins among routes and policy rules, those of the kernel or of a goal; `None` if the
    /// settings pin no flow.
    pub fn of(config: &Config, routes: &[Route], rules: &[Rule]) -> Option<Pins> {
        if !config.pins() {
            return None;
        }
        let numbers = Numbers::of(config);
        let ownership = Ownership::new(numbers, []);
        let leads_to = |family: Family, slot: Slot| {
            let table = numbers.pin_table(slot);
            let mut ours = rules.iter().filter(|rule| ownership.owns_rule(rule));
            ours.any(|rule| match rule.action {
                RuleAction::Lookup { table: found, .. } => {
                    rule.family == family && Some(found) == table
                }
                _ => false,
            })
        };
        let mut gateways = slots(routes, &ownership);
        for family in Family::ALL {
            let of_family = gateways.get_mut(family);
            of_family.retain(|slot, _| leads_to(family, *slot));
        }
        let through = |family: Family, slot: Slot| {
            let (table, default) = (numbers.pin_table(slot), family.default_prefix());
            let defaults = routes
                .iter()
                .filter(|route| Some(route.key.table) == table && route.key.dst == default);
            leads_to(family, slot).then(|| defaults.flat_map(hops).collect())
        };
        let is_nat = config.role == Some(Role::Nat);
        let egress = |family| through(family, EGRESS_OF_NAT).filter(|_| is_nat);
        Some(Pins {
            marks: config.kernel.pin_marks(),
            numbers,
            configured: config.egress.addresses().collect(),
            gateways,
            bypass: PerFamily::from_fn(|family| through(family, 0)),
            egress_of_nat: PerFamily::from_fn(egress),
            resets_ended: false,
        })
    }

    /// The gateways in the settings, each with the mark of its flows.
    pub fn gateways(&self, family: Family) -> Vec<(IpAddr, Mark)> {
        let slots = self.gateways.get(family).iter();
        let configured = slots.filter(|(_, gateway)| self.configured.contains(gateway));
        configured
            .map(|(slot, gateway)| (*gateway, self.marks.slot(*slot)))
            .collect()
    }

    /// The marks of flows and packets.
    pub fn marks(&self) -> PinMarks {
        self.marks
    }

    /// True if flows of the family keep their path.
    pub fn are_in(&self, family: Family) -> bool {
        let paths = [&self.bypass, &self.egress_of_nat];
        let mut paths = paths.into_iter().map(|path| path.get(family));
        paths.any(Option::is_some) || !self.gateways.get(family).is_empty()
    }

    /// The path of a flow with the mark of a slot, 0 for the bypass path; `None` if nothing keeps such
    /// a flow on its path.
    pub fn kept(&self, family: Family, slot: Slot) -> Option<KeptPath<'_>> {
        if slot == 0 {
            return self.bypass.get(family).as_deref().map(KeptPath::Bypass);
        }
        if let (EGRESS_OF_NAT, Some(hops)) = (slot, self.egress_of_nat.get(family)) {
            return Some(KeptPath::EgressOfNat(hops));
        }
        let gateway = self.gateways.get(family).get(&slot);
        gateway.copied().map(KeptPath::Gateway)
    }

    /// Compares a flow's path with the routing decision for a new flow to the same destination;
    /// `None` if the new flow would take the same path. Of several next hops of a decision a new flow
    /// may get any.
    pub fn displacement(
        &self,
        kept: KeptPath<'_>,
        decision: &RouteDecision,
    ) -> Option<Displacement> {
        let (new_path, gateways, route) = self.new_path(decision);
        let why = match (kept, new_path) {
            (_, NewPath::Refused) => Why::Refused,
            (KeptPath::Gateway(own), _) if gateways.contains(&own) => return None,
            (KeptPath::Gateway(own), NewPath::Egress) if self.configured.contains(&own) => {
                Why::GatewayUnused
            }
            (KeptPath::Gateway(_), NewPath::Egress) => Why::GatewayLeft,
            (KeptPath::Gateway(_), NewPath::Bypass) => Why::EnteredBypass,
            (KeptPath::Bypass(_), NewPath::Egress) => Why::LeftBypass,
            (KeptPath::EgressOfNat(_), NewPath::Bypass) => Why::EnteredBypass,
            (KeptPath::Bypass(_), NewPath::Bypass) => return None,
            (KeptPath::EgressOfNat(_), NewPath::Egress) => return None,
            (KeptPath::EgressOfNat(own), NewPath::Other) if own == gateways => return None,
            (KeptPath::Bypass(own), NewPath::Other) if own == gateways => return None,
            // On a host the main table, without its default, comes before the tables of pinned flows.
            (_, NewPath::Other) if !self.are_of_nat() && !is_default(route) => return None,
            // The firewall of a host leaves a bypass flow alone whose packets would meet no gateway.
            (KeptPath::Bypass(_), NewPath::Other)
                if !self.are_of_nat() && !self.meets_gateway(&gateways) =>
            {
                return None;
            }
            (_, NewPath::Other) => Why::OtherRoute,
        };
        Some(Displacement {
            why,
            new_path,
            gateways,
            route,
        })
    }

    /// The path of a new flow, its next hops and its route.
    fn new_path(
        &self,
        decision: &RouteDecision,
    ) -> (NewPath, Vec<IpAddr>, Option<(IpNet, TableId)>) {
        let RouteDecision::Route(route) = decision else {
            return (NewPath::Refused, Vec::new(), None);
        };
        let (table, dst) = (route.key.table, route.key.dst);
        let path = if !route.target.forwards() {
            NewPath::Refused
        } else if table == self.numbers.bypass_table {
            NewPath::Bypass
        } else if table == self.numbers.egress_table
            || self.are_of_nat() && Family::is_default(&dst)
        {
            NewPath::Egress
        } else {
            NewPath::Other
        };
        (path, hops(route), Some((dst, table)))
    }

    /// True for the pins of a NAT.
    pub fn are_of_nat(&self) -> bool {
        let mut families = Family::ALL.into_iter();
        families.any(|family| self.egress_of_nat.get(family).is_some())
    }

    fn meets_gateway(&self, hops: &[IpAddr]) -> bool {
        let slots = Family::ALL.map(|family| self.gateways.get(family).values());
        let mut known = slots.into_iter().flatten().chain(&self.configured);
        known.any(|gateway| hops.contains(gateway))
    }
}

/// The number of pinned flows on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowCount {
    pub pinned: u64,
    /// Those that would take another path as new flows.
    pub displaced: u64,
}

/// The numbers of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathCounts {
    pub bypass: FlowCount,
    pub egress: FlowCount,
}

/// The numbers of pinned flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// `None` for a family without pins.
    pub paths: PerFamily<Option<PathCounts>>,
    /// Host role: the flows of each gateway with at least one.
    pub gateways: BTreeMap<IpAddr, u64>,
}

impl Counts {
    /// No flow, in the families with pins.
    pub fn none(pins: &Pins) -> Counts {
        let count = |family| pins.are_in(family).then(PathCounts::default);
        Counts {
            paths: PerFamily::from_fn(count),
            gateways: BTreeMap::new(),
        }
    }

    /// True if a flow keeps another path than a new one would take.
    pub fn has_displaced(&self) -> bool {
        let mut counts = Family::ALL
            .into_iter()
            .filter_map(|family| self.paths.get(family).as_ref());
        counts.any(|paths| paths.bypass.displaced + paths.egress.displaced > 0)
    }

    /// Counts a flow.
    pub fn add(&mut self, family: Family, kept: KeptPath<'_>, displaced: bool) {
        if let KeptPath::Gateway(gateway) = kept {
            *self.gateways.entry(gateway).or_default() += 1;
        }
        let counts = self.paths.get_mut(family).get_or_insert_default();
        let count = match kept {
            KeptPath::Bypass(_) => &mut counts.bypass,
            KeptPath::Gateway(_) | KeptPath::EgressOfNat(_) => &mut counts.egress,
        };
        count.pinned += 1;
        count.displaced += u64::from(displaced);
    }
}

fn is_default(route: Option<(IpNet, TableId)>) -> bool {
    route.is_some_and(|(prefix, _)| Family::is_default(&prefix))
}

/// The next hops with an address.
fn hops(route: &Route) -> Vec<IpAddr> {
    let legs = route.target.legs();
    legs.iter().filter_map(|leg| leg.via.gateway).collect()
}

#[cfg(test)]
mod tests;
