//! The NAT role, with an interface of its own for storage.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::packets::delay::Delay;
use crate::packets::nat::*;
use crate::packets::*;
use crate::scene::*;
use lab::*;

const METRICS: &str = "127.0.0.1:9184";

fn scene<'a>(lab: &'a Lab, firewall: Firewall) -> Scene<'a> {
    let case = bulk_interface(firewall);
    let settings = format!(
        "{SOURCES}{}{}interval = \"1s\"\n[agent]\nmetrics = \"{METRICS}\"\n",
        (case.settings)(&lab.nat1),
        targets()
    );
    let machine = Machine::new(lab, "nat1", firewall, &settings);
    let agent = machine.agent();
    agent.wait_in_force();
    Scene {
        lab,
        machine,
        agent,
        bypass: second(&lab.nat1),
        egress: [lab.nat1.egress_public, lab.nat1.egress6],
    }
}

/// The answer to `GET /readyz`.
fn readiness(lab: &Lab) -> String {
    lab.ns("nat1").in_thread(|| {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(METRICS) {
            stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
            stream.read_to_string(&mut text).unwrap();
        }
        text
    })
}

#[test]
fn nat_with_nftables() {
    isolated(|| {
        let lab = behind_nat1(NatLayout::BulkInterface);
        let scene = scene(&lab, Firewall::Nftables);
        scene.survives(&[lab.nat1.second_public, lab.nat1.second6]);
    });
}

#[test]
fn nat_with_iptables() {
    isolated(|| {
        let lab = behind_nat1(NatLayout::BulkInterface);
        let scene = scene(&lab, Firewall::Iptables);
        scene.survives(&[lab.nat1.second_public, lab.nat1.second6]);
    });
}

/// The answers to SYNs on the bypass path come after the verdict: the clients' next SYN has taken another
/// address, so that such an answer reaches nobody.
fn late_answers(firewall: Firewall) {
    let lab = behind_nat1(NatLayout::BulkInterface);
    let scene = scene(&lab, firewall);
    scene.wait_probed();
    scene.wait_for(scene.bypass);
    // The trial of the first installation is over.
    std::thread::sleep(Duration::from_secs(6));
    // A SYN is repeated after 1, 3 and 7 seconds, so that no repetition follows the verdict at once.
    let linear = "net/ipv4/tcp_syn_linear_timeouts";
    if lab.ns("host1").read_sysctl(linear).is_some() {
        lab.ns("host1").sysctl(&[(linear, "0")]);
    }
    let held = scene.bypass.map(|own| format!("-o s3 -s {own}"));
    let Some(held) = Delay::hold_forwarded(lab.ns("vpc"), held) else {
        println!("not run: the kernel has no queue for packets (nfnetlink_queue)");
        return;
    };
    let seen = std::thread::scope(|threads| {
        let client = |to| threads.spawn(move || ask_patiently(&Ns::open("host1"), to));
        let clients = [S3, S3_6].map(client);
        for family in ["ipv4", "ipv6"] {
            let ended = format!("{family} bypass path is down: 0 open connections ended");
            eventually("connections begin anew", || {
                scene.agent.log().contains(&ended)
            });
        }
        held.release();
        clients.map(|client| client.join().unwrap())
    });
    assert_eq!(seen, scene.egress.map(Ok), "{}", scene.agent.log());
}

#[test]
fn late_answer_breaks_no_connection_by_the_egress_path() {
    isolated(|| late_answers(Firewall::Nftables));
}

#[test]
fn late_answer_breaks_no_connection_by_the_egress_path_with_iptables() {
    isolated(|| late_answers(Firewall::Iptables));
}

/// A dead uplink leaves no way for partners: the NAT says so to a load balancer, and changes nothing.
#[test]
fn nat_with_a_dead_uplink_is_not_ready() {
    isolated(|| {
        let lab = behind_nat1(NatLayout::BulkInterface);
        let scene = scene(&lab, Firewall::Nftables);
        scene.wait_probed();
        // An uplink that has never answered proves nothing by its silence.
        scene
            .agent
            .wait_for("an answered probe of the uplink", |status| {
                let gateways = status["gateways"].as_array();
                let mut uplinks = gateways
                    .into_iter()
                    .flatten()
                    .filter(|it| it["path"] == "egress");
                uplinks.clone().count() == 2
                    && uplinks.all(|it| it["health"]["latency_us"].is_u64())
            });
        eventually("the NAT is ready", || readiness(&lab).contains(" 200 "));
        let storage = lab.long_flow("host1", S3);
        lab.ns("vpc").nft(
            "table inet dead { chain forward { type filter hook forward priority -310; policy accept; iifname \"nat1-pub\" drop; }; }",
        );
        eventually("the NAT is not ready", || readiness(&lab).contains(" 503 "));
        assert!(readiness(&lab).contains("uplink"), "{}", readiness(&lab));
        scene.assert_calm(Duration::from_secs(1));
        assert_eq!(scene.storage(), scene.bypass.map(Some));
        lab.ns("vpc").nft("delete table inet dead");
        eventually("the NAT is ready again", || {
            readiness(&lab).contains(" 200 ")
        });
        storage.assert_alive();
    });
}

/// Partners know the egress address alone: no probe leaves with another address of the NAT.
#[test]
fn probes_of_the_uplink_leave_with_the_egress_address() {
    isolated(|| {
        let case = one_gateway(NatLayout::OneInterface, Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        let (egress, egress6) = (lab.nat1.egress, lab.nat1.egress6);
        lab.ns("vpc").nft(&format!(
            "table inet proof {{ counter right {{ }}; counter wrong {{ }};
                 chain forward {{ type filter hook forward priority -310; policy accept;
                     meta l4proto != tcp accept; tcp dport != {PORT} accept; tcp flags != syn accept;
                     ip saddr {egress} counter name right accept;
                     ip6 saddr {egress6} counter name right accept;
                     counter name wrong; }}; }}"
        ));
        let settings = format!(
            "{SOURCES}{}{}interval = \"1s\"\n",
            (case.settings)(&lab.nat1),
            targets()
        );
        let machine = Machine::new(&lab, "nat1", case.firewall, &settings);
        let agent = machine.agent();
        agent.wait_for("answered probes of the uplinks", |status| {
            let gateways = status["gateways"].as_array();
            let mut uplinks = gateways
                .into_iter()
                .flatten()
                .filter(|it| it["path"] == "egress");
            uplinks.clone().count() == 2 && uplinks.all(|it| it["health"]["latency_us"].is_u64())
        });
        let counted = |name: &str| {
            let listing = lab
                .ns("vpc")
                .run(&["nft", "list", "counter", "inet", "proof", name]);
            let packets = listing.split("packets ").nth(1).unwrap();
            packets.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert!(counted("right") > 0);
        assert_eq!(counted("wrong"), 0);
    });
}
