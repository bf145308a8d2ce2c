//! The hash of `spread = "flow"`.

use super::report::CheckReport;
use super::sysctls::Check;
use crate::config::{EgressConfig, ManagedSysctl, Role};
use crate::desired::hash_policy;

impl Check<'_> {
    /// Names another hash than the one by addresses and ports.
    pub(super) fn spread(&self, role: Role, egress: &EgressConfig, report: &mut CheckReport) {
        if role != Role::Host {
            return;
        }
        let name = "spread";
        for family in egress.hashed_families() {
            let path = hash_policy(family);
            let key = path.replace('/', ".");
            let effect = match self.number(path) {
                Some(1) => {
                    report.ok(
                        name,
                        format!("{key} is 1: each {family} flow has its own hash"),
                    );
                    continue;
                }
                Some(0) => "all flows to one partner take one gateway",
                Some(2) => "the addresses inside of tunnels count, and no ports",
                Some(_) => "the hash takes the fields of fib_multipath_hash_fields",
                None => "it is unreadable, and the kernel's default is by addresses alone",
            };
            let value = self.number(path);
            let value = value.map_or_else(|| "not 1".to_owned(), |value| value.to_string());
            let advice = if self.manages(ManagedSysctl::FibMultipathHashPolicy) {
                self.managed("sets it")
            } else {
                format!(
                    "sysctl -w {key}=1 (and in /etc/sysctl.d), or [kernel] manage = [\"{}\"]",
                    ManagedSysctl::FibMultipathHashPolicy.as_str()
                )
            };
            report.warn(
                name,
                format!("{key} is {value}, and [egress] spread = \"flow\" needs 1: {effect}"),
                advice,
            );
        }
    }
}
