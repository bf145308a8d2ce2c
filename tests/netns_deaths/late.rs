//! Connections that are being opened while their NAT is found down, and whose answers come afterwards.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use lab::*;

use crate::clients::{Attempt, Flow, attempt};
use crate::packets::delay::Delay;
use crate::packets::*;
use crate::scene::Setup;

/// A host and a container behind it, the first NAT of which holds each packet.
struct Scene<'a> {
    lab: &'a Lab,
    agent: Agent,
    guest: Ns,
    held: Delay,
}

impl<'a> Scene<'a> {
    /// `None` without a queue for packets.
    fn new(lab: &'a Lab, machine: &Machine) -> Option<Scene<'a>> {
        let guest = lab.container();
        let agent = machine.agent();
        agent.wait_in_force();
        for ns in [lab.ns("host1"), &guest] {
            eventually("flows take the first NAT", || {
                [PARTNER, PARTNER6].map(|to| ns.who(to).ok())
                    == [lab.nat1.egress_public, lab.nat1.egress6].map(Some)
            });
            // A SYN is repeated after 1, 3 and 7 seconds, so that no repetition follows the verdict at once.
            let linear = "net/ipv4/tcp_syn_linear_timeouts";
            if ns.read_sysctl(linear).is_some() {
                ns.sysctl(&[(linear, "0")]);
            }
        }
        count_from_now(lab);
        let Some(held) = Delay::hold(lab.ns("nat1")) else {
            println!("not run: the kernel has no queue for packets (nfnetlink_queue)");
            return None;
        };
        Some(Scene {
            lab,
            agent,
            guest,
            held,
        })
    }

    fn clients(&self) -> [(&Ns, IpAddr); 4] {
        let host = self.lab.ns("host1");
        let both = |ns| [PARTNER, PARTNER6].map(|to| (ns, to));
        let ([one, two], [three, four]) = (both(host), both(&self.guest));
        [one, two, three, four]
    }

    /// Waits until the agent has ended the connections that are being opened.
    fn wait_until_ended(&self) {
        let nat = self.lab.nat1;
        for gateway in [nat.private, nat.private6] {
            let ended = format!("gateway {gateway} is down: 0 open connections ended, ");
            eventually("connections begin anew", || {
                let log = self.agent.log();
                let mut lines = log.lines();
                lines.any(|line| line.contains(&ended) && !line.contains("ended, 0 flows"))
            });
        }
    }

    fn assert_no_leak(&self) {
        let leaks = self.lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    }
}

fn build(firewall: Firewall, body: impl FnOnce(Scene<'_>)) {
    let setup = Setup {
        nats: 2,
        spread: "order",
        firewall,
    };
    setup.build("interval = \"1s\"\n", |lab, machine| {
        if let Some(scene) = Scene::new(lab, machine) {
            body(scene);
        }
    });
}

/// The sources of the second NAT, as servers see them.
fn second(lab: &Lab) -> [IpAddr; 2] {
    [lab.nat2.egress_public, lab.nat2.egress6]
}

/// The answers come just after the verdict, before the clients repeat their SYN.
fn answers_before_the_repetition(firewall: Firewall) {
    build(firewall, |scene| {
        let attempts: Vec<Attempt> = thread::scope(|scope| {
            let clients = scene.clients().map(|(ns, to)| (ns.name().to_owned(), to));
            let threads: Vec<_> = clients
                .into_iter()
                .map(|(name, to)| scope.spawn(move || Ns::open(&name).in_thread(|| attempt(to))))
                .collect();
            scene.wait_until_ended();
            scene.held.release();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        println!("{firewall:?}: {attempts:?}");
        let seen: Vec<_> = attempts.iter().map(|attempt| attempt.seen).collect();
        let all = [second(scene.lab), second(scene.lab)].concat();
        assert_eq!(seen, all.into_iter().map(Ok).collect::<Vec<_>>());
        scene.assert_no_leak();
    });
}

/// The answers come to connections that are open through the other NAT by then.
fn answers_after_the_repetition(firewall: Firewall) {
    build(firewall, |scene| {
        let flows: Vec<Flow> = thread::scope(|scope| {
            let clients = scene.clients().map(|(ns, to)| (ns.name().to_owned(), to));
            let threads: Vec<_> = clients
                .into_iter()
                .map(|(name, to)| scope.spawn(move || Flow::open(&Ns::open(&name), to).unwrap()))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let seen: Vec<IpAddr> = flows.iter().map(|flow| flow.seen).collect();
        assert_eq!(seen, [second(scene.lab), second(scene.lab)].concat());
        scene.held.release();
        // A server repeats its answer after one second and after three.
        thread::sleep(Duration::from_secs(4));
        for flow in &flows {
            assert!(flow.is_alive(), "{}", scene.agent.log());
        }
        scene.assert_no_leak();
    });
}

#[test]
fn late_answer_opens_no_connection_that_begins_anew() {
    isolated(|| answers_before_the_repetition(Firewall::Nftables));
}

#[test]
fn late_answer_opens_no_connection_that_begins_anew_beside_iptables() {
    isolated(|| answers_before_the_repetition(Firewall::Iptables));
}

#[test]
fn late_answer_breaks_no_connection_through_the_other_nat() {
    isolated(|| answers_after_the_repetition(Firewall::Nftables));
}
