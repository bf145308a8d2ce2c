//! Hosts with iptables on a kernel without nf_tables: IPv4 by realm, and IPv6 is named.

use serde_json::Value;
use trailblazer::kernel::firewall::iptables::IptablesBackend;

use crate::packets::*;
use crate::*;
use lab::*;

const TARGETS4: [IpAddr; 2] = [S3, PARTNER];

/// A pass in this process.
#[track_caller]
fn pass(machine: &Machine) -> Value {
    let config = std::fs::read_to_string(machine.config()).unwrap();
    let pass = || no_nf_tables::pass(&config, IptablesBackend::detect()).to_json();
    let report = machine.ns().in_thread(pass);
    assert_eq!(report["error"], Value::Null, "{report:#}");
    report
}

/// A pass that changes something, and one that finds nothing to do.
#[track_caller]
fn change(machine: &Machine) -> Value {
    let report = pass(machine);
    assert_eq!(report["outcome"], "changed", "{report:#}");
    let again = pass(machine);
    assert_eq!(again["outcome"], "in_sync", "{again:#}");
    report
}

/// Prefixes and gateways change under flows.
fn changes(pin: bool) -> usize {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", Firewall::Iptables, &settings(ONE, pin));
    let report = change(&machine).to_string();
    let named = "ipv6: packets on neither path are not dropped";
    assert_eq!(report.matches(named).count(), 1, "{report}");
    count_from_now(&lab);
    let flows = Flows::open(&lab, &TARGETS4);
    let partner = format!("{PARTNER}/32");
    for (gateways, prefixes) in [
        (OTHER, &[partner.as_str()][..]),
        (TWO, FIRST),
        (ONE, &[&partner]),
        (OTHER, &["3.5.0.0/19"]),
    ] {
        if pin {
            flows.assert_moving();
        }
        machine.configure(&settings(gateways, pin));
        machine.publish(prefixes);
        change(&machine);
    }
    let nat = Some(lab.nat2.egress_public);
    assert_eq!([S3, PARTNER].map(|to| who(&lab, to)), [nat; 2], "new flows");
    flows.broken()
}

#[test]
fn changes_break_no_flow() {
    isolated(|| assert_eq!(changes(true), 0));
}

#[test]
fn changes_break_flows_without_pins() {
    isolated(|| assert!(changes(false) >= 2 * FLOWS));
}

/// Deletes the rules in our range of priorities.
const DELETE_RULES: &str = r"
    ip rule | sed -n 's/^\(300[0-9][0-9]\):.*/rule del pref \1/p' | ip -batch -";

/// Wrong packets after a deletion of our rules, with and without the rules of the chain.
#[test]
fn deletion_of_our_rules_opens_nothing() {
    isolated(|| {
        let lab = lab_with_nats();
        let machine = Machine::new(&lab, "host1", Firewall::Iptables, &settings(ONE, true));
        change(&machine);
        let right = [Some(HOST1_PUBLIC), Some(lab.nat1.egress_public)];
        assert_eq!(TARGETS4.map(|to| who(&lab, to)), right);
        assert!(lab.who("outside", HOST1_PUBLIC).is_ok());
        let host1 = lab.ns("host1");
        for opened in [false, true] {
            if opened {
                host1.run(&["iptables", "-w", "-t", "mangle", "-F", "TRAILBLAZER-CLOSED"]);
            }
            count_from_now(&lab);
            let stream = lab.stream("host1", &TARGETS4, PACE);
            stream.wait_for(8);
            host1.run(&["sh", "-ec", DELETE_RULES]);
            stream.wait_for(20);
            assert!(lab.who("outside", HOST1_PUBLIC).is_ok(), "locked out");
            change(&machine);
            drop(stream.stop());
            assert_eq!(lab.leaks().partner4 > 0, opened);
            assert_eq!(TARGETS4.map(|to| who(&lab, to)), right);
        }
    });
}
