//! A running agent, observed from outside: through the control socket, the log and the journal.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Ns, trailblazer_command};

/// A generous limit for reactions that take milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A running agent. Dropping it kills it.
pub struct Agent {
    ns: Ns,
    child: Child,
    config: String,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent in a namespace and appends the log to `log`. The config must name the
    /// control socket if the default in the lab's `/run` does not fit.
    pub fn start(ns: &Ns, config: &str, log: &Path) -> Agent {
        Agent::start_with(ns, config, log, |_command| {})
    }

    /// Like `start`, with changes to the command.
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

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The log so far, and the kernel function of each thread (proc(5)), to see what a hanging
    /// agent waits for.
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

    /// The answer of `status`; `None` without an agent's answer.
    pub fn status(&self) -> Option<Value> {
        let words = ["status", "-o", "json", "-c", &self.config];
        let output = self.ns.exec_command(&mut trailblazer_command(&words));
        let status: Value = serde_json::from_str(output.stdout.trim()).ok()?;
        (status["agent"] == "running").then_some(status)
    }

    /// Waits until the status fulfils a condition, and returns the status.
    #[track_caller]
    pub fn wait_for(&self, what: &str, fulfilled: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_within(SOON, what, fulfilled)
    }

    /// Like `wait_for`, with another limit.
    #[track_caller]
    pub fn wait_for_within(
        &self,
        limit: Duration,
        what: &str,
        fulfilled: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until(
            limit,
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

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Sends SIGTERM and waits; returns the exit status and the time until the exit.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("our own child can be waited for");
        (status, started.elapsed())
    }

    /// Waits for the exit.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("our own child can be waited for")
    }

    /// Kills the agent with SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both calls fail only for a process already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for a condition outside the status: in the kernel, in a file.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    wait_until(
        SOON,
        Duration::from_millis(5),
        || holds().then_some(()),
        || what.to_owned(),
    );
}

/// Calls `found` until a value comes, with a `pause` after each call. Panics with the text of
/// `missing` after `within`.
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
