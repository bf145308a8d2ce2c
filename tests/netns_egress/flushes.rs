//! `nft flush ruleset` in a loop beside a running agent.

use std::time::Duration;

use crate::packets::*;
use crate::scene::*;
use lab::*;

const FLUSHES: usize = 40;

/// Flushes the ruleset again and again. Returns the wrong sources seen meanwhile.
fn flushed(kind: Kind, firewall: Firewall) -> Vec<String> {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, firewall);
    let agent = scene.machine.agent();
    agent.wait_in_force();
    let probe = scene.probe();
    probe.arrives("before", [true; 2], [true; 2]);
    for _ in 0..FLUSHES {
        scene.shell("nft flush ruleset");
        std::thread::sleep(Duration::from_millis(40));
    }
    let wrong = probe.wrong();
    println!("{FLUSHES} flushes: {wrong:?}");
    // No repair is withheld after the last flush.
    eventually("right sources alone", || {
        count_from_now(&lab);
        probe.window();
        probe.wrong().is_empty()
    });
    probe.arrives("afterwards", [true; 2], [true; 2]);
    probe.window();
    probe.assert_no_leak("afterwards");
    wrong
}

#[track_caller]
fn assert_closed(kind: Kind, firewall: Firewall) {
    let wrong = flushed(kind, firewall);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn flushed_rulesets_open_no_egress_of_a_host() {
    isolated(|| assert_closed(Kind::Host, Firewall::Nftables));
}

#[test]
fn flushed_rulesets_open_no_egress_of_a_host_iptables() {
    isolated(|| assert_closed(Kind::Host, Firewall::Iptables));
}

#[test]
fn flushed_rulesets_open_no_egress_of_a_nat_iptables_legacy() {
    isolated(|| assert_closed(Kind::Nat, Firewall::IptablesLegacy));
}

/// The flush takes the translation and each drop with it: untranslated packets leave until the
/// repair.
#[test]
fn flushed_rulesets_are_repaired_on_a_nat() {
    isolated(|| drop(flushed(Kind::Nat, Firewall::Nftables)));
}

#[test]
fn flushed_rulesets_are_repaired_on_a_nat_iptables() {
    isolated(|| drop(flushed(Kind::Nat, Firewall::Iptables)));
}
