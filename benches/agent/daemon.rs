//! The agent's process: started as by the unit, measured from outside.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use trailblazer::status::control::{Reply, Request, ask};
use trailblazer::status::snapshot::{Snapshot, State};

use super::Res;
use super::samples::milliseconds;
use super::subject::BINARY;

/// The unit, whose environment the agent has here too.
const UNIT: &str = include_str!("../../systemd/trailblazer.service");
/// Another binary to measure, to compare two builds.
const OTHER_BINARY: &str = "TRAILBLAZER_BENCH_BINARY";
/// The unit's `WatchdogSec`, in microseconds: the agent pings at half of the time.
const WATCHDOG: &str = "180000000";
/// The limit for steps that take milliseconds, with reserve for a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The number of log lines in an error.
const LAST_LINES: usize = 12;
/// `USER_HZ`, the unit of `/proc/PID/stat`: 100 on every architecture at AWS.
const TICKS: f64 = 100.0;

/// A running agent, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ready: Receiver<Instant>,
    socket: PathBuf,
    log: PathBuf,
    started: Instant,
}

impl Daemon {
    /// Starts the agent in the namespace of this thread.
    pub fn start(
        config: &Path,
        socket: &Path,
        log: &Path,
        variables: &[(&str, String)],
    ) -> Res<Daemon> {
        let notify_path = socket.with_extension("notify");
        let _absent = std::fs::remove_file(&notify_path);
        let ready = hear(UnixDatagram::bind(&notify_path)?);
        let binary = std::env::var_os(OTHER_BINARY).unwrap_or_else(|| BINARY.into());
        let mut command = Command::new(binary);
        command
            .args(["agent", "-c"])
            .arg(config)
            .envs(environment_of_unit())
            .env("NOTIFY_SOCKET", &notify_path)
            .env("WATCHDOG_USEC", WATCHDOG)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?);
        let started = Instant::now();
        Ok(Daemon {
            child: command.spawn()?,
            ready,
            socket: socket.to_owned(),
            log: log.to_owned(),
            started,
        })
    }

    /// Waits for READY; returns the milliseconds since fork.
    pub fn ready(&self) -> Res<f64> {
        match self.ready.recv_timeout(SOON) {
            Ok(at) => Ok(milliseconds(at - self.started)),
            Err(_late) => Err(format!("the agent isn't ready; its log:\n{}", self.log()).into()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of the log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// The agent's status.
    pub fn status(&self) -> Res<Snapshot> {
        match ask(&self.socket, Request::Status) {
            Ok(Reply::Status(snapshot)) => Ok(*snapshot),
            other => Err(format!("no status: {other:?}; its log:\n{}", self.log()).into()),
        }
    }

    /// Asks for a pass.
    pub fn kick(&self) -> Res<()> {
        match ask(&self.socket, Request::Kick) {
            Ok(Reply::Done) => Ok(()),
            other => Err(format!("not kicked: {other:?}").into()),
        }
    }

    /// Waits until the status fulfils a condition.
    pub fn wait_for(&self, what: &str, fulfilled: impl Fn(&Snapshot) -> bool) -> Res<Snapshot> {
        let started = Instant::now();
        loop {
            let status = self.status()?;
            if fulfilled(&status) {
                return Ok(status);
            }
            if started.elapsed() > SOON {
                let log = self.log();
                return Err(format!("{what}: not within {SOON:?}: {status:#?}\n{log}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the first fetch is over, its document in force, and all work after the pass
    /// done, so that the next event meets an idle agent.
    pub fn quiet(&self) -> Res<Snapshot> {
        let status = self.wait_for("in force, and a fetch", |status| {
            status.state == State::InForce && !status.source.fetches.is_empty()
        })?;
        let longest = status
            .passes
            .iter()
            .map(|pass| pass.duration_ms)
            .fold(0.0, f64::max);
        thread::sleep(Duration::from_secs_f64((longest / 1e3 * 20.0).min(5.0)));
        thread::sleep(Duration::from_millis(200));
        self.status()
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> Res<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name, in parentheses, may contain any character (proc_pid_stat(5)); utime and stime
        // are the 14th and 15th field, and the first field after the name is the third.
        let rest = stat.rsplit(')').next().unwrap_or("");
        let fields: Vec<f64> = rest
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        match (fields.get(11), fields.get(12)) {
            (Some(user), Some(system)) => Ok((user + system) / TICKS),
            _ => Err("an unreadable stat".into()),
        }
    }

    /// A line of the process's `status`, in MiB: `VmRSS`, `RssAnon`, `VmHWM`.
    pub fn memory(&self, name: &str) -> Res<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let value = field(&status, name).ok_or("no such line in its status")?;
        Ok(value / 1024.0)
    }

    /// The number of threads.
    pub fn threads(&self) -> Res<usize> {
        Ok(entries(self.pid(), "task")?.len())
    }

    /// The number of open files.
    pub fn files(&self) -> Res<usize> {
        Ok(entries(self.pid(), "fd")?.len())
    }
}

/// The variables that the unit sets, one a line.
fn environment_of_unit() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = UNIT.lines();
    let set = lines.filter_map(|line| line.strip_prefix("Environment="));
    set.filter_map(|variable| variable.split_once('='))
}

/// Receives systemd's notifications in a thread, and reports the time of READY. Every datagram has
/// to be read, since the agent waits for a slow receiver.
fn hear(notify: UnixDatagram) -> Receiver<Instant> {
    let (to, ready) = mpsc::channel();
    thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = notify.recv(&mut message) {
            let now = Instant::now();
            let message = String::from_utf8_lossy(&message[..length]);
            if message.lines().any(|line| line == "READY=1") {
                // The receiver may be gone.
                let _ = to.send(now);
            }
        }
    });
    ready
}

/// The number of times that threads of a process went to sleep (`voluntary_ctxt_switches`): once
/// after each wake-up.
pub fn sleeps(pid: u32) -> Res<f64> {
    let mut sum = 0.0;
    for task in entries(pid, "task")? {
        // A thread may end in between.
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        sum += field(&status, "voluntary_ctxt_switches").unwrap_or(0.0);
    }
    Ok(sum)
}

/// Seconds of processor time of the threads that live, to the nanosecond (`schedstat`).
pub fn processor_time(pid: u32) -> Res<f64> {
    let mut sum = 0.0;
    for task in entries(pid, "task")? {
        // A thread may end in between.
        let stat = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let first = stat.split_whitespace().next();
        sum += first.and_then(|it| it.parse().ok()).unwrap_or(0.0) / 1e9;
    }
    Ok(sum)
}

fn entries(pid: u32, what: &str) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(format!("/proc/{pid}/{what}"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let value = line.trim_start_matches(':').split_whitespace().next()?;
    value.parse().ok()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
