//! Sysctls: forwarding, the reverse path check, marks on accepted connections, conntrack, ports.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::CheckReport;
use super::unit;
use crate::config::{Config, ManagedSysctl, Role, WhenDown};
use crate::desired::{DesiredState, EgressPath, conntrack_max, is_crowded};
use crate::judge::is_forwarding;
use crate::kernel::{Kernel, sysctl};
use crate::reconcile::View;
use crate::types::{Family, Protocol};

/// Backup jobs hold silent connections for an hour.
const SHORT_TIMEOUT: u64 = 3600;

/// Routes from router advertisements (`RTPROT_RA`, linux/rtnetlink.h).
const RTPROT_RA: Protocol = Protocol(9);
/// Warn below this size of conntrack's table: one source address can open as many connections to
/// one partner.
const SMALL: u64 = 65_536;

const ALL: &str = "net/ipv4/conf/all/rp_filter";
const SRC_VALID_MARK: &str = "net/ipv4/conf/all/src_valid_mark";

pub(super) fn all(
    config: &Config,
    role: Role,
    view: &View,
    desired: &DesiredState,
    kernel: &mut Kernel,
    report: &mut CheckReport,
) {
    let check = Check {
        config,
        view,
        values: sysctl::read(paths(view)),
        may_write: !unit::may_not_write_sysctls(Path::new("/")),
    };
    match role {
        Role::Nat => {
            check.forwarding(desired, report);
            check.reverse_path_of_nat(desired, kernel, report);
            check.ports(report);
            check.egress_ports(desired, report);
        }
        Role::Host => check.reverse_path_of_host(desired, report),
    }
    check.spread(role, &config.egress, report);
    check.redirects(role, desired, report);
    check.conntrack(role, report);
}

/// The paths for every interface. The host facts only cover interfaces with a default route.
fn paths(view: &View) -> Vec<String> {
    let links = view.facts.links.iter().filter(|link| !link.loopback);
    let mut paths: Vec<String> = links
        .map(|link| format!("net/ipv4/conf/{}/rp_filter", link.name))
        .collect();
    paths.push(ALL.to_owned());
    paths.push(SRC_VALID_MARK.to_owned());
    paths
}

pub(super) struct Check<'a> {
    config: &'a Config,
    pub(super) view: &'a View,
    values: BTreeMap<String, String>,
    /// False if a service of this host may not write sysctls.
    may_write: bool,
}

impl Check<'_> {
    pub(super) fn manages(&self, name: ManagedSysctl) -> bool {
        self.config.kernel.manage.contains(&name)
    }

    /// The advice about a sysctl of `[kernel] manage`; `deed` is the pass's.
    pub(super) fn managed(&self, deed: &str) -> String {
        if self.may_write {
            format!("the next pass {deed} ([kernel] manage)")
        } else {
            "the service may not write sysctls (see unit): run trailblazer reconcile as root, or open the unit".to_owned()
        }
    }

    /// The value of a sysctl; `None` for an unreadable one.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        match self.values.get(path) {
            Some(value) => value.parse().ok(),
            None => self.view.facts.sysctls.number(path),
        }
    }

    /// The effective `rp_filter`: the larger of `all` and the interface's own
    /// (Documentation/networking/ip-sysctl.rst).
    pub(super) fn rp_filter(&self, device: &str) -> u64 {
        let own = self.number(&format!("net/ipv4/conf/{device}/rp_filter"));
        own.unwrap_or(0).max(self.number(ALL).unwrap_or(0))
    }

    fn forwarding(&self, desired: &DesiredState, report: &mut CheckReport) {
        let name = "forwarding";
        for family in Family::ALL {
            if desired.paths.get(family).inputs.is_empty() {
                continue;
            }
            let path = match family {
                Family::Ipv4 => "net.ipv4.ip_forward",
                Family::Ipv6 => "net.ipv6.conf.all.forwarding",
            };
            match is_forwarding(&self.view.facts, family) {
                Some(true) => report.ok(name, format!("{path} is on")),
                Some(false) if self.manages(ManagedSysctl::IpForward) => report.warn(
                    name,
                    format!("{path} is off"),
                    self.managed("enables it"),
                ),
                Some(false) => report.fail(
                    name,
                    format!("{path} is off: this instance forwards no packet"),
                    format!("sysctl -w {path}=1 (and in /etc/sysctl.d), or [kernel] manage = [\"ip_forward\"]"),
                ),
                None => report.warn(name, format!("cannot read {path}"), "check /proc/sys"),
            }
        }
        self.router_advertisements(report);
    }

    /// A forwarding host ignores router advertisements, and loses a default route learned from them,
    /// unless accept_ra is 2.
    fn router_advertisements(&self, report: &mut CheckReport) {
        let facts = &self.view.facts;
        if is_forwarding(facts, Family::Ipv6) != Some(true) {
            return;
        }
        for route in facts.defaults(Family::Ipv6) {
            let Some(device) = route.device.filter(|_| route.protocol == RTPROT_RA) else {
                continue;
            };
            let device = facts.device_name(device);
            if self.number(&format!("net/ipv6/conf/{device}/accept_ra")) == Some(1) {
                report.warn(
                    "forwarding",
                    format!("the IPv6 default on {device} comes from router advertisements, which a forwarding host ignores: the route will expire"),
                    format!("sysctl -w net.ipv6.conf.{device}.accept_ra=2, or [kernel] manage = [\"ip_forward\"]"),
                );
            }
        }
    }

    /// For the first packet of a connection from outside, the reverse path check looks up the route
    /// back to the client. Our rules lead this lookup to the egress gateways, unless the check
    /// includes the packet's mark.
    fn reverse_path_of_host(&self, desired: &DesiredState, report: &mut CheckReport) {
        if desired.paths.get(Family::Ipv4).egress != EgressPath::Main {
            let marked = self.number(SRC_VALID_MARK) == Some(1);
            let filtering = self.filtering_interfaces();
            self.strict_interfaces(&filtering, marked, report);
            self.src_valid_mark(desired, marked, filtering.is_empty(), report);
        }
        self.accept(desired, report);
    }

    /// The interfaces with an IPv4 address and a reverse path check, with the level.
    fn filtering_interfaces(&self) -> Vec<(&str, u64)> {
        let facts = &self.view.facts;
        let has_ipv4 = |index| {
            let mut own = facts.addresses.iter().filter(|own| own.link == index);
            own.any(|own| Family::of_net(&own.net) == Family::Ipv4)
        };
        facts
            .links
            .iter()
            .filter(|link| link.up && !link.loopback && has_ipv4(link.index))
            .map(|link| (link.name.as_str(), self.rp_filter(&link.name)))
            .filter(|(_, level)| *level > 0)
            .collect()
    }

    fn strict_interfaces(&self, filtering: &[(&str, u64)], marked: bool, report: &mut CheckReport) {
        let strict: Vec<&str> = filtering
            .iter()
            .filter(|(_, level)| *level == 1 && !marked)
            .map(|(device, _)| *device)
            .collect();
        let managed =
            self.manages(ManagedSysctl::RpFilter) || self.manages(ManagedSysctl::SrcValidMark);
        for device in &strict {
            let text = format!(
                "{device} is strict: the kernel drops connections from outside on {device} if their replies leave through another interface or no egress gateway is available"
            );
            let advice = if managed {
                self.managed("sets it")
            } else {
                format!(
                    "sysctl -w net.ipv4.conf.all.src_valid_mark=1, or net.ipv4.conf.{device}.rp_filter=2 (and in /etc/sysctl.d)"
                )
            };
            report.warn("rp_filter", text, advice);
        }
        if strict.is_empty() {
            report.ok("rp_filter", "no interface drops marked connections");
        }
    }

    fn src_valid_mark(
        &self,
        desired: &DesiredState,
        marked: bool,
        unfiltered: bool,
        report: &mut CheckReport,
    ) {
        let name = "src_valid_mark";
        if marked {
            report.ok(
                name,
                "on: the reverse path check includes Trailblazer's marks",
            );
        } else if unfiltered {
            report.ok(name, "off, and no interface checks the reverse path");
        } else if !self.may_shut(desired, Family::Ipv4) {
            let text = "off, and the egress path never closes ([egress] when_down = \"bypass\")";
            report.ok(name, text);
        } else {
            let advice = if self.manages(ManagedSysctl::SrcValidMark) {
                self.managed("sets it")
            } else {
                "sysctl -w net.ipv4.conf.all.src_valid_mark=1, or [kernel] manage = [\"src_valid_mark\"]".to_owned()
            };
            let text = format!(
                "off: {}, the reverse path check drops IPv4 connections from outside, even in loose mode",
                self.when_shut(Family::Ipv4)
            );
            report.warn(name, text, advice);
        }
    }

    /// True if at times the family's egress table may hold only the `unreachable` default.
    fn may_shut(&self, desired: &DesiredState, family: Family) -> bool {
        let egress = &self.config.egress;
        desired.paths.get(family).egress != EgressPath::Main
            && (egress.when_down == WhenDown::Unreachable || egress.close.contains(&family))
    }

    /// The times of such a closed path; with `close` and without a gateway, always.
    fn when_shut(&self, family: Family) -> String {
        if !self.config.egress.has_gateway(family) {
            format!("while {family} is closed ([egress] close)")
        } else {
            "from a link failure to the next pass, and while no egress gateway is available"
                .to_owned()
        }
    }

    /// Only with `tcp_fwmark_accept` does the kernel route the SYN-ACK by the mark of the SYN.
    /// Despite its name the sysctl applies to both families.
    fn accept(&self, desired: &DesiredState, report: &mut CheckReport) {
        let name = "tcp_fwmark_accept";
        let shut: Vec<Family> = Family::ALL
            .into_iter()
            .filter(|family| self.may_shut(desired, *family))
            .collect();
        if shut.is_empty() {
            return;
        }
        if self.number("net/ipv4/tcp_fwmark_accept") == Some(1) {
            let text = "on: TCP connections from outside survive the loss of all gateways";
            return report.ok(name, text);
        }
        let advice = if self.manages(ManagedSysctl::TcpFwmarkAccept) {
            self.managed("sets it") + "; connections accepted before stay without a mark"
        } else {
            "sysctl -w net.ipv4.tcp_fwmark_accept=1 (applies to both families), or [kernel] manage = [\"tcp_fwmark_accept\"]".to_owned()
        };
        let mut times: Vec<String> = Vec::new();
        for family in shut {
            let when = self.when_shut(family);
            if times.contains(&when) {
                continue;
            }
            report.warn(
                name,
                format!(
                    "off: {when}, TCP connections from outside time out, new and existing connections alike"
                ),
                advice.clone(),
            );
            times.push(when);
        }
    }

    fn conntrack(&self, role: Role, report: &mut CheckReport) {
        let name = "conntrack";
        let count = self.number("net/netfilter/nf_conntrack_count");
        let Some(max) = self.number("net/netfilter/nf_conntrack_max") else {
            report.ok(name, "not loaded yet: Trailblazer's rules load the module");
            return;
        };
        let count = count.unwrap_or(0);
        let text = format!("{count} of {max} entries in use");
        let crowded = is_crowded(count, max);
        let small = role == Role::Nat && max > 0 && max < SMALL;
        let fitting = conntrack_max(&self.view.facts);
        if (crowded || small) && fitting > max {
            report.warn(
                name,
                format!("{text}: a full table drops new connections"),
                format!("sysctl -w net.netfilter.nf_conntrack_max={fitting} net.netfilter.nf_conntrack_buckets={}, which fits the memory of this machine, or [kernel] manage = [\"conntrack_max\"]", fitting / 4),
            );
        } else if crowded {
            report.warn(
                name,
                format!("{text}: a full table drops new connections, and a larger one would take more than a quarter of the memory"),
                "use a larger machine or a second NAT, or shorten net.netfilter.nf_conntrack_tcp_timeout_established and nf_conntrack_udp_timeout",
            );
        } else {
            report.ok(name, text);
        }
        let timeout = self.number("net/netfilter/nf_conntrack_tcp_timeout_established");
        if let Some(seconds) = timeout.filter(|seconds| *seconds < SHORT_TIMEOUT) {
            let loss = match role {
                Role::Nat => "its translation",
                Role::Host => "its path, unless the agent keeps it",
            };
            report.warn(
                name,
                format!("an open TCP connection that is silent for {seconds} s loses {loss}"),
                "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=432000 (the kernel's default, five days)",
            );
        }
    }

    /// The source ports of translated egress traffic.
    fn egress_ports(&self, desired: &DesiredState, report: &mut CheckReport) {
        if self.config.nat.egress_addresses.is_empty() || desired.firewall.is_none() {
            return;
        }
        let text = if self.config.nat.random_ports {
            "egress traffic gets random source ports, where the firewall supports them"
        } else {
            "egress traffic keeps its source ports, unless two flows collide ([nat] random_ports = false)"
        };
        report.ok("ports", text);
    }

    fn ports(&self, report: &mut CheckReport) {
        /// The size of the kernel's default, 32768 to 60999 (ip-sysctl.rst).
        const FEW: u32 = 28_232;
        let name = "ip_local_port_range";
        let path = "net/ipv4/ip_local_port_range";
        let value = self.view.facts.sysctls.values.get(path);
        let ends: Vec<u32> = value
            .map(|value| value.split_whitespace().flat_map(str::parse).collect())
            .unwrap_or_default();
        let [first, last] = ends[..] else {
            report.warn(name, format!("cannot read {path}"), "check /proc/sys");
            return;
        };
        let count = last.saturating_sub(first) + 1;
        let text = format!("{first} to {last}, {count} ports for this host's own connections");
        if count < FEW {
            report.warn(
                name,
                text,
                "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", or [kernel] manage = [\"ip_local_port_range\"]",
            );
        } else {
            report.ok(name, text);
        }
    }
}
