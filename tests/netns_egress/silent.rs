//! A state directory whose disk never answers, by packets: the egress goes in by itself, no command
//! hangs, and the state names the disk.

use crate::packets::*;
use crate::scene::*;
use lab::*;

/// The words of each command that meets the disk.
const NO_ANSWER: &str = "the disk gives no answer";

fn mount(scene: &Scene) -> SilentDisk {
    let dir = scene.state_dir();
    std::fs::create_dir_all(&dir).unwrap();
    SilentDisk::mount(&dir)
}

fn names_state(value: &serde_json::Value) -> bool {
    named(value).contains(&"state".to_owned())
}

/// Each command ends, and names the disk. A running agent answers for `status`.
#[track_caller]
fn assert_commands_end(scene: &Scene, agent: bool) {
    let commands: [&[&str]; 5] = [
        &["check"],
        &["history"],
        &["reconcile", "--dry-run"],
        &["flush", "--dry-run"],
        &["status"],
    ];
    // Each command waits for the disk: all wait at once.
    std::thread::scope(|threads| {
        let running = commands.map(|command| threads.spawn(|| scene.machine.run(command)));
        for (command, running) in commands.into_iter().zip(running) {
            let output = running.join().unwrap();
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(text.contains(NO_ANSWER), "agent {agent}: {output}");
            if command[0] != "flush" {
                assert_eq!(output.code, Some(1), "agent {agent}: {output}");
            }
        }
    });
    // An answer or an error, but an end.
    let output = scene.machine.run(&["explain", "52.216.10.10"]);
    assert!(output.code.is_some(), "{output}");
}

/// The kill switch removes everything, and waits for no disk.
#[track_caller]
fn assert_flush_removes(scene: &Scene) {
    let output = scene.machine.run(&["flush"]).ok();
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains(NO_ANSWER), "{output}");
    let rules = format!(
        "{}{}",
        scene.ns().ip("rule show"),
        scene.ns().ip("-6 rule show")
    );
    assert!(!rules.contains("lookup 108"), "{rules}");
    let tables = scene.shell("nft list tables");
    assert!(!tables.contains("trailblazer"), "{tables}");
}

/// The machine boots with the silent disk.
fn boots(scene: &Scene, agent: bool) {
    let row = format!("silent disk at boot, agent {agent}");
    scene.network_down();
    let disk = mount(scene);
    let probe = scene.probe();
    let agent = agent.then(|| scene.machine.agent());
    match &agent {
        // The first pass comes before the network.
        Some(agent) => drop(agent.wait_for(&row, |status| {
            status["passes"]
                .as_array()
                .is_some_and(|passes| !passes.is_empty())
        })),
        None => drop(scene.pass()),
    }
    scene.network_up();
    match &agent {
        Some(agent) => drop(agent.wait_for(&row, names_state)),
        None => {
            let (code, report) = scene.pass();
            assert!(code == Some(1) && names_state(&report), "{row}: {report:#}");
        }
    }
    probe.arrives(&row, [false; 2], [true; 2]);
    probe.window();
    assert_commands_end(scene, agent.is_some());
    drop(disk);
    match &agent {
        Some(agent) => {
            agent.signal(rustix::process::Signal::HUP);
            agent.wait_in_force();
        }
        None => scene.converges(&row),
    }
    probe.arrives(&row, [true; 2], [true; 2]);
    probe.assert_no_leak(&row);
    drop((agent, probe));
    scene.clean();
}

/// The disk falls silent under a machine in force.
fn runs(scene: &Scene) {
    let row = "silent disk on a running machine";
    let agent = scene.machine.agent();
    agent.wait_in_force();
    let probe = scene.probe();
    probe.arrives(row, [true; 2], [true; 2]);
    let disk = mount(scene);
    scene.machine.run(&["kick"]).ok();
    agent.wait_for(row, names_state);
    probe.window();
    probe.arrives(row, [true; 2], [true; 2]);
    scene.network_down();
    scene.network_up();
    probe.arrives("after a flap", [true; 2], [true; 2]);
    probe.assert_no_leak(row);
    drop(probe);
    assert_flush_removes(scene);
    drop(agent);
    drop(disk);
    scene.clean();
}

fn silent_disk(kind: Kind, firewall: Firewall) {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, firewall);
    boots(&scene, false);
    // The agent is the same in each role.
    if kind == Kind::Host {
        boots(&scene, true);
    }
    runs(&scene);
}

#[test]
fn silent_state_dir_keeps_no_egress_of_a_host_open() {
    isolated(|| silent_disk(Kind::Host, Firewall::Nftables));
}

#[test]
fn silent_state_dir_keeps_no_egress_of_a_nat_open() {
    isolated(|| silent_disk(Kind::Nat, Firewall::Nftables));
}

#[test]
fn silent_state_dir_keeps_no_egress_of_a_nat_open_iptables() {
    isolated(|| silent_disk(Kind::Nat, Firewall::Iptables));
}
