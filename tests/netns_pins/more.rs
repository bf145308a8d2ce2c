//! Containers behind the host, datagrams, and passes killed before each of their steps.

use trailblazer::config::Role;

use crate::killed::{dies, killed_before};
use crate::packets::*;
use crate::*;
use lab::*;

pub fn containers(firewall: Firewall, pin: bool, from_the_first_pass: bool) -> usize {
    let lab = lab_with_nats();
    let old = [HOST1_PUBLIC, HOST1_6];
    lab.set_egress(
        &[
            &old[..],
            &[
                lab.nat1.egress,
                lab.nat1.egress6,
                lab.nat2.egress,
                lab.nat2.egress6,
            ],
        ]
        .concat(),
    );
    let guest = lab.container();
    eventually("the container reaches storage", || {
        guest.who(S3).is_ok() && guest.who(S3_6).is_ok()
    });
    let mut machine = Machine::new(&lab, "host1", firewall, &settings(ONE, pin));
    if !from_the_first_pass {
        machine.changed();
    }
    let flows = Flows::from(&guest, &TARGETS);
    flows.assert_moving();
    if from_the_first_pass {
        machine.changed();
    }
    machine.publish(&["2600:1f18:9000::/40", "3.5.0.0/19"]);
    machine.configure(&settings(OTHER, pin));
    machine.changed();
    machine.in_sync();
    let [nat4, nat6] = [lab.nat2.egress_public, lab.nat2.egress6];
    assert_eq!(
        guest.who(PARTNER),
        Ok(nat4),
        "a new flow takes the new path"
    );
    assert_eq!(guest.who(S3_6), Ok(nat6), "a new flow takes the new path");
    flows.broken()
}

#[test]
fn changes_break_no_flow_of_a_container() {
    isolated(|| assert_eq!(containers(Firewall::Nftables, true, false), 0));
}

#[test]
fn first_pass_breaks_no_flow_of_a_container() {
    isolated(|| assert_eq!(containers(Firewall::Nftables, true, true), 0));
}

#[test]
fn changes_break_flows_of_a_container_without_pins() {
    isolated(|| assert!(containers(Firewall::Nftables, false, false) >= 2 * FLOWS));
}

/// Datagrams of one socket keep their source while prefixes and gateways change.
#[test]
fn datagrams_keep_their_source() {
    isolated(|| {
        let lab = lab_with_nats();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        machine.changed();
        let flows = TARGETS.map(|target| Datagrams::open(&lab, target));
        let before = flows.each_ref().map(Datagrams::seen);
        assert!(before.iter().all(Option::is_some), "{before:?}");
        for (gateways, prefixes) in [
            (OTHER, &["3.5.0.0/19", "2600:1f18:9000::/40"][..]),
            (TWO, FIRST),
            (ONE, FIRST),
        ] {
            machine.configure(&settings(gateways, true));
            machine.publish(prefixes);
            machine.changed();
            assert_eq!(flows.each_ref().map(Datagrams::seen), before);
        }
        machine.configure(&settings(ONE, false));
        machine.publish(&["3.5.0.0/19", "2600:1f18:9000::/40"]);
        machine.changed();
        let after = flows.each_ref().map(Datagrams::seen);
        assert_ne!(after, before, "without pins");
    });
}

/// A pass that changes prefixes and gateways is killed before each of its steps.
#[test]
fn pass_killed_before_each_step_breaks_no_flow() {
    isolated(|| {
        if dies(Role::Host) {
            return;
        }
        let lab = lab_with_nats();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        machine.changed();
        let mut flows = Flows::open(&lab, &TARGETS);
        count_from_now(&lab);
        let mut steps = 0;
        loop {
            machine.configure(&settings(OTHER, true));
            machine.publish(&[
                "3.5.0.0/19",
                "2600:1f18:9000::/40",
                &format!("{PARTNER}/32"),
            ]);
            let killed = killed_before(machine.ns(), machine.config(), steps);
            // New flows have a way out until the next pass, which may be the one of a restart.
            // The IPv4 partner, now in the document, refuses the bypass path.
            for target in [S3, S3_6, PARTNER6] {
                let seen = who(&lab, target);
                assert!(seen.is_some(), "{target}, killed before step {steps}");
            }
            flows.assert_moving();
            if !killed {
                break;
            }
            machine.reconcile();
            machine.in_sync();
            // Flows of the other paths, which move back.
            let [first, .., last] = TARGETS;
            flows.add(&lab, &[first, last]);
            machine.configure(&settings(ONE, true));
            machine.publish(FIRST);
            machine.changed();
            flows.assert_moving();
            steps += 1;
        }
        assert!(steps >= 8, "the pass has steps: {steps}");
        println!("killed before each of {steps} steps");
        assert_eq!(flows.broken(), 0);
    });
}
