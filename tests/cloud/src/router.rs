//! The VPC's router: the target of an address by a route table.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::state::{Destination, Origin, Route, State};

/// The decision of a VPC's router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Inside of the VPC.
    Local,
    /// To this target.
    Target(String),
    /// To a target that is gone or detached: the packet is dropped.
    Blackhole(String),
    /// To one of these targets: lists with the same prefix and different targets, of which EC2
    /// chooses one at random.
    Random(Vec<String>),
    /// Nowhere: no route matches.
    None,
}

impl State {
    /// The router's decision for an address: the longest prefix; of the same length a static
    /// route, then a list, then a propagated route ("Route priority"). An entry of a list inside
    /// of the VPC's own prefixes is ignored.
    pub(crate) fn way(&self, table: &str, address: IpAddr) -> Way {
        let Some(table) = self.tables.get(table) else {
            return Way::None;
        };
        let own = self.vpcs.get(&table.vpc);
        let inside = |prefix: &IpNet| {
            own.is_some_and(|vpc| vpc.cidrs.iter().any(|cidr| cidr.contains(prefix)))
        };
        let mut best: Option<((u8, u8), Vec<&Route>)> = None;
        for route in &table.routes {
            let Some(rank) = self.rank(route, address, &inside) else {
                continue;
            };
            match &mut best {
                Some((top, _)) if rank < *top => {}
                Some((top, routes)) if rank == *top => routes.push(route),
                _ => best = Some((rank, vec![route])),
            }
        }
        let routes = best.map(|(_, routes)| routes).unwrap_or_default();
        let mut targets: Vec<String> = routes.iter().map(|r| r.target.clone()).collect();
        targets.sort_unstable();
        targets.dedup();
        match (routes.first(), targets.len()) {
            (None, _) => Way::None,
            (Some(_), 2..) => Way::Random(targets),
            (Some(route), _) if route.target == "local" => Way::Local,
            (Some(route), _) if self.is_blackhole(&table.vpc, route) => {
                Way::Blackhole(route.target.clone())
            }
            (Some(route), _) => Way::Target(route.target.clone()),
        }
    }

    /// The rank of a route for an address: prefix length, then kind. `None` if it doesn't match.
    fn rank(
        &self,
        route: &Route,
        address: IpAddr,
        inside: &impl Fn(&IpNet) -> bool,
    ) -> Option<(u8, u8)> {
        match &route.destination {
            Destination::Prefix(prefix) => prefix.contains(&address).then(|| {
                let propagated = route.origin == Origin::Propagated;
                (prefix.prefix_len(), if propagated { 0 } else { 2 })
            }),
            Destination::List(id) => {
                let entries = self.lists.get(id)?.entries();
                let matching = entries.iter().map(|entry| entry.cidr);
                let matching = matching.filter(|cidr| cidr.contains(&address) && !inside(cidr));
                let length = matching.map(|cidr| cidr.prefix_len()).max()?;
                Some((length, 1))
            }
        }
    }
}
