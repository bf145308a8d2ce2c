//! Host role: pinned flows that keep another path than a new flow would take.
//!
//! The question follows the firewall's own (`desired/pins.rs`): a flow of a gateway is displaced if a
//! new packet would have another next hop, and a bypass flow if the next hop would be a gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{RouteDecision, table_text};
use crate::config::Config;
use crate::objects::{Route, Rule, RuleAction};
use crate::observed::slots;
use crate::ownership::{Numbers, Ownership};
use crate::types::{Family, PerFamily, PinMarks, Slot, TableId};

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
}

/// The path of a pinned flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptPath<'a> {
    /// The next hops with an address.
    Bypass(&'a [IpAddr]),
    Gateway(IpAddr),
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
        let through = |family: Family| {
            let default = family.default_prefix();
            let ours = routes.iter().filter(|route| {
                Some(route.key.table) == numbers.pin_table(0) && route.key.dst == default
            });
            ours.flat_map(hops).collect()
        };
        Some(Pins {
            marks: config.kernel.pin_marks(),
            numbers,
            configured: config.egress.gateways.iter().copied().collect(),
            gateways,
            bypass: PerFamily::from_fn(|family| leads_to(family, 0).then(|| through(family))),
        })
    }

    /// The marks of flows and packets.
    pub fn marks(&self) -> PinMarks {
        self.marks
    }

    /// True if flows of the family keep their path.
    pub fn are_in(&self, family: Family) -> bool {
        self.bypass.get(family).is_some() || !self.gateways.get(family).is_empty()
    }

    /// The path of a flow with the mark of a slot, 0 for the bypass path; `None` if nothing keeps such
    /// a flow on its path.
    pub fn kept(&self, family: Family, slot: Slot) -> Option<KeptPath<'_>> {
        if slot == 0 {
            return self.bypass.get(family).as_deref().map(KeptPath::Bypass);
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
        let (new_path, gateways, route) = match decision {
            RouteDecision::Route(route) => {
                let (table, hops) = (route.key.table, hops(route));
                let path = match table {
                    _ if !route.target.forwards() => NewPath::Refused,
                    _ if table == self.numbers.bypass_table => NewPath::Bypass,
                    _ if table == self.numbers.egress_table => NewPath::Egress,
                    _ => NewPath::Other,
                };
                (path, hops, Some((route.key.dst, table)))
            }
            RouteDecision::Errno(_) => (NewPath::Refused, Vec::new(), None),
        };
        let why = match (kept, new_path) {
            (_, NewPath::Refused) => Why::Refused,
            (KeptPath::Gateway(own), _) if gateways.contains(&own) => return None,
            (KeptPath::Gateway(own), NewPath::Egress) if self.configured.contains(&own) => {
                Why::GatewayUnused
            }
            (KeptPath::Gateway(_), NewPath::Egress) => Why::GatewayLeft,
            (KeptPath::Gateway(_), NewPath::Bypass) => Why::EnteredBypass,
            (KeptPath::Bypass(_), NewPath::Egress) => Why::LeftBypass,
            (KeptPath::Bypass(_), NewPath::Bypass) => return None,
            // The firewall leaves a bypass flow alone whose packets would meet no gateway.
            (KeptPath::Bypass(_), NewPath::Other) if !self.meets_gateway(&gateways) => {
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

    fn meets_gateway(&self, hops: &[IpAddr]) -> bool {
        let slots = Family::ALL.map(|family| self.gateways.get(family).values());
        let mut known = slots.into_iter().flatten().chain(&self.configured);
        known.any(|gateway| hops.contains(gateway))
    }
}

/// The next hops with an address.
fn hops(route: &Route) -> Vec<IpAddr> {
    let legs = route.target.legs();
    legs.iter().filter_map(|leg| leg.via.gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{RouteKey, RouteTarget, Via};
    use crate::types::{IfIndex, Metric, PathMask, Protocol, Realm};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pins() -> Pins {
        let slots = [(1, "10.0.1.10"), (2, "10.0.1.20"), (3, "10.0.1.30")];
        let slots = slots.map(|(slot, gateway)| (slot, address(gateway)));
        Pins {
            marks: PinMarks::new(PathMask(0x30), 0xe),
            numbers: Numbers::default(),
            configured: ["10.0.1.10", "10.0.1.20"].map(address).into(),
            gateways: PerFamily {
                ipv4: BTreeMap::from(slots),
                ipv6: BTreeMap::new(),
            },
            bypass: PerFamily {
                ipv4: Some(vec![address("10.0.1.1")]),
                ipv6: None,
            },
        }
    }

    fn decision(table: u32, hops: &[&str]) -> RouteDecision {
        let via = |hop: &&str| crate::objects::Leg {
            via: Via {
                gateway: Some(address(hop)),
                device: IfIndex(2),
                onlink: false,
            },
            weight: 1,
        };
        let target = RouteTarget::through(hops.iter().map(via).collect());
        RouteDecision::Route(Route {
            key: RouteKey {
                table: TableId(table),
                dst: "192.0.2.0/24".parse().unwrap(),
                tos: 0,
                metric: Metric(0),
            },
            target: target.unwrap_or(RouteTarget::Unreachable),
            realm: Realm(0),
            options: None,
            protocol: Protocol(83),
        })
    }

    #[test]
    fn displacement_names_the_cause() {
        const BYPASS: Slot = 0;
        let pins = pins();
        for (slot, decision, why) in [
            (BYPASS, decision(1083, &["10.0.1.1"]), None),
            // The bypass path has changed its gateway: the flow goes along.
            (BYPASS, decision(1083, &["10.0.1.2"]), None),
            (
                BYPASS,
                decision(1084, &["10.0.1.10"]),
                Some(Why::LeftBypass),
            ),
            (BYPASS, decision(254, &["10.0.1.7"]), None),
            (BYPASS, decision(254, &["10.0.1.30"]), Some(Why::OtherRoute)),
            (1, decision(1084, &["10.0.1.10"]), None),
            (1, decision(1084, &["10.0.1.10", "10.0.1.20"]), None),
            (1, decision(1084, &["10.0.1.20"]), Some(Why::GatewayUnused)),
            (3, decision(1084, &["10.0.1.20"]), Some(Why::GatewayLeft)),
            (1, decision(1083, &["10.0.1.1"]), Some(Why::EnteredBypass)),
            (1, decision(254, &["10.0.1.10"]), None),
            (1, decision(254, &["10.0.1.7"]), Some(Why::OtherRoute)),
            (1, decision(1084, &[]), Some(Why::Refused)),
            (BYPASS, RouteDecision::Errno(113), Some(Why::Refused)),
        ] {
            let kept = pins.kept(Family::Ipv4, slot).unwrap();
            let found = pins.displacement(kept, &decision);
            assert_eq!(
                found.map(|it| it.why),
                why,
                "slot {slot}, new flow by {decision:?}"
            );
        }
    }

    #[test]
    fn flows_without_a_table_are_not_kept() {
        let pins = pins();
        assert_eq!(pins.kept(Family::Ipv4, 4), None);
        assert_eq!(pins.kept(Family::Ipv6, 0), None);
        assert!(pins.are_in(Family::Ipv4) && !pins.are_in(Family::Ipv6));
    }
}
