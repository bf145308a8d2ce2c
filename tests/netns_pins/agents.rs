//! Flows away from the path of a new one, beside an agent that dies, reloads, and meets flushes.

use rustix::process::Signal;

use crate::packets::*;
use crate::*;
use lab::*;

/// Flows of the first gateway and of storage that has left the selection.
fn displaced<'a>(lab: &'a Lab, more: &str) -> (Machine<'a>, Agent, Flows) {
    let first = format!("{}{more}", settings(ONE, true));
    let mut machine = Machine::new(lab, "host1", Firewall::Nftables, &first);
    let agent = machine.agent();
    agent.wait_in_force();
    let flows = Flows::open(lab, &TARGETS);
    flows.assert_moving();
    machine.configure(&format!("{}{more}", settings(OTHER, true)));
    machine.publish(&["3.5.0.0/19", "2600:1f18:9000::/40"]);
    agent.signal(Signal::HUP);
    agent.wait_for("the new gateway", |_| {
        who(lab, PARTNER) == Some(lab.nat2.egress_public)
            && who(lab, S3) == Some(lab.nat2.egress_public)
    });
    flows.assert_moving();
    (machine, agent, flows)
}

#[test]
fn killed_and_restarted_agents_break_no_flow() {
    isolated(|| {
        let lab = lab_with_nats();
        let (mut machine, mut agent, flows) = displaced(&lab, "");
        count_from_now(&lab);
        for round in 0..4 {
            agent.kill();
            let gateways = if round % 2 == 0 { TWO } else { OTHER };
            machine.configure(&settings(gateways, true));
            agent = machine.agent();
            agent.wait_in_force();
            flows.assert_moving();
        }
        drop(agent);
        assert_eq!(flows.broken(), 0);
        assert_no_leaks(&lab);
    });
}

/// Our rules are deleted ten times: the chain `closed` drops packets of gateways' flows until each
/// repair, and no flow breaks.
#[test]
fn deleted_rules_break_no_flow() {
    isolated(|| {
        let lab = lab_with_nats();
        let (_machine, agent, flows) = displaced(&lab, "");
        count_from_now(&lab);
        for _ in 0..10 {
            lab.ns("host1").run(&[
                "sh",
                "-c",
                "for f in -4 -6; do ip $f rule | sed -n 's/^\\(300[0-9][0-9]\\):.*/rule del pref \\1/p' | ip $f -force -batch - 2>/dev/null; done; true",
            ]);
            flows.assert_moving();
        }
        agent.wait_in_force();
        assert_eq!(flows.broken(), 0);
        assert_no_leaks(&lab);
    });
}

/// The flushes of another program, ten of them; returns the broken flows.
fn flushed(protected: bool) -> usize {
    let lab = lab_with_nats();
    let more = format!("[kernel]\nprotect_table = {protected}\n");
    let (_machine, agent, flows) = displaced(&lab, &more);
    for _ in 0..10 {
        lab.ns("host1").nft("flush ruleset");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    agent.wait_in_force();
    flows.broken()
}

#[test]
fn flush_of_a_protected_table_breaks_no_flow() {
    isolated(|| assert_eq!(flushed(true), 0));
}

#[test]
fn flush_of_a_plain_table_breaks_displaced_flows() {
    isolated(|| assert!(flushed(false) > 0));
}
