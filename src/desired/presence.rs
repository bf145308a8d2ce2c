//! The families that the host uses.

use std::net::{IpAddr, Ipv6Addr};

use crate::facts::HostFacts;
use crate::types::Family;

/// The note for a host without IPv6.
pub(super) const IPV6_IS_OFF: &str =
    "IPv6 is switched off on this host (net.ipv6.conf.all.disable_ipv6=1)";

/// True if the host has an address of the family beyond its own links: without one, no packet of
/// the family goes to the internet, whatever the settings say.
pub(super) fn in_use(facts: &HostFacts, family: Family) -> bool {
    facts.addresses.iter().any(|own| {
        let address = own.net.addr();
        Family::of(address) == family && !is_local(address)
    })
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

/// True if IPv6 is switched off on the whole host: `conf/all/disable_ipv6=1` removes all addresses,
/// and no interface has been switched on again since.
pub(super) fn ipv6_is_off(facts: &HostFacts) -> bool {
    is_set(facts, "all") && !facts.addresses.iter().any(|own| is_ipv6(own.net.addr()))
}

/// The interfaces with IPv6 switched off, as far as they are known.
pub(super) fn links_without_ipv6(facts: &HostFacts) -> Vec<String> {
    let links = facts.links.iter().filter(|link| !link.loopback);
    links
        .filter(|link| is_set(facts, &link.name))
        .map(|link| link.name.clone())
        .collect()
}

fn is_set(facts: &HostFacts, name: &str) -> bool {
    let path = format!("net/ipv6/conf/{name}/disable_ipv6");
    facts.sysctls.values.get(&path).is_some_and(|v| v == "1")
}

fn is_ipv6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address != Ipv6Addr::LOCALHOST)
}
