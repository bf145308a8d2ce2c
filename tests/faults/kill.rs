//! The process is killed before every step: traffic is on a right path at once, the journal shows
//! the interrupted pass, and one further pass converges.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use trailblazer::reconcile::Outcome;

use crate::killer::Killer;
use crate::scenario::{ALL, IPTABLES, Scenario, UPGRADES};
use crate::world::{World, at_every_step, config, run_pass};

/// Set in the process to be killed: scenario, directory and step.
const CHILD: &str = "TRAILBLAZER_FAULT_KILLED_AT";

/// Runs the pass in this process and is killed at the step.
fn die(words: &str) {
    let mut words = words.split(' ');
    let mut word = || words.next().expect("scenario, directory and step");
    let scenario = Scenario::named(word());
    let directory = PathBuf::from(word());
    let at = word().parse().expect("a number");
    let mut killer = Killer { at };
    let config = config(&scenario, &directory, 1);
    let report = run_pass(&config, scenario.role, Some(&mut killer));
    panic!(
        "the pass ended without reaching step {}: {report:?}",
        at + 1
    );
}

fn killed_at(world: &World, at: usize) {
    let when = format!(
        "{}: killed before step {}, {}",
        world.scenario.name,
        at + 1,
        world.steps[at]
    );
    world.reset();
    world.assert_allowed(&format!("{when}: before the pass"));
    let output = Command::new(std::env::current_exe().expect("this test binary"))
        .args([
            &lab::test_name(),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(
            CHILD,
            format!("{} {} {at}", world.scenario.name, world.directory.display()),
        )
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts again");
    assert_eq!(
        output.status.signal(),
        Some(Signal::KILL.as_raw()),
        "{when}: the process was not killed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.last_in_journal(), "interrupted", "{when}");
    world.assert_allowed(&when);
    world.assert_foreign_same(&when);
    world.assert_converges(Outcome::Changed, &when);
}

fn kill_at_every_step(scenarios: &[Scenario]) {
    if let Ok(words) = std::env::var(CHILD) {
        return die(&words);
    }
    for scenario in scenarios {
        at_every_step(*scenario, killed_at);
        println!("{}: killed before each step", scenario.name);
    }
}

#[test]
fn kill_before_every_step_is_recovered_1() {
    lab::isolated(|| kill_at_every_step(&ALL[..6]));
}

#[test]
fn kill_before_every_step_of_an_upgrade_is_recovered() {
    lab::isolated(|| kill_at_every_step(UPGRADES));
}

#[test]
fn kill_before_every_step_is_recovered_2() {
    lab::isolated(|| {
        let rest: Vec<Scenario> = ALL[6..].iter().chain(IPTABLES).copied().collect();
        kill_at_every_step(&rest);
    });
}
