//! NAT role: packets that leave with another source than an egress address, counted by the router on
//! the link of the instance. Each scene also runs without Trailblazer's drop and shows the leak.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lab::*;
use packets::nat::*;
use packets::*;

/// A client outside `[nat] sources`, behind the instance.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 31, 9, 9));
const STRANGER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 9, 0, 0, 0, 0, 0, 9));

const PAIRS: [(IpAddr, IpAddr); 2] = [(STRANGER, PARTNER), (STRANGER6, PARTNER6)];

/// A lab whose `host1` has the stranger's addresses too, and a router that counts.
fn scene(firewall: Firewall) -> (Lab, Case) {
    let case = one_gateway(NatLayout::TwoInterfaces, firewall);
    let lab = Lab::with(case.layout);
    lab.default_via("host1", "nat1");
    lab.ns("host1").ip_batch(&format!(
        "addr add {STRANGER}/32 dev {PRIVATE_LINK}\naddr add {STRANGER6}/128 dev {PRIVATE_LINK} nodad\n"
    ));
    lab.ns("nat1").ip_batch(&format!(
        "route add {STRANGER}/32 via {HOST1} dev {PRIVATE_LINK}\n\
         route add {STRANGER6}/128 via {HOST1_6} dev {PRIVATE_LINK}\n"
    ));
    let NatAddresses {
        egress, egress6, ..
    } = lab.nat1;
    lab.ns("vpc").nft(&format!(
        "table inet watch {{
           counter wrong {{ }}
           chain c {{
             type filter hook prerouting priority -400;
             iifname nat1-{PUBLIC_LINK} ip daddr {PARTNER} ip saddr != {egress} counter name wrong
             iifname nat1-{PUBLIC_LINK} ip6 daddr {PARTNER6} ip6 saddr != {egress6} counter name wrong
           }}
         }}"
    ));
    (lab, case)
}

/// Packets to the partners with a wrong source since the last call.
fn wrong(lab: &Lab) -> u64 {
    let words = ["nft", "-j", "reset", "counter", "inet", "watch", "wrong"];
    let text = lab.ns("vpc").run(&words);
    let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let objects = listed["nftables"].as_array().unwrap();
    objects
        .iter()
        .find_map(|object| object["counter"]["packets"].as_u64())
        .unwrap()
}

/// Takes the rules after all translation away, as a test of the scene.
fn without_drop(lab: &Lab, firewall: Firewall) {
    let command: &[&str] = match firewall {
        Firewall::Nftables => &["nft", "flush", "chain", "inet", "trailblazer", "last"],
        _ => &["nft", "delete", "table", "inet", "trailblazer-guard"],
    };
    lab.ns("nat1").run(command);
}

fn assert_translated(lab: &Lab) {
    let egress = [lab.nat1.egress_public, lab.nat1.egress6];
    for (partner, seen) in [PARTNER, PARTNER6].into_iter().zip(egress) {
        assert_eq!(lab.who("host1", partner), Ok(seen), "to {partner}");
    }
}

fn stranger_stays_inside(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    let host1 = lab.ns("host1");
    let ask = || PAIRS.map(|(from, to)| host1.who_from(from, to).is_ok());
    assert_eq!(ask(), [false; 2], "no way back to a private address");
    assert!(wrong(&lab) > 0, "without Trailblazer the packets leave");

    machine.changed();
    assert_translated(&lab);
    wrong(&lab);
    assert_eq!(ask(), [false; 2]);
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    assert_translated(&lab);
    let report = machine.reconcile();
    assert_eq!(report["outcome"], "in_sync", "{report:#}");
    let notes = report["notes"].to_string();
    for family in ["ipv4", "ipv6"] {
        let words = format!("{family} translation: packets of clients outside [nat] sources");
        assert!(notes.contains(&words), "{notes}");
    }

    // Another program translates the stranger on purpose.
    lab.ns("nat1").nft(&format!(
        "table inet vpn {{
           chain post {{
             type nat hook postrouting priority srcnat;
             oifname {PUBLIC_LINK} ip saddr {STRANGER} snat ip to {}
             oifname {PUBLIC_LINK} ip6 saddr {STRANGER6} snat ip6 to {}
           }}
         }}",
        lab.nat1.second, lab.nat1.second6
    ));
    // The partner refuses the address, so the packets have arrived.
    let seen = PAIRS.map(|(from, to)| host1.who_from(from, to));
    assert_eq!(seen, [Err(ErrorKind::ConnectionReset); 2]);
    lab.ns("nat1").nft("delete table inet vpn");

    without_drop(&lab, firewall);
    wrong(&lab);
    assert_eq!(ask(), [false; 2]);
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
    machine.changed();
    wrong(&lab);
    assert_eq!(ask(), [false; 2]);
    assert_eq!(wrong(&lab), 0, "{firewall:?}");

    machine.flush();
    let tables = lab.ns("nat1").run(&["nft", "list", "tables"]);
    assert!(!tables.contains("trailblazer"), "{tables}");
}

#[test]
fn packets_of_a_client_outside_the_sources_stay_inside_with_nftables() {
    isolated(|| stranger_stays_inside(Firewall::Nftables));
}

#[test]
fn packets_of_a_client_outside_the_sources_stay_inside_with_iptables() {
    isolated(|| stranger_stays_inside(Firewall::Iptables));
}

#[test]
fn packets_of_a_client_outside_the_sources_stay_inside_with_iptables_legacy() {
    isolated(|| stranger_stays_inside(Firewall::IptablesLegacy));
}

/// A translation before ours gives new flows of the sources another address of the host.
fn foreign_translation_stays_inside(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    machine.changed();
    let open = [PARTNER, PARTNER6].map(|partner| lab.long_flow("host1", partner));
    let NatAddresses {
        second, private6, ..
    } = lab.nat1;
    lab.ns("nat1").nft(&format!(
        "table inet fw {{
           chain f {{
             type nat hook postrouting priority 50;
             oifname {PUBLIC_LINK} ip saddr {HOST1} snat ip to {second}
             oifname {PUBLIC_LINK} ip6 saddr {HOST1_6} snat ip6 to {private6}
           }}
         }}"
    ));
    wrong(&lab);
    for partner in [PARTNER, PARTNER6] {
        let seen = lab.who("host1", partner);
        assert_eq!(seen, Err(ErrorKind::TimedOut), "to {partner}");
    }
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    // Storage is no partner, and its path keeps its address.
    assert!(lab.who("host1", S3).is_ok());
    assert_eq!(machine.run(&["reconcile"]).code, Some(1));
    for flow in open {
        flow.assert_alive();
    }

    without_drop(&lab, firewall);
    let seen = [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner));
    assert_eq!(seen, [Err(ErrorKind::ConnectionReset); 2]);
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
    // Flows from before the drop keep their address and stay open.
    lab.set_egress(&[lab.nat1.second_public, private6]);
    let open = [PARTNER, PARTNER6].map(|partner| lab.long_flow("host1", partner));
    machine.changed();
    for flow in open {
        flow.assert_alive();
    }
    lab.set_egress(&[lab.nat1.egress_public, lab.nat1.egress6]);
    lab.ns("nat1").nft("delete table inet fw");
    machine.reconcile();
    assert_translated(&lab);
}

#[test]
fn flows_translated_by_another_program_stay_inside_with_nftables() {
    isolated(|| foreign_translation_stays_inside(Firewall::Nftables));
}

#[test]
fn flows_translated_by_another_program_stay_inside_with_iptables() {
    isolated(|| foreign_translation_stays_inside(Firewall::Iptables));
}

#[test]
fn flows_translated_by_another_program_stay_inside_with_iptables_legacy() {
    isolated(|| foreign_translation_stays_inside(Firewall::IptablesLegacy));
}

/// Among chains of equal priority the newest comes first: a table of another program, newer than
/// that of iptables, translates before our rules. The order of iptables-legacy is unknown.
fn newer_chain_of_equal_priority(firewall: Firewall, words: &str) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    let table = |name: &str| {
        format!(
            "table ip {name} {{
               chain post {{
                 type nat hook postrouting priority srcnat;
                 oifname {PUBLIC_LINK} ip saddr 10.0.0.0/16 snat to {}
               }}
             }}",
            lab.nat1.second
        )
    };
    lab.ns("nat1").nft(&table("older"));
    machine.changed();
    assert_translated(&lab);
    let told = machine.run(&["reconcile"]).stdout;
    assert_eq!(
        told.contains("older"),
        firewall == Firewall::IptablesLegacy,
        "{told}"
    );

    lab.ns("nat1").nft(&table("newer"));
    wrong(&lab);
    assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::TimedOut));
    assert_eq!(wrong(&lab), 0);
    let told = machine.run(&["reconcile"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let named = format!("table ip newer, chain post: snat {words} packets from {PRIVATE_LINK}");
    assert!(told.stdout.contains(&named), "{told:?}");
    without_drop(&lab, firewall);
    assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::ConnectionReset));
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
}

#[test]
fn newer_chain_of_equal_priority_is_named_with_iptables() {
    isolated(|| newer_chain_of_equal_priority(Firewall::Iptables, "translates"));
}

#[test]
fn newer_chain_of_equal_priority_is_named_with_iptables_legacy() {
    isolated(|| newer_chain_of_equal_priority(Firewall::IptablesLegacy, "perhaps translates"));
}

/// A flush of iptables takes the translation away, and a one-shot pass is far: nothing leaves with a
/// private address until the repair.
fn flushed_translation(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    machine.changed();
    assert_translated(&lab);
    for family in ["ip", "ip6"] {
        let program = firewall.program(family);
        lab.ns("nat1").run(&[program.as_str(), "-t", "nat", "-F"]);
    }
    wrong(&lab);
    for partner in [PARTNER, PARTNER6] {
        assert!(lab.who("host1", partner).is_err(), "to {partner}");
    }
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    without_drop(&lab, firewall);
    for partner in [PARTNER, PARTNER6] {
        assert!(lab.who("host1", partner).is_err(), "to {partner}");
    }
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
    machine.changed();
    assert_translated(&lab);
    machine.in_sync();
}

#[test]
fn no_private_address_leaves_after_a_flush_of_iptables() {
    isolated(|| flushed_translation(Firewall::Iptables));
}

#[test]
fn no_private_address_leaves_after_a_flush_of_iptables_legacy() {
    isolated(|| flushed_translation(Firewall::IptablesLegacy));
}

/// The agent counts the drops for `status`, and restores the rules.
fn counted_by_the_agent(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    let agent = machine.agent();
    agent.wait_in_force();
    let host1 = lab.ns("host1");
    wrong(&lab);
    for (from, to) in PAIRS {
        assert!(host1.who_from(from, to).is_err());
    }
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    let count = |status: &serde_json::Value, family: &str| {
        let outside = &status["traffic"]["dropped"]["outside"];
        outside[family]["packets"].as_u64().unwrap_or(0)
    };
    agent.wait_for("counted drops", |status| {
        status["state"] == "in_force" && ["ipv4", "ipv6"].iter().all(|it| count(status, it) > 0)
    });
    let text = machine.run(&["status"]).stdout;
    assert!(text.contains("clients outside [nat] sources"), "{text}");

    without_drop(&lab, firewall);
    eventually("the agent restores the drop", || {
        let table = match firewall {
            Firewall::Nftables => "trailblazer",
            _ => "trailblazer-guard",
        };
        let words = ["nft", "list", "chain", "inet", table, "last"];
        let listed = lab.ns("nat1").exec(&words);
        listed.stdout.contains("dropped-outside-ipv6")
    });
    agent.stop();
}

#[test]
fn agent_counts_the_packets_that_stay_inside_with_nftables() {
    isolated(|| counted_by_the_agent(Firewall::Nftables));
}

#[test]
fn agent_counts_the_packets_that_stay_inside_with_iptables() {
    isolated(|| counted_by_the_agent(Firewall::Iptables));
}

#[test]
fn agent_counts_the_packets_that_stay_inside_with_iptables_legacy() {
    isolated(|| counted_by_the_agent(Firewall::IptablesLegacy));
}
