//! Deletions again and again, killed passes, repeated starts.

use std::process::Stdio;
use std::time::Duration;

use crate::packets::*;
use crate::scene::*;
use lab::*;

/// The repair of a deleted object takes a moment, in which packets may leave with a wrong address.
/// After each repair the path is closed, and no repair is withheld.
fn deleted(kind: Kind, firewall: Firewall, delete: &str, is_there: fn(&Scene) -> bool) {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, firewall);
    let agent = scene.machine.agent();
    agent.wait_in_force();
    let probe = scene.probe();
    probe.arrives("before", [true; 2], [true; 2]);
    for round in 1..=8 {
        scene.shell(delete);
        eventually("the object is back", || is_there(&scene));
        println!("deletion {round}: {:?}", lab.leaks());
        // The last packets of the gap.
        probe.window();
        count_from_now(&lab);
        probe.window();
        probe.assert_no_leak(&format!("after deletion {round}"));
    }
    // A neighbour that doesn't wait for the repair.
    for _ in 0..30 {
        scene.shell(delete);
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("the object is back", || is_there(&scene));
    let status = agent.wait_for("a conflict", |status| {
        named(status).contains(&"conflict".into())
    });
    let listed = status["drift"]["conflicts"].as_array().unwrap();
    assert!(
        listed.iter().all(|one| one["paused_for_s"] == 0),
        "{status:#}"
    );
    probe.window();
    count_from_now(&lab);
    probe.arrives("afterwards", [true; 2], [true; 2]);
    probe.assert_no_leak("afterwards");
}

fn has_egress_rules(scene: &Scene) -> bool {
    ["-4", "-6"].iter().all(|family| {
        let rules = scene.ns().ip(&format!("{family} rule show pref 30030"));
        rules.contains("lookup 1084")
    })
}

const DELETE_RULES: &str = "ip rule del pref 30030 || :; ip -6 rule del pref 30030 || :";

#[test]
fn egress_rule_deleted_in_a_loop_on_a_host() {
    isolated(|| {
        deleted(
            Kind::Host,
            Firewall::Nftables,
            DELETE_RULES,
            has_egress_rules,
        )
    });
}

#[test]
fn ruleset_flushed_in_a_loop_on_a_nat() {
    isolated(|| {
        deleted(
            Kind::Nat,
            Firewall::Nftables,
            "nft delete table inet trailblazer 2>/dev/null || :",
            |scene| {
                let listed = scene
                    .ns()
                    .exec(&["nft", "list", "table", "inet", "trailblazer"]);
                listed.code == Some(0)
            },
        )
    });
}

/// Kills passes and agents after a growing time, before the network comes up. The next complete pass
/// is in force from the first packet on.
fn killed(kind: Kind, firewall: Firewall) {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, firewall);
    for words in [["reconcile"], ["agent"]] {
        scene.network_down();
        let probe = scene.probe();
        for milliseconds in (0..60).step_by(6) {
            let mut command = scene.machine.command(&words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = scene.ns().spawn(&mut command);
            std::thread::sleep(Duration::from_millis(milliseconds));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        scene.pass();
        scene.network_up();
        probe.window();
        scene.converges("after killed passes");
        probe.arrives("after killed passes", [true; 2], [true; 2]);

        // The same with everything in force: a killed process takes nothing away.
        for milliseconds in (0..60).step_by(6) {
            let agent = scene.machine.agent();
            std::thread::sleep(Duration::from_millis(milliseconds));
            agent.kill();
        }
        let agent = scene.machine.agent();
        agent.wait_in_force();
        probe.arrives("after killed agents", [true; 2], [true; 2]);
        probe.assert_no_leak("after killed agents");
        drop(agent);
        drop(probe);
        scene.clean();
    }
}

#[test]
fn killed_passes_and_repeated_starts_on_a_host() {
    isolated(|| killed(Kind::Host, Firewall::Nftables));
}

#[test]
fn killed_passes_and_repeated_starts_on_a_nat() {
    isolated(|| killed(Kind::Nat, Firewall::Nftables));
}
