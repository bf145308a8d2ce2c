//! Gateways and egress addresses for the status.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::Settings;
use super::drains::Drains;
use super::meter::Reading;
use super::shared::Probed;
use super::ways::{Ways, uplink};
use crate::config::{Role, Spread};
use crate::desired::{Presence, presence};
use crate::health::{State, WayId, Why};
use crate::kernel::neighbour::Neighbour;
use crate::objects::{Leg, Route};
use crate::reconcile::InForce;
use crate::status::snapshot::{
    DrainStatus, EgressAddressStatus, EndedStatus, GatewayStatus, HealthStatus, QualityStatus,
    TrafficStatus,
};
use crate::types::{Family, IfIndex, PIN_TABLES};
use crate::words::Words as _;

/// The path of storage traffic, in the status.
const BYPASS: &str = "bypass";

/// An uplink is dead after this time without any answer.
const DARK_FOR: Duration = Duration::from_secs(2);

/// A gateway, with its link.
#[derive(Debug, Clone)]
pub(super) struct Hop {
    device: Option<IfIndex>,
    address: IpAddr,
    way: WayId,
    status: GatewayStatus,
}

impl Hop {
    fn new(path: &str, address: IpAddr, device: Option<IfIndex>, in_force: &InForce) -> Hop {
        Hop {
            device,
            address,
            way: match path {
                BYPASS => WayId::Bypass(Family::of(address)),
                _ => WayId::Gateway(address),
            },
            status: GatewayStatus {
                path: path.to_owned(),
                family: Family::of(address),
                address: address.to_string(),
                device: device.map(|device| in_force.facts.device_name(device)),
                in_use: device.is_some(),
                reserve: false,
                neighbour: None,
                health: None,
                drained: None,
                flows: None,
                ended: None,
            },
        }
    }

    /// The status with what is known at present.
    pub fn status(&self, known: &Known<'_>) -> GatewayStatus {
        let same = |it: &&Neighbour| {
            it.address == self.address && self.device.is_none_or(|device| it.device == device)
        };
        let found = known.reading.neighbours.iter().find(same);
        let is_egress = self.status.path == "egress";
        let health = known.probed.and_then(|it| health(it, self.way));
        let ended = known.ended.get(&self.way).copied();
        let ended = ended.or(health.as_ref().map(|_| EndedStatus::default()));
        let drain = known.drains.of(self.address).filter(|_| is_egress);
        let flows = known.reading.on_gateways.as_ref().filter(|_| is_egress);
        GatewayStatus {
            neighbour: found.map(|found| found.state),
            health,
            drained: drain.map(|drain| DrainStatus {
                since: drain.since,
                since_s: Timestamp::now()
                    .as_second()
                    .saturating_sub(drain.since)
                    .try_into()
                    .unwrap_or_default(),
                by: drain.by.clone(),
            }),
            ended,
            flows: flows.map(|flows| flows.get(&self.address).copied().unwrap_or_default()),
            ..self.status.clone()
        }
    }
}

/// The present knowledge about gateways.
pub(super) struct Known<'a> {
    /// The kernel's neighbours and pinned flows.
    pub reading: &'a Reading,
    /// The verdicts of the probes.
    pub probed: Option<&'a Probed>,
    pub drains: &'a Drains,
    /// The flows that the agent has ended.
    pub ended: &'a BTreeMap<WayId, EndedStatus>,
}

fn health(probed: &Probed, way: WayId) -> Option<HealthStatus> {
    let mut ways = probed.ways.iter();
    let found = ways.find(|found| found.way == way)?;
    let age = probed.start.elapsed().saturating_sub(found.since);
    let micros = |time: Option<Duration>| time.and_then(|time| time.as_micros().try_into().ok());
    // No other way of a NAT shows that the servers live, but they have answered before.
    let uplink = matches!(way, WayId::Uplink(_));
    let dead = uplink && found.why == Why::Dark && age >= DARK_FOR && found.latency.is_some();
    let state = if dead { State::Down } else { found.state };
    Some(HealthStatus {
        state: state.word().to_owned(),
        usable: found.in_use && !dead,
        since_s: age.as_secs(),
        why: found.why.to_string(),
        held_for_s: found
            .held_until
            .map(|end| end.saturating_sub(probed.start.elapsed()).as_secs()),
        latency_us: micros(found.latency),
        quality: QualityStatus {
            probes: found.quality.probes,
            lost: found.quality.lost,
            p50_us: micros(found.quality.p50),
            p99_us: micros(found.quality.p99),
        },
        traffic: probed.traffic.get(&found.way).map(|traffic| TrafficStatus {
            out: traffic.out,
            back: traffic.back,
        }),
    })
}

/// The gateways of both paths: those of the routes in force, and those of the settings that are
/// left out.
pub(super) fn gateways(in_force: &InForce, settings: &Settings) -> Vec<Hop> {
    let numbers = in_force.ownership.current;
    let legs = |table| {
        let routes = in_force.goal.routes.iter();
        let of_table = routes.filter(move |route: &&Route| route.key.table == table);
        let legs = of_table.flat_map(|route| route.target.legs());
        let mut hops: Vec<(IpAddr, IfIndex)> = legs
            .filter_map(|Leg { via, .. }| Some((via.gateway?, via.device)))
            .collect();
        hops.sort();
        hops.dedup();
        hops
    };
    let bypass = legs(numbers.bypass_table);
    let egress = legs(numbers.egress_table);
    let unused = settings.config.egress.addresses();
    let unused = unused.filter(|gateway| !egress.iter().any(|(used, _)| used == gateway));
    let unused: Vec<IpAddr> = unused.collect();
    // The path of pinned flows, or without pins the setting, tells a gateway in reserve from one that no
    // route can lead to.
    let pinned: Vec<IpAddr> = (0..PIN_TABLES)
        .filter_map(|slot| numbers.pin_table(slot))
        .flat_map(legs)
        .map(|(address, _)| address)
        .collect();
    let replaced = |address: IpAddr| {
        let family = Family::of(address);
        egress.iter().any(|(used, _)| Family::of(*used) == family)
    };
    let can_lead = |address: IpAddr| match settings.config.pins() {
        true => pinned.contains(&address),
        false => settings.config.egress.spread != Spread::Flow,
    };
    let is_reserve = |address: IpAddr| replaced(address) && can_lead(address);
    let hop = |path, (address, device): (IpAddr, IfIndex)| {
        Hop::new(path, address, Some(device), in_force)
    };
    let unused = unused.into_iter().map(|address| {
        let mut hop = Hop::new("egress", address, None, in_force);
        hop.status.reserve = is_reserve(address);
        hop
    });
    let unused: Vec<Hop> = unused.collect();
    let bypass = bypass.into_iter().map(|it| {
        let mut hop = hop(BYPASS, it);
        let status = &mut hop.status;
        status.in_use = leads_to_bypass(in_force, status.family);
        status.reserve = !status.in_use;
        hop
    });
    let egress = egress.into_iter().map(|it| hop("egress", it));
    bypass.chain(egress).chain(unused).collect()
}

/// False while storage traffic takes the egress path.
pub(super) fn leads_to_bypass(in_force: &InForce, family: Family) -> bool {
    let bypass = in_force.ownership.current.bypass_table;
    let mut rules = in_force.goal.rules.iter();
    rules.any(|rule| rule.family == family && rule.leads_to(|table| table == bypass))
}

/// The probed uplinks of a NAT.
pub(super) fn uplinks(in_force: &InForce, ways: &Ways) -> Vec<Hop> {
    let judged = |family: &Family| ways.judges(WayId::Uplink(*family));
    let uplink = |family| {
        let (address, device) = uplink(in_force, family)?;
        let way = WayId::Uplink(family);
        let hop = Hop::new("egress", address, Some(device), in_force);
        ways.marks.get(&way).map(|_| Hop { way, ..hop })
    };
    let families = Family::ALL.into_iter().filter(judged);
    families.filter_map(uplink).collect()
}

/// The egress addresses of a NAT.
pub(super) fn egress_addresses(
    in_force: &InForce,
    settings: &Settings,
) -> Vec<EgressAddressStatus> {
    if settings.role != Role::Nat {
        return Vec::new();
    }
    let addresses = settings.config.nat.egress_addresses.iter();
    let status = |address: &IpAddr| {
        let (state, own) = match presence(&in_force.facts, *address) {
            Presence::Here(own) => ("here", Some(own)),
            Presence::Later(own) => ("standby", Some(own)),
            Presence::Unknown => ("missing", None),
        };
        EgressAddressStatus {
            address: address.to_string(),
            own: own.map(|own| own.to_string()),
            state: state.to_owned(),
        }
    };
    addresses.map(status).collect()
}
