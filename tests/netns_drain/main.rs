//! Gateways without new flows on an operator's word: `trailblazer drain`.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../packets/mod.rs"]
mod packets;

use std::ops::Deref;
use std::time::Duration;

use lab::*;
use packets::two_nats::{QUICK, TwoNats};
use packets::*;
use serde_json::Value;
use trailblazer::state::lock::PassLock;

const FIRST_NAT: [&str; 2] = ["10.0.1.10", "2600:1f18:1000:1::10"];
const SECOND_NAT: [&str; 2] = ["10.0.1.20", "2600:1f18:1000:1::20"];

struct Scene<'a>(TwoNats<'a>);

impl<'a> Deref for Scene<'a> {
    type Target = TwoNats<'a>;

    fn deref(&self) -> &TwoNats<'a> {
        &self.0
    }
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, probe: &str) -> Scene<'a> {
        Scene(TwoNats::new(lab, Firewall::Nftables, probe))
    }

    fn flows(&self) -> [LongFlow; 2] {
        [PARTNER, PARTNER6].map(|to| self.lab.long_flow("host1", to))
    }

    /// Runs `drain` for both families; returns the answers.
    fn drain(&self, gateways: [&str; 2], more: &[&str]) -> [Value; 2] {
        gateways.map(|gateway| {
            let words = [&["drain", gateway, "-o", "json"], more].concat();
            self.machine.run(&words).ok().json()
        })
    }

    /// The gateways of `explain` for a partner.
    fn choice(&self) -> Value {
        let words = ["explain", &PARTNER.to_string(), "-o", "json"];
        self.machine.run(&words).ok().json()["gateways"].clone()
    }

    /// The reason for which `drain` refuses.
    fn refused(&self, gateway: &str) -> String {
        let output = self.machine.run(&["drain", gateway, "-o", "json"]);
        let answer = output.expect_code(1).json();
        assert_eq!(answer["outcome"], "failed");
        answer["error"].as_str().unwrap().to_owned()
    }
}

/// An egress gateway in the agent's status.
fn gateway(agent: &Agent, address: &str) -> Value {
    let status = agent.status().unwrap();
    let mut gateways = status["gateways"].as_array().unwrap().iter();
    let found = gateways.find(|it| it["address"] == address && it["path"] == "egress");
    found.unwrap().clone()
}

#[test]
fn new_flows_leave_a_drained_gateway_and_open_ones_stay() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, QUICK);
        let agent = scene.agent();
        assert_eq!(scene.seen(), scene.nat1());
        let open = scene.flows();
        count_from_now(&lab);
        for answer in scene.drain(FIRST_NAT, &[]) {
            assert_eq!(answer["outcome"], "drained", "{answer}");
            assert_eq!(answer["in_use"], false, "{answer}");
            assert!(answer["flows"].as_u64() >= Some(1), "{answer}");
        }
        assert_eq!(scene.seen(), scene.nat2());
        let living = scene.flows();
        // A pass beside the agent, and one with another verdict, lead nobody back.
        assert_eq!(scene.machine.reconcile()["outcome"], "in_sync");
        scene.machine.run(&["kick", "--wait"]).ok();
        assert_eq!(scene.seen(), scene.nat2());
        let status = gateway(&agent, FIRST_NAT[0]);
        assert!(status["drained"]["since"].as_i64() > Some(0), "{status}");
        assert_eq!(status["health"]["state"], "up", "still probed: {status}");
        let page = scene.machine.run(&["status"]).ok().stdout;
        assert!(
            page.contains("egress ipv4 10.0.1.10: drained for "),
            "{page}"
        );
        let gateways = scene.choice();
        assert_eq!(gateways[0]["address"], "10.0.1.20", "{gateways}");
        assert_eq!(gateways[0]["why"], "order", "{gateways}");
        assert_eq!(gateways[1]["used"], false, "{gateways}");
        assert_eq!(gateways[1]["why"], "drained", "{gateways}");
        let reason = gateways[1]["reason"].as_str().unwrap();
        assert!(reason.contains("asked for by drain, pid "), "{reason}");
        // Twice is once.
        scene.drain(FIRST_NAT, &[]);

        // Restarts keep the drain, of an agent that stops and of one that is killed.
        agent.stop();
        let agent = scene.agent();
        assert_eq!(scene.seen(), scene.nat2());
        agent.kill();
        let page = scene.machine.run(&["status"]).expect_code(1).stdout;
        assert!(
            page.contains("gateway 10.0.1.10 is drained since "),
            "{page}"
        );
        assert_eq!(scene.machine.reconcile()["outcome"], "in_sync");
        let agent = scene.agent();
        assert_eq!(scene.seen(), scene.nat2());

        for answer in scene.drain(FIRST_NAT, &["--undo"]) {
            assert_eq!(answer["outcome"], "undone", "{answer}");
        }
        assert_eq!(scene.seen(), scene.nat1());
        assert_eq!(gateway(&agent, FIRST_NAT[0])["drained"], Value::Null);
        for flow in open.into_iter().chain(living) {
            flow.assert_alive();
        }
        let leaks = lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");

        let history = scene.machine.run(&["history"]).ok().stdout;
        for line in [
            "gateway 10.0.1.10 is drained: asked for by drain, pid ",
            "gateway 10.0.1.10 takes new flows again: the drain is undone",
        ] {
            assert_eq!(history.matches(line).count(), 1, "{line}\n{history}");
        }
    });
}

#[test]
fn last_gateway_and_unknown_ones_are_not_drained() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, QUICK);
        let why = scene.refused(FIRST_NAT[0]);
        assert!(why.contains("no agent is running"), "{why}");
        let agent = scene.agent();
        let why = scene.refused("10.0.1.99");
        let known = "10.0.1.99 is not in [egress] gateways, which has 10.0.1.10, 10.0.1.20, ";
        assert!(why.contains(known), "{why}");
        scene.drain(SECOND_NAT, &[]);
        let why = scene.refused(FIRST_NAT[0]);
        let last = "10.0.1.10 is the last ipv4 gateway that takes new flows: 10.0.1.20 is drained";
        assert!(why.contains(last), "{why}");
        scene.drain(SECOND_NAT, &["--undo"]);

        // A gateway that the probes have found down is none to go to.
        let dead = "table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }";
        lab.ns("nat2").nft(dead);
        eventually("the second NAT is down", || {
            let down = |address| gateway(&agent, address)["health"]["state"] == "down";
            SECOND_NAT.into_iter().all(down)
        });
        let why = scene.refused(FIRST_NAT[0]);
        assert!(why.contains("10.0.1.20 is down"), "{why}");
        let gateways = scene.choice();
        assert_eq!(gateways[1]["why"], "health", "{gateways}");
        let reason = gateways[1]["reason"].as_str().unwrap();
        assert!(reason.starts_with("down for "), "{reason}");
        let partner = PARTNER.to_string();
        let text = scene.machine.run(&["explain", &partner]).ok().stdout;
        for line in [
            "gateways  10.0.1.10 for new flows: the first in the list that is well\n",
            "          10.0.1.20 skipped: down for ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(scene.seen(), scene.nat1());
        scene.machine.flush();
        let why = scene.refused(FIRST_NAT[0]);
        assert!(why.contains("the agent is paused"), "{why}");
    });
}

/// A drained gateway is better than none, and no longer than that.
#[test]
fn drained_gateway_stands_in_while_all_others_are_down() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, QUICK);
        let agent = scene.agent();
        scene.drain(FIRST_NAT, &[]);
        assert_eq!(scene.seen(), scene.nat2());
        let dead = "table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }";
        lab.ns("nat2").nft(dead);
        eventually("the drained NAT stands in", || scene.seen() == scene.nat1());
        let page = scene.machine.run(&["status"]).ok().stdout;
        assert!(
            page.contains("and IN USE: no other gateway is well"),
            "{page}"
        );
        lab.ns("nat2").nft("delete table inet dead");
        eventually("the other NAT is back", || scene.seen() == scene.nat2());
        eventually("the drained NAT is out of use", || {
            gateway(&agent, FIRST_NAT[0])["in_use"] == false
        });
    });
}

/// A drained gateway is watched as any other: its flows end when it dies, and are counted.
#[test]
fn flows_end_when_a_drained_gateway_dies() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, QUICK);
        let agent = scene.agent();
        let stuck = scene.flows();
        scene.drain(FIRST_NAT, &[]);
        let living = scene.flows();
        let dead = "table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }";
        lab.ns("nat1").nft(dead);
        eventually("both families of the NAT are down", || {
            let down = |address| gateway(&agent, address)["health"]["state"] == "down";
            FIRST_NAT.into_iter().all(down)
        });
        eventually("flows of the dead NAT end", || {
            stuck.iter().all(LongFlow::has_ended)
        });
        eventually("the ended flows are counted", || {
            let ended = FIRST_NAT.map(|address| {
                let ended = gateway(&agent, address)["ended"].clone();
                ended["connections"].as_u64().unwrap_or_default()
            });
            ended.iter().sum::<u64>() >= 2
        });
        let none = &gateway(&agent, SECOND_NAT[0])["ended"]["connections"];
        assert_eq!(none, 0);
        for flow in living {
            flow.assert_alive();
        }
        lab.ns("nat1").nft("delete table inet dead");
        eventually("the drained NAT is up, and out of use", || {
            gateway(&agent, FIRST_NAT[0])["health"]["state"] == "up"
        });
        assert_eq!(scene.seen(), scene.nat2());
        // No route of this host has changed, and the journal has the changes all the same.
        let history = || scene.machine.run(&["history", "--all"]).ok().stdout;
        let has_both = || {
            let found = history();
            let down = found.contains("gateway 10.0.1.10 is down: ");
            (down && found.contains("gateway 10.0.1.10 is in use again: ")).then_some(())
        };
        let (within, pause) = (Duration::from_secs(20), Duration::from_millis(50));
        wait_until(within, pause, has_both, history);
    });
}

/// The file of the drains is damaged: who is drained is unknown, and nobody gets new flows who had none.
#[test]
fn damaged_file_of_drains_is_not_an_empty_one() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, "enabled = false\n");
        let agent = scene.agent();
        scene.drain(FIRST_NAT, &[]);
        agent.stop();
        let file = scratch().join("host1/state/drained.json");
        assert!(file.exists());
        std::fs::write(&file, "garbage").unwrap();
        let agent = scene.agent();
        assert_eq!(scene.seen(), scene.nat2());
        let report = scene.machine.reconcile();
        assert_eq!(report["outcome"], "in_sync");
        let notes = report["notes"].to_string();
        assert!(
            notes.contains("which gateways are drained is unknown"),
            "{notes}"
        );
        let why = scene.refused(SECOND_NAT[0]);
        assert!(why.contains("drained.json to begin with none"), "{why}");
        // An end of a drain that nobody knows is no success.
        let undo = ["drain", FIRST_NAT[0], "--undo", "-o", "json"];
        let answer = scene.machine.run(&undo).expect_code(1).json();
        assert_eq!(answer["outcome"], "failed", "{answer}");
        let notes = agent.status().unwrap()["notes"].to_string();
        assert!(
            notes.contains("which gateways are drained is unknown"),
            "{notes}"
        );
        std::fs::remove_file(&file).unwrap();
        scene.drain(SECOND_NAT, &[]);
        assert_eq!(scene.seen(), scene.nat1());
        drop(agent);
    });
}

/// A single pass holds the lock while a gateway dies: the pass of the agent that should write so cannot.
#[test]
fn death_during_another_pass_is_in_the_history() {
    isolated(|| {
        let lab = Lab::new();
        let scene = Scene::new(&lab, QUICK);
        let agent = scene.agent();
        let state_dir = scratch().join("host1/state");
        let held = PassLock::acquire(&state_dir, "reconcile", Duration::from_secs(10)).unwrap();
        let dead = "table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }";
        lab.ns("nat1").nft(dead);
        agent.wait_for("a pass without the lock", |status| {
            let reason = status["reason"].as_str().unwrap_or_default();
            reason.contains("another pass is running")
        });
        drop(held);
        let history = || scene.machine.run(&["history", "--all"]).ok().stdout;
        let has_both = || {
            let found = history();
            let down = |gateway| found.contains(&format!("gateway {gateway} is down: "));
            FIRST_NAT.into_iter().all(down).then_some(())
        };
        let (within, pause) = (Duration::from_secs(20), Duration::from_millis(50));
        wait_until(within, pause, has_both, history);
    });
}
