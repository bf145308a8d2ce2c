//! A change of the bypass path is a trial: probes that fail just after it take the path out of use, and
//! the history says so.

use std::time::{Duration, Instant};

use crate::host::{scene, settings};
use crate::packets::*;
use crate::scene::*;
use lab::*;

const OWN: &[std::net::IpAddr] = &[HOST1, HOST1_6];

/// The default settings of the rounds would need two more failed rounds.
const SLOW: &str = "fall = 100\n";

fn assert_rolled_back(scene: &Scene<'_>) {
    scene.agent.wait_for("the reason in the status", |status| {
        let reason = status["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("rolled back"))
    });
    let history = scene.machine.run(&["history"]).ok().stdout;
    let line = "rolled back: the bypass path is down since";
    assert!(history.contains(line), "{history}");
}

#[test]
fn first_installation_on_a_dead_bypass_is_rolled_back() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        break_bypass(&lab, OWN);
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(SLOW));
        let agent = machine.agent();
        let scene = Scene {
            lab: &lab,
            machine,
            agent,
            bypass: [HOST1_PUBLIC, HOST1_6],
            egress: [lab.nat1.egress_public, lab.nat1.egress6],
        };
        assert_rolled_back(&scene);
        assert_eq!(scene.storage(), scene.egress.map(Some));
        scene.heal();
        scene.wait_for(scene.bypass);
        scene.agent.wait_in_force();
    });
}

/// The operator names a router that forwards nothing.
#[test]
fn wrong_gateway_is_rolled_back() {
    isolated(|| {
        let lab = Lab::new();
        let mut scene = scene(&lab, Firewall::Nftables, SLOW);
        scene.wait_probed();
        scene.wait_for(scene.bypass);
        let partner = lab.long_flow("host1", PARTNER);
        let wrong = format!("{}[bypass]\ngateway = \"{HOST2}\"\n", settings(SLOW));
        scene.machine.configure(&wrong);
        let began = Instant::now();
        scene.agent.signal(rustix::process::Signal::HUP);
        let expected = [scene.egress[0], scene.bypass[1]];
        eventually("storage leaves the wrong router", || {
            scene.storage() == expected.map(Some)
        });
        println!("rolled back after {:?}", began.elapsed());
        assert_rolled_back(&scene);
        partner.assert_alive();
    });
}

/// A change after which the probes succeed stays.
#[test]
fn good_change_stays() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, "");
        scene.wait_probed();
        let mut prefixes = FIRST.to_vec();
        prefixes.push("52.218.0.0/17");
        let mut machine = scene.machine;
        machine.publish(&prefixes);
        machine.run(&["kick"]).ok();
        eventually("the new prefix takes the bypass path", || {
            lab.who("host1", S3_ELSEWHERE).ok() == Some(HOST1_PUBLIC)
        });
        std::thread::sleep(Duration::from_secs(3));
        scene.agent.wait_in_force();
        assert_eq!(lab.who("host1", S3).ok(), Some(HOST1_PUBLIC));
    });
}
