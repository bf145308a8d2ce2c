//! The route of an address in a route table, by the rules of "How Amazon VPC handles route
//! priority": the longest prefix wins; of equal ones the local route, then a static route, then a
//! list, then a propagated route.

use std::net::IpAddr;

use ipnet::IpNet;

use super::objects::{Entry, RouteDestination, RouteOrigin, RouteState, RouteTable, VpcRoute};
use super::observed::{ObservedList, ObservedPlane};
use crate::types::Family;

/// The winner for an address.
#[derive(Debug, Clone)]
pub struct Hit<'o> {
    pub prefix: IpNet,
    pub route: &'o VpcRoute,
    /// The list with the prefix, and the entry.
    pub list: Option<(&'o ObservedList, &'o Entry)>,
    /// True for a route to our list.
    pub is_ours: bool,
}

impl Hit<'_> {
    /// True if packets are dropped.
    pub fn drops(&self) -> bool {
        self.route.state == RouteState::Blackhole
    }
}

/// The order of equal prefixes; the larger wins.
fn rank(route: &VpcRoute) -> u8 {
    match (&route.destination, &route.origin) {
        _ if route.is_local() => 3,
        (RouteDestination::List(_), _) => 1,
        (RouteDestination::Prefix(_), RouteOrigin::Propagated) => 0,
        (RouteDestination::Prefix(_), _) => 2,
    }
}

/// True for a prefix inside of the VPC's own networks: a list's entry of that kind has no effect.
fn is_local(table: &RouteTable, prefix: &IpNet) -> bool {
    let mut local = table.routes.iter().filter(|route| route.is_local());
    local.any(
        |route| matches!(&route.destination, RouteDestination::Prefix(own) if own.contains(prefix)),
    )
}

/// The winner for an address; `None` without a route.
pub fn lookup<'o>(
    table: &'o RouteTable,
    address: IpAddr,
    observed: &'o ObservedPlane,
) -> Option<Hit<'o>> {
    let ours = observed.lists.get(Family::of(address)).ours();
    let hits = table
        .routes
        .iter()
        .filter_map(|route| match &route.destination {
            RouteDestination::Prefix(prefix) => prefix.contains(&address).then_some(Hit {
                prefix: *prefix,
                route,
                list: None,
                is_ours: false,
            }),
            RouteDestination::List(id) => {
                let is_ours = ours.is_some_and(|ours| ours.list.id == *id);
                let list = ours
                    .filter(|_| is_ours)
                    .or_else(|| observed.others.get(id))?;
                let entries = list.entries.iter();
                let entry = entries
                    .filter(|entry| entry.cidr.contains(&address) && !is_local(table, &entry.cidr))
                    .max_by_key(|entry| entry.cidr.prefix_len())?;
                Some(Hit {
                    prefix: entry.cidr,
                    route,
                    list: Some((list, entry)),
                    is_ours,
                })
            }
        });
    hits.max_by_key(|hit| (hit.prefix.prefix_len(), rank(hit.route)))
}
