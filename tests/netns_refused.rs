//! NAT role: firewall rules that the kernel or a program refuses. The rest of the policy is in
//! force, seen by packets; a family without translation is closed; the refused part is named.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod packets;

#[path = "netns_refused/picky.rs"]
mod picky;

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::*;
use packets::nat::*;
use packets::*;
use picky::Picky;
use serde_json::Value;
use trailblazer::firewall::Piece;
use trailblazer::types::Family;

/// `nat1` without the administrator's translation: nobody else translates or drops.
fn scene(firewall: Firewall) -> (Lab, Case) {
    let case = one_gateway(NatLayout::OneInterface, firewall);
    let lab = behind_nat1(case.layout);
    lab.ns("nat1")
        .run(&["nft", "delete", "table", "inet", "natbox"]);
    (lab, case)
}

/// Programs that refuse an input with a word, as an installation without one match does.
fn picky(firewall: Firewall, families: &[&str], word: &str) -> PathBuf {
    let variant = match firewall {
        Firewall::IptablesLegacy => "legacy",
        _ => "nft",
    };
    let directory = scratch().join(format!("picky-{variant}"));
    std::fs::create_dir_all(&directory).unwrap();
    for family in ["ip", "ip6"] {
        for part in ["", "-save", "-restore"] {
            let real = format!("/usr/sbin/{family}tables-{variant}{part}");
            let refuses = part == "-restore" && families.contains(&family);
            let script = if refuses {
                format!(
                    "#!/bin/sh\ncase \"$*\" in *--version*) exec {real} \"$@\";; esac\n\
                     input=$(mktemp)\ncat >$input\n\
                     if grep -q -e '{word}' $input; then\n  echo \"{family}tables-restore: '{word}': no such match\" >&2; rm $input; exit 2\nfi\n\
                     {real} \"$@\" <$input; code=$?; rm $input; exit $code\n"
                )
            } else {
                format!("#!/bin/sh\nexec {real} \"$@\"\n")
            };
            let file = directory.join(format!("{family}tables{part}"));
            // An agent may run the program at this moment.
            let new = file.with_extension("new");
            std::fs::write(&new, script).unwrap();
            std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::rename(&new, &file).unwrap();
        }
    }
    directory
}

/// The degradations of a report, as `part family`.
fn parts(report: &Value) -> Vec<String> {
    let list = report["degraded"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("both").to_owned();
    let mut found: Vec<String> = list
        .map(|it| format!("{} {}", text(&it["part"]), text(&it["family"])))
        .collect();
    found.dedup();
    found
}

/// Partners see the egress addresses; those of a closed family see nobody.
#[track_caller]
fn assert_partners(lab: &Lab, closed: &[IpAddr]) {
    for partner in [PARTNER, PARTNER6] {
        let seen = lab.who("host1", partner);
        if closed.contains(&partner) {
            assert!(seen.is_err(), "{partner}: {seen:?}");
        } else {
            let own = if partner.is_ipv4() {
                lab.nat1.egress_public
            } else {
                lab.nat1.egress6
            };
            assert_eq!(seen, Ok(own), "{partner}");
        }
    }
    for storage in [S3, S3_6] {
        // The bypass path translates too.
        let is_closed = closed.iter().any(|it| it.is_ipv4() == storage.is_ipv4());
        assert_eq!(lab.who("host1", storage).is_err(), is_closed, "{storage}");
    }
    assert_no_leaks(lab);
}

/// A pass with a refused part: everything else is in force, and another pass changes nothing.
#[track_caller]
fn refused(machine: &Machine, expected: &[&str], words: &str) {
    let output = machine.run(&["reconcile", "-o", "json"]).expect_code(1);
    let report = output.json();
    assert_eq!(report["outcome"], "changed", "{report:#}");
    assert_eq!(report["error"], Value::Null, "{report:#}");
    assert_eq!(parts(&report), expected, "{report:#}");
    assert!(report["degraded"].to_string().contains(words), "{report:#}");
    let again = machine
        .run(&["reconcile", "-o", "json"])
        .expect_code(1)
        .json();
    assert_eq!(again["outcome"], "in_sync", "{again:#}");
    assert_eq!(parts(&again), expected, "{again:#}");
}

fn refused_counters(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let mut machine = case.machine(&lab);
    let real = machine
        .tools
        .replace(picky(firewall, &["ip", "ip6"], "trailblazer counts"));
    count_from_now(&lab);
    refused(
        &machine,
        &["counting ipv4", "counting ipv6"],
        "no such match",
    );
    assert_partners(&lab, &[]);
    assert_eq!(machine.traffic(), None);
    machine.tools = real;
    machine.changed();
    machine.in_sync();
    assert!(machine.traffic().is_some());
    machine.flush();
}

#[test]
fn refused_counters_leave_the_translation_iptables() {
    isolated(|| refused_counters(Firewall::Iptables));
}

#[test]
fn refused_counters_leave_the_translation_iptables_legacy() {
    isolated(|| refused_counters(Firewall::IptablesLegacy));
}

/// A tool without random ports: the translation is in force and keeps ports, and nothing is missing.
fn refused_random_ports(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let mut machine = case.machine(&lab);
    let list = |family: &str| {
        let program = firewall.program(family);
        lab.ns("nat1")
            .run(&[program.as_str(), "-w", "-t", "nat", "-S"])
    };
    let real = machine
        .tools
        .replace(picky(firewall, &["ip", "ip6"], "--random-fully"));
    machine.changed();
    machine.in_sync();
    count_from_now(&lab);
    assert_partners(&lab, &[]);
    for family in ["ip", "ip6"] {
        let rules = list(family);
        assert!(rules.contains("-j SNAT"), "{rules}");
        assert!(!rules.contains("--random-fully"), "{rules}");
    }
    machine.tools = real;
    machine.changed();
    machine.in_sync();
    for family in ["ip", "ip6"] {
        let rules = list(family);
        assert!(rules.contains("--random-fully"), "{rules}");
    }
    assert_partners(&lab, &[]);
    machine.flush();
}

#[test]
fn refused_random_ports_leave_the_translation_iptables() {
    isolated(|| refused_random_ports(Firewall::Iptables));
}

#[test]
fn refused_random_ports_leave_the_translation_iptables_legacy() {
    isolated(|| refused_random_ports(Firewall::IptablesLegacy));
}

fn refused_family(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let mut machine = case.machine(&lab);
    let real = machine
        .tools
        .replace(picky(firewall, &["ip6"], "TRAILBLAZER"));
    refused(&machine, &["translation ipv6"], "no such match");
    count_from_now(&lab);
    // Connections from before the pass would repeat their untranslated first packet.
    let stream = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    stream.wait_for(4);
    drop(stream.stop());
    assert_partners(&lab, &[PARTNER6]);
    machine.tools = real;
    machine.changed();
    machine.in_sync();
    assert_partners(&lab, &[]);
    machine.flush();
    assert_eq!(machine.ns().ip("-6 rule show").matches("iif").count(), 0);
}

#[test]
fn refused_ipv6_is_closed_and_ipv4_translated_iptables() {
    isolated(|| refused_family(Firewall::Iptables));
}

#[test]
fn refused_ipv6_is_closed_and_ipv4_translated_iptables_legacy() {
    isolated(|| refused_family(Firewall::IptablesLegacy));
}

/// nf_tables refuses some rules: the kernel of a test cannot lose an expression, so a backend
/// between Trailblazer and the kernel refuses instead, and everything else is real.
fn refused_by_nf_tables(pieces: &[(Family, Piece)], expected: &[&str], closed: &[IpAddr]) {
    let (lab, case) = scene(Firewall::Nftables);
    let machine = case.machine(&lab);
    count_from_now(&lab);
    for outcome in ["changed", "in_sync"] {
        let report = machine
            .ns()
            .in_thread(|| Picky::pass(machine.config(), pieces));
        assert_eq!(report["outcome"], outcome, "{report:#}");
        assert_eq!(parts(&report), expected, "{report:#}");
        assert!(
            report["degraded"].to_string().contains(picky::WORDS),
            "{report:#}"
        );
        assert_partners(&lab, closed);
    }
    machine.changed();
    machine.in_sync();
    assert_partners(&lab, &[]);
}

#[test]
fn refused_counters_leave_the_translation_nftables() {
    isolated(|| {
        let pieces = Family::ALL.map(|family| (family, Piece::Counting));
        refused_by_nf_tables(&pieces, &["counting ipv4", "counting ipv6"], &[]);
    });
}

#[test]
fn refused_ipv6_is_closed_and_ipv4_translated_nftables() {
    isolated(|| {
        let pieces = [(Family::Ipv6, Piece::All)];
        refused_by_nf_tables(&pieces, &["translation ipv6"], &[PARTNER6]);
    });
}

#[test]
fn refused_marks_and_counters_of_one_family_leave_the_rest_nftables() {
    isolated(|| {
        let pieces = [
            (Family::Ipv6, Piece::Inbound),
            (Family::Ipv6, Piece::Counting),
        ];
        refused_by_nf_tables(&pieces, &["inbound ipv6", "counting ipv6"], &[]);
    });
}

#[test]
fn refused_translation_closes_both_families_nftables() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Nftables);
        let machine = case.machine(&lab);
        let pieces = Family::ALL.map(|family| (family, Piece::All));
        for _ in 0..2 {
            let report = machine
                .ns()
                .in_thread(|| Picky::pass(machine.config(), &pieces));
            count_from_now(&lab);
            assert_eq!(
                parts(&report),
                ["translation ipv4", "translation ipv6"],
                "{report:#}"
            );
            assert_partners(&lab, &[PARTNER, PARTNER6]);
        }
        machine.changed();
        assert_partners(&lab, &[]);
    });
}

/// More incoming interfaces than rules of one kind: the paths of all are closed.
#[test]
fn refused_translation_closes_more_than_ten_interfaces() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Nftables);
        // Names before that of the clients' interface.
        let mut links = String::new();
        for number in 0..12 {
            links.push_str(&format!(
                "link add a{number:02} type veth peer name b{number:02}\nlink set b{number:02} up\naddr add 10.0.{}.1/24 dev a{number:02}\nlink set a{number:02} up\n",
                100 + number
            ));
        }
        lab.ns("nat1").ip_batch(&links);
        let machine = case.machine(&lab);
        let pieces = Family::ALL.map(|family| (family, Piece::All));
        for _ in 0..2 {
            let report = machine
                .ns()
                .in_thread(|| Picky::pass(machine.config(), &pieces));
            count_from_now(&lab);
            let named = parts(&report);
            for family in ["ipv4", "ipv6"] {
                let part = format!("translation {family}");
                assert!(named.contains(&part), "{report:#}");
            }
            assert_partners(&lab, &[PARTNER, PARTNER6]);
        }
        machine.flush();
        assert_eq!(machine.ns().ip("rule show").matches("iif").count(), 0);
    });
}

/// Unknown sources and no firewall: packets from private networks stay inside.
#[test]
fn refused_firewall_with_unknown_sources_closes_private_networks() {
    isolated(|| {
        let (lab, case) = scene(Firewall::Nftables);
        let mut machine = case.machine(&lab);
        let settings = (case.settings)(&lab.nat1);
        machine.configure(&format!("{settings}[vpc]\nmetadata = \"off\"\n"));
        count_from_now(&lab);
        assert!(lab.who("host1", PARTNER).is_err());
        let leaks = lab.leaks();
        assert!(
            leaks.partner4 > 0,
            "without rules the private source leaves"
        );
        let pieces = Family::ALL.map(|family| (family, Piece::All));
        for _ in 0..2 {
            let report = machine
                .ns()
                .in_thread(|| Picky::pass(machine.config(), &pieces));
            let named = parts(&report);
            assert!(named.contains(&"translation ipv4".to_owned()), "{report:#}");
            count_from_now(&lab);
            assert!(lab.who("host1", PARTNER).is_err());
            assert_eq!(lab.leaks().partner4, 0, "{report:#}");
        }
        machine.flush();
    });
}

/// A foreign object has the place of ours: forwarded packets to partners go nowhere, from the
/// first packet after the pass on, and the next pass after its removal translates.
fn taken_name(firewall: Firewall, take: &[&str], free: &[&str]) {
    let (lab, case) = scene(firewall);
    let machine = case.machine(&lab);
    let nat1 = lab.ns("nat1");
    for line in take {
        nat1.run(&line.split(' ').collect::<Vec<_>>());
    }
    // Without Trailblazer, the packets leave with their private source.
    let leaks = lab.who("host1", PARTNER);
    assert!(
        leaks.is_err() && lab.leaks() != Leaks::default(),
        "{leaks:?}"
    );
    let output = machine.run(&["reconcile", "-o", "json"]).expect_code(1);
    count_from_now(&lab);
    let report = output.json();
    assert_eq!(
        parts(&report),
        ["translation ipv4", "translation ipv6"],
        "{report:#}"
    );
    let named = report["degraded"].to_string();
    assert!(named.to_lowercase().contains("trailblazer"), "{report:#}");
    assert_partners(&lab, &[PARTNER, PARTNER6]);
    let again = machine
        .run(&["reconcile", "-o", "json"])
        .expect_code(1)
        .json();
    assert_eq!(again["steps"], serde_json::json!([]), "{again:#}");
    for line in free {
        nat1.run(&line.split(' ').collect::<Vec<_>>());
    }
    machine.changed();
    machine.in_sync();
    assert_partners(&lab, &[]);
    machine.flush();
    assert_eq!(nat1.ip("rule show").matches("iif").count(), 0);
    assert_eq!(nat1.ip("route show table 1084"), "");
}

#[test]
fn foreign_table_of_our_name_closes_forwarded_packets() {
    isolated(|| {
        taken_name(
            Firewall::Nftables,
            &["nft add table inet trailblazer"],
            &["nft delete table inet trailblazer"],
        );
    });
}

fn taken_chain(firewall: Firewall) {
    let program = firewall.program("ip");
    let line = |words: &str| format!("{program} -w -t nat {words}");
    let take = [
        line("-N TRAILBLAZER-POST"),
        line("-A TRAILBLAZER-POST -j RETURN"),
    ];
    let free = [line("-F TRAILBLAZER-POST"), line("-X TRAILBLAZER-POST")];
    taken_name(
        firewall,
        &take.each_ref().map(String::as_str),
        &free.each_ref().map(String::as_str),
    );
}

#[test]
fn foreign_chain_of_our_name_closes_forwarded_packets_iptables() {
    isolated(|| taken_chain(Firewall::Iptables));
}

#[test]
fn foreign_chain_of_our_name_closes_forwarded_packets_iptables_legacy() {
    isolated(|| taken_chain(Firewall::IptablesLegacy));
}

/// The agent lives with a refused family, and translates once the program takes the rules.
fn agent_recovers(firewall: Firewall) {
    let (lab, case) = scene(firewall);
    let mut machine = case.machine(&lab);
    machine.tools = Some(picky(firewall, &["ip6"], "TRAILBLAZER"));
    let agent = machine.agent();
    agent.wait_for("the refused family", |status| {
        let reason = status["reason"].as_str().unwrap_or_default();
        status["state"] == "degraded" && reason.contains("no such match")
    });
    count_from_now(&lab);
    assert_partners(&lab, &[PARTNER6]);
    picky(firewall, &[], "TRAILBLAZER");
    machine.run(&["kick", "--wait"]).ok();
    agent.wait_in_force();
    assert_partners(&lab, &[]);
    agent.stop();
}

#[test]
fn agent_translates_once_the_rules_are_accepted_iptables() {
    isolated(|| agent_recovers(Firewall::Iptables));
}

#[test]
fn agent_translates_once_the_rules_are_accepted_iptables_legacy() {
    isolated(|| agent_recovers(Firewall::IptablesLegacy));
}
