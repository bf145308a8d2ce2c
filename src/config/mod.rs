//! The settings as every other room uses them: defaults filled in, units resolved, checked.
//!
//! `parse` turns the TOML text into [`Config`]; only `file` reads the disk. A setting has two
//! places: its field and default are here, its key and reader are in `schema`. `validate` checks
//! combinations of settings.

mod derived;
mod disk;
#[cfg(test)]
mod doc_tests;
mod error;
pub mod file;
#[cfg(test)]
mod gateway_tests;
mod gateways;
mod locations;
mod parse;
mod probe;
mod protocols;
mod reader;
mod role;
mod schema;
mod slips;
mod syntax;
#[cfg(test)]
mod tests;
mod texts;
mod units;
mod validate;
mod values;
mod vpc_plane;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, Place, Problem};
pub use gateways::{Gateway, Spread};
use ipnet::IpNet;
pub use parse::{Overrides, keys, parse, parse_readable_part, parse_with};
pub use probe::{ProbeConfig, Target, TargetHost, target as probe_target};
pub use role::{AnyRole, Role};
pub use texts::own_region;
pub use units::duration;
pub use vpc_plane::{DriftUse, PlaneMode, TableSelector, VpcPlaneConfig};

use crate::types::{
    BackendKind, Family, PathMask, PerFamily, Priority, Protocol, Region, Service, TableId,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A struct of settings, with the default of each field.
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }
    };
}
use settings;

/// A configured value, or `auto`: detected at each pass, from the host or the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoOr<T> {
    Auto,
    Set(T),
}

impl<T> AutoOr<T> {
    /// The configured value; `None` for `auto`.
    pub fn set(&self) -> Option<&T> {
        match self {
            AutoOr::Auto => None,
            AutoOr::Set(value) => Some(value),
        }
    }
}

/// `[source] path`: the network path of the agent's own fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchPath {
    /// The egress path, with the main table's default as the fallback.
    Auto,
    Egress,
    Bypass,
}

words!(FetchPath { Auto => "auto", Egress => "egress", Bypass => "bypass" });

/// `[vpc] metadata`: permission to ask the instance metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetadataUse {
    /// An EC2 instance asks, and a machine with an endpoint in AWS's own environment variables.
    #[default]
    Auto,
    On,
    Off,
}

words!(MetadataUse { Auto => "auto", On => "on", Off => "off" });

settings! {
    /// `[source]`: the sources of the document, and the directory of the state.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SourceConfig {
        /// URLs (`https:`, `http:`, `file:`) or plain paths, tried in order; never empty.
        pub urls: Vec<String> = vec!["https://ip-ranges.amazonaws.com/ip-ranges.json".to_owned()],
        /// The agent's interval between fetches.
        // AWS publishes a few times a week; a conditional request costs nothing.
        pub refresh: Duration = 5 * MINUTE,
        /// Time limit of each try, from connecting to the last byte.
        pub timeout: Duration = Duration::from_secs(10),
        /// Limit of the decoded document, in bytes.
        // The document of 2026 has 2.6 MB; the limit stops other, endless answers.
        pub max_bytes: u64 = 64 << 20,
        /// Directory of last known good, holds, facts, journal and lock.
        pub state_dir: PathBuf = PathBuf::from("/var/lib/trailblazer"),
        pub path: FetchPath = FetchPath::Auto,
    }
}

settings! {
    /// `[select]`: the prefixes of the bypass path.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SelectConfig {
        /// Services, as AWS writes them.
        pub services: Vec<Service> = vec![Service::from("S3")],
        /// Regions; `auto` is the instance's region, from the metadata service.
        pub regions: Vec<AutoOr<Region>> = vec![AutoOr::Auto],
        pub families: BTreeSet<Family> = Family::ALL.into_iter().collect(),
        /// Prefixes always on the bypass path.
        pub include: Vec<IpNet> = Vec::new(),
        /// Prefixes never on the bypass path, even inside a selected prefix.
        pub exclude: Vec<IpNet> = Vec::new(),
    }
}

settings! {
    /// `[guard]`: the limits of accepted change.
    #[derive(Debug, Clone, PartialEq)]
    pub struct GuardConfig {
        /// The guard holds withdrawals above this loss, in percent of the addresses of a (service,
        /// region, family), 0 to 100; 100 allows all.
        pub max_loss: f64 = 20.0,
        /// The guard holds everything above this gain, in percent of the addresses of a (service,
        /// region, family). From 2015 to 2023 Amazon's largest gain of S3 was 433 %.
        pub max_gain: f64 = 500.0,
        /// The guard holds everything above this many new IPv4 addresses of one (service, region);
        /// for IPv6, 4096 networks of /64 count as one. Amazon's largest group ever had 20,564,150.
        pub max_new_addresses: u64 = 1 << 25,
        /// Shorter prefixes of a document are left out. Amazon has never published shorter ones.
        pub shortest_prefix: PerFamily<u8> = PerFamily { ipv4: 10, ipv6: 24 },
        /// The guard holds everything above this number of prefixes in force after aggregation.
        pub max_prefixes: usize = 5_000,
        /// Prefixes that no document may put on the bypass path: partners.
        pub canaries: Vec<IpNet> = Vec::new(),
        /// A hold ends by itself after this time of unanimous fetches.
        pub accept_after: Duration = DAY,
        /// The time for which a withdrawn prefix keeps its route; zero for none.
        pub hold_down: Duration = DAY,
    }
}

settings! {
    /// `[bypass]`: the path of the storage traffic.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BypassConfig {
        /// The router of each family.
        pub gateway: PerFamily<AutoOr<IpAddr>> = PerFamily::from_fn(|_| AutoOr::Auto),
        pub interface: AutoOr<String> = AutoOr::Auto,
        /// The configured gateways count as reachable without a connected network.
        pub onlink: bool = false,
        /// The routing table of the selected prefixes.
        // Above 255, the limit of `rtm_table` and of old tools.
        pub table: TableId = TableId(1083),
    }
}

/// `[egress] when_down`: the treatment of egress traffic without any gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// Traffic fails with EHOSTUNREACH.
    Unreachable,
    /// Traffic takes the main table's default, with the host's own address.
    Bypass,
}

words!(WhenDown { Unreachable => "unreachable", Bypass => "bypass" });

settings! {
    /// `[egress]`: the path of all other traffic (host role).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EgressConfig {
        /// The NAT instances, both families in one list, in the order of the settings.
        pub gateways: Vec<Gateway> = Vec::new(),
        pub spread: Spread = Spread::Host,
        /// The availability zone of this host; `auto` asks the metadata service.
        pub zone: AutoOr<String> = AutoOr::Auto,
        /// The gateways count as reachable without a connected network.
        pub onlink: bool = false,
        /// The routing table of the egress default.
        pub table: TableId = TableId(1084),
        pub when_down: WhenDown = WhenDown::Unreachable,
        /// Families without a gateway that get `unreachable` instead of the main table's default.
        pub close: BTreeSet<Family> = BTreeSet::new(),
        /// Packets to the internet on neither path are dropped; `auto`: where the firewall can tell them.
        pub enforce: AutoOr<bool> = AutoOr::Auto,
        /// Packets that `enforce` lets pass.
        pub exempt: Vec<Exemption> = Vec::new(),
        /// Open flows keep their path, with `enforce` alone.
        pub pin: bool = true,
    }
}

/// `[egress] exempt`: packets of another program's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exemption {
    /// Packets that leave by the interface.
    Interface(String),
    /// Packets from the network.
    Source(IpNet),
}

/// `[nat] bypass`: the source address of bypass traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatBypass {
    /// The address of the outgoing interface.
    Masquerade,
    /// These addresses, at most one of each family.
    Addresses(Vec<IpAddr>),
    /// The private source stays: a router behind this host translates.
    None,
}

settings! {
    /// `[nat]`: translation. `backend` also carries the marks of the host role.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NatConfig {
        pub backend: AutoOr<BackendKind> = AutoOr::Auto,
        /// The private networks to translate; `auto`: the VPC's CIDRs.
        pub sources: AutoOr<Vec<IpNet>> = AutoOr::Auto,
        /// The outgoing interface of the egress path.
        pub egress_interface: AutoOr<String> = AutoOr::Auto,
        /// The fixed source addresses of egress traffic: this host's own, or public addresses that
        /// the metadata service maps to the host's own. Sorted.
        pub egress_addresses: Vec<IpAddr> = Vec::new(),
        pub bypass: NatBypass = NatBypass::Masquerade,
        /// Destinations whose packets keep their private source: networks behind IPsec or a VPN.
        pub exempt: Vec<IpNet> = Vec::new(),
        /// Random source ports for egress traffic; else the client's port, if no other flow has it.
        pub random_ports: bool = true,
        pub mss: Mss = Mss::Auto,
    }
}

/// `[nat] mss`: the largest TCP segment of forwarded connections to hosts outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mss {
    /// The uplink's MTU or 1500 bytes, whichever is smaller, if an interface of the sources has a
    /// larger one; else no limit.
    Auto,
    Off,
    /// This size, for both families.
    Bytes(u16),
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
    /// `net.ipv4.tcp_fwmark_accept`: inbound TCP connections work without any egress gateway.
    TcpFwmarkAccept,
    /// `accept_redirects` of all interfaces with an address: a redirect of the NAT's machine must not
    /// lead packets past the NAT.
    AcceptRedirects,
    /// `send_redirects` of all interfaces with an address: a NAT with one interface tells hosts a way
    /// past itself.
    SendRedirects,
    /// `fib_multipath_hash_policy` of both families: `spread = "flow"` shares out flows, not partners.
    FibMultipathHashPolicy,
}

words!(ManagedSysctl {
    IpForward => "ip_forward",
    SrcValidMark => "src_valid_mark",
    RpFilter => "rp_filter",
    ConntrackMax => "conntrack_max",
    IpLocalPortRange => "ip_local_port_range",
    TcpFwmarkAccept => "tcp_fwmark_accept",
    AcceptRedirects => "accept_redirects",
    SendRedirects => "send_redirects",
    FibMultipathHashPolicy => "fib_multipath_hash_policy",
});

settings! {
    /// `[kernel]`: the numbers that mark our objects in the kernel.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KernelConfig {
        /// The routing protocol of our routes and rules.
        // Absent from linux/rtnetlink.h (RTPROT_*) and from iproute2's rt_protos; S is 0x53,
        // which is 83.
        pub protocol: Protocol = Protocol(83),
        /// The priority of our first rule; the 99 priorities after it are ours too.
        // After the rules of multi-interface hosts (10000 and up), before main (32766).
        pub priority: Priority = Priority(30_000),
        /// The mark bits of the path.
        // Bits that Podman's netavark and CNI portmap (0x2000), kube-proxy (0xc000), Cilium
        // (0x0f00), the AWS VPC CNI (0x80), mwan3 (0x3f00), Tailscale (0xff0000) and Calico
        // (0xffff0000) leave free. The mark of wg-quick (0xca6c) lacks both bits too.
        pub path_mask: PathMask = PathMask(0x0030),
        /// The mark bits of the gateway.
        pub gateway_mask: u32 = 0x000e,
        /// The first routing table of pinned flows; the seven tables after it are ours too.
        pub pin_tables: TableId = TableId(1100),
        /// The sysctls that we may write.
        pub manage: BTreeSet<ManagedSysctl> = BTreeSet::new(),
        /// The agent has our nf_tables table for itself. `auto`: unless a saved ruleset has the table.
        pub protect_table: AutoOr<bool> = AutoOr::Auto,
        /// The kernel's log gets a line for dropped packets, at a bounded rate.
        pub log_drops: bool = true,
    }
}

settings! {
    /// `[agent]`: the daemon.
    #[derive(Debug, Clone, PartialEq)]
    pub struct AgentConfig {
        pub socket: PathBuf = PathBuf::from("/run/trailblazer/control.sock"),
        /// The listener of metrics and health.
        pub metrics: Option<SocketAddr> = None,
        /// The longest time between two full reads of the kernel.
        pub resync: Duration = 10 * MINUTE,
        /// Age of the document in force from which on `check` and `status` warn.
        pub stale_warn: Duration = DAY,
        /// Age of the document in force from which on the agent reports unready.
        pub stale_alarm: Duration = 7 * DAY,
        /// Price of a GB through the NAT, in dollars.
        // AWS's price of a GB through a NAT gateway in us-east-1 (aws.amazon.com/vpc/pricing).
        pub nat_price_per_gb: f64 = 0.045,
        /// Receive buffer of each socket with kernel notifications, in bytes.
        // A flush of 16,000 routes is 16,000 notifications of some 500 bytes of socket memory
        // each (skb and its overhead, net/netlink/af_netlink.c).
        pub event_buffer: u64 = 8 << 20,
    }
}

settings! {
    /// All settings. A value of this type has passed every check of `validate`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Config {
        /// `None` in the vpc role, and for commands without need of a role (`flush`, `ranges`,
        /// `history`).
        pub role: Option<Role> = None,
        /// `role = "vpc"`: this process changes a VPC's route tables and no kernel. `role` is `None` then.
        pub vpc_role: bool = false,
        pub source: SourceConfig = SourceConfig::default(),
        pub select: SelectConfig = SelectConfig::default(),
        pub guard: GuardConfig = GuardConfig::default(),
        pub bypass: BypassConfig = BypassConfig::default(),
        pub egress: EgressConfig = EgressConfig::default(),
        pub probe: ProbeConfig = ProbeConfig::default(),
        pub nat: NatConfig = NatConfig::default(),
        /// `[vpc] cidrs`
        pub vpc_cidrs: Vec<AutoOr<IpNet>> = vec![AutoOr::Auto],
        /// `[vpc] metadata`
        pub metadata: MetadataUse = MetadataUse::default(),
        pub kernel: KernelConfig = KernelConfig::default(),
        pub agent: AgentConfig = AgentConfig::default(),
        pub vpc_plane: VpcPlaneConfig = VpcPlaneConfig::default(),
    }
}
