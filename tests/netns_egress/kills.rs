//! A pass killed before each of its steps, by packets: each packet has a right source meanwhile, the
//! paths work after the kill, and the next pass converges.

use trailblazer::config::Role;

use crate::killed::{dies, killed_before};
use crate::packets::*;
use crate::scene::*;
use lab::*;

/// Other tables and priorities: the pass adds each object under its new number and removes the old
/// one.
const OTHER_NUMBERS: &str = "table = 1090\n[kernel]\npriority = 31000\n";

/// A pass to other numbers, on a machine in force: no packet leaves with a wrong address.
fn killed_between_steps(kind: Kind, firewall: Firewall) {
    let role = match kind {
        Kind::Host => Role::Host,
        Kind::Nat => Role::Nat,
    };
    if dies(role) {
        return;
    }
    let lab = lab_of(kind);
    let mut scene = Scene::new(&lab, kind, firewall);
    let usual = scene.settings();
    let other = format!("{usual}{OTHER_NUMBERS}");
    scene.converges("at first");
    let probe = scene.probe();
    let mut steps = 0;
    loop {
        let when = format!("killed before step {steps}");
        scene.machine.configure(&other);
        let killed = killed_before(scene.ns(), scene.machine.config(), steps);
        probe.window();
        probe.arrives(&when, [true; 2], [true; 2]);
        if !killed {
            break;
        }
        scene.converges(&when);
        probe.arrives(&when, [true; 2], [true; 2]);
        // Back to the first numbers, with the same promise.
        scene.machine.configure(&usual);
        scene.converges(&when);
        steps += 1;
    }
    assert!(steps > 20, "the pass has steps: {steps}");
    println!("killed before each of {steps} steps");
}

#[test]
fn pass_killed_before_each_step_leaves_right_paths_on_a_host() {
    isolated(|| killed_between_steps(Kind::Host, Firewall::Nftables));
}

#[test]
fn pass_killed_before_each_step_leaves_right_paths_on_a_nat() {
    isolated(|| killed_between_steps(Kind::Nat, Firewall::Nftables));
}
