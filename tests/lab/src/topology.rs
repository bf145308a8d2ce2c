//! Builds the namespaces, links, addresses, routes and the internet gateway.
//!
//! Processes and the kernel's global lock cost the most time. Hence one `ip -batch` for all
//! namespaces and links, then one parallel `ip -batch` a namespace, and sysctls without any
//! process.

use std::fmt::Write;
use std::net::IpAddr;
use std::thread;

use super::settle::wait_until_settled;
use super::*;

/// The namespaces of a lab.
pub const NAMESPACES: [&str; 9] = [
    "vpc", "host1", "host2", "nat1", "nat2", "s3", "partner", "outside", "peer",
];

/// Links from `vpc` to the internet: name, the router's address, the far end's address.
const INTERNET: [(&str, &str, &str); 3] = [
    ("s3", "192.0.2.1", "192.0.2.2"),
    ("partner", "192.0.2.5", "192.0.2.6"),
    ("outside", "192.0.2.9", "192.0.2.10"),
];

/// The hardware address of a link, derived from its IPv4 address and so always the same.
pub fn mac(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
        }
        IpAddr::V6(_) => panic!("hardware addresses are made from IPv4 addresses here"),
    }
}

/// Settings of a fresh namespace, written before its links exist: new links copy `default`.
pub fn sysctls(forwarding: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = Vec::new();
    if forwarding {
        // First: a write to ip_forward resets others (Documentation/networking/ip-sysctl.rst,
        // ip_forward).
        settings.push(("net/ipv4/ip_forward", "1"));
    }
    settings.extend([
        // New namespaces inherit a machine's disabled IPv6.
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/dad_transmits", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
    ]);
    if forwarding {
        settings.push(("net/ipv6/conf/all/forwarding", "1"));
    }
    settings
}

fn forwards(namespace: &str) -> bool {
    matches!(namespace, "vpc" | "nat1" | "nat2")
}

/// Builds everything but the servers.
pub fn build(layout: NatLayout) -> BTreeMap<&'static str, Ns> {
    let namespaces = add_namespaces(&NAMESPACES, forwards);
    // Permits a bind to an IPv6 address with only a local route (IPv4 always permits one).
    namespaces["s3"].sysctl(&[("net/ipv6/ip_nonlocal_bind", "1")]);
    feed_ip(&links(layout));
    thread::scope(|scope| {
        for (name, ns) in &namespaces {
            scope.spawn(move || {
                ns.ip_batch(&addresses_of(name, layout));
                if *name == "vpc" {
                    ns.nft(&gateway::rules(layout));
                }
            });
        }
    });
    // A carrier needs both ends up.
    thread::scope(|scope| {
        for ns in namespaces.values() {
            scope.spawn(|| wait_until_settled(ns));
        }
    });
    namespaces
}

/// Creates namespaces with the lab's sysctls; `forwarding` is true for routers.
pub fn add_namespaces(
    names: &[&'static str],
    forwarding: impl Fn(&str) -> bool,
) -> BTreeMap<&'static str, Ns> {
    let mut batch = String::new();
    for name in names {
        let _infallible = writeln!(batch, "netns add {name}");
    }
    feed_ip(&batch);
    let opened = names.iter().map(|name| {
        let ns = Ns::open(name);
        ns.sysctl(&sysctls(forwarding(name)));
        (*name, ns)
    });
    opened.collect()
}

/// The index of the near end of a veth pair. The kernel notices a carrier at once if the two ends
/// have different indexes, and up to a second later if the indexes are equal
/// (`linkwatch_urgent_event`, net/core/link_watch.c). Without explicit indexes both ends would be
/// equal: each is the first link of its namespace.
pub fn near_index(number: usize) -> usize {
    100 + number
}

/// One `ip -batch` in the lab's outermost namespace.
pub fn feed_ip(lines: &str) {
    use std::process::{Command, Stdio};
    let child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start ip: {error} (make deps?)"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let _broken_pipe = std::io::Write::write_all(&mut stdin, lines.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .expect("our own child can be waited for");
    assert!(
        output.status.success(),
        "ip -batch failed: {}\nits input was:\n{lines}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn links(layout: NatLayout) -> String {
    let mut batch = String::new();
    let mut number = 0;
    let mut link = |ns: &str, name: &str, mac: Option<IpAddr>, far: &str| {
        let address = mac.map_or_else(String::new, |ip| format!("address {}", topology::mac(ip)));
        let index = near_index(number);
        number += 1;
        let _infallible = writeln!(
            batch,
            "link add {name} index {index} netns {ns} {address} type veth \
             peer name {far} netns vpc"
        );
    };
    link("host1", PRIVATE_LINK, Some(HOST1), "host1");
    link("host2", PRIVATE_LINK, Some(HOST2), "host2");
    for (instance, name) in [(1, "nat1"), (2, "nat2")] {
        let nat = layout.addresses(instance);
        link(name, PRIVATE_LINK, Some(nat.private), name);
        if layout != NatLayout::OneInterface {
            link(name, PUBLIC_LINK, Some(nat.egress), &format!("{name}-pub"));
        }
        if layout == NatLayout::BulkInterface {
            link(name, BULK_LINK, Some(nat.second), &format!("{name}-bulk"));
        }
    }
    for (name, _, _) in INTERNET {
        link(name, "eth0", None, name);
    }
    link("peer", "eth0", None, "peer");
    batch
}

fn addresses_of(name: &str, layout: NatLayout) -> String {
    let mut batch = String::from("link set lo up\n");
    let mut add = |line: String| {
        batch.push_str(&line);
        batch.push('\n');
    };
    match name {
        "vpc" => vpc(layout, &mut add),
        "host1" => host(HOST1, HOST1_6, &mut add),
        "host2" => host(HOST2, HOST2_6, &mut add),
        "nat1" => nat(layout, 1, &mut add),
        "nat2" => nat(layout, 2, &mut add),
        "s3" => {
            internet(name, S3, S3_6, &mut add);
            for prefix in S3_PREFIXES {
                add(format!("route add local {prefix} dev lo"));
            }
        }
        "partner" => {
            add(on_loopback(PARTNER));
            add(on_loopback(PARTNER6));
            internet(name, PARTNER, PARTNER6, &mut add);
        }
        "outside" => {
            for address in [OPERATOR, OPERATOR6, MIRROR, MIRROR6] {
                add(on_loopback(address));
            }
            internet(name, OPERATOR, OPERATOR6, &mut add);
        }
        "peer" => {
            add("link set eth0 up".into());
            add(format!("addr add {PEER}/16 dev eth0"));
            add(format!("addr add {PEER6}/64 dev eth0 nodad"));
            add("route add default via 10.8.0.1".into());
            add(format!("route add default via {ROUTER6} dev eth0"));
        }
        other => panic!("no namespace `{other}` in the lab"),
    }
    batch
}

fn host(address: IpAddr, address6: IpAddr, add: &mut impl FnMut(String)) {
    add(format!("link set {PRIVATE_LINK} up"));
    add(format!("addr add {address}/24 dev {PRIVATE_LINK}"));
    add(format!("addr add {address6}/64 dev {PRIVATE_LINK} nodad"));
    for line in dhcp_routes(address) {
        add(line);
    }
}

/// The main table's defaults as set by systemd-networkd on Amazon Linux 2023.
pub fn dhcp_routes(address: IpAddr) -> [String; 2] {
    [
        format!(
            "route add default via {ROUTER} dev {PRIVATE_LINK} proto dhcp src {address} metric 512"
        ),
        format!("route add default via {ROUTER6} dev {PRIVATE_LINK} proto ra metric 512"),
    ]
}

/// The links, addresses and routes of a NAT instance.
pub fn nat(layout: NatLayout, instance: u8, add: &mut impl FnMut(String)) {
    let nat = layout.addresses(instance);
    add(format!("link set {PRIVATE_LINK} up"));
    add(format!("addr add {}/24 dev {PRIVATE_LINK}", nat.private));
    add(format!(
        "addr add {}/64 dev {PRIVATE_LINK} nodad",
        nat.private6
    ));
    let (egress, second, length) = match layout {
        NatLayout::TwoInterfaces => (PUBLIC_LINK, PUBLIC_LINK, 29),
        NatLayout::BulkInterface => (PUBLIC_LINK, BULK_LINK, 29),
        NatLayout::OneInterface => (PRIVATE_LINK, PRIVATE_LINK, 24),
    };
    add(format!("link set {egress} up"));
    add(format!("link set {second} up"));
    add(format!("addr add {}/{length} dev {egress}", nat.egress));
    add(format!("addr add {}/{length} dev {second}", nat.second));
    // Without a preferred lifetime of zero the last added address would be the first choice of
    // IPv6.
    add(format!("addr add {}/64 dev {second} nodad", nat.second6));
    add(format!("addr add {}/64 dev {egress} nodad", nat.egress6));
    add(format!(
        "route add default via {} dev {egress} proto dhcp metric 512",
        nat.gateway
    ));
    add(format!(
        "route add default via {ROUTER6} dev {egress} proto ra metric 512"
    ));
    if layout == NatLayout::BulkInterface {
        // The DHCP route of a second interface: a default with a worse metric.
        add(format!(
            "route add default via {} dev {second} proto dhcp metric 522",
            nat.second_gateway
        ));
        add(format!(
            "route add default via {ROUTER6} dev {second} proto ra metric 522"
        ));
    }
}

fn on_loopback(address: IpAddr) -> String {
    // Even loopback addresses are tentative for a moment, and unusable as a source until then.
    let nodad = if address.is_ipv6() { "nodad" } else { "" };
    format!("addr add {address} dev lo {nodad}")
}

/// A server in the internet: its link and its default route with its public source address.
fn internet(name: &str, source: IpAddr, source6: IpAddr, add: &mut impl FnMut(String)) {
    let (_, router, own) = link_of(name);
    add("link set eth0 up".into());
    add(format!("addr add {own}/30 dev eth0"));
    add("addr add fe80::2/64 dev eth0 nodad".into());
    if name == "s3" {
        // The prefixes are local routes, not addresses: answers leave from the contacted address.
        add(format!("route add default via {router}"));
        add(format!("route add default via {ROUTER6} dev eth0"));
    } else {
        add(format!("route add default via {router} src {source}"));
        add(format!(
            "route add default via {ROUTER6} dev eth0 src {source6}"
        ));
    }
}

fn link_of(name: &str) -> (&'static str, &'static str, &'static str) {
    let found = INTERNET.into_iter().find(|(link, _, _)| *link == name);
    found.unwrap_or_else(|| panic!("`{name}` is not in the internet"))
}

/// The router's route to a prefix behind an internet link.
pub fn router_route(prefix: &str, name: &str) -> String {
    if prefix.contains(':') {
        format!("route add {prefix} via fe80::2 dev {name}")
    } else {
        format!("route add {prefix} via {} dev {name}", link_of(name).2)
    }
}

fn vpc(layout: NatLayout, add: &mut impl FnMut(String)) {
    let bridge = PRIVATE_LINK;
    add(format!(
        "link add {bridge} address 02:00:0a:00:01:01 type bridge mcast_snooping 0"
    ));
    for port in ["host1", "host2", "nat1", "nat2"] {
        add(format!("link set {port} master {bridge} up"));
    }
    add(format!("link set {bridge} up"));
    add(format!("addr add {ROUTER}/24 dev {bridge}"));
    add(format!("addr add {ROUTER6_GLOBAL}/64 dev {bridge} nodad"));
    add(format!("addr add {ROUTER6}/64 dev {bridge} nodad"));
    for address in [IMDS, IMDS6, RESOLVER, RESOLVER6, RESOLVER_IN_VPC] {
        add(on_loopback(address));
    }
    for (instance, name) in [(1, "nat1"), (2, "nat2")] {
        let nat = layout.addresses(instance);
        let mut uplink = |link: &str, gateway: IpAddr, neighbour: IpAddr| {
            add(format!("link set {name}-{link} up"));
            add(format!("addr add {gateway}/29 dev {name}-{link}"));
            add(format!("addr add {ROUTER6}/64 dev {name}-{link} nodad"));
            add(format!(
                "route add {} dev {name}-{link}",
                subnet64(neighbour)
            ));
        };
        if layout != NatLayout::OneInterface {
            uplink(PUBLIC_LINK, nat.gateway, nat.egress6);
        }
        if layout == NatLayout::BulkInterface {
            uplink(BULK_LINK, nat.second_gateway, nat.second6);
        }
    }
    for (name, router, _) in INTERNET {
        add(format!("link set {name} up"));
        add(format!("addr add {router}/30 dev {name}"));
        add(format!("addr add {ROUTER6}/64 dev {name} nodad"));
    }
    for prefix in S3_PREFIXES {
        add(router_route(prefix, "s3"));
    }
    for address in [PARTNER, PARTNER6] {
        add(router_route(&address.to_string(), "partner"));
    }
    for address in [OPERATOR, OPERATOR6, MIRROR, MIRROR6] {
        add(router_route(&address.to_string(), "outside"));
    }
    add("link set peer up".into());
    add("addr add 10.8.0.1/16 dev peer".into());
    add("addr add fd08:8::1/64 dev peer nodad".into());
    add(format!("addr add {ROUTER6}/64 dev peer nodad"));
}

fn subnet64(address: IpAddr) -> ipnet::IpNet {
    let net = ipnet::IpNet::new(address, 64).expect("64 is a length of IPv6");
    net.trunc()
}
