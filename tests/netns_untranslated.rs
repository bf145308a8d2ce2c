//! NAT role: packets that leave with another source than an egress address, counted by the router on
//! the link of the instance. Each scene also runs without Trailblazer's drop and shows the leak.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::collections::BTreeSet;
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
        _ => &["nft", "flush", "chain", "inet", "trailblazer-guard", "last"],
    };
    lab.ns("nat1").run(command);
}

fn assert_translated(lab: &Lab) {
    let egress = [lab.nat1.egress_public, lab.nat1.egress6];
    for (partner, seen) in [PARTNER, PARTNER6].into_iter().zip(egress) {
        assert_eq!(lab.who("host1", partner), Ok(seen), "to {partner}");
    }
}

/// `blocked` lists connections between these addresses, and nothing else.
#[track_caller]
fn assert_listed(machine: &Machine, reason: &str, pairs: [(IpAddr, IpAddr); 2]) {
    let list = machine.run(&["blocked", "-o", "json"]).ok().json();
    let entries = list["entries"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = entries
        .map(|entry| {
            assert_eq!(entry["reason"], reason, "{list:#}");
            assert_eq!(entry["port"], PORT, "{list:#}");
            assert_eq!(entry["protocol"], "tcp", "{list:#}");
            assert!(entry["packets"].as_u64() > Some(0), "{list:#}");
            format!("{} {}", entry["source"], entry["destination"])
        })
        .collect();
    let expected = pairs.map(|(from, to)| format!("\"{from}\" \"{to}\""));
    assert_eq!(listed, BTreeSet::from(expected));
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
    assert_listed(&machine, "outside", PAIRS);
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
/// `nft list ruleset` prints our sets and rules in a form that nft reads again.
#[test]
fn saved_ruleset_with_the_lists_loads_again() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Nftables);
        let machine = case.machine(&lab);
        machine.changed();
        let (host1, nat1) = (lab.ns("host1"), lab.ns("nat1"));
        assert!(PAIRS.map(|(from, to)| host1.who_from(from, to).is_ok()) == [false; 2]);
        let saved = nat1.run(&["nft", "list", "ruleset"]);
        assert!(
            saved.contains("ct original ip6 saddr . ip6 daddr"),
            "{saved}"
        );
        // nft refuses the empty name of an interface that it has printed.
        let readable = saved.replace("iifname != \"\"", "");
        nat1.nft(&format!("flush ruleset\n{readable}"));
        assert_listed(&machine, "outside", PAIRS);
    });
}

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
    // The clients, and not the addresses of the foreign translation.
    assert_listed(&machine, "sources", [(HOST1, PARTNER), (HOST1_6, PARTNER6)]);
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
    // The judge names the other translation.
    assert_eq!(machine.run(&["reconcile"]).code, Some(1));
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

/// Adds a foreign rule of translation, before or behind ours; `words` name the packets.
fn translate(lab: &Lab, firewall: Firewall, before: bool, words: [&str; 2], to: [IpAddr; 2]) {
    let nat1 = lab.ns("nat1");
    if firewall == Firewall::Nftables {
        let priority = if before { 50 } else { 100 };
        nat1.nft(&format!(
            "table inet leftover {{
               chain post {{
                 type nat hook postrouting priority {priority};
                 oifname lo accept
                 oifname {PUBLIC_LINK} {} snat ip to {}
                 oifname {PUBLIC_LINK} {} snat ip6 to {}
               }}
             }}",
            words[0], to[0], words[1], to[1]
        ));
        return;
    }
    for (family, (words, to)) in ["ip", "ip6"].iter().zip(words.iter().zip(to)) {
        let program = firewall.program(family);
        let place: &[&str] = if before {
            &["-I", "POSTROUTING", "1"]
        } else {
            &["-A", "POSTROUTING"]
        };
        let condition = words.replace("ip saddr", "-s").replace("ip6 saddr", "-s");
        let to = to.to_string();
        let mut line = vec![program.as_str(), "-w", "-t", "nat"];
        line.extend(place);
        line.extend(["-o", PUBLIC_LINK]);
        line.extend(
            condition
                .split_whitespace()
                .filter(|it| !["meta", "nfproto", "ipv4", "ipv6"].contains(it)),
        );
        line.extend(["-j", "SNAT", "--to-source", &to]);
        nat1.run(&line);
    }
}

/// The chain of [`translate`], as verdicts name it.
fn leftover(firewall: Firewall, rules: [usize; 2]) -> [String; 2] {
    match firewall {
        Firewall::Nftables => {
            [2, 3].map(|rule| format!("table inet leftover, chain post, rule {rule}: snat"))
        }
        Firewall::Iptables => ["ip", "ip6"].map(|family| {
            let rule = rules[usize::from(family == "ip6")];
            format!("table {family} nat, chain POSTROUTING, rule {rule}: snat")
        }),
        Firewall::IptablesLegacy => ["ip", "ip6"].map(|family| {
            let rule = rules[usize::from(family == "ip6")];
            format!("{family}tables-legacy table nat, chain POSTROUTING, rule {rule}: snat")
        }),
    }
}

fn without_leftover(lab: &Lab, firewall: Firewall, rule: &str) {
    let nat1 = lab.ns("nat1");
    if firewall == Firewall::Nftables {
        return nat1.nft("delete table inet leftover");
    }
    for family in ["ip", "ip6"] {
        let program = firewall.program(family);
        nat1.run(&[
            program.as_str(),
            "-w",
            "-t",
            "nat",
            "-D",
            "POSTROUTING",
            rule,
        ]);
    }
}

/// A left-over rule for one client: neither the ordinary client nor a lost packet shows the rule.
fn leftover_of_one_client(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    machine.changed();
    assert_translated(&lab);
    let NatAddresses {
        second, private6, ..
    } = lab.nat1;
    let words = [format!("ip saddr {HOST1}"), format!("ip6 saddr {HOST1_6}")];
    let words = [words[0].as_str(), words[1].as_str()];
    translate(&lab, firewall, true, words, [second, private6]);
    let named: Vec<String> = leftover(firewall, [1, 1])
        .into_iter()
        .zip([HOST1.to_string(), HOST1_6.to_string()])
        .map(|(culprit, client)| {
            format!("{culprit} translates packets of {client} from {PRIVATE_LINK} to partners before our rules")
        })
        .collect();
    for command in ["reconcile", "status", "check"] {
        let output = machine.run(&[command]);
        assert_eq!(output.code, Some(1), "{command}: {output:?}");
        for named in &named {
            assert!(
                output.stdout.contains(named),
                "{command}, {named}: {output:?}"
            );
        }
    }
    wrong(&lab);
    for partner in [PARTNER, PARTNER6] {
        assert!(lab.who("host1", partner).is_err(), "to {partner}");
    }
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    without_drop(&lab, firewall);
    let seen = [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner));
    assert_eq!(seen, [Err(ErrorKind::ConnectionReset); 2]);
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
    without_leftover(&lab, firewall, "1");
    machine.reconcile();
    assert_translated(&lab);
}

#[test]
fn leftover_translation_of_one_client_is_named_with_nftables() {
    isolated(|| leftover_of_one_client(Firewall::Nftables));
}

#[test]
fn leftover_translation_of_one_client_is_named_with_iptables() {
    isolated(|| leftover_of_one_client(Firewall::Iptables));
}

#[test]
fn leftover_translation_of_one_client_is_named_with_iptables_legacy() {
    isolated(|| leftover_of_one_client(Firewall::IptablesLegacy));
}

/// A left-over rule behind ours translates nothing, until a destination is exempt.
fn leftover_behind_ours(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let mut machine = case.machine(&lab);
    machine.changed();
    let NatAddresses {
        second, private6, ..
    } = lab.nat1;
    let all = ["meta nfproto ipv4", "meta nfproto ipv6"];
    translate(&lab, firewall, false, all, [second, private6]);
    assert_translated(&lab);
    let report = machine.reconcile();
    assert_eq!(report["outcome"], "in_sync", "{report:#}");
    let check = machine.run(&["check"]).stdout;
    for culprit in leftover(firewall, [2, 2]) {
        let named = format!("{culprit} comes after our translation");
        assert!(check.contains(&named), "{named}: {check}");
    }

    let settings = (case.settings)(&lab.nat1);
    let exempt = format!("exempt = [\"{PARTNER}/32\", \"{PARTNER6}/128\"]\n");
    machine.configure(&format!("{SOURCES}{exempt}{settings}"));
    let told = machine.run(&["reconcile"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    for (culprit, net) in leftover(firewall, [2, 2]).iter().zip([PARTNER, PARTNER6]) {
        let named = format!("{culprit} translates packets from {PRIVATE_LINK} to {net}/");
        assert!(told.stdout.contains(&named), "{named}: {told:?}");
    }
    // The partner refuses the address, so the packets have arrived.
    let seen = [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner));
    assert_eq!(seen, [Err(ErrorKind::ConnectionReset); 2]);
    without_leftover(&lab, firewall, "2");
    let report = machine.reconcile();
    assert_eq!(report["outcome"], "in_sync", "{report:#}");
    assert!(
        lab.who("host1", PARTNER).is_err(),
        "the private source left"
    );
}

#[test]
fn leftover_translation_of_exempt_destinations_is_named_with_nftables() {
    isolated(|| leftover_behind_ours(Firewall::Nftables));
}

#[test]
fn leftover_translation_of_exempt_destinations_is_named_with_iptables() {
    isolated(|| leftover_behind_ours(Firewall::Iptables));
}

#[test]
fn leftover_translation_of_exempt_destinations_is_named_with_iptables_legacy() {
    isolated(|| leftover_behind_ours(Firewall::IptablesLegacy));
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
    let named =
        format!("table ip newer, chain post, rule 1: snat {words} packets from {PRIVATE_LINK}");
    assert!(told.stdout.contains(&named), "{told:?}");
    without_drop(&lab, firewall);
    assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::ConnectionReset));
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
}

/// A chain that is deleted and added again translates before ours, although its table is older.
#[test]
fn chain_made_again_in_an_older_table_leaves_a_doubt() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Iptables);
        let machine = case.machine(&lab);
        let nat1 = lab.ns("nat1");
        let chain = format!(
            "table ip older {{
               chain post {{
                 type nat hook postrouting priority srcnat;
                 oifname {PUBLIC_LINK} ip saddr 10.0.0.0/16 snat to {}
               }}
             }}",
            lab.nat1.second
        );
        nat1.nft(&chain);
        machine.changed();
        assert_translated(&lab);
        let told = machine.run(&["reconcile"]).stdout;
        assert!(!told.contains("table ip older"), "{told}");
        nat1.nft("flush chain ip older post");
        nat1.nft("delete chain ip older post");
        nat1.nft(&chain);
        let told = machine.run(&["reconcile"]).stdout;
        let named = "table ip older, chain post, rule 1: snat perhaps translates packets";
        assert!(told.contains(named), "{told}");
        assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::TimedOut));
    });
}

/// IPv6 beside iptables with one gateway: the chain after all translation lets flows with the bypass
/// address leave, and the judge names the foreign rule.
#[test]
fn foreign_translation_to_the_bypass_address_is_named_with_iptables() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Iptables);
        let machine = case.machine(&lab);
        machine.changed();
        assert_translated(&lab);
        lab.ns("nat1").nft(&format!(
            "table ip6 fw {{
               chain f {{
                 type nat hook postrouting priority 50;
                 oifname {PUBLIC_LINK} ip6 saddr {HOST1_6} snat to {}
               }}
             }}",
            lab.nat1.second6
        ));
        let told = machine.run(&["reconcile"]);
        assert_eq!(told.code, Some(1), "{told:?}");
        let named = format!("table ip6 fw, chain f, rule 1: snat translates packets of {HOST1_6}");
        assert!(told.stdout.contains(&named), "{told:?}");
        lab.ns("nat1").nft("delete table ip6 fw");
        machine.reconcile();
        assert_translated(&lab);
    });
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
        lab.ns("nat1")
            .run(&[program.as_str(), "-w", "-t", "nat", "-F"]);
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
    let mut machine = case.machine(&lab);
    machine.open_table();
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

/// The default routes of the instance, as `ip` prints and reads them.
fn defaults(lab: &Lab) -> [String; 2] {
    ["-4", "-6"].map(|family| {
        let words = ["ip", family, "route", "show", "default"];
        lab.ns("nat1").run(&words).trim().to_owned()
    })
}

/// The public interface of the instance keeps its addresses while the link is down.
fn keep_addresses(lab: &Lab) {
    let keep = format!("net/ipv6/conf/{PUBLIC_LINK}/keep_addr_on_down");
    lab.ns("nat1").sysctl(&[(&keep, "1")]);
}

/// Brings back the defaults that are gone.
fn restore(lab: &Lab, defaults: &[String; 2]) {
    for (family, route) in ["-4", "-6"].iter().zip(defaults) {
        lab.ns("nat1")
            .ip(&format!("{family} route replace {route}"));
    }
}

/// Renames an interface of the instance, as a manager of the network does at a reload.
fn rename(lab: &Lab, from: &str, to: &str) {
    let before = defaults(lab);
    lab.ns("nat1").ip_batch(&format!(
        "link set {from} down\nlink set {from} name {to}\nlink set {to} up\n"
    ));
    restore(lab, &before.map(|route| route.replace(from, to)));
}

/// Until the next pass nothing translates the packets that leave by the new name.
fn renamed_interface_stays_shut(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    keep_addresses(&lab);
    machine.changed();
    assert_translated(&lab);
    rename(&lab, PUBLIC_LINK, "wan9");
    wrong(&lab);
    let ask = || [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner).is_ok());
    assert_eq!(ask(), [false; 2]);
    assert_eq!(wrong(&lab), 0, "{firewall:?}");
    without_drop(&lab, firewall);
    assert_eq!(ask(), [false; 2]);
    assert!(wrong(&lab) > 0, "without the drop the packets leave");
    rename(&lab, "wan9", PUBLIC_LINK);
    machine.reconcile();
    assert_translated(&lab);
}

#[test]
fn renamed_egress_interface_lets_nothing_untranslated_leave_with_nftables() {
    isolated(|| renamed_interface_stays_shut(Firewall::Nftables));
}

#[test]
fn renamed_egress_interface_lets_nothing_untranslated_leave_with_iptables() {
    isolated(|| renamed_interface_stays_shut(Firewall::Iptables));
}

/// A pass without a default closes the egress path. Without any nat chain the kernel would send the
/// packets of older flows with their private source.
#[test]
fn flows_from_before_a_lost_default_keep_their_translation() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Nftables);
        let machine = case.machine(&lab);
        keep_addresses(&lab);
        machine.changed();
        let open = [PARTNER, PARTNER6].map(|partner| lab.long_flow("host1", partner));
        let before = defaults(&lab);
        // The routes of both paths go with the link.
        lab.ns("nat1").ip_batch(&format!(
            "link set {PUBLIC_LINK} down\nlink set {PUBLIC_LINK} up\n"
        ));
        assert_eq!(machine.run(&["reconcile"]).code, Some(1));
        restore(&lab, &before);
        wrong(&lab);
        for flow in open {
            flow.assert_alive();
        }
        assert!(lab.who("host1", PARTNER).is_err(), "closed until a pass");
        assert_eq!(wrong(&lab), 0);
        machine.reconcile();
        assert_translated(&lab);
    });
}

/// Both partners, asked by `host1` at the same time.
fn partners(lab: &Lab) -> [Result<IpAddr, ErrorKind>; 2] {
    std::thread::scope(|scope| {
        let asked =
            [PARTNER, PARTNER6].map(|partner| scope.spawn(move || lab.who("host1", partner)));
        asked.map(|asked| asked.join().unwrap())
    })
}

const SILENCE: [Result<IpAddr, ErrorKind>; 2] = [Err(ErrorKind::TimedOut); 2];
/// A partner refuses a foreign address, so the packet has arrived.
const FOREIGN: [Result<IpAddr, ErrorKind>; 2] = [Err(ErrorKind::ConnectionReset); 2];

fn assert_storage_by_bypass(lab: &Lab) {
    let seen = [S3, S3_6].map(|address| lab.who("host1", address));
    assert_eq!(seen, second(&lab.nat1).map(Ok));
}

/// An instance with a bypass interface, behind its first pass. Each interface to the internet has a
/// default of its own in the main table, as DHCP and router advertisements add them.
fn with_two_defaults(firewall: Firewall, then: impl Fn(&Lab, &Machine)) {
    let case = bulk_interface(firewall);
    let lab = Lab::with(case.layout);
    let machine = case.machine(&lab);
    lab.default_via("host1", "nat1");
    machine.changed();
    assert_translated(&lab);
    then(&lab, &machine);
}

fn lost_uplink(firewall: Firewall) {
    with_two_defaults(firewall, |lab, machine| {
        let nat1 = lab.ns("nat1");
        nat1.ip("link set pub down");
        assert_eq!(partners(lab), SILENCE);
        assert_storage_by_bypass(lab);
        // The way is open with another translation.
        nat1.nft(
            "table inet other {
               chain c { type nat hook postrouting priority 50; oifname bulk masquerade; }
             }",
        );
        assert_eq!(partners(lab), FOREIGN);
        nat1.nft("delete table inet other");
        machine.run(&["reconcile"]).expect_code(1);
        assert_eq!(partners(lab), SILENCE);
        assert_storage_by_bypass(lab);
    });
}

#[test]
fn lost_uplink_sends_no_partner_by_the_bypass_path_with_nftables() {
    isolated(|| lost_uplink(Firewall::Nftables));
}

#[test]
fn lost_uplink_sends_no_partner_by_the_bypass_path_with_iptables() {
    isolated(|| lost_uplink(Firewall::Iptables));
}

/// A pass has seen no default at all, and the default of the bypass interface returns first.
#[test]
fn default_that_returns_by_the_bypass_interface_first_takes_no_partner() {
    isolated(|| {
        with_two_defaults(Firewall::Nftables, |lab, machine| {
            let nat1 = lab.ns("nat1");
            let before = defaults(lab);
            for family in ["-4", "-6"] {
                nat1.ip(&format!("{family} route flush exact default"));
            }
            machine.run(&["reconcile"]).expect_code(1);
            assert_storage_by_bypass(lab);
            let of = |device: &str| {
                let lines = before.iter().map(|routes| routes.lines());
                let found =
                    lines.map(|mut lines| lines.find(|line| line.contains(device)).unwrap());
                found
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
                    .try_into()
                    .unwrap()
            };
            restore(lab, &of("dev bulk"));
            assert_eq!(partners(lab), SILENCE);
            assert_storage_by_bypass(lab);
            restore(lab, &of("dev pub"));
            machine.changed();
            assert_translated(lab);
            assert_storage_by_bypass(lab);
        })
    });
}

/// A pass without the uplink knows the bypass interface alone as a way out; with `renumbered` the
/// address of IPv4 goes with the link, as a manager of the network takes a lease away.
fn returned_uplink(firewall: Firewall, renumbered: bool) {
    with_two_defaults(firewall, |lab, machine| {
        let nat1 = lab.ns("nat1");
        let before = defaults(lab);
        nat1.ip("link set pub down");
        let NatAddresses {
            egress, egress6, ..
        } = lab.nat1;
        if renumbered {
            nat1.ip(&format!("addr del {egress}/29 dev pub"));
        }
        machine.run(&["reconcile"]).expect_code(1);
        nat1.ip("link set pub up");
        nat1.ip(&format!("addr replace {egress}/29 dev pub"));
        nat1.ip(&format!("addr replace {egress6}/64 dev pub nodad"));
        let of_pub = before.each_ref().map(|routes| {
            let mut lines = routes.lines();
            lines
                .find(|line| line.contains("dev pub"))
                .unwrap()
                .to_owned()
        });
        restore(lab, &of_pub);
        count_from_now(lab);
        assert_eq!(partners(lab), SILENCE);
        assert_no_leaks(lab);
        without_drop(lab, firewall);
        let _ = partners(lab);
        assert_ne!(lab.leaks(), Leaks::default(), "without the drop they leave");
        machine.changed();
        assert_translated(lab);
    });
}

#[test]
fn returned_uplink_lets_nothing_untranslated_leave_with_nftables() {
    isolated(|| returned_uplink(Firewall::Nftables, true));
}

#[test]
fn returned_uplink_lets_nothing_untranslated_leave_with_iptables() {
    isolated(|| returned_uplink(Firewall::Iptables, false));
}

/// Routes of the administrator by the bypass interface keep their translation.
fn own_routes_by_the_bypass_interface(firewall: Firewall) {
    with_two_defaults(firewall, |lab, machine| {
        let gateway = lab.nat1.second_gateway;
        lab.ns("nat1").ip_batch(&format!(
            "route add {PARTNER}/32 via {gateway} dev bulk\n\
             route add {PARTNER6}/128 via {ROUTER6} dev bulk\n"
        ));
        machine.reconcile();
        assert_eq!(partners(lab), FOREIGN);
        assert_storage_by_bypass(lab);
    });
}

#[test]
fn own_routes_by_the_bypass_interface_stay_translated_with_nftables() {
    isolated(|| own_routes_by_the_bypass_interface(Firewall::Nftables));
}

#[test]
fn own_routes_by_the_bypass_interface_stay_translated_with_iptables() {
    isolated(|| own_routes_by_the_bypass_interface(Firewall::Iptables));
}

/// The gateway of the bypass path on the interface of the egress path has a second default.
#[test]
fn lost_default_beside_one_of_the_bypass_gateway_keeps_the_egress_address() {
    isolated(|| {
        let case = two_gateways(Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        let machine = case.machine(&lab);
        let nat1 = lab.ns("nat1");
        nat1.ip_batch(
            "route add default via 198.51.100.2 dev pub metric 600\n\
             route add ::/0 via fe80::1:2 dev pub metric 600\n",
        );
        machine.changed();
        assert_translated(&lab);
        for (family, metric) in [("-4", 512), ("-6", 512)] {
            nat1.ip(&format!("{family} route del default metric {metric}"));
        }
        assert_translated(&lab);
        assert_storage_by_bypass(&lab);
    });
}

/// Settings name the egress interface, and the kernel's default leaves by the other one.
#[test]
fn default_by_another_interface_than_the_egress_takes_no_partner() {
    isolated(|| {
        let case = Case {
            settings: |nat| {
                let addresses = egress_line(nat);
                format!("egress_interface = \"pub\"\n{addresses}[bypass]\ninterface = \"bulk\"\n")
            },
            ..bulk_interface(Firewall::Nftables)
        };
        let lab = Lab::with(case.layout);
        let machine = case.machine(&lab);
        lab.default_via("host1", "nat1");
        lab.ns("nat1").ip_batch(&format!(
            "route add default via {} dev bulk metric 100\n\
             route add ::/0 via {ROUTER6} dev bulk metric 100\n",
            lab.nat1.second_gateway
        ));
        machine.run(&["reconcile"]).expect_code(1);
        assert_eq!(partners(&lab), SILENCE);
        assert_storage_by_bypass(&lab);
    });
}
