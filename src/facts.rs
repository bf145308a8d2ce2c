//! What the host is: its links, addresses, main table, and what the metadata service says.
//! Values only; `kernel` and `source::imds` fill them in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::objects::Via;
use crate::types::{Family, IfIndex, Metric, Protocol, Region};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// `lo`.
    pub loopback: bool,
    /// Hardware address, empty where there is none.
    pub mac: Vec<u8>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub link: IfIndex,
    /// The address with the length of its on-link prefix.
    pub net: IpNet,
}

/// A route of the main table, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainRoute {
    /// The destination.
    pub dst: IpNet,
    /// The metric.
    pub metric: Metric,
    /// The router; `None` for connected networks and device routes.
    pub gateway: Option<IpAddr>,
    /// The device; `None` for routes without one (`unreachable`, `blackhole`).
    pub device: Option<IfIndex>,
    /// The gateway counts as reachable although no connected network holds it (`RTNH_F_ONLINK`).
    pub onlink: bool,
    /// Who installed it.
    pub protocol: Protocol,
    /// A unicast route; false for `unreachable` and its like.
    pub unicast: bool,
}

/// What the instance metadata service says about this instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// `i-…`, where the service told it.
    pub instance_id: Option<String>,
    /// `placement/region`.
    pub region: Option<Region>,
    /// MAC address of the primary interface, lower case with colons.
    pub mac: Option<String>,
    /// The VPC's CIDRs, both families.
    pub vpc_cidrs: Vec<IpNet>,
    /// The subnet's CIDRs, both families.
    pub subnet_cidrs: Vec<IpNet>,
    /// Public address (Elastic IP) → the private address of this host that stands behind it.
    pub public_addresses: BTreeMap<IpAddr, IpAddr>,
}

/// Sysctls that matter to us, as read; `None` where unreadable or absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sysctls {
    /// Path below `/proc/sys` with `/` as separator → value, trimmed.
    pub values: BTreeMap<String, String>,
}

/// Everything about the host that the desired state depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// Network interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// The main table, both families.
    pub main_routes: Vec<MainRoute>,
    /// `nameserver` lines of `/etc/resolv.conf`.
    pub name_servers: Vec<IpAddr>,
    /// The metadata service's answer, or the cached one of the same instance.
    pub instance: Option<InstanceFacts>,
    /// Sysctls.
    pub sysctls: Sysctls,
}

impl HostFacts {
    /// The link of that number.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link of that name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link's name, or its number where it has gone.
    pub fn device_name(&self, index: IfIndex) -> String {
        self.link(index)
            .map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    /// Whether the address is one of this host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// The default routes of the main table, best first.
    pub fn defaults(&self, family: Family) -> Vec<&MainRoute> {
        let mut found: Vec<&MainRoute> = self
            .main_routes
            .iter()
            .filter(|route| route.unicast && route.dst == family.default_prefix())
            .collect();
        found.sort_by_key(|route| route.metric);
        found
    }

    /// The device on whose link the address lies, by the connected routes: the longest prefix
    /// of a route without a gateway. ARP is never asked: a dead neighbour is still on-link.
    pub fn on_link(&self, address: IpAddr, device: Option<IfIndex>) -> Option<IfIndex> {
        self.main_routes
            .iter()
            .filter(|route| {
                route.unicast
                    && route.gateway.is_none()
                    && route.dst.prefix_len() > 0
                    && route.dst.contains(&address)
                    && (device.is_none() || route.device == device)
            })
            .max_by_key(|route| (route.dst.prefix_len(), std::cmp::Reverse(route.metric)))
            .and_then(|route| route.device)
    }

    /// Whether the kernel would take a route of this way out: its link is up, and its gateway on it.
    pub fn reaches(&self, via: &Via) -> bool {
        self.link(via.device).is_some_and(|link| link.up)
            && via.gateway.is_none_or(|gateway| {
                via.onlink || self.on_link(gateway, Some(via.device)).is_some()
            })
    }

    /// The main table's answer for an address: longest prefix, then lowest metric.
    pub fn main_lookup(&self, address: IpAddr) -> Option<&MainRoute> {
        self.main_routes
            .iter()
            .filter(|route| route.dst.contains(&address))
            .max_by_key(|route| (route.dst.prefix_len(), std::cmp::Reverse(route.metric)))
    }
}
