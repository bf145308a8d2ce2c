//! The ways out of this host that are probed, by the state in force.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Settings;
use crate::config::{Role, Target};
use crate::desired::{EGRESS_OF_NAT, Presence, presence};
use crate::health::{Group, Terms, WayId};
use crate::judge::{KeptPath, Pins};
use crate::objects::RuleAction;
use crate::plan::{Action, Step};
use crate::reconcile::InForce;
use crate::types::{Family, IfIndex, Mark, PinMarks};

/// The marks of one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WayMarks {
    /// Of packets that the policy rules lead there: of probes.
    pub packet: Mark,
    /// Of the flows on the way; `None` if no flow has a mark of its way.
    pub flow: Option<Mark>,
    /// The address that probes leave with; `None` for one of the kernel's choice.
    pub source: Option<IpAddr>,
}

impl From<Mark> for WayMarks {
    fn from(mark: Mark) -> WayMarks {
        WayMarks {
            packet: mark,
            flow: Some(mark),
            source: None,
        }
    }
}

/// The ways in force, and how to probe them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ways {
    pub marks: BTreeMap<WayId, WayMarks>,
    /// The marks of the slots; `None` without pins.
    pub slots: Option<PinMarks>,
    /// The mark with which the firewall resets forwarded connections.
    pub reset: Option<Mark>,
    /// The flows are those of other hosts.
    pub forwards: bool,
    /// The time after a change of the bypass path in which one failed round ends its use.
    pub settle: Duration,
    pub terms: Terms,
    /// The servers of each group that is probed.
    pub targets: BTreeMap<Group, Vec<Target>>,
}

impl Ways {
    /// The ways to probe; `None` where probes would change nothing: a family with one gateway keeps it
    /// whatever the probes say.
    pub fn of(in_force: &InForce, pins: Option<&Pins>, settings: &Settings) -> Option<Ways> {
        let probe = &settings.config.probe;
        let mut ways = Ways {
            marks: BTreeMap::new(),
            slots: pins.map(Pins::marks),
            reset: pins
                .filter(|pins| pins.resets_ended)
                .map(|pins| pins.marks().ended_flow()),
            forwards: settings.role == Role::Nat,
            settle: probe.settle,
            terms: Terms::from(probe),
            targets: BTreeMap::new(),
        };
        for family in Family::ALL.into_iter().filter(|_| probe.enabled) {
            match (settings.role, pins) {
                (Role::Host, Some(pins)) => ways.add_gateways(family, pins, settings),
                (Role::Host, None) => {}
                (Role::Nat, pins) => ways.add_uplink(family, pins, in_force, settings),
            }
            if let Some(pins) = pins {
                ways.add_bypass(family, pins, in_force, settings);
            }
        }
        ways.marks.retain(|way, _| {
            let served = |group| ways.targets.contains_key(&group);
            let family = way.family();
            served(Group::Egress(family)) || served(Group::Bypass(family))
        });
        (!ways.marks.is_empty()).then_some(ways)
    }

    fn add_gateways(&mut self, family: Family, pins: &Pins, settings: &Settings) {
        let gateways = pins.gateways(family);
        let targets = &settings.config.probe.targets;
        if gateways.len() > 1 && !targets.is_empty() {
            self.targets.insert(Group::Egress(family), targets.clone());
        }
        let marked = |(gateway, mark): (IpAddr, Mark)| (WayId::Gateway(gateway), mark.into());
        self.marks.extend(gateways.into_iter().map(marked));
    }

    /// The uplink of a NAT, by the rule of its pinned flows where it has one, else by the main table.
    fn add_uplink(
        &mut self,
        family: Family,
        pins: Option<&Pins>,
        in_force: &InForce,
        settings: &Settings,
    ) {
        let targets = &settings.config.probe.targets;
        let addresses = settings.config.nat.egress_addresses.iter();
        let here = |address: &IpAddr| match presence(&in_force.facts, *address) {
            Presence::Here(own) => Some(own),
            Presence::Later(_) | Presence::Unknown => None,
        };
        // Partners see the egress address alone: the probes leave with the address of the clients.
        let mut sources = addresses.filter_map(here);
        let source = sources.find(|address| Family::of(*address) == family);
        if source.is_none() || targets.is_empty() || uplink(in_force, family).is_none() {
            return;
        }
        let slot = pins.filter(|pins| {
            let kept = pins.kept(family, EGRESS_OF_NAT);
            matches!(kept, Some(KeptPath::EgressOfNat(_)))
        });
        let main = WayMarks {
            packet: Mark { value: 0, mask: 0 },
            flow: None,
            source,
        };
        let marks = slot.map_or(main, |pins| WayMarks {
            source,
            ..pins.marks().slot(EGRESS_OF_NAT).into()
        });
        self.targets.insert(Group::Egress(family), targets.clone());
        self.marks.insert(WayId::Uplink(family), marks);
    }

    /// The bypass path, where storage traffic could take another one.
    fn add_bypass(&mut self, family: Family, pins: &Pins, in_force: &InForce, settings: &Settings) {
        let marks = pins.marks();
        let mut others = self.marks.iter();
        let elsewhere = others.any(|(way, to)| way.family() == family && to.flow.is_some());
        let numbers = in_force.ownership.current;
        let mut routes = in_force.goal.routes.iter();
        let leads = routes.any(|route| {
            route.key.family() == family
                && Some(route.key.table) == numbers.pin_table(0)
                && route.target.forwards()
        });
        let some = *in_force.bypass_routes().get(family) > 0;
        let instance = in_force.facts.instance.as_ref();
        let own = instance.and_then(|it| it.region.as_ref());
        let targets = settings.config.bypass_targets(own);
        let kept = matches!(pins.kept(family, 0), Some(KeptPath::Bypass(_)));
        if elsewhere && leads && some && kept && !targets.is_empty() {
            let marks = WayMarks {
                packet: marks.bypass_packet(),
                flow: Some(marks.bypass_flow()),
                source: None,
            };
            self.targets.insert(Group::Bypass(family), targets);
            self.marks.insert(WayId::Bypass(family), marks);
        }
    }

    /// True if probes judge the way: a single gateway serves as a comparison alone.
    pub fn judges(&self, way: WayId) -> bool {
        self.targets.contains_key(&Group::of(way))
    }
}

/// The next hop of a NAT's egress path: that of pinned flows, else the main default.
pub(super) fn uplink(in_force: &InForce, family: Family) -> Option<(IpAddr, IfIndex)> {
    let table = in_force.ownership.current.pin_table(EGRESS_OF_NAT);
    let routes = in_force.goal.routes.iter();
    let pinned = routes
        .filter(|route| Some(route.key.table) == table && route.key.dst == family.default_prefix());
    let pinned = pinned.flat_map(|route| route.target.legs()).next();
    let via = match pinned {
        Some(leg) => leg.via,
        None => in_force.facts.default_path(family, None)?.first(),
    };
    Some((via.gateway?, via.device))
}

/// True if a step leads more packets of a family to the bypass path, or leads them elsewhere on it.
pub(super) fn changes_bypass(steps: &[Step], family: Family, in_force: &InForce) -> bool {
    let ownership = &in_force.ownership;
    let pinned = ownership.current.pin_table(0);
    let is_bypass = |table| ownership.is_bypass_table(table) || Some(table) == pinned;
    steps.iter().any(|step| match step {
        Step::Route { action, route, .. } => {
            let key = route.key;
            *action != Action::Delete && key.family() == family && is_bypass(key.table)
        }
        Step::Rule { action, rule } => {
            let lookup =
                matches!(rule.action, RuleAction::Lookup { table, .. } if is_bypass(table));
            *action != Action::Delete && rule.family == family && lookup
        }
        _ => false,
    })
}
