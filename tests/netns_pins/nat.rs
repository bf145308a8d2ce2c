//! NAT role with a bulk interface: the paths differ in interface, gateway and source.

use crate::packets::nat::{behind_nat1, bulk_interface};
use crate::packets::*;
use crate::*;
use lab::*;

/// Storage leaves the selection and comes back, and a partner enters it, under open flows of a host
/// behind the NAT.
fn prefixes_change(firewall: Firewall, pin: bool, first_pass: bool) -> usize {
    let case = bulk_interface(firewall);
    let lab = behind_nat1(case.layout);
    let mut machine = case.machine(&lab);
    let settings = format!(
        "{}{}[egress]\npin = {pin}\n",
        packets::nat::SOURCES,
        (case.settings)(&lab.nat1)
    );
    machine.configure(&settings);
    if !first_pass {
        machine.changed();
    }
    let flows = Flows::open(&lab, &TARGETS);
    let datagrams = TARGETS.map(|target| Datagrams::open(&lab, target));
    let before = datagrams.each_ref().map(Datagrams::seen);
    assert!(before.iter().all(Option::is_some), "{before:?}");
    flows.assert_moving();
    if first_pass {
        machine.changed();
    }
    machine.in_sync();
    machine.publish(&[&format!("{PARTNER}/32"), "2600:1f18:9000::/40"]);
    machine.changed();
    machine.in_sync();
    let [egress4, egress6] = [lab.nat1.egress_public, lab.nat1.egress6];
    assert_eq!(
        who(&lab, S3),
        Some(egress4),
        "a new flow takes the new path"
    );
    assert_eq!(
        who(&lab, S3_6),
        Some(egress6),
        "a new flow takes the new path"
    );
    machine.publish(FIRST);
    machine.changed();
    let after = datagrams.each_ref().map(Datagrams::seen);
    assert!(!pin || after == before, "{before:?}, then {after:?}");
    machine.publish(&[&format!("{PARTNER}/32"), "2600:1f18:9000::/40"]);
    machine.changed();
    let broken = flows.broken();
    machine.flush();
    broken
}

#[test]
fn change_of_prefixes_breaks_no_flow_nftables() {
    isolated(|| assert_eq!(prefixes_change(Firewall::Nftables, true, false), 0));
}

#[test]
fn change_of_prefixes_breaks_no_flow_iptables() {
    isolated(|| assert_eq!(prefixes_change(Firewall::Iptables, true, false), 0));
}

#[test]
fn change_of_prefixes_breaks_no_flow_legacy() {
    isolated(|| assert_eq!(prefixes_change(Firewall::IptablesLegacy, true, false), 0));
}

#[test]
fn first_pass_breaks_no_flow() {
    isolated(|| assert_eq!(prefixes_change(Firewall::Nftables, true, true), 0));
}

#[test]
fn change_of_prefixes_breaks_flows_without_pins() {
    isolated(|| assert!(prefixes_change(Firewall::Nftables, false, false) >= FLOWS));
}
