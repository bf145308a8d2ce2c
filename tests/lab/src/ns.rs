//! A network namespace, and commands or closures inside.
//!
//! A thread enters the namespace, and all its processes, threads and sockets live there too. The
//! entry costs microseconds, `ip netns exec` 4 ms.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// A handle on a named network namespace; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ns {
    name: String,
    file: Arc<File>,
}

/// The result of a command.
#[derive(Debug, Clone)]
pub struct Output {
    pub command: String,
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics with the whole output unless the command exited with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Output {
        assert!(
            self.code == Some(code),
            "expected exit code {code}:\n{self}"
        );
        self
    }

    /// Panics unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.expect_code(0)
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON value ({error}):\n{self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {} → {:?}", self.command, self.code)?;
        writeln!(f, "--- stdout\n{}", self.stdout.trim_end())?;
        writeln!(f, "--- stderr\n{}", self.stderr.trim_end())
    }
}

impl Ns {
    /// The namespace of that name under `/run/netns`.
    #[track_caller]
    pub fn open(name: &str) -> Ns {
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"));
        Ns {
            name: name.to_owned(),
            file: Arc::new(file),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|errno| panic!("cannot enter namespace {}: {errno}", self.name));
    }

    /// Runs a closure on a new thread inside the namespace and returns its value. Sockets, tokio
    /// runtimes and processes of the closure belong to the namespace. A panic of the closure
    /// continues in the caller.
    pub fn in_thread<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a prepared command to its end and collects its output.
    pub fn exec_command(&self, command: &mut Command) -> Output {
        let shown = format!("[{}] {:?}", self.name, command).replace('"', "");
        let output = self
            .in_thread(|| command.output())
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error} (make deps?)"));
        Output {
            command: shown,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command in the namespace without waiting.
    pub fn spawn(&self, command: &mut Command) -> Child {
        self.in_thread(|| command.spawn())
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error} (make deps?)"))
    }

    /// Runs a command without any capability (in the lab even a user is root).
    pub fn exec_unprivileged<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
        self.exec_command(command.args(words).stdin(Stdio::null()))
    }

    /// Runs a command to its end, whatever its exit code.
    pub fn exec<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        self.exec_command(Command::new(program).args(arguments).stdin(Stdio::null()))
    }

    /// Runs a command that must succeed; its standard output.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        self.exec(words).ok().stdout
    }

    /// Runs a command that must succeed with `input` as its standard input.
    #[track_caller]
    pub fn feed(&self, words: &[&str], input: &str) -> String {
        let output = self.in_thread(|| {
            let mut child = Command::new(words[0])
                .args(&words[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let mut stdin = child.stdin.take().expect("stdin is piped");
            // A program may fail early and close the pipe; its own message says more than EPIPE.
            let _broken_pipe = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output()
        });
        let output =
            output.unwrap_or_else(|error| panic!("cannot start {words:?}: {error} (make deps?)"));
        assert!(
            output.status.success(),
            "[{}] {words:?} failed, {}:\n{}\nits input was:\n{input}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One `ip` command, words separated by spaces: `ns.ip("route add 10.9.0.0/16 via 10.0.1.1")`.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let all: Vec<&str> = std::iter::once("ip")
            .chain(words.split_whitespace())
            .collect();
        self.run(&all)
    }

    /// `ip -N -j -d …` as JSON, with numbers instead of names. An empty answer, and the kernel's
    /// error for an absent routing table, give an empty array; any other failure panics.
    #[track_caller]
    pub fn ip_json(&self, words: &str) -> Value {
        let start = ["ip", "-N", "-j", "-d"];
        let all: Vec<&str> = start.into_iter().chain(words.split_whitespace()).collect();
        let output = self.exec(&all);
        if output.stderr.contains("FIB table does not exist") {
            return Value::Array(Vec::new());
        }
        let output = output.ok();
        if output.stdout.trim().is_empty() {
            return Value::Array(Vec::new());
        }
        output.json()
    }

    /// Many `ip` commands in one process, a line each.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        self.feed(&["ip", "-batch", "-"], lines);
    }

    /// Loads an nftables script.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        self.feed(&["nft", "-f", "-"], script);
    }

    /// Writes sysctls of this namespace: `("net/ipv4/ip_forward", "1")`.
    #[track_caller]
    pub fn sysctl(&self, settings: &[(&str, &str)]) {
        self.in_thread(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{key}");
                std::fs::write(&path, value)
                    .unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
            }
        });
    }

    /// Reads a sysctl of this namespace; `None` when the kernel has none of that name.
    pub fn read_sysctl(&self, key: &str) -> Option<String> {
        self.in_thread(|| std::fs::read_to_string(format!("/proc/sys/{key}")).ok())
            .map(|text| text.trim().to_owned())
    }

    /// Takes a link down and up again, as in a flap.
    #[track_caller]
    pub fn flap(&self, link: &str) {
        self.ip_batch(&format!("link set {link} down\nlink set {link} up\n"));
    }
}
