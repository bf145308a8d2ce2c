//! The settings, as every other stage sees them: defaults filled in, units resolved, checked.
//!
//! `parse` turns the TOML text into [`Config`]; `file` is the only part that reads the disk.

mod defaults;
#[cfg(test)]
mod doc_tests;
mod document;
mod error;
mod fields;
pub mod file;
mod parse;
mod schema;
#[cfg(test)]
mod tests;
mod units;
mod validate;
mod values;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Place, Problem};
pub use parse::{Overrides, keys, parse, parse_with};

use crate::types::{
    BackendKind, Family, PathMask, PerFamily, Priority, Protocol, Region, Service, TableId,
};

/// What this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A server that leaves through a NAT instance.
    Host,
    /// The NAT instance itself.
    Nat,
}

words!(Role { Host => "host", Nat => "nat" });

/// A value, or `auto`: found out at each pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AutoOr<T> {
    /// Found out from the host or the metadata service.
    Auto,
    /// The operator's word.
    Set(T),
}

impl<T> AutoOr<T> {
    /// The operator's word, if there is one.
    pub fn set(&self) -> Option<&T> {
        match self {
            AutoOr::Auto => None,
            AutoOr::Set(value) => Some(value),
        }
    }
}

/// `[source] path`: which way the agent's own fetch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchPath {
    /// The egress path; the main table's default when that fails.
    Auto,
    /// The egress path only.
    Egress,
    /// The bypass path only.
    Bypass,
}

words!(FetchPath { Auto => "auto", Egress => "egress", Bypass => "bypass" });

/// `[source]`: where the document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// URLs (`https:`, `http:`, `file:`) or plain paths, tried in order; never empty.
    pub urls: Vec<String>,
    /// How often the agent asks.
    pub refresh: Duration,
    /// Total time for one source, retries included in none: it bounds each try.
    pub timeout: Duration,
    /// Cap on the decoded document, in bytes.
    pub max_bytes: u64,
    /// Last known good, holds, facts, journal, lock.
    pub state_dir: PathBuf,
    /// Which way the fetch goes.
    pub path: FetchPath,
}

/// `[select]`: which prefixes take the bypass path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectConfig {
    /// Services, as AWS writes them.
    pub services: Vec<Service>,
    /// Regions; `auto` asks the metadata service.
    pub regions: Vec<AutoOr<Region>>,
    /// Address families.
    pub families: BTreeSet<Family>,
    /// Prefixes that always bypass.
    pub include: Vec<IpNet>,
    /// Prefixes that never bypass, even inside a selected one.
    pub exclude: Vec<IpNet>,
}

/// `[guard]`: how much change is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardConfig {
    /// Loss above which withdrawals are held, in percent of the addresses of a
    /// (service, region, family), 0 to 100; 100 allows all.
    pub max_loss: f64,
    /// More selected prefixes than this, after aggregation, hold everything.
    pub max_prefixes: usize,
    /// A hold ends by itself after this long of unanimous fetches.
    pub accept_after: Duration,
    /// A withdrawn prefix keeps its route this long; zero for none.
    pub hold_down: Duration,
}

/// `[bypass]`: the way of the storage traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BypassConfig {
    /// The router, one a family.
    pub gateway: PerFamily<AutoOr<IpAddr>>,
    /// The interface.
    pub interface: AutoOr<String>,
    /// The table of the selected prefixes.
    pub table: TableId,
}

/// `[egress] when_down`: what happens when no gateway is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// Nothing leaves: EHOSTUNREACH.
    Unreachable,
    /// The main table's default takes over, with the host's own address.
    Bypass,
}

words!(WhenDown { Unreachable => "unreachable", Bypass => "bypass" });

/// `[egress]`: the way of everything else (host role).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressConfig {
    /// The NAT instances; both families in one list.
    pub gateways: Vec<IpAddr>,
    /// The table of the egress default.
    pub table: TableId,
    /// What happens when no gateway is left.
    pub when_down: WhenDown,
    /// Families without a gateway that get `unreachable` instead of the main table's default.
    pub close: BTreeSet<Family>,
}

impl EgressConfig {
    /// The gateways of one family, sorted.
    pub fn gateways_of(&self, family: Family) -> Vec<IpAddr> {
        let mut found: Vec<IpAddr> = self
            .gateways
            .iter()
            .copied()
            .filter(|gateway| Family::of(*gateway) == family)
            .collect();
        found.sort();
        found
    }
}

/// `[nat] bypass`: what happens to the source of bypass traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatBypass {
    /// The address of the interface it leaves by.
    Masquerade,
    /// This address (at most one a family).
    Addresses(Vec<IpAddr>),
    /// It keeps its private source: something behind us translates.
    None,
}

/// `[nat]`: translation. `backend` serves the host role's marks too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// Which firewall.
    pub backend: AutoOr<BackendKind>,
    /// The private networks that we translate; `auto`: the VPC's CIDRs.
    pub sources: AutoOr<Vec<IpNet>>,
    /// Where the egress path leaves.
    pub egress_interface: AutoOr<String>,
    /// The fixed addresses that partners see: this host's own, or public ones that the
    /// metadata service maps to them. Sorted.
    pub egress_addresses: Vec<IpAddr>,
    /// The source of bypass traffic.
    pub bypass: NatBypass,
}

/// A sysctl that `[kernel] manage` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManagedSysctl {
    /// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.
    IpForward,
    /// `net.ipv4.conf.all.src_valid_mark`.
    SrcValidMark,
    /// `net.ipv4.conf.*.rp_filter`.
    RpFilter,
    /// `net.netfilter.nf_conntrack_max`.
    ConntrackMax,
    /// `net.ipv4.ip_local_port_range`.
    IpLocalPortRange,
    /// `net.ipv4.tcp_fwmark_accept`: inbound TCP while no egress gateway is left.
    TcpFwmarkAccept,
}

words!(ManagedSysctl {
    IpForward => "ip_forward",
    SrcValidMark => "src_valid_mark",
    RpFilter => "rp_filter",
    ConntrackMax => "conntrack_max",
    IpLocalPortRange => "ip_local_port_range",
    TcpFwmarkAccept => "tcp_fwmark_accept",
});

/// `[kernel]`: our numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelConfig {
    /// Marks our routes, rules and nexthops.
    pub protocol: Protocol,
    /// Our first rule; the range is this one and the 99 after it.
    pub priority: Priority,
    /// The mark bits that say which path.
    pub path_mask: PathMask,
    /// The mark bits that say which gateway.
    pub gateway_mask: u32,
    /// The sysctls that we may write.
    pub manage: BTreeSet<ManagedSysctl>,
}

/// `[agent]`: the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// The control socket.
    pub socket: PathBuf,
    /// Where metrics and health are served; `None`: nowhere.
    pub metrics: Option<std::net::SocketAddr>,
    /// A full re-read at least this often.
    pub resync: Duration,
    /// Age of the document in force that is worth a warning.
    pub stale_warn: Duration,
    /// Age of the document in force that is worth an alarm.
    pub stale_alarm: Duration,
    /// Price of a GB through the NAT, in dollars.
    pub nat_price_per_gb: f64,
    /// Receive buffer of each socket that listens to the kernel, in bytes.
    pub event_buffer: u64,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What this machine is; `None` only where no command needs it (`flush`, `ranges`, `history`).
    pub role: Option<Role>,
    /// `[source]`
    pub source: SourceConfig,
    /// `[select]`
    pub select: SelectConfig,
    /// `[guard]`
    pub guard: GuardConfig,
    /// `[bypass]`
    pub bypass: BypassConfig,
    /// `[egress]`
    pub egress: EgressConfig,
    /// `[nat]`
    pub nat: NatConfig,
    /// `[vpc] cidrs`
    pub vpc_cidrs: Vec<AutoOr<IpNet>>,
    /// `[kernel]`
    pub kernel: KernelConfig,
    /// `[agent]`
    pub agent: AgentConfig,
}
