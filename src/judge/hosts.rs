//! Networks of hosts, and addresses in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// True for a network with clients of its own: a rule for fewer addresses names single hosts.
pub(super) fn is_network(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(v4) => v4.prefix_len() <= 29,
        IpNet::V6(v6) => v6.prefix_len() <= 120,
    }
}

/// Some host addresses from the middle of a network: its ends are routers and broadcasts.
pub(super) fn first_hosts(network: IpNet) -> impl Iterator<Item = IpAddr> {
    (0..64u128)
        .map(move |offset| match network {
            IpNet::V4(v4) => {
                let half = (1u64 << (32 - v4.prefix_len())) / 2;
                IpAddr::V4(Ipv4Addr::from_bits(
                    v4.network()
                        .to_bits()
                        .wrapping_add((half + offset as u64) as u32),
                ))
            }
            IpNet::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(
                v6.network().to_bits().wrapping_add(0xffff + offset),
            )),
        })
        .filter(move |address| network.contains(address))
}
