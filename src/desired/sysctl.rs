//! The sysctls listed in `[kernel] manage`, where the present value does not suffice.

use super::{DesiredState, Inputs};
use crate::config::{ManagedSysctl, Role};
use crate::types::Family;

/// A sysctl to write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlSetting {
    /// Path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub path: String,
    pub from: String,
    pub to: String,
}

/// A NAT needs one conntrack entry per flow; 262,144 entries of about 320 bytes are 80 MiB.
const CONNTRACK_MAX: u64 = 262_144;
/// The source ports of one address towards one partner: all unprivileged ports.
pub(super) const PORT_RANGE: &str = "1024 65535";

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
            ManagedSysctl::TcpFwmarkAccept => want("net/ipv4/tcp_fwmark_accept", "1"),
            ManagedSysctl::IpLocalPortRange => want("net/ipv4/ip_local_port_range", PORT_RANGE),
            ManagedSysctl::ConntrackMax => {
                let path = "net/netfilter/nf_conntrack_max";
                let now = inputs
                    .facts
                    .sysctls
                    .values
                    .get(path)
                    .and_then(|value| value.parse::<u64>().ok());
                if now.is_none_or(|now| now < CONNTRACK_MAX) {
                    want(path, &CONNTRACK_MAX.to_string());
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
