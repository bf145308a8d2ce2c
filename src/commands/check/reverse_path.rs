//! NAT role: the reverse path check of storage replies, answered by the kernel.

use super::report::CheckReport;
use super::sysctls::Check;
use crate::config::ManagedSysctl;
use crate::desired::DesiredState;
use crate::judge::{Expected, Lookup, RouteDecision, questions};
use crate::kernel::Kernel;
use crate::kernel::lookup::lookup;
use crate::types::{Family, IfIndex, PerFamily};

impl Check<'_> {
    /// Storage replies arrive on the bypass interfaces.
    pub(super) fn reverse_path_of_nat(
        &self,
        desired: &DesiredState,
        kernel: &mut Kernel,
        report: &mut CheckReport,
    ) {
        let Some(path) = &desired.paths.get(Family::Ipv4).bypass else {
            return;
        };
        let mut devices: Vec<IfIndex> = path.vias().map(|via| via.device).collect();
        devices.sort();
        devices.dedup();
        for device in devices {
            self.reverse_path_of_nat_on(device, desired, kernel, report);
        }
    }

    /// The reverse path check of a forwarded packet looks up the route back with the outgoing
    /// interface as the incoming one (`fib_validate_source`, net/ipv4/fib_frontend.c), so that the
    /// rules for packets from the hosts match: the kernel's own answer decides.
    fn reverse_path_of_nat_on(
        &self,
        index: IfIndex,
        desired: &DesiredState,
        kernel: &mut Kernel,
        report: &mut CheckReport,
    ) {
        let name = "rp_filter";
        let device = self.view.facts.device_name(index);
        if self.rp_filter(&device) != 1 {
            report.ok(name, format!("{device} accepts replies from storage"));
            return;
        }
        let refused = self.replies_refused(desired, index, kernel);
        if refused == Some(false) {
            report.ok(
                name,
                format!("{device} is strict, and accepts replies from storage: the kernel's look-up back leads there"),
            );
            return;
        }
        if refused.is_none() {
            report.ok(
                name,
                format!("{device} is strict; the next pass adds the rules for its look-up back"),
            );
            return;
        }
        let text = format!(
            "{device} is strict: the kernel drops replies from storage, since the route back to storage leads through another interface"
        );
        if self.manages(ManagedSysctl::RpFilter) {
            report.warn(
                name,
                text,
                "the next pass sets net.ipv4.conf.all.rp_filter=2",
            );
        } else {
            let advice = format!(
                "sysctl -w net.ipv4.conf.{device}.rp_filter=2, or [kernel] manage = [\"rp_filter\"]"
            );
            report.fail(name, text, advice);
        }
    }

    /// Asks the kernel about a reply from each of the tables' first and last prefix to a host; `None`
    /// while our rules are not in the kernel, so that the answer would say nothing about a pass.
    fn replies_refused(
        &self,
        desired: &DesiredState,
        device: IfIndex,
        kernel: &mut Kernel,
    ) -> Option<bool> {
        let view = self.view;
        let promise = view.promise(desired);
        if !promise.is_installed(Family::Ipv4) {
            return None;
        }
        let own = PerFamily::default();
        let mut refused = false;
        for question in questions(&promise, &own) {
            let (Expected::Bypass(_), Some(host)) = (&question.expected, question.lookup.source)
            else {
                continue;
            };
            if question.family() != Family::Ipv4 {
                continue;
            }
            let reply = Lookup {
                source: Some(question.lookup.destination),
                input: Some(device),
                ..Lookup::from_socket(host)
            };
            // EXDEV: the reverse path filter (`fib_validate_source`).
            let refuses = |errno| [18, 22].contains(&errno);
            refused |= match lookup(kernel.socket(), &reply) {
                Ok(RouteDecision::Errno(errno)) => refuses(errno),
                Ok(RouteDecision::Route(_)) => false,
                Err(_) => true,
            };
        }
        Some(refused)
    }
}
