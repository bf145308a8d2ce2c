//! The rules of the host role that mark flows opened from outside.
//!
//! ```text
//! prerouting  redirect of an egress gateway                             → drop
//!             first packet that conntrack sees, an answer to this host  → leave unmarked
//!             first packet, to this host or forwarded from outside      → flow mark
//!             flow mark                                                 → packet mark
//! output      first packet, an answer of a server's port                → flow mark
//!             flow mark                                                 → packet mark
//! ```
//!
//! The first packet that conntrack sees need not be the first packet of the flow: conntrack forgets
//! a flow when the flow idles beyond the timeout, and every flow on `conntrack -F`. The next packet
//! may then be the peer's answer to a flow that this host opened. A mark on such a flow would send
//! the flow past the egress path, with another source address. Flows of this host have a local port
//! of `ip_local_port_range`: a TCP packet to such a port opens a flow only with SYN and without
//! ACK, and a datagram is an answer if its socket is connected, or if it comes from the port of a
//! service. The other way round, a TCP packet of this host from another port belongs to a server
//! here, unless the packet opens a flow.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{DesiredState, Inputs, disjoint, special};
use crate::config::{Config, ManagedSysctl};
use crate::desired::sysctl::PORT_RANGE;
use crate::facts::Sysctls;
use crate::firewall::{Chain, FwRule, Hook, Match, Ports, Ruleset, Statement};
use crate::objects::BypassPath;
use crate::types::{Family, IfIndex};

/// The rules for the inbound mark. A flow opened from outside gets the flow mark, and the packets of
/// the flow get the packet mark: our packets in `output`, where a changed mark repeats the routing
/// decision, and the client's packets in `prerouting`. With `tcp_fwmark_accept=1`, the kernel's
/// first look-up for the answer then uses the mark; with `src_valid_mark=1`, so does the reverse
/// path check.
pub(super) fn marks(inputs: &Inputs, state: &DesiredState) -> Ruleset {
    let path = inputs.config.kernel.path_mask;
    let ports = local_ports(inputs.config, &inputs.facts.sysctls);
    // The state first: packets of open flows fail it.
    let first = || vec![Match::NewFlow, Match::NotInputInterface("lo".to_owned())];
    let rule = |family, matches, verdict| FwRule {
        family,
        matches,
        verdict,
    };
    let mut rules: Vec<FwRule> = [
        Match::TcpAnswer(ports),
        Match::UdpAnswer(ports),
        Match::UdpWithSocket(ports),
    ]
    .into_iter()
    .map(|answer| rule(None, [first(), vec![answer]].concat(), Statement::Accept))
    .collect();
    let set = Statement::SetFlowMark(path.inbound());
    let local = [first(), vec![Match::DestinationIsLocal]].concat();
    rules.push(rule(None, local, set.clone()));
    for family in Family::ALL {
        for device in outer_devices(inputs, family, state) {
            let mut matches = vec![
                Match::NewFlow,
                Match::InputInterface(inputs.facts.device_name(device)),
            ];
            let inside = inside(inputs, family, device).into_iter();
            matches.extend(inside.map(Match::NotSource));
            rules.push(rule(Some(family), matches, set.clone()));
        }
    }
    let restore = FwRule {
        family: None,
        matches: vec![Match::FlowMark(path.inbound())],
        verdict: Statement::RestoreMark {
            mask: path.packet().mask,
        },
    };
    rules.push(restore.clone());
    let server = |ports| {
        let matches = vec![Match::NewFlow, Match::TcpAnswerFrom(ports)];
        rule(None, matches, set.clone())
    };
    let mut leaving: Vec<FwRule> = ports.others().into_iter().map(server).collect();
    leaving.push(restore);
    Ruleset {
        chains: vec![
            Chain {
                hook: Hook::Prerouting,
                rules,
            },
            Chain {
                hook: Hook::OutputReroute,
                rules: leaving,
            },
        ],
    }
}

/// The rules against redirects of the egress gateways.
///
/// A NAT with one interface that forwards a packet without translation names the VPC router as the
/// nearer way to the partner. The kernel then sends packets for this partner past the NAT until 300
/// seconds after the last redirect, whatever our tables hold. IPv4 takes a redirect only from the
/// present gateway of the route (`__ip_do_redirect`, net/ipv4/route.c). IPv6 takes a redirect for
/// a TCP connection from every link-local address (`rt6_do_redirect`, net/ipv6/route.c, after
/// `tcp_v6_err`), and the link-local address of a gateway is unknown.
pub(super) fn redirects(inputs: &Inputs) -> Vec<FwRule> {
    let rule = |family, sender: Option<IpAddr>| FwRule {
        family: Some(family),
        matches: [Match::Redirect]
            .into_iter()
            .chain(sender.map(|sender| Match::Source(IpNet::from(sender))))
            .collect(),
        verdict: Statement::Drop,
    };
    let gateways = |family| inputs.config.egress.gateways_of(family).into_iter();
    let senders = gateways(Family::Ipv4).map(Some);
    let any = gateways(Family::Ipv6).take(1).map(|_| None);
    let rules = senders.map(|sender| rule(Family::Ipv4, sender));
    rules
        .chain(any.map(|any| rule(Family::Ipv6, any)))
        .collect()
}

/// The local ports of flows that this host opens.
pub fn local_ports(config: &Config, sysctls: &Sysctls) -> Ports {
    let manage = &config.kernel.manage;
    if manage.contains(&ManagedSysctl::IpLocalPortRange) {
        return Ports::parse(PORT_RANGE).unwrap_or(Ports::LOCAL);
    }
    let range = sysctls.values.get("net/ipv4/ip_local_port_range");
    let range = range.and_then(|range| Ports::parse(range));
    range.unwrap_or(Ports::LOCAL)
}

/// The interfaces of the main default, where clients outside come in. A guest of this host has the
/// default's answers routed by our rules, unless the flow is marked.
fn outer_devices(inputs: &Inputs, family: Family, state: &DesiredState) -> BTreeSet<IfIndex> {
    if state.rules.iter().all(|rule| rule.family != family) {
        return BTreeSet::new();
    }
    let default = inputs.facts.default_path(family, None);
    let path = default.as_ref().or(state.paths.get(family).bypass.as_ref());
    let vias = path.into_iter().flat_map(BypassPath::vias);
    vias.map(|via| via.device).collect()
}

/// Sources that are not outside: private networks and the VPC, whose answers our tables throw back to
/// the main table anyway, and the connected networks of the interface. Their hosts may use this
/// host as their router.
pub(super) fn inside(inputs: &Inputs, family: Family, device: IfIndex) -> Vec<IpNet> {
    let own = inputs.facts.addresses.iter();
    let connected = own
        .filter(|own| own.link == device && Family::of_net(&own.net) == family)
        .map(|own| own.net.trunc())
        .filter(|net| net.prefix_len() < net.max_prefix_len());
    let thrown = special::thrown(family, inputs.vpc_cidrs).into_iter();
    disjoint(thrown.chain(connected).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_range_is_read_as_the_kernel_prints_it() {
        let ports = |first, last| Some(Ports { first, last });
        assert_eq!(Ports::parse("32768\t60999"), ports(32_768, 60_999));
        assert_eq!(Ports::parse(PORT_RANGE), ports(1024, 65_535));
        assert_eq!(Ports::parse("9 1"), None);
        assert_eq!(Ports::parse(""), None);
        let others = |text| Ports::parse(text).map(Ports::others);
        assert_eq!(others("1 65535"), Some(Vec::new()));
        let ends = [ports(1, 1023), ports(60_001, 65_535)];
        assert_eq!(others("1024 60000"), ends.into_iter().collect());
    }
}
