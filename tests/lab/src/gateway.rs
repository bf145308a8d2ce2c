//! The internet gateway: one-to-one translation, and counters of packets on a wrong link.

use std::net::IpAddr;

use super::*;

/// Pairs of private and public IPv4 addresses for the one-to-one translation at the edge.
fn one_to_one(layout: NatLayout) -> Vec<(IpAddr, IpAddr)> {
    let mut pairs = vec![(HOST1, HOST1_PUBLIC), (HOST2, HOST2_PUBLIC)];
    for (instance, public) in [(1, "203.0.113.10"), (2, "203.0.113.20")] {
        let nat = layout.addresses(instance);
        pairs.push((nat.private, public.parse().expect("an address")));
        if layout == NatLayout::OneInterface {
            pairs.push((nat.egress, nat.egress_public));
            pairs.push((nat.second, nat.second_public));
        }
    }
    pairs
}

/// The internet gateway's ruleset: stateless translation like the real gateway (a packet in the
/// middle of a flow is translated like the first packet), and counters of packets on a wrong link.
pub fn rules(layout: NatLayout) -> String {
    let pairs = one_to_one(layout);
    let elements = |swap: bool| {
        let pair = |(private, public): &(IpAddr, IpAddr)| {
            if swap {
                format!("{public} : {private}")
            } else {
                format!("{private} : {public}")
            }
        };
        pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
    };
    format!(
        "table inet igw {{
           map public {{ type ipv4_addr : ipv4_addr; elements = {{ {} }}; }}
           map private {{ type ipv4_addr : ipv4_addr; elements = {{ {} }}; }}
           set egress4 {{ type ipv4_addr; }}
           set egress6 {{ type ipv6_addr; }}
           counter leak4 {{ }}
           counter leak6 {{ }}
           counter s3_egress4 {{ }}
           counter s3_egress6 {{ }}
           counter unmapped {{ }}
           chain incoming {{
             type filter hook prerouting priority raw;
             iifname {{ s3, partner, outside }} ip daddr set ip daddr map @private
           }}
           chain outgoing {{
             type filter hook forward priority raw;
             oifname != {{ s3, partner, outside }} return
             iifname {PRIVATE_LINK} ip saddr set ip saddr map @public
             ip saddr {{ 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 }} counter name unmapped drop
             ip6 saddr fc00::/7 counter name unmapped drop
           }}
           chain watch {{
             type filter hook forward priority filter;
             oifname partner ip saddr != @egress4 counter name leak4
             oifname partner ip6 saddr != @egress6 counter name leak6
             oifname s3 ip saddr @egress4 counter name s3_egress4
             oifname s3 ip6 saddr @egress6 counter name s3_egress6
           }}
         }}",
        elements(false),
        elements(true),
    )
}
