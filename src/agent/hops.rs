//! Gateways and egress addresses for the status.

use std::net::IpAddr;

use super::Settings;
use crate::config::Role;
use crate::desired::{Presence, presence};
use crate::kernel::neighbour::Neighbour;
use crate::objects::{Leg, Route};
use crate::reconcile::InForce;
use crate::status::snapshot::{EgressAddressStatus, GatewayStatus};
use crate::types::{Family, IfIndex};

/// A gateway, with its link.
#[derive(Debug, Clone)]
pub(super) struct Hop {
    device: Option<IfIndex>,
    address: IpAddr,
    status: GatewayStatus,
}

impl Hop {
    fn new(path: &str, address: IpAddr, device: Option<IfIndex>, in_force: &InForce) -> Hop {
        Hop {
            device,
            address,
            status: GatewayStatus {
                path: path.to_owned(),
                family: Family::of(address),
                address: address.to_string(),
                device: device.map(|device| in_force.facts.device_name(device)),
                in_use: device.is_some(),
                neighbour: None,
            },
        }
    }

    /// The status with the kernel's present knowledge of the neighbour.
    pub fn status(&self, neighbours: &[Neighbour]) -> GatewayStatus {
        let same = |it: &&Neighbour| {
            it.address == self.address && self.device.is_none_or(|device| it.device == device)
        };
        let found = neighbours.iter().find(same);
        GatewayStatus {
            neighbour: found.map(|found| found.state),
            ..self.status.clone()
        }
    }
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
    let hop = |path, (address, device): (IpAddr, IfIndex)| {
        Hop::new(path, address, Some(device), in_force)
    };
    let bypass = bypass.into_iter().map(|it| hop("bypass", it));
    let egress = egress.into_iter().map(|it| hop("egress", it));
    let unused = unused.into_iter();
    let unused = unused.map(|address| Hop::new("egress", address, None, in_force));
    bypass.chain(egress).chain(unused).collect()
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
