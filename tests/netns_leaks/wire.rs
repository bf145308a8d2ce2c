//! The router's end of each link of the machine: every frame is counted before the router looks at it.
//!
//! A frame of a host is right if it goes to a gateway, or to storage, or to a network that is not the
//! internet. A frame of a NAT is right if its source is an egress or bypass address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::machines::Role;
use crate::storm::kind_of;
use lab::*;

/// Destinations that are no part of the internet.
const NEAR4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, \
                     172.16.0.0/12, 192.168.0.0/16, 203.0.113.64/28, 224.0.0.0/3";
const NEAR6: &str = "::/127, fc00::/7, fe80::/10, ff00::/8, 2600:1f18:1000::/56";

/// Frames to the internet, by family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub wrong: [u64; 2],
    pub right: [u64; 2],
    /// The wrong frames by the kind of the sender; later fragments have none.
    pub kinds: [BTreeMap<String, u64>; 2],
}

/// The set of `addresses` of one family, as nft writes it; nft refuses an empty one.
fn listed(addresses: &[IpAddr], ipv6: bool) -> String {
    let of_family = addresses.iter().filter(|it| it.is_ipv6() == ipv6);
    let all: Vec<String> = of_family.map(ToString::to_string).collect();
    all.join(", ")
}

fn storage(ipv6: bool) -> String {
    let of_family = S3_PREFIXES.iter().filter(|it| it.contains(':') == ipv6);
    of_family.copied().collect::<Vec<_>>().join(", ")
}

/// Begins to count at the router's ends `links`.
pub fn watch(lab: &Lab, role: Role, links: &[&str]) {
    let right = if role.is_host() {
        let gateways = ["nat1", "nat2"].map(|name| mac(lab.nat(name).private));
        let gateways = gateways.join(", ");
        format!(
            "ether daddr {{ {gateways} }} goto right
             ip daddr {{ {} }} goto right
             ip6 daddr {{ {} }} goto right",
            storage(false),
            storage(true)
        )
    } else {
        let NatAddresses {
            egress,
            egress6,
            second,
            second6,
            ..
        } = lab.nat1;
        let own = [egress, second, egress6, second6];
        format!(
            "ip saddr {{ {} }} goto right
             ip6 saddr {{ {} }} goto right",
            listed(&own, false),
            listed(&own, true)
        )
    };
    let hooks: Vec<String> = links
        .iter()
        .map(|link| {
            let name = link.replace('-', "_");
            format!(
                "chain of_{name} {{
                   type filter hook ingress device {link} priority -500; goto each
                 }}"
            )
        })
        .collect();
    lab.ns("vpc").nft(&format!(
        "table netdev wire {{
           counter wrong4 {{ }}
           counter wrong6 {{ }}
           counter right4 {{ }}
           counter right6 {{ }}
           set kinds4 {{ type inet_proto . inet_service; size 4096; flags dynamic; counter; }}
           set kinds6 {{ type inet_proto . inet_service; size 4096; flags dynamic; counter; }}
           chain right {{
             meta protocol ip counter name right4 accept
             meta protocol ip6 counter name right6 accept
           }}
           chain wrong {{
             meta protocol ip counter name wrong4
             meta protocol ip6 counter name wrong6
             meta protocol ip goto kinds4
             goto kinds6
           }}
           chain kinds4 {{
             ip frag-off & 0x1fff != 0 accept
             meta l4proto {{ tcp, udp }} th dport {{ {PORT}, 20000-20099 }} add @kinds4 {{ meta l4proto . th dport }} accept
             meta l4proto icmp add @kinds4 {{ meta l4proto . 0 }}
           }}
           chain kinds6 {{
             meta l4proto {{ tcp, udp }} th dport {{ {PORT}, 20000-20099 }} add @kinds6 {{ meta l4proto . th dport }} accept
             meta l4proto icmpv6 add @kinds6 {{ meta l4proto . 0 }}
           }}
           chain each {{
             meta protocol != {{ ip, ip6 }} accept
             ip daddr {{ {NEAR4} }} accept
             ip6 daddr {{ {NEAR6} }} accept
             {right}
             goto wrong
           }}
           {}
         }}",
        hooks.join("\n")
    ));
}

/// Forgets all frames.
pub fn forget(lab: &Lab) {
    let vpc = lab.ns("vpc");
    vpc.run(&["nft", "reset", "counters", "table", "netdev", "wire"]);
    for set in ["kinds4", "kinds6"] {
        vpc.run(&["nft", "flush", "set", "netdev", "wire", set]);
    }
}

/// The frames since the last `forget`.
pub fn seen(lab: &Lab) -> Seen {
    let listing = lab
        .ns("vpc")
        .exec(&["nft", "-n", "-j", "list", "table", "netdev", "wire"]);
    let listing = listing.ok().json();
    let objects = listing["nftables"]
        .as_array()
        .expect("nft -j lists an array");
    let counter = |name: &str| {
        let found = objects.iter().find(|it| it["counter"]["name"] == name);
        found
            .and_then(|it| it["counter"]["packets"].as_u64())
            .unwrap_or_else(|| panic!("no counter {name}: {listing}"))
    };
    let kinds = ["kinds4", "kinds6"].map(|name| {
        let set = objects.iter().find(|it| it["set"]["name"] == name);
        let elements = set.and_then(|it| it["set"]["elem"].as_array());
        let mut kinds = BTreeMap::new();
        for element in elements.into_iter().flatten() {
            let element = &element["elem"];
            let word = |at: usize| match &element["val"]["concat"][at] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let kind = kind_of(&word(0), &word(1));
            *kinds.entry(kind).or_default() += element["counter"]["packets"].as_u64().unwrap_or(0);
        }
        kinds
    });
    Seen {
        wrong: [counter("wrong4"), counter("wrong6")],
        right: [counter("right4"), counter("right6")],
        kinds,
    }
}
