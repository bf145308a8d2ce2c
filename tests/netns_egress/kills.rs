//! A pass killed before each of its steps, by packets: each packet has a right source meanwhile, the
//! paths work after the kill, and the next pass converges.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use trailblazer::config::{Role, parse};
use trailblazer::kernel::Kernel;
use trailblazer::reconcile::{Options, one_shot};

use crate::killer::Killer;
use crate::packets::*;
use crate::scene::*;
use lab::*;

/// Set in the process to be killed: the number of the step and the config.
const CHILD: &str = "TRAILBLAZER_EGRESS_KILLED_AT";

/// Runs a pass in this process, to the step or to the end.
fn die(words: &str, kind: Kind) {
    let (at, path) = words.split_once(' ').expect("step and config");
    let config = parse(&std::fs::read_to_string(path).unwrap(), path).unwrap();
    let role = match kind {
        Kind::Host => Role::Host,
        Kind::Nat => Role::Nat,
    };
    let mut killer = Killer {
        at: at.parse().expect("a number"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = Options::default();
    let pass = one_shot(&config, role, &options, Kernel::open, Some(&mut killer));
    let report = runtime.block_on(pass);
    assert_eq!(report.error, None, "{report:?}");
}

/// Starts a pass that ends before a step. Returns false if the pass had no such step.
fn killed_before(scene: &Scene, at: usize) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this test binary"));
    command
        .args([&test_name(), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{at} {}", scene.machine.config()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = scene.ns().spawn(&mut command).wait().unwrap();
    if status.signal() != Some(Signal::KILL.as_raw()) {
        assert!(status.success(), "before step {at}: {status}");
        return false;
    }
    true
}

/// Other tables and priorities: the pass adds each object under its new number and removes the old
/// one.
const OTHER_NUMBERS: &str = "table = 1090\n[kernel]\npriority = 31000\n";

/// A pass to other numbers, on a machine in force: no packet leaves with a wrong address.
fn killed_between_steps(kind: Kind, firewall: Firewall) {
    if let Ok(words) = std::env::var(CHILD) {
        return die(&words, kind);
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
        let killed = killed_before(&scene, steps);
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
