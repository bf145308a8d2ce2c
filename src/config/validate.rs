//! Checks of values and of combinations of keys that parse, but cannot work.

mod enforced;
mod gateways;
mod vpc_plane;

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;

use ipnet::IpNet;

use super::protocols::TAKEN_PROTOCOLS;
use super::{AutoOr, Config, NatBypass, Role, Spread};
use crate::types::{Family, TableId};

/// The highest possible first priority: this priority and the 99 after it stay below the kernel's
/// rule for the main table (32766, `fib_default_rules_init`, net/ipv4/fib_rules.c).
pub(super) const LAST_PRIORITY: u32 = 32_766 - 100;

/// The highest number of egress addresses in one family: the firewall backends share sources out
/// to 32 addresses at most (`Match::SourceSlots`).
const MAX_EGRESS_ADDRESSES: usize = 32;

/// Length of `sun_path` without the terminating zero (linux/un.h).
const MAX_SOCKET_PATH: usize = 107;

/// A mistake in the values of one or more keys.
pub(super) struct Mistake {
    /// The keys with the mistake; the message points to the first. A mistake is dropped if any of
    /// the keys is unreadable.
    pub keys: Vec<&'static str>,
    /// The mistake, the reason, and the correction.
    pub message: String,
}

pub(super) fn mistakes(config: &Config) -> Vec<Mistake> {
    let mut found = Mistakes(Vec::new());
    found.source(config);
    found.select(config);
    let cidrs = config.vpc_cidrs.iter();
    let cidrs: Vec<IpNet> = cidrs.filter_map(|cidr| cidr.set().copied()).collect();
    found.whole_family("vpc.cidrs", &cidrs);
    found.kernel(config);
    found.egress(config);
    found.spread(config);
    found.probe(config);
    found.enforced(config);
    if config.role == Some(Role::Nat) {
        found.nat_role(config);
    }
    found.nat(config);
    found.agent(config);
    found.vpc_plane(config);
    found.0
}

struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, keys: &[&'static str], message: impl Into<String>) {
        self.0.push(Mistake {
            keys: keys.to_vec(),
            message: message.into(),
        });
    }

    fn source(&mut self, config: &Config) {
        if config.source.urls.is_empty() {
            self.add(
                &["source.url"],
                "the list is empty: write at least one URL or path",
            );
        }
        if config.source.max_bytes == 0 {
            self.add(
                &["source.max_bytes"],
                "0 bytes would refuse every document: write a size such as \"64MiB\"",
            );
        }
    }

    fn select(&mut self, config: &Config) {
        let select = &config.select;
        let empty = "the list is empty, so no prefix would be selected: write";
        if select.services.is_empty() {
            self.add(
                &["select.services"],
                format!("{empty} at least one, such as [\"S3\"]"),
            );
        }
        if select.regions.is_empty() {
            self.add(
                &["select.regions"],
                format!("{empty} [\"auto\"] or names such as [\"us-east-1\"]"),
            );
        }
        if select.families.is_empty() {
            self.add(
                &["select.families"],
                format!("{empty} [\"ipv4\", \"ipv6\"] or one of them"),
            );
            return;
        }
        self.whole_family("select.include", &select.include);
        for prefix in &select.include {
            let family = Family::of_net(prefix);
            if !select.families.contains(&family) {
                self.add(
                    &["select.include", "select.families"],
                    format!(
                        "{prefix} would never take effect, since select.families lacks \
                         {family:?}: add the family or remove the prefix",
                        family = family.as_str()
                    ),
                );
            }
        }
    }

    /// Prefixes such as `0.0.0.0/1` and `128.0.0.0/1` are a default route in two parts.
    fn whole_family(&mut self, key: &'static str, prefixes: &[IpNet]) {
        for merged in IpNet::aggregate(&prefixes.to_vec()) {
            if merged.prefix_len() == 0 {
                self.add(
                    &[key],
                    format!("the prefixes together are the default route {merged}: the setting would apply to all traffic"),
                );
            }
        }
    }

    fn kernel(&mut self, config: &Config) {
        let (bypass, egress) = (config.bypass.table, config.egress.table);
        for (key, table) in [("bypass.table", bypass), ("egress.table", egress)] {
            let name = match table {
                TableId(253) => "default",
                TableId::MAIN => "main",
                TableId::LOCAL => "local",
                _ => continue,
            };
            self.add(
                &[key],
                format!(
                    "{table} is the kernel's own table {name:?}: write another number, such as 1083"
                ),
            );
        }
        if bypass == egress {
            self.add(
                &["egress.table", "bypass.table"],
                format!("{egress} is the bypass path's table too: the two paths need a table each"),
            );
        }
        if config.pins() {
            self.pin_tables(config);
        }
        let protocol = config.kernel.protocol.0;
        let owner = match protocol {
            // RTPROT_UNSPEC to RTPROT_STATIC, linux/rtnetlink.h.
            0 => Some("means unspecified"),
            1 => Some("marks the kernel's routes from ICMP redirects"),
            2 => Some("marks the routes that the kernel itself installs"),
            3 => Some("is what `ip route add` uses (boot)"),
            4 => Some("marks the administrator's static routes"),
            _ => None,
        };
        let taken = TAKEN_PROTOCOLS
            .iter()
            .find(|(number, _)| *number == protocol);
        let why = owner
            .map(str::to_owned)
            .or_else(|| taken.map(|(_, owner)| format!("is registered for {owner}")));
        if let Some(why) = why {
            self.add(
                &["kernel.protocol"],
                format!("{protocol} {why}: our routes would look like foreign routes; write a free number, such as 83"),
            );
        }
        self.masks(config);
    }

    fn masks(&mut self, config: &Config) {
        let (path, gateway) = (config.kernel.path_mask.0, config.kernel.gateway_mask);
        if path.count_ones() != 2 || !contiguous(path) {
            self.add(
                &["kernel.marks.path"],
                format!(
                    "{path:#x} is not two adjacent bits, which the three paths need: write a mask such as \
                     \"0x0030\", which is free of the marks of Kubernetes, Podman, Tailscale and mwan3"
                ),
            );
        }
        if !contiguous(gateway) {
            self.add(
                &["kernel.marks.gateway"],
                format!("{gateway:#x} has a hole: write adjacent bits, such as \"0x000e\""),
            );
        }
        if path & gateway != 0 {
            self.add(
                &["kernel.marks.gateway", "kernel.marks.path"],
                format!(
                    "{gateway:#x} shares the bits {:#x} with kernel.marks.path {path:#x}: the masks must not overlap",
                    path & gateway
                ),
            );
        }
        // 0 means no gateway, so n bits distinguish 2^n - 1 gateways.
        let room = (1_usize << gateway.count_ones().min(31)) - 1;
        for family in Family::ALL {
            let count = config.egress.gateways_of(family).len();
            if count > room && contiguous(gateway) {
                self.add(
                    &["egress.gateways", "kernel.marks.gateway"],
                    format!(
                        "{count} {family} gateways, but kernel.marks.gateway {gateway:#x} has room \
                         for {room}: remove some gateways or widen the mask"
                    ),
                );
            }
        }
    }

    fn nat_role(&mut self, config: &Config) {
        if config.nat.egress_addresses.is_empty() {
            self.add(
                &["nat.egress_addresses", "role"],
                "missing: the nat role needs the source addresses of egress traffic, such as \
                 egress_addresses = [\"10.0.0.20\"] in [nat]",
            );
        }
        let host_only = "is for the host role only, since a NAT instance is the egress gateway itself: remove the key";
        if !config.egress.gateways.is_empty() {
            self.add(&["egress.gateways", "role"], host_only);
        }
        if !config.egress.close.is_empty() {
            self.add(&["egress.close", "role"], host_only);
        }
        if config.egress.enforce != AutoOr::Auto {
            self.add(&["egress.enforce", "role"], host_only);
        }
        if config.egress.onlink {
            self.add(&["egress.onlink", "role"], host_only);
        }
        if config.egress.spread != Spread::default() {
            self.add(&["egress.spread", "role"], host_only);
        }
        if config.egress.zone != AutoOr::Auto {
            self.add(&["egress.zone", "role"], host_only);
        }
        if matches!(&config.nat.sources, AutoOr::Set(sources) if sources.is_empty()) {
            self.add(
                &["nat.sources"],
                "the list is empty, so no traffic would be translated: write \"auto\" or prefixes",
            );
        }
    }

    fn nat(&mut self, config: &Config) {
        let egress = &config.nat.egress_addresses;
        self.duplicates("nat.egress_addresses", egress);
        for family in Family::ALL {
            let count = egress
                .iter()
                .filter(|own| Family::of(**own) == family)
                .count();
            if count > MAX_EGRESS_ADDRESSES {
                self.add(
                    &["nat.egress_addresses"],
                    format!("{count} {family} addresses: write at most {MAX_EGRESS_ADDRESSES}"),
                );
            }
        }
        if let NatBypass::Addresses(addresses) = &config.nat.bypass {
            for address in addresses.iter().filter(|own| egress.contains(own)) {
                self.add(
                    &["nat.bypass", "nat.egress_addresses"],
                    format!(
                        "{address} is an egress address: storage traffic would use up the ports of \
                         the egress address; write another address or \"masquerade\""
                    ),
                );
            }
        }
    }

    fn agent(&mut self, config: &Config) {
        let agent = &config.agent;
        if agent.stale_warn > agent.stale_alarm {
            self.add(
                &["agent.stale.warn", "agent.stale.alarm"],
                "is later than agent.stale.alarm: write a shorter time",
            );
        }
        // The kernel's limits are 2 KiB (SOCK_MIN_RCVBUF, net/sock.h) and 1 GiB (the kernel
        // doubles the given size, in an int).
        if !(2048..=1 << 30).contains(&agent.event_buffer) {
            self.add(
                &["agent.event_buffer"],
                "is out of range: the kernel accepts 2KiB to 1GiB",
            );
        }
        let length = agent.socket.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            self.add(
                &["agent.socket"],
                format!(
                    "the path has {length} bytes: the path of a Unix socket has at most {MAX_SOCKET_PATH}"
                ),
            );
        }
    }

    fn duplicates(&mut self, key: &'static str, addresses: &[IpAddr]) {
        let mut sorted = addresses.to_vec();
        sorted.sort();
        let twice: Vec<IpAddr> = sorted
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
            .collect();
        for address in twice {
            self.add(&[key], format!("{address} is listed twice: remove one"));
        }
    }
}

fn contiguous(mask: u32) -> bool {
    mask != 0 && {
        let low = mask >> mask.trailing_zeros();
        low & low.wrapping_add(1) == 0
    }
}
