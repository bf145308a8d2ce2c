//! Flows away from the path of a new one, beside an agent that dies, reloads, and meets flushes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

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

/// Open connections and sockets that are silent for longer than conntrack remembers them.
struct Idle {
    connections: Vec<(IpAddr, LongFlow)>,
    sockets: Vec<(IpAddr, Datagrams)>,
}

/// Conntrack's timeouts in this test, in seconds, and the silence of each flow.
const REMEMBERED: u32 = 15;
const SILENCE: Duration = Duration::from_secs(25);

impl Idle {
    fn open(lab: &Lab) -> Idle {
        let host1 = lab.ns("host1");
        for kind in [
            "tcp_timeout_established",
            "udp_timeout",
            "udp_timeout_stream",
        ] {
            let path = format!("net.netfilter.nf_conntrack_{kind}={REMEMBERED}");
            host1.run(&["sysctl", "-w", &path]);
        }
        let flow = |to: IpAddr| (to, LongFlow::paced(host1, to, SILENCE).unwrap());
        let sockets = [PARTNER, PARTNER6].map(|to| (to, Datagrams::open(lab, to)));
        for (to, socket) in &sockets {
            assert_eq!(socket.seen(), who(lab, *to));
        }
        Idle {
            connections: TARGETS.map(flow).into(),
            sockets: sockets.into(),
        }
    }

    /// The flows that took another path after their silence.
    fn lost(self, lab: &Lab) -> usize {
        let moved = |(_, flow): &(IpAddr, LongFlow)| flow.round_trips() >= 2;
        let deadline = Instant::now() + SILENCE * 4;
        let settled = |flow: &(IpAddr, LongFlow)| moved(flow) || flow.1.has_ended();
        while !self.connections.iter().all(settled) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let former = [lab.nat1.egress_public, lab.nat1.egress6];
        let sockets = self.sockets.iter().zip(former);
        let sockets = sockets.filter(|((_, socket), former)| socket.seen() != Some(*former));
        self.connections.iter().filter(|flow| !moved(flow)).count() + sockets.count()
    }
}

/// The number of lost flows, with an agent or after passes alone.
fn idle_flows_lost(with_agent: bool) -> usize {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
    machine.changed();
    let idle = Idle::open(&lab);
    machine.configure(&settings(OTHER, true));
    machine.publish(&["3.5.0.0/19", "2600:1f18:9000::/40"]);
    if with_agent {
        let agent = machine.agent();
        agent.wait_in_force();
        idle.lost(&lab)
    } else {
        machine.changed();
        idle.lost(&lab)
    }
}

#[test]
fn displaced_flows_outlive_their_silence_beside_an_agent() {
    isolated(|| assert_eq!(idle_flows_lost(true), 0));
}

#[test]
fn displaced_flows_are_lost_after_their_silence_without_an_agent() {
    isolated(|| assert!(idle_flows_lost(false) > 0));
}

#[test]
fn check_names_a_short_timeout_of_conntrack() {
    isolated(|| {
        let lab = lab_with_nats();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        machine.changed();
        let said = |words: &str| machine.run(&["check"]).stdout.contains(words);
        assert!(!said("that is silent for"));
        lab.ns("host1").run(&[
            "sysctl",
            "-w",
            "net.netfilter.nf_conntrack_tcp_timeout_established=600",
        ]);
        assert!(said("that is silent for 600 s loses its path"));
    });
}
