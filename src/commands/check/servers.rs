//! UDP servers at all addresses of a host with several interfaces.

use std::collections::BTreeSet;

use super::report::CheckReport;
use crate::desired::DesiredState;
use crate::firewall::Ports;
use crate::objects::BypassPath;
use crate::reconcile::View;
use crate::types::{Family, IfIndex};

/// The ports of DHCP clients (RFC 2131, RFC 8415), which bind to an interface.
const DHCP_CLIENTS: [u16; 2] = [68, 546];

/// Warns about servers whose answers to clients outside get another source address.
///
/// Such a server leaves the choice of the source to the kernel, which chooses by the route of an
/// unmarked packet: the egress route, if the egress gateway is on another interface than the main
/// default. The client has sent to the address of the main default's interface.
pub(super) fn all(view: &View, desired: &DesiredState, report: &mut CheckReport) {
    let local = view
        .facts
        .sysctls
        .values
        .get("net/ipv4/ip_local_port_range");
    let local = local
        .and_then(|range| Ports::parse(range))
        .unwrap_or(Ports::LOCAL);
    for family in Family::ALL {
        let Some(default) = view.facts.default_path(family, None) else {
            continue;
        };
        let outer = default.devices();
        let elsewhere = egress_devices(view, desired, family)
            .into_iter()
            .find(|device| !outer.contains(device));
        let ports = wildcards(family, local);
        let Some(device) = elsewhere.filter(|_| !ports.is_empty()) else {
            continue;
        };
        let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let (inner, outer) = (view.facts.device_name(device), name_of(view, &default));
        report.warn(
            "servers",
            format!(
                "{family}: the UDP servers at port {} listen at all addresses: their answers to clients outside leave with the address of {inner}, the egress interface, and clients of {outer} ignore them",
                list.join(", ")
            ),
            format!("bind each server to its address on {outer}, or reach the egress gateway by {outer}"),
        );
    }
}

fn name_of(view: &View, path: &BypassPath) -> String {
    view.facts.device_name(path.first().device)
}

/// The interfaces of the egress default.
fn egress_devices(view: &View, desired: &DesiredState, family: Family) -> Vec<IfIndex> {
    let table = view.ownership.current.egress_table;
    let default = family.default_prefix();
    let routes = desired.routes.iter();
    routes
        .filter(|route| route.key.table == table && route.key.dst == default)
        .flat_map(|route| route.target.legs())
        .map(|leg| leg.via.device)
        .collect()
}

/// The ports of unconnected UDP sockets at all addresses, without those of clients.
fn wildcards(family: Family, local: Ports) -> BTreeSet<u16> {
    let path = match family {
        Family::Ipv4 => "/proc/thread-self/net/udp",
        Family::Ipv6 => "/proc/thread-self/net/udp6",
    };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let client =
        |port: u16| DHCP_CLIENTS.contains(&port) || (local.first..=local.last).contains(&port);
    let mut ports = parse(&text);
    ports.retain(|port| !client(*port));
    ports
}

/// Reads `/proc/net/udp` (net/ipv4/udp.c, `udp4_format_sock`): number, local and remote end in
/// hexadecimal digits.
fn parse(text: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let (_, peer) = words.next()?.split_once(':')?;
        let wildcard = address.bytes().all(|digit| digit == b'0') && peer == "0000";
        u16::from_str_radix(port, 16).ok().filter(|_| wildcard)
    };
    text.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_servers_are_told_from_bound_and_connected_sockets() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            1: 00000000:0035 00000000:0000 07 00000000:00000000\n\
            2: 0100007F:0277 00000000:0000 07 00000000:00000000\n\
            3: 00000000:1389 0A01000A:0035 01 00000000:00000000\n\
            4: 00000000000000000000000000000000:01F4 00000000000000000000000000000000:0000 07\n\
            nonsense\n";
        assert_eq!(parse(text), BTreeSet::from([53, 500]));
    }
}
