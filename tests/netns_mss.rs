//! Jumbo frames inside, 1500 bytes outside, and no ICMP: real uploads through a NAT instance.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::io::ErrorKind;
use std::net::IpAddr;

use lab::*;
use packets::nat::*;
use packets::*;

/// Interfaces of both ends at 9001 bytes, the path between at 1500, and a security group that lets
/// no "fragmentation needed" in.
fn jumbo(lab: &Lab) {
    for (ns, link) in [
        ("host1", "priv"),
        ("nat1", "priv"),
        ("nat1", "pub"),
        ("vpc", "nat1-pub"),
    ] {
        lab.ns(ns).ip(&format!("link set {link} mtu 9001"));
    }
    let vpc = lab.ns("vpc");
    let links = vpc.ip_json("link show");
    for link in links.as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        if name.contains("priv") || name.starts_with("br") || name.starts_with("host") {
            vpc.ip(&format!("link set {name} mtu 9001"));
        }
    }
    lab.ns("partner").ip("link set eth0 mtu 9001");
    lab.ns("nat1").nft(
        "table netdev group {
           chain in {
             type filter hook ingress device \"pub\" priority 0;
             icmp type destination-unreachable drop
             icmpv6 type packet-too-big drop
           }
         }",
    );
}

fn upload(lab: &Lab, to: IpAddr) -> Result<(), ErrorKind> {
    lab.ns("host1").transfer(to, 300_000, 0)
}

fn clamped(firewall: Firewall) {
    let case = one_gateway(NatLayout::TwoInterfaces, firewall);
    let lab = behind_nat1(case.layout);
    jumbo(&lab);
    let mut machine = case.machine(&lab);
    machine.changed();
    for partner in [PARTNER, PARTNER6] {
        assert_eq!(upload(&lab, partner), Ok(()), "{partner}");
        assert_eq!(
            lab.ns("host1").transfer(partner, 0, 300_000),
            Ok(()),
            "{partner}"
        );
    }
    let check = machine.run(&["check"]).stdout;
    for line in [
        "ipv4: TCP segments of connections by pub to hosts outside are limited to 1460 bytes",
        "ipv6: TCP segments of connections by pub to hosts outside are limited to 1440 bytes",
    ] {
        assert!(check.contains(line), "{check}\nlacks {line}");
    }
    machine.in_sync();
    // Without the limit the connection opens and stands still.
    let settings = format!("{SOURCES}{}mss = \"off\"\n", (case.settings)(&lab.nat1));
    machine.configure(&settings);
    machine.changed();
    lab.ns("host1").ip("route flush cache");
    for partner in [PARTNER, PARTNER6] {
        assert!(
            upload(&lab, partner).is_err(),
            "{partner}: the lab cannot show the fault"
        );
    }
}

#[test]
fn uploads_pass_a_path_without_icmp_nftables() {
    isolated(|| clamped(Firewall::Nftables));
}

#[test]
fn uploads_pass_a_path_without_icmp_iptables() {
    isolated(|| clamped(Firewall::Iptables));
}

#[test]
fn uploads_pass_a_path_without_icmp_iptables_legacy() {
    isolated(|| clamped(Firewall::IptablesLegacy));
}
