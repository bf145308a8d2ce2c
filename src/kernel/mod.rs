//! The only code that talks to the kernel.

pub mod errno;
pub mod events;
pub mod firewall;
pub mod flows;
pub mod link;
pub mod lookup;
pub mod netlink;
pub mod nexthop;
pub mod privilege;
pub mod route;
pub mod rule;
pub mod sysctl;
pub mod wire;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::facts::{HostFacts, Sysctls};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::{Family, PerFamily};
use firewall::{FirewallBackend, FirewallError};
use netlink::{NetlinkError, NetlinkSocket};

/// Why the kernel's state could not be read.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// Links, addresses, routes, rules or nexthops.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The firewall.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// The kernel of the current network namespace.
pub struct Kernel {
    socket: NetlinkSocket,
    nftables: Box<dyn FirewallBackend>,
    iptables: Box<dyn FirewallBackend>,
    /// Families that it has.
    pub available: PerFamily<bool>,
}

impl Kernel {
    /// Opens it. Needs no privilege yet.
    pub fn open() -> Result<Self, ObserveError> {
        Self::with_backends(
            firewall::backend(BackendKind::Nftables),
            firewall::backend(BackendKind::Iptables),
        )
    }

    /// Opens it with backends of the caller's choice.
    pub fn with_backends(
        nftables: Box<dyn FirewallBackend>,
        iptables: Box<dyn FirewallBackend>,
    ) -> Result<Self, ObserveError> {
        Ok(Kernel {
            socket: NetlinkSocket::open()?,
            nftables,
            iptables,
            available: PerFamily {
                ipv4: true,
                ipv6: sysctl::has_ipv6(),
            },
        })
    }

    /// The route socket.
    pub fn socket(&mut self) -> &mut NetlinkSocket {
        &mut self.socket
    }

    /// One firewall.
    pub fn firewall(&mut self, kind: BackendKind) -> &mut dyn FirewallBackend {
        match kind {
            BackendKind::Nftables => self.nftables.as_mut(),
            BackendKind::Iptables => self.iptables.as_mut(),
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let available = self.available;
        Family::ALL
            .into_iter()
            .filter(move |family| *available.get(*family))
    }

    /// Reads the host's facts; the metadata service's are the caller's to add.
    pub fn facts(&mut self) -> Result<HostFacts, ObserveError> {
        let links = link::dump_links(&mut self.socket)?;
        let addresses = link::dump_addresses(&mut self.socket)?;
        let mut main_routes = Vec::new();
        for family in self.families() {
            main_routes.extend(route::dump_main(&mut self.socket, family)?);
        }
        let mut facts = HostFacts {
            links,
            addresses,
            main_routes,
            name_servers: sysctl::name_servers(),
            ..HostFacts::default()
        };
        facts.sysctls = Sysctls {
            values: sysctl::read(sysctl_paths(&facts)),
        };
        Ok(facts)
    }

    /// Whether it is worth the processes to ask iptables: chains of ours lie in nf_tables
    /// (iptables-nft), or the legacy variant is in use at all.
    pub fn may_hold_iptables_chains(&mut self) -> Result<bool, ObserveError> {
        const LEGACY: [&str; 2] = [
            "/proc/thread-self/net/ip_tables_names",
            "/proc/thread-self/net/ip6_tables_names",
        ];
        let legacy = LEGACY
            .iter()
            .any(|path| std::fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty()));
        Ok(legacy || firewall::nftables::holds_iptables_chains(firewall::iptables::CHAIN_PREFIX)?)
    }

    /// Reads everything of our tables, rules and firewalls.
    pub fn observe(
        &mut self,
        ownership: &Ownership,
        firewalls: &[BackendKind],
    ) -> Result<ObservedState, ObserveError> {
        let mut routes = Vec::new();
        let mut rules = Vec::new();
        for family in self.families() {
            for table in ownership.tables() {
                let mut found = route::dump_table(&mut self.socket, family, table)?;
                // The bypass table comes first: thousands of routes that need no second place.
                match routes.is_empty() {
                    true => routes = found,
                    false => routes.append(&mut found),
                }
            }
            rules.append(&mut rule::dump(&mut self.socket, family)?);
        }
        routes.sort();
        let nexthops = nexthop::dump(&mut self.socket)?;
        let mut found: BTreeMap<BackendKind, ObservedFirewall> = BTreeMap::new();
        for kind in firewalls {
            found.insert(*kind, self.firewall(*kind).observe()?);
        }
        Ok(ObservedState {
            routes,
            rules,
            nexthops,
            firewalls: found,
        })
    }
}

/// The sysctls that matter, and those of the interfaces with a default route.
fn sysctl_paths(facts: &HostFacts) -> Vec<String> {
    let mut paths: Vec<String> = [
        "net/ipv4/ip_forward",
        "net/ipv4/ip_local_port_range",
        "net/ipv4/tcp_fwmark_accept",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/all/src_valid_mark",
        "net/ipv6/conf/all/forwarding",
        "net/netfilter/nf_conntrack_max",
        "net/netfilter/nf_conntrack_count",
    ]
    .map(str::to_owned)
    .into();
    let mut devices: Vec<String> = Family::ALL
        .into_iter()
        .flat_map(|family| facts.defaults(family))
        .filter_map(|route| route.device)
        .map(|device| facts.device_name(device))
        .collect();
    devices.sort();
    devices.dedup();
    for device in devices {
        // A dot in a name (eth0.5, a VLAN) is a dot in the path too.
        paths.push(format!("net/ipv4/conf/{device}/rp_filter"));
        paths.push(format!("net/ipv6/conf/{device}/accept_ra"));
    }
    paths
}
