//! ICMP redirects: a NAT with one interface sends them to hosts, and hosts accept them.

use super::report::CheckReport;
use super::sysctls::Check;
use crate::config::{ManagedSysctl, Role};
use crate::desired::{DesiredState, EgressPath};
use crate::types::Family;

impl Check<'_> {
    pub(super) fn redirects(&self, role: Role, desired: &DesiredState, report: &mut CheckReport) {
        let name = "redirects";
        let (managed, effect) = match role {
            Role::Nat => (
                ManagedSysctl::SendRedirects,
                "a packet that leaves by its incoming interface tells the host a way past this NAT",
            ),
            Role::Host => (
                ManagedSysctl::AcceptRedirects,
                "a redirect of the NAT's machine leads packets to a partner past the NAT for 300 seconds",
            ),
        };
        let concerns = |family: &Family| match role {
            Role::Nat => self.has_one_arm(desired, *family),
            Role::Host => {
                let egress = &desired.paths.get(*family).egress;
                matches!(egress, EgressPath::Gateways(_))
            }
        };
        if !Family::ALL.iter().any(concerns) {
            return;
        }
        let facts = &self.view.facts;
        let paths = facts.redirect_sysctls(managed == ManagedSysctl::SendRedirects);
        let on: Vec<String> = paths
            .into_iter()
            .filter(|path| {
                facts
                    .sysctls
                    .values
                    .get(path)
                    .is_some_and(|value| value != "0")
            })
            .map(|path| path.replace('/', "."))
            .collect();
        let Some(first) = on.first() else {
            return report.ok(name, format!("{} is off", managed.as_str()));
        };
        if role == Role::Host {
            let text =
                format!("{first} is on: the firewall drops the redirects of egress gateways");
            return report.ok(name, text);
        }
        let advice = if self.manages(managed) {
            self.managed("sets it")
        } else {
            format!(
                "sysctl -w {}=0 (and in /etc/sysctl.d), or [kernel] manage = [\"{}\"]",
                on.join("=0 "),
                managed.as_str()
            )
        };
        report.warn(name, format!("{first} is on: {effect}"), advice);
    }

    /// True for a NAT whose hosts come in by the interface of the egress path.
    fn has_one_arm(&self, desired: &DesiredState, family: Family) -> bool {
        let paths = desired.paths.get(family);
        let out = paths
            .leaves_by
            .map(|index| self.view.facts.device_name(index));
        let mut inputs = paths.inputs.iter();
        inputs.any(|input| Some(&input.device) == out.as_ref())
    }
}
