//! A running agent, watched from outside: through its control socket, its log and its journal.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Ns, trailblazer_command};

/// How long the agent has for what it does in milliseconds: the rest is for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A running agent. Dropping it kills it.
pub struct Agent {
    ns: Ns,
    child: Child,
    config: String,
    log: PathBuf,
}

impl Agent {
    /// Starts it in a namespace; its log goes to `log`. The config names the control socket where
    /// the default, in the lab's own `/run`, doesn't do.
    pub fn start(ns: &Ns, config: &str, log: &Path) -> Agent {
        Agent::start_with(ns, config, log, |_command| {})
    }

    /// The same, with a word about the command.
    pub fn start_with(
        ns: &Ns,
        config: &str,
        log: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Agent {
        let mut command = trailblazer_command(&["agent", "-c", config]);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        prepare(&mut command);
        Agent {
            ns: ns.clone(),
            child: ns.spawn(&mut command),
            config: config.to_owned(),
            log: log.to_owned(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has logged, and where in the kernel each of its threads stands (proc(5)): for whom
    /// it keeps waiting.
    pub fn condition(&self) -> String {
        let mut text = self.log();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        for task in tasks.into_iter().flatten().flatten() {
            let read = |name: &str| {
                let text = std::fs::read_to_string(task.path().join(name));
                text.unwrap_or_default().trim().to_owned()
            };
            let [comm, wchan, syscall, stack] = ["comm", "wchan", "syscall", "stack"].map(read);
            text.push_str(&format!(
                "{comm}: {wchan}, system call {syscall}\n{stack}\n"
            ));
        }
        text
    }

    /// Its account of itself; `None` where it doesn't answer.
    pub fn status(&self) -> Option<Value> {
        let words = ["status", "-o", "json", "-c", &self.config];
        let output = self.ns.exec_command(&mut trailblazer_command(&words));
        let status: Value = serde_json::from_str(output.stdout.trim()).ok()?;
        (status["agent"] == "running").then_some(status)
    }

    /// Waits until its account fulfils a condition, and gives that account.
    #[track_caller]
    pub fn wait_for(&self, what: &str, fulfilled: impl Fn(&Value) -> bool) -> Value {
        wait_until(
            SOON,
            Duration::from_millis(20),
            || self.status().filter(&fulfilled),
            || {
                let (status, log) = (self.status(), self.log());
                format!("{what}; the agent says {status:#?}\nits log:\n{log}")
            },
        )
    }

    /// Waits until a document is in force.
    #[track_caller]
    pub fn wait_in_force(&self) -> Value {
        self.wait_for("a document in force", |status| {
            status["state"] == "in_force" && !status["document"].is_null()
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Tells it to end and waits; how it ended, and how long that took.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("our own child can be waited for");
        (status, started.elapsed())
    }

    /// Waits until it has ended; how.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("our own child can be waited for")
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until a condition holds that no account tells: in the kernel, in a file.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    wait_until(
        SOON,
        Duration::from_millis(5),
        || holds().then_some(()),
        || what.to_owned(),
    );
}

/// Looks again and again until it finds something, `pause` after each look; panics with what
/// `missing` tells when it has found nothing for as long as `within`.
#[track_caller]
pub fn wait_until<T>(
    within: Duration,
    pause: Duration,
    mut found: impl FnMut() -> Option<T>,
    missing: impl FnOnce() -> String,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        if started.elapsed() >= within {
            panic!("not within {within:?}: {}", missing());
        }
        std::thread::sleep(pause);
    }
}
