//! Facts about the host: links, addresses, main table, and the answers of the metadata service.
//! Values only; `kernel` and `source::imds` fill the values in.

mod main_route;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::objects::{BypassPath, Via};
use crate::types::{Family, IfIndex, Region};
pub use main_route::{HopState, MainRoute, Preference};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: IfIndex,
    /// The kernel's name; a byte outside UTF-8 reads `\xff`.
    pub name: String,
    /// Alternative names (`ip link property add altname`), which the settings may use too.
    pub altnames: Vec<String>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The link has a carrier (`IFF_LOWER_UP`): a cable is plugged in, or the peer is up.
    pub carrier: bool,
    /// `lo`.
    pub loopback: bool,
    /// The hardware address; empty on a link without one.
    pub mac: Vec<u8>,
    /// The largest packet in bytes; 0 for unknown.
    pub mtu: u32,
}

impl Link {
    /// Its name, with its alternative names in parentheses.
    pub fn names(&self) -> String {
        if self.altnames.is_empty() {
            return self.name.clone();
        }
        format!("{} ({})", self.name, self.altnames.join(", "))
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub link: IfIndex,
    /// The address with the length of its on-link prefix.
    pub net: IpNet,
}

/// The answers of the instance metadata service about this instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// `i-…`; `None` without an answer.
    pub instance_id: Option<String>,
    /// `placement/region`.
    pub region: Option<Region>,
    /// The availability zone, such as `us-east-1a`.
    #[serde(default)]
    pub zone: Option<String>,
    /// MAC address of the primary interface, lower case with colons.
    pub mac: Option<String>,
    /// The VPC's CIDRs, both families.
    pub vpc_cidrs: Vec<IpNet>,
    /// The subnet's CIDRs, both families.
    pub subnet_cidrs: Vec<IpNet>,
    /// Public address (Elastic IP) → the private address of this host behind the public one.
    pub public_addresses: BTreeMap<IpAddr, IpAddr>,
}

/// The sysctls that we check or manage, as read; unreadable and absent ones are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sysctls {
    /// Path below `/proc/sys` with `/` as separator → value, trimmed.
    pub values: BTreeMap<String, String>,
}

impl Sysctls {
    /// The value of a sysctl with one number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.values.get(path)?.parse().ok()
    }
}

/// All facts about the host that the desired state depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    /// The main table, both families.
    pub main_routes: Vec<MainRoute>,
    /// `nameserver` lines of `/etc/resolv.conf`.
    pub name_servers: Vec<IpAddr>,
    /// The answer of the metadata service, or the cached answer of the same instance.
    pub instance: Option<InstanceFacts>,
    pub sysctls: Sysctls,
    /// The machine's memory in bytes; `None` if unknown.
    pub memory: Option<u64>,
}

#[cfg(test)]
impl HostFacts {
    /// A host with one interface and the default path by the VPC router 10.0.1.1.
    pub(crate) fn behind_router(net: &str) -> HostFacts {
        let route = |dst: &str| MainRoute {
            device: Some(IfIndex(2)),
            ..MainRoute::unicast(dst.parse().unwrap())
        };
        let default = MainRoute {
            gateway: Some([10, 0, 1, 1].into()),
            ..route("0.0.0.0/0")
        };
        HostFacts::of_one_interface(net, vec![default, route("10.0.1.0/24")])
    }

    /// A host with one interface, `eth0` of the index 2.
    pub(crate) fn of_one_interface(net: &str, main_routes: Vec<MainRoute>) -> HostFacts {
        let link = IfIndex(2);
        HostFacts {
            links: vec![Link {
                index: link,
                name: "eth0".to_owned(),
                altnames: Vec::new(),
                up: true,
                carrier: true,
                loopback: false,
                mac: Vec::new(),
                mtu: 1500,
            }],
            addresses: vec![Address {
                link,
                net: net.parse().expect("an address with its length"),
            }],
            main_routes,
            ..HostFacts::default()
        }
    }
}

impl HostFacts {
    /// The link with that index.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link with that name or alternative name, as in `ip link show`.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        let has_altname = |link: &&Link| link.altnames.iter().any(|other| other == name);
        let mut links = self.links.iter();
        links
            .find(|link| link.name == name)
            .or_else(|| self.links.iter().find(has_altname))
    }

    /// True if the link has a carrier and an address of the family beyond the link.
    pub fn is_ready(&self, link: &Link, family: Family) -> bool {
        let own = self.addresses.iter().filter(|own| own.link == link.index);
        let mut own = own.map(|own| own.net.addr());
        let of_link = |own| matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
        let reaches = |own| Family::of(own) == family && !of_link(own);
        link.up && link.carrier && own.any(reaches)
    }

    /// The name of the link; `ifN` for a link that is gone.
    pub fn device_name(&self, index: IfIndex) -> String {
        self.link(index)
            .map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    /// The administrator's own routes and connected networks in the main table: those of a family with a
    /// next hop, without defaults and routes nearly as wide.
    pub fn narrow_routes(&self, family: Family) -> impl Iterator<Item = &MainRoute> {
        self.main_routes.iter().filter(move |route| {
            Family::of_net(&route.dst) == family && route.unicast && !Family::is_wide(&route.dst)
        })
    }

    /// The switch of one interface for packets to forward; `None` if unknown. IPv6 has none.
    pub fn forwards_from(&self, family: Family, device: &str) -> Option<bool> {
        let path = format!("net/ipv4/conf/{device}/forwarding");
        let value = self.sysctls.values.get(&path)?;
        (family == Family::Ipv4).then_some(value != "0")
    }

    /// The sysctls of redirects, sent or accepted, of all interfaces with an address, up to a bound.
    /// IPv6 has no switch for sent ones.
    pub fn redirect_sysctls(&self, sent: bool) -> Vec<String> {
        /// A host with containers has hundreds of interfaces.
        const MOST: usize = 32;
        let name = if sent {
            "send_redirects"
        } else {
            "accept_redirects"
        };
        let mut found = vec![format!("net/ipv4/conf/all/{name}")];
        let mut indices: Vec<IfIndex> = self.addresses.iter().map(|own| own.link).collect();
        indices.sort();
        indices.dedup();
        let links = indices.into_iter().filter_map(|index| self.link(index));
        for link in links.filter(|link| !link.loopback).take(MOST) {
            found.push(format!("net/ipv4/conf/{}/{name}", link.name));
            if !sent {
                found.push(format!("net/ipv6/conf/{}/{name}", link.name));
            }
        }
        found
    }

    /// True for an address of this host.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// The addresses of all links.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|own| own.net.addr()).collect()
    }

    /// The addresses of all links, each with the network on the link.
    pub fn own_networks(&self) -> Vec<IpNet> {
        self.addresses.iter().map(|own| own.net).collect()
    }

    /// The next hops of the main table's default routes, best first ([`MainRoute`] tells the
    /// order). A hop that the kernel never uses (`dead`) is left out.
    pub fn defaults(&self, family: Family) -> Vec<&MainRoute> {
        main_route::defaults(&self.main_routes, family)
            .into_iter()
            .flatten()
            .filter(|hop| hop.state != HopState::Dead)
            .collect()
    }

    /// The first usable next hop of the default that the kernel uses, with or without a carrier.
    pub fn used_default(&self, family: Family) -> Option<&MainRoute> {
        main_route::used_default(&self.main_routes, family)
    }

    /// The path of the best default route, restricted to a device if one is given: all live next
    /// hops with their weights, and the options of the route.
    pub fn default_path(&self, family: Family, device: Option<IfIndex>) -> Option<BypassPath> {
        main_route::path(&self.main_routes, family, device)
    }

    /// True if a default route of the main table goes through a nexthop object.
    pub fn defaults_use_objects(&self) -> bool {
        let mut routes = self.main_routes.iter();
        routes.any(|route| route.through_object && Family::is_default(&route.dst))
    }

    /// Default routes in disguise (`0.0.0.0/1`, `::/1`, …), which the kernel prefers to a plain
    /// default.
    pub fn disguised_defaults(&self, family: Family) -> impl Iterator<Item = &MainRoute> {
        self.main_routes.iter().filter(move |route| {
            Family::of_net(&route.dst) == family
                && route.dst.prefix_len() > 0
                && Family::is_default(&route.dst)
        })
    }

    /// True if the kernel accepts the preferred source in a route over the device: the address is
    /// on this host, and a link-local address on the device itself (`fib_valid_prefsrc`,
    /// net/ipv4/fib_semantics.c; `ipv6_chk_addr`, net/ipv6/addrconf.c).
    pub fn accepts_source(&self, source: IpAddr, device: IfIndex) -> bool {
        let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        self.addresses
            .iter()
            .any(|own| own.net.addr() == source && (!link_local || own.link == device))
    }

    /// The device of the connected network that contains the address: the longest prefix of a route
    /// without a gateway. Neighbour tables play no part: a dead neighbour is still on-link.
    pub fn on_link(&self, address: IpAddr, device: Option<IfIndex>) -> Option<IfIndex> {
        self.main_routes
            .iter()
            .filter(|route| {
                route.unicast
                    && !route.selective
                    && route.gateway.is_none()
                    && !Family::is_default(&route.dst)
                    && route.dst.contains(&address)
                    && (device.is_none() || route.device == device)
            })
            .max_by_key(|route| (route.dst.prefix_len(), std::cmp::Reverse(route.metric)))
            .and_then(|route| route.device)
    }

    /// True if the kernel would accept a route with this next hop: the link is up, and a connected
    /// network on the link contains the gateway.
    pub fn reaches(&self, via: &Via) -> bool {
        self.link(via.device).is_some_and(|link| link.up)
            && via.gateway.is_none_or(|gateway| {
                via.onlink || self.on_link(gateway, Some(via.device)).is_some()
            })
    }

    /// The main-table route for an address: longest prefix, then lowest metric.
    pub fn main_lookup(&self, address: IpAddr) -> Option<&MainRoute> {
        self.main_routes
            .iter()
            .filter(|route| !route.selective && route.dst.contains(&address))
            .max_by_key(|route| (route.dst.prefix_len(), std::cmp::Reverse(route.metric)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_by_name_first_and_then_by_alternative_name() {
        let link = |index, name: &str, altnames: &[&str]| Link {
            index: IfIndex(index),
            name: name.to_owned(),
            altnames: altnames.iter().map(|name| (*name).to_owned()).collect(),
            up: true,
            carrier: true,
            loopback: false,
            mac: Vec::new(),
            mtu: 1500,
        };
        let facts = HostFacts {
            links: vec![link(2, "eth0", &["enp0s3", "ens5"]), link(3, "ens5", &[])],
            ..HostFacts::default()
        };
        let index = |name| facts.link_named(name).map(|link| link.index.0);
        assert_eq!(index("eth0"), Some(2));
        assert_eq!(index("enp0s3"), Some(2));
        assert_eq!(index("ens5"), Some(3));
        assert_eq!(index("eth1"), None);
        assert_eq!(facts.links[0].names(), "eth0 (enp0s3, ens5)");
    }
}
