//! The sysctls listed in `[kernel] manage`, where the present value does not suffice.

use super::{DesiredState, Inputs};
use crate::config::{ManagedSysctl, Role};
use crate::facts::HostFacts;
use crate::types::Family;

/// A sysctl to write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlSetting {
    /// Path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub path: String,
    pub from: String,
    pub to: String,
}

/// The least size of a NAT's conntrack table: 262,144 entries are 80 MiB.
const CONNTRACK_MAX: u64 = 262_144;
/// Memory of a conntrack entry (`struct nf_conn` with its extensions, x86-64), in bytes.
const CONNTRACK_ENTRY: u64 = 320;
/// Above this share of the table in use, in percent, the table is too small: a full table drops new
/// flows.
const CONNTRACK_CROWDED: u64 = 75;
/// The size of conntrack's table, in entries; zero means no limit.
const CONNTRACK_SIZE: &str = "net/netfilter/nf_conntrack_max";
/// The source ports of one address towards one partner: all unprivileged ports.
pub(super) const PORT_RANGE: &str = "1024 65535";

/// True if a conntrack table needs more entries.
pub fn is_crowded(used: u64, size: u64) -> bool {
    size > 0 && used.saturating_mul(100) > size.saturating_mul(CONNTRACK_CROWDED)
}

/// The size of conntrack's table that fits the machine: a sixteenth of the memory when full. A
/// crowded table doubles, up to a quarter of the memory. Never less than 262,144 entries.
pub fn conntrack_max(facts: &HostFacts) -> u64 {
    let number = |path| facts.sysctls.number(path).unwrap_or(0);
    let entries = |share: u64| {
        let most = facts.memory.unwrap_or(0) / share / CONNTRACK_ENTRY;
        let power = most.checked_ilog2().map_or(0, |power| 1 << power);
        CONNTRACK_MAX.max(power)
    };
    let now = number(CONNTRACK_SIZE);
    if is_crowded(number("net/netfilter/nf_conntrack_count"), now) {
        let double = now.saturating_mul(2).min(entries(4));
        return double.max(entries(16));
    }
    entries(16)
}

/// The sysctl of the hash that chooses a next hop of several.
pub fn hash_policy(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "net/ipv4/fib_multipath_hash_policy",
        Family::Ipv6 => "net/ipv6/fib_multipath_hash_policy",
    }
}

/// The settings to write.
pub fn settings(inputs: &Inputs, state: &DesiredState) -> Vec<SysctlSetting> {
    let manage = &inputs.config.kernel.manage;
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut want = |path: &str, value: &str| wanted.push((path.to_owned(), value.to_owned()));
    for name in manage {
        match name {
            ManagedSysctl::IpForward if inputs.role == Role::Nat => {
                want("net/ipv4/ip_forward", "1");
                if !state.paths.get(Family::Ipv6).inputs.is_empty() {
                    // With forwarding, the kernel ignores router advertisements, and the default
                    // route in the advertisement, unless accept_ra is 2
                    // (Documentation/networking/ip-sysctl.rst).
                    for route in inputs.facts.defaults(Family::Ipv6) {
                        if let Some(device) = route.device {
                            let name = inputs.facts.device_name(device);
                            want(&format!("net/ipv6/conf/{name}/accept_ra"), "2");
                        }
                    }
                    want("net/ipv6/conf/all/forwarding", "1");
                }
            }
            ManagedSysctl::IpForward => {}
            ManagedSysctl::SrcValidMark => want("net/ipv4/conf/all/src_valid_mark", "1"),
            // The larger value of `all` and of the interface applies: 2 (loose) is the largest.
            ManagedSysctl::RpFilter => want("net/ipv4/conf/all/rp_filter", "2"),
            ManagedSysctl::AcceptRedirects | ManagedSysctl::SendRedirects => {
                for path in inputs
                    .facts
                    .redirect_sysctls(*name == ManagedSysctl::SendRedirects)
                {
                    want(&path, "0");
                }
            }
            ManagedSysctl::FibMultipathHashPolicy => {
                // 1: by addresses and ports. Only routes with several next hops ask the policy.
                for family in inputs.config.egress.hashed_families() {
                    want(hash_policy(family), "1");
                }
            }
            ManagedSysctl::TcpFwmarkAccept => want("net/ipv4/tcp_fwmark_accept", "1"),
            ManagedSysctl::IpLocalPortRange => want("net/ipv4/ip_local_port_range", PORT_RANGE),
            ManagedSysctl::ConntrackMax => {
                let now = inputs.facts.sysctls.number(CONNTRACK_SIZE);
                let fitting = conntrack_max(inputs.facts);
                // Zero means no limit.
                if now.is_none_or(|now| now != 0 && now < fitting) {
                    want(CONNTRACK_SIZE, &fitting.to_string());
                }
            }
        }
    }
    wanted
        .into_iter()
        .filter_map(|(path, to)| {
            let from = inputs.facts.sysctls.values.get(&path).cloned()?;
            let same = from.split_whitespace().eq(to.split_whitespace());
            (!same).then_some(SysctlSetting { path, from, to })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Sysctls;

    #[test]
    fn conntrack_table_fits_memory_and_doubles_when_crowded() {
        const GIB: u64 = 1 << 30;
        for (memory, now, used, expected) in [
            (None, 65_536, 0, 262_144),
            (Some(GIB / 2), 65_536, 0, 262_144),
            (Some(8 * GIB), 262_144, 0, 1_048_576),
            (Some(8 * GIB), 262_144, 260_000, 1_048_576),
            (Some(2 * GIB), 262_144, 260_000, 524_288),
            // A quarter of the memory is the end.
            (Some(2 * GIB), 1_048_576, 1_000_000, 1_048_576),
        ] {
            let values = [
                ("net/netfilter/nf_conntrack_max", now),
                ("net/netfilter/nf_conntrack_count", used),
            ];
            let facts = HostFacts {
                memory,
                sysctls: Sysctls {
                    values: values
                        .map(|(path, value)| (path.to_owned(), value.to_string()))
                        .into(),
                },
                ..HostFacts::default()
            };
            assert_eq!(conntrack_max(&facts), expected, "{memory:?} {now} {used}");
        }
    }
}
