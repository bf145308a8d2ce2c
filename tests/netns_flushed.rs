//! NAT role: another program flushes every firewall. Packets of the sources must not leave with a
//! private source before the repair. Each scene shows the leak without Trailblazer's policies too.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::net::IpAddr;

use lab::*;
use packets::nat::*;
use packets::*;

/// New connections a second.
const PACE: u32 = 20;

/// A policy of IPsec that belongs to another program.
const FOREIGN: &str = "src 172.31.0.0/24 dst 172.31.1.0/24 dir fwd";

/// Flushes the firewalls as `nft flush ruleset` and `iptables-legacy -F` do.
fn flush_firewalls(lab: &Lab, firewall: Firewall) {
    let nat1 = lab.ns("nat1");
    nat1.nft("flush ruleset");
    if firewall == Firewall::IptablesLegacy {
        for family in ["ip", "ip6"] {
            for table in ["nat", "mangle", "filter"] {
                let program = firewall.program(family);
                nat1.run(&[program.as_str(), "-w", "-t", table, "-F"]);
            }
        }
    }
}

/// Another program restores the marks of all flows, without a mask.
fn restore_foreign_marks(lab: &Lab, firewall: Firewall) {
    let nat1 = lab.ns("nat1");
    if firewall == Firewall::Nftables {
        nat1.nft(
            "table inet qos {
               chain pre { type filter hook prerouting priority mangle; meta mark set ct mark; }
             }",
        );
        return;
    }
    for family in ["ip", "ip6"] {
        let program = firewall.program(family);
        let words = "-w -t mangle -A PREROUTING -j CONNMARK --restore-mark";
        let words = words.split(' ');
        let words: Vec<&str> = std::iter::once(program.as_str()).chain(words).collect();
        nat1.run(&words);
    }
}

/// The policies of IPsec of the machine.
fn policies(lab: &Lab) -> String {
    lab.ns("nat1").ip("xfrm policy")
}

#[track_caller]
fn assert_translated(lab: &Lab, case: &Case) {
    let egress = [lab.nat1.egress_public, lab.nat1.egress6];
    for (partner, seen) in [PARTNER, PARTNER6].into_iter().zip(egress) {
        assert_eq!(lab.who("host1", partner), Ok(seen), "to {partner}");
    }
    let bypass = (case.bypass)(&lab.nat1);
    for (storage, seen) in [S3, S3_6].into_iter().zip(bypass) {
        assert_eq!(lab.who("host1", storage), Ok(seen), "to {storage}");
    }
}

/// No packet to these opens a connection. All at once, since each waits for an answer.
#[track_caller]
fn assert_refused<const N: usize>(lab: &Lab, targets: [IpAddr; N]) {
    std::thread::scope(|scope| {
        let asked = targets.map(|to| {
            let asked = scope.spawn(move || lab.who("host1", to));
            (to, asked)
        });
        for (to, asked) in asked {
            assert!(asked.join().unwrap().is_err(), "to {to}");
        }
    });
}

fn closes(case: &Case) {
    let lab = behind_nat1(case.layout);
    let machine = case.machine(&lab);
    let nat1 = lab.ns("nat1");
    nat1.ip(&format!("xfrm policy add {FOREIGN} priority 7"));
    let foreign = policies(&lab);
    machine.changed();
    machine.in_sync();
    assert_translated(&lab, case);
    // The reverse path filter sees answers without a mark.
    for link in ["all", PRIVATE_LINK] {
        nat1.sysctl(&[(&format!("net/ipv4/conf/{link}/rp_filter"), "1")]);
    }
    restore_foreign_marks(&lab, case.firewall);
    assert_translated(&lab, case);
    let open = [PARTNER, PARTNER6, S3].map(|to| lab.long_flow("host1", to));
    for flow in open {
        flow.assert_alive();
    }

    count_from_now(&lab);
    let open = [PARTNER, PARTNER6].map(|to| lab.long_flow("host1", to));
    for _ in 0..2 {
        flush_firewalls(&lab, case.firewall);
        assert_refused(&lab, [PARTNER, PARTNER6, S3, S3_6]);
    }
    drop(open);
    assert_no_leaks(&lab);
    assert_private_networks(&lab);
    machine.changed();
    assert_translated(&lab, case);
    assert_no_leaks(&lab);
    machine.in_sync();

    // The scene without the policies.
    nat1.ip("xfrm policy flush");
    nat1.ip(&format!("xfrm policy add {FOREIGN} priority 7"));
    flush_firewalls(&lab, case.firewall);
    assert_refused(&lab, [PARTNER, PARTNER6]);
    assert_ne!(lab.leaks(), Leaks::default(), "packets leave");
    machine.changed();
    machine.in_sync();
    assert_translated(&lab, case);

    // Missing policies alone are drift.
    nat1.ip("xfrm policy flush");
    nat1.ip(&format!("xfrm policy add {FOREIGN} priority 7"));
    let dry_run = machine.run(&["reconcile", "--dry-run"]);
    assert!(dry_run.stdout.contains("block"), "{dry_run:?}");
    machine.changed();
    machine.flush();
    assert_eq!(policies(&lab), foreign);
}

macro_rules! closed {
    ($($name:ident: $layout:ident, $case:ident, $firewall:ident;)+) => {
        $(#[test]
        fn $name() {
            isolated(|| closes(&closed!(@$case $layout $firewall)));
        })+
    };
    (@one $layout:ident $firewall:ident) => {
        one_gateway(NatLayout::$layout, Firewall::$firewall)
    };
    (@bulk $layout:ident $firewall:ident) => {
        bulk_interface(Firewall::$firewall)
    };
}

closed! {
    flush_closes_two_interfaces_with_nftables: TwoInterfaces, one, Nftables;
    flush_closes_two_interfaces_with_iptables: TwoInterfaces, one, Iptables;
    flush_closes_two_interfaces_with_iptables_legacy: TwoInterfaces, one, IptablesLegacy;
    flush_closes_one_interface_with_nftables: OneInterface, one, Nftables;
    flush_closes_one_interface_with_iptables: OneInterface, one, Iptables;
    flush_closes_a_bulk_interface_with_nftables: BulkInterface, bulk, Nftables;
    flush_closes_a_bulk_interface_with_iptables: BulkInterface, bulk, Iptables;
}

/// Another program flushes the policies once, and the firewalls several times beside the agent.
fn agent_restores(firewall: Firewall) {
    let case = one_gateway(NatLayout::TwoInterfaces, firewall);
    let lab = behind_nat1(case.layout);
    let machine = case.machine(&lab);
    let nat1 = lab.ns("nat1");
    let agent = machine.agent();
    agent.wait_in_force();
    assert_translated(&lab, &case);

    let blocks = || policies(&lab).matches("action block").count();
    let wanted = blocks();
    assert_eq!(wanted, 2, "{}", policies(&lab));
    for words in ["policy deleteall dir fwd action block", "policy flush"] {
        nat1.ip(&format!("xfrm {words}"));
        eventually("the agent restores the policies", || blocks() == wanted);
    }

    count_from_now(&lab);
    let stream = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    for _ in 0..4 {
        stream.wait_for(4);
        flush_firewalls(&lab, firewall);
    }
    stream.wait_for(4);
    stream.stop();
    eventually("the agent restores the translation", || {
        let egress = [lab.nat1.egress_public, lab.nat1.egress6];
        let mut pairs = [PARTNER, PARTNER6].into_iter().zip(egress);
        pairs.all(|(partner, seen)| lab.who("host1", partner) == Ok(seen))
    });
    assert_no_leaks(&lab);
    agent.stop();
    machine.flush();
    assert_eq!(policies(&lab), "");
}

#[test]
fn agent_restores_policies_and_firewall_with_nftables() {
    isolated(|| agent_restores(Firewall::Nftables));
}

#[test]
fn agent_restores_policies_and_firewall_with_iptables() {
    isolated(|| agent_restores(Firewall::Iptables));
}

#[test]
fn agent_restores_policies_and_firewall_with_iptables_legacy() {
    isolated(|| agent_restores(Firewall::IptablesLegacy));
}
