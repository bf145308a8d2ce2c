//! All system calls and tools that read or change the kernel's network state.

pub mod errno;
pub mod events;
pub mod firewall;
pub mod flows;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod link;
pub mod lookup;
mod main_table;
pub mod neighbour;
pub mod netlink;
pub mod nexthop;
pub mod privilege;
pub mod probing;
pub mod redirects;
pub mod route;
pub mod rule;
pub mod saved_rulesets;
pub mod segments;
pub mod sysctl;
pub mod traffic_control;
pub mod wire;
mod xfrm;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::facts::{HostFacts, Sysctls};
use crate::firewall::{BackendKind, ObservedFirewall, Ruleset};
use crate::judge::chain::BaseChain;
use crate::objects::{ForwardPolicy, Route};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::{Family, IfIndex, PerFamily, TableId};
use errno::KernelError;
use firewall::nftables::{ForeignChains, Protection};
use firewall::{Fallback, FirewallBackend, FirewallError, Refusals};
use netlink::{NetlinkError, NetlinkSocket};
use xfrm::Policies;

/// A failed read of the kernel's state.
#[derive(Debug, Error)]
pub enum ObserveError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// The kernel of the current network namespace.
pub struct Kernel {
    socket: NetlinkSocket,
    nftables: Box<dyn FirewallBackend>,
    iptables: Box<dyn FirewallBackend>,
    /// The refused parts of each backend, in the order of the backends.
    fallbacks: (Fallback, Fallback),
    foreign: ForeignChains,
    /// The chains of iptables-legacy, as last read ([`Kernel::take_judged`]).
    judged: Option<Option<Vec<BaseChain>>>,
    policies: Policies,
    protection: Protection,
    pub available: PerFamily<bool>,
}

impl Kernel {
    /// Opens the kernel with the real firewall backends; needs no privilege.
    pub fn open() -> Result<Self, ObserveError> {
        Self::with_backends(
            firewall::backend(BackendKind::Nftables),
            firewall::backend(BackendKind::Iptables),
        )
    }

    /// Opens the kernel with firewall backends of the caller's choice.
    pub fn with_backends(
        nftables: Box<dyn FirewallBackend>,
        iptables: Box<dyn FirewallBackend>,
    ) -> Result<Self, ObserveError> {
        Ok(Kernel {
            socket: NetlinkSocket::open()?,
            nftables,
            iptables,
            fallbacks: <(Fallback, Fallback)>::default(),
            foreign: ForeignChains::default(),
            judged: None,
            policies: Policies::default(),
            protection: Protection::default(),
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

    /// Says that this machine needs forward policies: without need, no module is loaded for them.
    pub fn need_policies(&mut self, needed: bool) {
        self.policies.needed = needed;
    }

    /// Shares the protection of our nf_tables tables.
    pub fn protect(mut self, protection: &Protection) -> Self {
        for kind in BackendKind::ALL {
            self.firewall(kind).protect(protection);
        }
        self.protection = protection.clone();
        self
    }

    /// The reason if our tables should be protected from other programs and the kernel cannot.
    pub fn unprotected(&self) -> Option<String> {
        self.protection.unknown_to_kernel()
    }

    /// Adds or deletes a forward policy; returns the refusal of a deletion. After a refused addition
    /// [`ObservedState`] has the reason.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub fn change_policy(
        &mut self,
        delete: bool,
        policy: &ForwardPolicy,
    ) -> Result<Option<KernelError>, NetlinkError> {
        self.policies.change(delete, policy)
    }

    /// The firewall backend of a kind.
    pub fn firewall(&mut self, kind: BackendKind) -> &mut dyn FirewallBackend {
        match kind {
            BackendKind::Nftables => self.nftables.as_mut(),
            BackendKind::Iptables => self.iptables.as_mut(),
        }
    }

    /// The policy as canonical text, as far as the backend and its kernel can have it. `present`
    /// is the text of the rules in the kernel.
    ///
    /// # Errors
    /// The backend cannot render the policy.
    pub fn render_policy(
        &mut self,
        kind: BackendKind,
        policy: &Ruleset,
        present: Option<&[String]>,
    ) -> Result<Vec<String>, FirewallError> {
        let (backend, fallback) = self.firewall_and_fallback(kind);
        fallback.render(backend, policy, present)
    }

    /// Installs the policy, or as much of it as the kernel accepts ([`Kernel::refusals`]).
    ///
    /// # Errors
    /// Not even translation and guard are accepted.
    pub fn install_policy(
        &mut self,
        kind: BackendKind,
        policy: &Ruleset,
    ) -> Result<(), FirewallError> {
        let (backend, fallback) = self.firewall_and_fallback(kind);
        fallback.install(backend, policy)
    }

    /// The parts of the last policy that the kernel refused.
    pub fn refusals(&self, kind: BackendKind) -> &Refusals {
        match kind {
            BackendKind::Nftables => self.fallbacks.0.refused(),
            BackendKind::Iptables => self.fallbacks.1.refused(),
        }
    }

    /// Lets the next pass try the whole policy again.
    pub fn forget_refusals(&mut self) {
        self.policies.forget();
        for kind in BackendKind::ALL {
            let (backend, fallback) = self.firewall_and_fallback(kind);
            fallback.forget(backend);
        }
    }

    fn firewall_and_fallback(
        &mut self,
        kind: BackendKind,
    ) -> (&mut dyn FirewallBackend, &mut Fallback) {
        match kind {
            BackendKind::Nftables => (self.nftables.as_mut(), &mut self.fallbacks.0),
            BackendKind::Iptables => (self.iptables.as_mut(), &mut self.fallbacks.1),
        }
    }

    /// The foreign chains in the path of forwarded packets, of nf_tables and of iptables-legacy.
    ///
    /// # Errors
    /// When the chains remain unknown: an unreadable chain may stop packets.
    pub fn foreign_chains(&mut self) -> Result<Vec<BaseChain>, FirewallError> {
        let mut chains = self.foreign.look()?.to_vec();
        let legacy = firewall::iptables::foreign_chains();
        self.judged = Some(legacy.as_ref().ok().cloned());
        chains.append(&mut legacy?);
        Ok(chains)
    }

    /// The chains of iptables-legacy at the last reading, of which the kernel announces no change.
    /// The inner value is `None` for unreadable ones, the outer without a reading since the last call.
    pub fn take_judged(&mut self) -> Option<Option<Vec<BaseChain>>> {
        self.judged.take()
    }

    fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let available = self.available;
        Family::ALL
            .into_iter()
            .filter(move |family| *available.get(*family))
    }

    /// Reads the host's facts, except those of the metadata service.
    pub fn facts(&mut self) -> Result<HostFacts, ObserveError> {
        let links = link::dump_links(&mut self.socket)?;
        let addresses = link::dump_addresses(&mut self.socket)?;
        let families: Vec<Family> = self.families().collect();
        let link_name = |index| {
            let link = links.iter().find(|link| link.index == index);
            link.map(|link| link.name.clone())
        };
        let main_routes = main_table::dump(&mut self.socket, &families, &link_name)?;
        let mut facts = HostFacts {
            links,
            addresses,
            main_routes,
            name_servers: sysctl::name_servers(),
            ..HostFacts::default()
        };
        facts.memory = sysctl::memory();
        facts.sysctls = Sysctls {
            values: sysctl::read(sysctl_paths(&facts)),
        };
        Ok(facts)
    }

    /// True if iptables may hold our chains, so that running its processes is worthwhile: our
    /// chains exist in nf_tables (iptables-nft), or the legacy variant has any table loaded.
    pub fn may_hold_iptables_chains(&mut self) -> Result<bool, ObserveError> {
        let mut families = Family::ALL.into_iter();
        let legacy = families.any(|family| !firewall::iptables::legacy::tables(family).is_empty());
        Ok(legacy || firewall::nftables::holds_iptables_chains(firewall::iptables::CHAIN_PREFIX)?)
    }

    /// The routes with a protocol number of ours outside of our tables, counted by table: another
    /// config was in force. The tables of the kernel's own routes never contain ours.
    ///
    /// # Errors
    /// A refused question.
    pub fn orphaned_routes(
        &mut self,
        ownership: &Ownership,
    ) -> Result<BTreeMap<TableId, usize>, ObserveError> {
        let mut counts = BTreeMap::new();
        for family in self.families() {
            for protocol in ownership.protocols() {
                let routes = route::dump_protocol(&mut self.socket, family, protocol)?;
                for route in routes {
                    if !ownership.owns_route(&route) && !route.key.table.is_kernels() {
                        *counts.entry(route.key.table).or_default() += 1;
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Reads our route tables, all rules and nexthop objects, and the given firewalls.
    pub fn observe(
        &mut self,
        ownership: &Ownership,
        firewalls: &[BackendKind],
    ) -> Result<ObservedState, ObserveError> {
        self.observe_beside(ownership, firewalls, None)
    }

    /// The same, without a table whose routes are known.
    ///
    /// # Errors
    /// As [`Kernel::observe`].
    pub fn observe_beside(
        &mut self,
        ownership: &Ownership,
        firewalls: &[BackendKind],
        known: Option<(TableId, Vec<Route>)>,
    ) -> Result<ObservedState, ObserveError> {
        let (known_table, mut routes) = known.unzip();
        let mut rules = Vec::new();
        for family in self.families() {
            for table in ownership.tables() {
                if known_table == Some(table) {
                    continue;
                }
                let mut found = route::dump_table(&mut self.socket, family, table)?;
                // The bypass table comes first: a move spares the copy of thousands of routes.
                match &mut routes {
                    None => routes = Some(found),
                    Some(routes) => routes.append(&mut found),
                }
            }
            rules.append(&mut rule::dump(&mut self.socket, family)?);
        }
        let mut routes = routes.unwrap_or_default();
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
            policies: self.policies.observe(),
        })
    }
}

/// Most interfaces whose IPv6 switch is read.
const MOST_LINKS: usize = 16;

/// Bound of the interfaces whose own switches are read: a host with containers has hundreds.
const MOST_INTERFACES: usize = 32;

/// The sysctls that affect our routing, those of interfaces with a default route included.
fn sysctl_paths(facts: &HostFacts) -> Vec<String> {
    let mut paths: Vec<String> = [
        "net/ipv4/ip_forward",
        "net/ipv4/ip_local_port_range",
        "net/ipv4/tcp_fwmark_accept",
        "net/ipv4/fib_multipath_hash_policy",
        "net/ipv6/fib_multipath_hash_policy",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/all/src_valid_mark",
        "net/ipv6/conf/all/forwarding",
        "net/ipv6/conf/all/disable_ipv6",
        "net/netfilter/nf_conntrack_max",
        "net/netfilter/nf_conntrack_tcp_timeout_established",
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
    paths.extend(
        [true, false]
            .into_iter()
            .flat_map(|sent| facts.redirect_sysctls(sent)),
    );
    let mut with_address: Vec<IfIndex> = facts.addresses.iter().map(|own| own.link).collect();
    with_address.sort();
    with_address.dedup();
    for index in with_address.into_iter().take(MOST_INTERFACES) {
        for name in ["forwarding", "rp_filter"] {
            paths.push(format!("net/ipv4/conf/{}/{name}", facts.device_name(index)));
        }
    }
    for device in devices {
        // A dot in an interface name (VLAN eth0.5) stays a dot in the path.
        paths.push(format!("net/ipv6/conf/{device}/accept_ra"));
    }
    let single_family = facts.links.iter().filter(|link| {
        let has = |family| {
            let own = facts.addresses.iter().filter(|own| own.link == link.index);
            own.map(|own| Family::of_net(&own.net))
                .any(|it| it == family)
        };
        !link.loopback && has(Family::Ipv4) && !has(Family::Ipv6)
    });
    paths.extend(
        single_family
            .take(MOST_LINKS)
            .map(|link| format!("net/ipv6/conf/{}/disable_ipv6", link.name)),
    );
    paths
}
