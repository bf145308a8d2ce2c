//! Address space that no default of ours applies to: the main table decides there.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::Family;

/// Private, shared, link-local and multicast space of a family.
pub fn local_space(family: Family) -> Vec<IpNet> {
    let texts: &[&str] = match family {
        Family::Ipv4 => &[
            "10.0.0.0/8",     // RFC 1918
            "100.64.0.0/10",  // RFC 6598, shared space of carriers; also EKS pods
            "169.254.0.0/16", // RFC 3927; metadata 169.254.169.254, DNS .253, time .123
            "172.16.0.0/12",  // RFC 1918
            "192.168.0.0/16", // RFC 1918
            "224.0.0.0/4",    // RFC 5771, multicast: the main table decides the interface
        ],
        Family::Ipv6 => &[
            "fc00::/7",  // RFC 4193; AWS's fd00:ec2:: services
            "fe80::/10", // RFC 4291
            "ff00::/8",  // RFC 4291, multicast
        ],
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// True for addresses that the host has or may get by itself: those of its networks and of private
/// space. Any other address, such as an Elastic IP, stands on another machine.
pub fn is_near(own: &[IpNet], address: IpAddr) -> bool {
    let space = local_space(Family::of(address));
    own.iter().chain(&space).any(|net| net.contains(&address))
}

/// The prefixes that the egress table throws back to the main table: local space and the VPC's
/// CIDRs (which may be public), without prefixes covered by another.
pub fn thrown(family: Family, vpc_cidrs: &[IpNet]) -> Vec<IpNet> {
    let mut all = local_space(family);
    all.extend(
        vpc_cidrs
            .iter()
            .filter(|cidr| Family::of_net(cidr) == family)
            .map(IpNet::trunc),
    );
    all.sort();
    all.dedup();
    let covered = |prefix: &IpNet| {
        all.iter()
            .any(|other| other != prefix && other.contains(prefix))
    };
    all.iter()
        .copied()
        .filter(|prefix| !covered(prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_space_has_all_its_prefixes() {
        assert_eq!(local_space(Family::Ipv4).len(), 6);
        assert_eq!(local_space(Family::Ipv6).len(), 3);
    }

    #[test]
    fn public_vpc_is_thrown_and_private_vpc_is_covered() {
        let vpc: Vec<IpNet> = ["10.0.0.0/16", "52.1.0.0/16"]
            .map(|text| text.parse().unwrap())
            .into();
        let thrown = thrown(Family::Ipv4, &vpc);
        assert!(thrown.contains(&vpc[1]));
        assert!(!thrown.contains(&vpc[0]));
    }
}
