//! Notes a masquerade that gives bypass traffic an egress address.

use std::net::{IpAddr, Ipv6Addr};

use crate::facts::HostFacts;
use crate::objects::Via;
use crate::types::Family;

/// A note if masqueraded bypass traffic leaves from one of the `egress` addresses. No address leaks,
/// but the source address no longer tells the paths apart.
pub(super) fn note(
    facts: &HostFacts,
    family: Family,
    bypass: Via,
    egress: &[IpAddr],
) -> Option<String> {
    let on_device: Vec<_> = facts
        .addresses
        .iter()
        .map(|own| (own.link, own.net))
        .filter(|(link, net)| {
            *link == bypass.device && Family::of_net(net) == family && !is_link_local(net.addr())
        })
        .map(|(_, net)| net)
        .collect();
    let (address, certain) = match family {
        // The kernel takes the first address in the next hop's network, else the first address
        // (`inet_select_addr`, net/ipv4/devinet.c).
        Family::Ipv4 => {
            let near = bypass
                .gateway
                .and_then(|gateway| on_device.iter().find(|net| net.contains(&gateway)));
            let chosen = near.or(on_device.first())?.addr();
            (egress.contains(&chosen).then_some(chosen)?, true)
        }
        // The kernel chooses per destination, by RFC 6724 (`ipv6_dev_get_saddr`,
        // net/ipv6/addrconf.c).
        Family::Ipv6 => {
            let shared = |net: &&ipnet::IpNet| egress.contains(&net.addr());
            let first = on_device.iter().find(shared)?.addr();
            (first, on_device.iter().all(|net| shared(&net)))
        }
    };
    let takes = if certain { "takes" } else { "may take" };
    Some(format!(
        "[nat] bypass: masquerading {takes} {address} on {}, which is an egress address: bypass traffic then leaves from it; set [nat] bypass to another address of this host",
        facts.device_name(bypass.device)
    ))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => Ipv6Addr::is_unicast_link_local(&address),
    }
}
