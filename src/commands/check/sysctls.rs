//! Sysctls: whether packets may be forwarded, and whether the reverse path check agrees.

use std::collections::BTreeMap;

use super::finding::Findings;
use crate::config::{Config, ManagedSysctl, Role, WhenDown};
use crate::desired::{DesiredState, EgressPath};
use crate::kernel::sysctl;
use crate::reconcile::View;
use crate::types::{Family, Protocol};
use crate::verify::forwarding;

/// Routes from router advertisements (`RTPROT_RA`, linux/rtnetlink.h).
const RTPROT_RA: Protocol = Protocol(9);
/// Part of conntrack's table in use, in percent, above which new flows may soon be refused.
const CROWDED: u64 = 80;
/// Fewer entries than one address can have towards one partner.
const SMALL: u64 = 65_536;

const ALL: &str = "net/ipv4/conf/all/rp_filter";
const SRC_VALID_MARK: &str = "net/ipv4/conf/all/src_valid_mark";

pub(super) fn all(
    config: &Config,
    role: Role,
    view: &View,
    desired: Option<&DesiredState>,
    findings: &mut Findings,
) {
    let check = Check {
        config,
        view,
        values: sysctl::read(paths(view)),
    };
    let Some(desired) = desired else { return };
    match role {
        Role::Nat => {
            check.forwarding(desired, findings);
            check.reverse_path_of_nat(desired, findings);
            check.ports(findings);
        }
        Role::Host => check.reverse_path_of_host(desired, findings),
    }
    check.conntrack(role, findings);
}

/// Those of every interface: the facts hold only those with a default route.
fn paths(view: &View) -> Vec<String> {
    let links = view.facts.links.iter().filter(|link| !link.loopback);
    let mut paths: Vec<String> = links
        .map(|link| format!("net/ipv4/conf/{}/rp_filter", link.name))
        .collect();
    paths.push(ALL.to_owned());
    paths.push(SRC_VALID_MARK.to_owned());
    paths
}

struct Check<'a> {
    config: &'a Config,
    view: &'a View,
    values: BTreeMap<String, String>,
}

impl Check<'_> {
    fn manages(&self, name: ManagedSysctl) -> bool {
        self.config.kernel.manage.contains(&name)
    }

    fn number(&self, path: &str) -> Option<u64> {
        let known = &self.view.facts.sysctls.values;
        let value = self.values.get(path).or_else(|| known.get(path))?;
        value.parse().ok()
    }

    /// The larger of all and the interface's own counts
    /// (Documentation/networking/ip-sysctl.rst).
    fn rp_filter(&self, device: &str) -> u64 {
        let own = self.number(&format!("net/ipv4/conf/{device}/rp_filter"));
        own.unwrap_or(0).max(self.number(ALL).unwrap_or(0))
    }

    fn forwarding(&self, desired: &DesiredState, findings: &mut Findings) {
        let name = "forwarding";
        for family in Family::ALL {
            if desired.paths.get(family).inputs.is_empty() {
                continue;
            }
            let path = match family {
                Family::Ipv4 => "net.ipv4.ip_forward",
                Family::Ipv6 => "net.ipv6.conf.all.forwarding",
            };
            match forwarding(&self.view.facts, family) {
                Some(true) => findings.ok(name, format!("{path} is on")),
                Some(false) if self.manages(ManagedSysctl::IpForward) => findings.warn(
                    name,
                    format!("{path} is off"),
                    "the next pass switches it on ([kernel] manage has \"ip_forward\")",
                ),
                Some(false) => findings.fail(
                    name,
                    format!("{path} is off: no packet of a host is forwarded"),
                    format!("sysctl -w {path}=1 (and in /etc/sysctl.d), or [kernel] manage = [\"ip_forward\"]"),
                ),
                None => findings.warn(name, format!("{path} can't be read"), "check /proc/sys"),
            }
        }
        self.router_advertisements(findings);
    }

    /// A forwarding host ignores them, and with them its default route, unless accept_ra says 2.
    fn router_advertisements(&self, findings: &mut Findings) {
        let facts = &self.view.facts;
        if forwarding(facts, Family::Ipv6) != Some(true) {
            return;
        }
        for route in facts.defaults(Family::Ipv6) {
            let Some(device) = route.device.filter(|_| route.protocol == RTPROT_RA) else {
                continue;
            };
            let device = facts.device_name(device);
            if self.number(&format!("net/ipv6/conf/{device}/accept_ra")) == Some(1) {
                findings.warn(
                    "forwarding",
                    format!("the IPv6 default on {device} comes from router advertisements, which a forwarding host ignores: it will run out"),
                    format!("sysctl -w net.ipv6.conf.{device}.accept_ra=2, or [kernel] manage = [\"ip_forward\"]"),
                );
            }
        }
    }

    /// Storage answers on the bypass interface; without the packet's incoming interface among
    /// the hosts', the way back to storage is the main table's default.
    fn reverse_path_of_nat(&self, desired: &DesiredState, findings: &mut Findings) {
        let name = "rp_filter";
        let facts = &self.view.facts;
        let Some(via) = desired.paths.get(Family::Ipv4).bypass else {
            return;
        };
        let device = facts.device_name(via.device);
        let back = facts
            .defaults(Family::Ipv4)
            .first()
            .and_then(|route| route.device);
        if back == Some(via.device) || self.rp_filter(&device) != 1 {
            findings.ok(name, format!("{device} takes the answers of storage"));
            return;
        }
        let text = format!(
            "{device} is strict: it drops the answers of storage, since the main table's default leaves elsewhere"
        );
        match self.manages(ManagedSysctl::RpFilter) {
            true => findings.warn(name, text, "the next pass sets net.ipv4.conf.all.rp_filter=2"),
            false => findings.fail(
                name,
                text,
                format!("sysctl -w net.ipv4.conf.{device}.rp_filter=2, or [kernel] manage = [\"rp_filter\"]"),
            ),
        }
    }

    /// Connections from outside: the check of their first packet looks up the way back to the
    /// client, which our rules lead to the egress gateways unless the mark counts.
    fn reverse_path_of_host(&self, desired: &DesiredState, findings: &mut Findings) {
        if desired.paths.get(Family::Ipv4).egress == EgressPath::Main {
            self.accept(desired, findings);
            return;
        }
        let marked = self.number(SRC_VALID_MARK) == Some(1);
        let facts = &self.view.facts;
        let filtering: Vec<(&str, u64)> = facts
            .links
            .iter()
            .filter(|link| link.up && !link.loopback)
            .filter(|link| {
                facts
                    .addresses
                    .iter()
                    .any(|own| own.link == link.index && Family::of_net(&own.net) == Family::Ipv4)
            })
            .map(|link| (link.name.as_str(), self.rp_filter(&link.name)))
            .filter(|(_, level)| *level > 0)
            .collect();
        let managed = "the next pass sets it ([kernel] manage)".to_owned();
        for (device, _) in filtering.iter().filter(|(_, level)| *level == 1 && !marked) {
            let text = format!(
                "{device} is strict: connections from outside that come in there are dropped when their answers would leave by another interface or no egress gateway is left"
            );
            let mended =
                self.manages(ManagedSysctl::RpFilter) || self.manages(ManagedSysctl::SrcValidMark);
            let advice = match mended {
                true => managed.clone(),
                false => format!(
                    "sysctl -w net.ipv4.conf.all.src_valid_mark=1, or net.ipv4.conf.{device}.rp_filter=2 (and in /etc/sysctl.d)"
                ),
            };
            findings.warn("rp_filter", text, advice);
        }
        if marked || !filtering.iter().any(|(_, level)| *level == 1) {
            findings.ok("rp_filter", "no interface is strict against our marks");
        }
        match (marked, filtering.is_empty()) {
            (true, _) => findings.ok("src_valid_mark", "on: the reverse path check sees our marks"),
            (false, true) => findings.ok("src_valid_mark", "off, and no interface checks the reverse path"),
            (false, false) if !self.may_shut(desired, Family::Ipv4) => findings.ok(
                "src_valid_mark",
                "off, and the egress path never shuts ([egress] when_down = \"bypass\")",
            ),
            (false, false) => findings.warn(
                "src_valid_mark",
                format!(
                    "off: {}, the reverse path check drops IPv4 connections opened from outside, in the loose mode too",
                    self.when_shut(Family::Ipv4)
                ),
                match self.manages(ManagedSysctl::SrcValidMark) {
                    true => managed,
                    false => "sysctl -w net.ipv4.conf.all.src_valid_mark=1, or [kernel] manage = [\"src_valid_mark\"]".to_owned(),
                },
            ),
        }
        self.accept(desired, findings);
    }

    /// Whether the egress table of a family may at times hold nothing but `unreachable`.
    fn may_shut(&self, desired: &DesiredState, family: Family) -> bool {
        let egress = &self.config.egress;
        desired.paths.get(family).egress != EgressPath::Main
            && (egress.when_down == WhenDown::Unreachable || egress.close.contains(&family))
    }

    /// When it does: `close` without a gateway is for ever.
    fn when_shut(&self, family: Family) -> String {
        match self.config.egress.gateways_of(family).is_empty() {
            true => format!("while {family} is closed ([egress] close)"),
            false => {
                "after a link was down and until the next pass, and while no egress gateway is left"
                    .to_owned()
            }
        }
    }

    /// The answer to a SYN is routed by the mark of the SYN only with this; in spite of its name
    /// it governs both families.
    fn accept(&self, desired: &DesiredState, findings: &mut Findings) {
        let name = "tcp_fwmark_accept";
        let shut: Vec<Family> = Family::ALL
            .into_iter()
            .filter(|family| self.may_shut(desired, *family))
            .collect();
        if shut.is_empty() {
            return;
        }
        if self.number("net/ipv4/tcp_fwmark_accept") == Some(1) {
            findings.ok(
                name,
                "on: TCP connections from outside survive the loss of all gateways",
            );
            return;
        }
        let advice = match self.manages(ManagedSysctl::TcpFwmarkAccept) {
            true => {
                "the next pass sets it ([kernel] manage); connections that are open by then take no mark any more"
            }
            false => {
                "sysctl -w net.ipv4.tcp_fwmark_accept=1 (it governs both families), or [kernel] manage = [\"tcp_fwmark_accept\"]"
            }
        };
        let mut times: Vec<String> = Vec::new();
        for family in shut {
            let when = self.when_shut(family);
            if times.contains(&when) {
                continue;
            }
            findings.warn(
                name,
                format!(
                    "off: {when}, TCP connections opened from outside time out, new and open ones"
                ),
                advice,
            );
            times.push(when);
        }
    }

    fn conntrack(&self, role: Role, findings: &mut Findings) {
        let name = "conntrack";
        let count = self.number("net/netfilter/nf_conntrack_count");
        let Some(max) = self.number("net/netfilter/nf_conntrack_max") else {
            findings.ok(name, "not loaded yet: our rules load it");
            return;
        };
        let count = count.unwrap_or(0);
        let text = format!("{count} of {max} entries in use");
        // Zero means no bound.
        let crowded = max > 0 && count.saturating_mul(100) > max.saturating_mul(CROWDED);
        let small = role == Role::Nat && max > 0 && max < SMALL;
        if crowded || small {
            findings.warn(
                name,
                format!("{text}: new connections are dropped when it is full"),
                "sysctl -w net.netfilter.nf_conntrack_max=262144, or [kernel] manage = [\"conntrack_max\"]",
            );
        } else {
            findings.ok(name, text);
        }
    }

    fn ports(&self, findings: &mut Findings) {
        /// The kernel's default, 32768 to 60999, has 28,232 (ip-sysctl.rst).
        const FEW: u32 = 28_232;
        let name = "ip_local_port_range";
        let path = "net/ipv4/ip_local_port_range";
        let value = self.view.facts.sysctls.values.get(path);
        let ends: Vec<u32> = value
            .map(|value| value.split_whitespace().flat_map(str::parse).collect())
            .unwrap_or_default();
        let [first, last] = ends[..] else {
            findings.warn(name, "it can't be read", "check /proc/sys");
            return;
        };
        let count = last.saturating_sub(first) + 1;
        let text = format!("{first} to {last}, {count} ports for this host's own connections");
        if count < FEW {
            findings.warn(
                name,
                text,
                "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", or [kernel] manage = [\"ip_local_port_range\"]",
            );
        } else {
            findings.ok(name, text);
        }
    }
}
