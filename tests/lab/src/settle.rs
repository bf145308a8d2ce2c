//! Waits for the kernel's own work after the creation of links and addresses.

use std::time::Duration;

use serde_json::Value;

use super::{Ns, wait_until};

/// Waits until every link has its carrier and every IPv6 address its local route.
///
/// A packet before the carrier is dropped, and ARP tries again only after a second. A work queue
/// completes addresses later still, even without duplicate address detection (`addrconf_dad_work`,
/// net/ipv6/addrconf.c): a snapshot taken too early would differ from every later snapshot.
///
/// # Panics
/// After ten seconds.
pub fn wait_until_settled(ns: &Ns) {
    wait_until(
        Duration::from_secs(10),
        Duration::from_millis(2),
        || {
            let links = ns.ip_json("addr show");
            let links = links.as_array().expect("ip -j lists an array");
            let settled = links.iter().all(is_finished) && have_local_routes(ns, links);
            settled.then_some(())
        },
        || {
            format!(
                "each link of {} with its carrier, each IPv6 address with its local route:\n{}{}",
                ns.name(),
                ns.ip("-o addr show"),
                ns.ip("-6 route show table local")
            )
        },
    );
}

/// True with a carrier, a link-local address and no tentative address.
fn is_finished(link: &Value) -> bool {
    if link["ifname"] == "lo" {
        return true;
    }
    let link_local = |address: &Value| {
        let local = address["local"].as_str();
        local.is_some_and(|local| local.starts_with("fe80:"))
    };
    link["operstate"] == "UP"
        && ipv6_addresses(link).any(link_local)
        && ipv6_addresses(link).all(|address| address["tentative"] != true)
}

fn have_local_routes(ns: &Ns, links: &[Value]) -> bool {
    let routes = ns.ip_json("-6 route show table local");
    let routes = routes.as_array().expect("ip -j lists an array");
    links.iter().all(|link| {
        ipv6_addresses(link).all(|address| {
            routes
                .iter()
                .any(|route| route["dst"] == address["local"] && route["dev"] == link["ifname"])
        })
    })
}

fn ipv6_addresses(link: &Value) -> impl Iterator<Item = &Value> {
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    addresses.filter(|address| address["family"] == "inet6")
}
