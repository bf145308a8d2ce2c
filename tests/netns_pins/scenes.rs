//! Changes of prefixes and gateways under open flows.

use crate::packets::*;
use crate::*;
use lab::*;

/// Storage leaves the selection, and a partner enters it.
pub fn prefixes_change(firewall: Firewall, pin: bool) -> usize {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", firewall, &settings(ONE, pin));
    machine.changed();
    machine.in_sync();
    count_from_now(&lab);
    let flows = Flows::open(&lab, &TARGETS);
    flows.assert_moving();
    machine.publish(&[&format!("{PARTNER}/32"), "2600:1f18:9000::/40"]);
    machine.changed();
    machine.in_sync();
    let [nat4, nat6] = [lab.nat1.egress_public, lab.nat1.egress6];
    assert_eq!(who(&lab, S3), Some(nat4), "a new flow takes the new path");
    assert_eq!(who(&lab, S3_6), Some(nat6), "a new flow takes the new path");
    // A change of the egress table ends the routes that IPv6 sockets keep.
    lab.ns("host1")
        .ip("-6 route replace 2600:9999::/32 via fe80::1 dev priv proto static");
    lab.ns("host1").ip("-6 route del 2600:9999::/32");
    flows.broken()
}

#[test]
fn change_of_prefixes_breaks_no_flow() {
    isolated(|| assert_eq!(prefixes_change(Firewall::Nftables, true), 0));
}

#[test]
fn change_of_prefixes_breaks_flows_without_pins() {
    isolated(|| assert!(prefixes_change(Firewall::Nftables, false) >= FLOWS));
}

/// The gateways are replaced, joined by another one, and replaced again.
pub fn gateways_change(firewall: Firewall, pin: bool) -> usize {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", firewall, &settings(ONE, pin));
    machine.changed();
    machine.in_sync();
    count_from_now(&lab);
    let flows = Flows::open(&lab, &TARGETS);
    for gateways in [OTHER, ONE, TWO, OTHER] {
        flows_move_on(&flows, pin);
        machine.configure(&settings(gateways, pin));
        machine.changed();
        machine.in_sync();
    }
    let [nat4, nat6] = [lab.nat2.egress_public, lab.nat2.egress6];
    assert_eq!(
        who(&lab, PARTNER),
        Some(nat4),
        "a new flow takes the new gateway"
    );
    assert_eq!(
        who(&lab, PARTNER6),
        Some(nat6),
        "a new flow takes the new gateway"
    );
    let broken = flows.broken();
    assert_no_leaks(&lab);
    broken
}

fn flows_move_on(flows: &Flows, pin: bool) {
    if pin {
        flows.assert_moving();
    }
}

#[test]
fn change_of_gateways_breaks_no_flow() {
    isolated(|| assert_eq!(gateways_change(Firewall::Nftables, true), 0));
}

#[test]
fn change_of_gateways_breaks_flows_without_pins() {
    isolated(|| assert!(gateways_change(Firewall::Nftables, false) >= 2 * FLOWS));
}

/// The first pass on a host with open flows.
pub fn first_pass(firewall: Firewall, pin: bool, by_agent: bool) -> usize {
    let lab = lab_with_nats();
    let old = [HOST1_PUBLIC, HOST1_6];
    lab.set_egress(&[&old[..], &[lab.nat1.egress, lab.nat1.egress6]].concat());
    let machine = Machine::new(&lab, "host1", firewall, &settings(ONE, pin));
    let flows = Flows::open(&lab, &TARGETS);
    let datagrams = [PARTNER, PARTNER6, S3, S3_6].map(|target| Datagrams::open(&lab, target));
    let before = datagrams.each_ref().map(Datagrams::seen);
    assert!(before.iter().all(Option::is_some), "{before:?}");
    flows.assert_moving();
    let agent = by_agent.then(|| machine.agent());
    match &agent {
        Some(agent) => drop(agent.wait_in_force()),
        None => drop(machine.changed()),
    }
    let [nat4, nat6] = [lab.nat1.egress_public, lab.nat1.egress6];
    assert_eq!(who(&lab, PARTNER), Some(nat4), "a new flow takes the NAT");
    assert_eq!(who(&lab, PARTNER6), Some(nat6), "a new flow takes the NAT");
    let after = datagrams.each_ref().map(Datagrams::seen);
    assert_eq!(after == before, pin, "{before:?}, then {after:?}");
    machine.in_sync();
    flows.broken()
}

#[test]
fn first_pass_breaks_no_flow() {
    isolated(|| assert_eq!(first_pass(Firewall::Nftables, true, false), 0));
}

#[test]
fn first_pass_of_an_agent_breaks_no_flow() {
    isolated(|| assert_eq!(first_pass(Firewall::Nftables, true, true), 0));
}

#[test]
fn first_pass_breaks_flows_without_pins() {
    // The first pass leaves a flow that conntrack knows by an answer on the main table's path.
    isolated(|| assert!(first_pass(Firewall::Nftables, false, false) >= FLOWS));
}
