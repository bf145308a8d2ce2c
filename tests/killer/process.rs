//! A pass in a process of its own that ends without warning before one of its steps.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use lab::{Ns, test_name};
use rustix::process::Signal;
use trailblazer::config::{Role, parse};
use trailblazer::kernel::Kernel;
use trailblazer::reconcile::{Options, one_shot};

use crate::killer::Killer;

/// Set in the process to be killed: the number of the step and the config.
const CHILD: &str = "TRAILBLAZER_KILLED_AT";

/// In the process to be killed, runs the pass to the step or to the end, and returns true.
pub fn dies(role: Role) -> bool {
    let Ok(words) = std::env::var(CHILD) else {
        return false;
    };
    let (at, path) = words.split_once(' ').expect("step and config");
    let config = parse(&std::fs::read_to_string(path).unwrap(), path).unwrap();
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
    true
}

/// Starts a pass that ends before a step: the same test in another process, where [`dies`] runs the
/// pass. Returns false if the pass had no such step.
pub fn killed_before(ns: &Ns, config: &str, at: usize) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this test binary"));
    command
        .args([&test_name(), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{at} {config}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = ns.spawn(&mut command).wait().unwrap();
    if status.signal() != Some(Signal::KILL.as_raw()) {
        assert!(status.success(), "before step {at}: {status}");
        return false;
    }
    true
}
