//! The programs: finding them, running them within bounds, and reading their failures.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::script::explain;
use crate::firewall::{BackendKind, Variant};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::own;

/// How long a program may take beyond its wait for the lock. iptables-legacy loads 100,000 rules
/// in some seconds; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where iptables-legacy keeps its lock unless `XTABLES_LOCKFILE` says otherwise (iptables(8)).
const LOCK_FILE: &str = "/run/xtables.lock";

/// What a program is: its version and the kernel interface that it was built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `v1.8.9`, as numbers.
    pub number: (u32, u32, u32),
    /// Before 1.8.0 only legacy existed, and the version named no variant.
    pub variant: Variant,
}

impl Version {
    /// Reads `iptables v1.8.9 (nf_tables)`.
    pub fn parse(text: &str) -> Option<Version> {
        let (_, rest) = text.split_once(" v")?;
        let mut words = rest.split_whitespace();
        let mut parts = words.next()?.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        });
        let number = (
            parts.next()??,
            parts.next()??,
            parts.next().flatten().unwrap_or(0),
        );
        let variant = words
            .next()
            .filter(|word| *word == "(nf_tables)")
            .map_or(Variant::Legacy, |_| Variant::Nft);
        Some(Version { number, variant })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor, patch) = self.number;
        let variant = match self.variant {
            Variant::Nft => "nf_tables",
            Variant::Legacy => "legacy",
        };
        write!(f, "v{major}.{minor}.{patch} ({variant})")
    }
}

/// Why a program could not be asked what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Not in PATH.
    NoBinary,
    /// It is there but can't be used.
    Broken(String),
}

/// Asks `tool` what it is, through the `iptables` crate.
///
/// Of the crate only what asks: `exists` and `chain_exists` say no on any failure, and the
/// listing calls ignore the exit status, so that a held lock reads as "no rules".
pub fn probe(tool: &'static str) -> Result<Version, Missing> {
    let refused = |error: Box<dyn std::error::Error>| match error.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == ErrorKind::NotFound => Missing::NoBinary,
        _ => Missing::Broken(format!("{tool} --version: {error}")),
    };
    let program = match tool {
        "iptables" => iptables::new(false).map_err(refused)?,
        "ip6tables" => iptables::new(true).map_err(refused)?,
        // The crate looks for those two names only; its fields are open.
        cmd => iptables::IPTables {
            cmd,
            has_check: true,
            has_wait: true,
            is_numeric: false,
        },
    };
    let output = program.execute("filter", "--version").map_err(refused)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(Missing::Broken(format!(
            "{tool} --version: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Version::parse(&text)
        .ok_or_else(|| Missing::Broken(format!("{tool} --version prints {:?}", text.trim())))
}

/// Runs a program with `input` on its standard input, for at most [`PATIENCE`] and `extra`.
pub fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    extra: Duration,
) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        // The messages are matched: they must not come translated.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // The variants on nf_tables speak netlink: what they change for us, we have changed.
    own::opened(NETLINK_NETFILTER, child.id());
    let deadline = Instant::now() + PATIENCE + extra;
    let output = collect(&mut child, input, deadline);
    own::closed(NETLINK_NETFILTER, child.id());
    if output.is_err() {
        // Kill by its own handle, and reap it; both fail only when it has ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    output
}

/// Feeds and reads at the same time, each pipe in a thread of its own: a program that fills one
/// pipe while we wait on another would hang both.
fn collect(child: &mut Child, input: &str, deadline: Instant) -> std::io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A program that fails early closes the pipe; its status tells.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let left = || deadline.saturating_duration_since(Instant::now());
    let too_late = |_| {
        std::io::Error::new(
            ErrorKind::TimedOut,
            "no end within the time allowed; killed",
        )
    };
    let stdout = stdout.recv_timeout(left()).map_err(too_late)??;
    let stderr = stderr.recv_timeout(left()).map_err(too_late)??;
    // Its pipes are closed, so it is about to end.
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Output {
                status,
                stdout,
                stderr,
            });
        }
        if left().is_zero() {
            return Err(too_late(mpsc::RecvTimeoutError::Timeout));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = match pipe {
            Some(mut pipe) => pipe.read_to_end(&mut bytes).map(|_| bytes),
            None => Err(std::io::Error::other("no pipe to the program")),
        };
        // Nobody listens any more after a timeout.
        let _ = sender.send(read);
    });
    receiver
}

/// A failure of `-restore` in words, with what to do where we know it.
pub fn restore_failure(
    operation: String,
    output: &Output,
    input: &str,
    wait: u32,
) -> FirewallError {
    let stderr = String::from_utf8_lossy(&output.stderr);
    // "Another app is currently holding the xtables lock." (iptables/xshared.c); the exit status
    // is 4, but so it is for whatever the kernel refuses in the nft variant.
    if stderr.contains("holding the xtables lock") {
        return FirewallError::Locked {
            lock: lock_file(&stderr),
            waited_s: wait,
            message: stderr.split_whitespace().collect::<Vec<_>>().join(" "),
        };
    }
    let told = explain(&stderr, input);
    let reason = if told.is_empty() {
        format!("{}, without a word", output.status)
    } else {
        format!("{told}{}", advice(&told))
    };
    refused(&operation, reason)
}

fn lock_file(stderr: &str) -> String {
    // "Can't lock /run/xtables.lock: Resource temporarily unavailable"
    let named = stderr
        .split_once("Can't lock ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map(|(path, _)| path.to_owned());
    named
        .or_else(|| std::env::var("XTABLES_LOCKFILE").ok())
        .unwrap_or_else(|| LOCK_FILE.to_owned())
}

fn advice(told: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| told.contains(word));
    if says(&[
        "do you need to insmod",
        "nable to initialize",
        "initialize nft",
    ]) {
        "; the kernel lacks this table: load its module (iptable_nat, ip6table_nat, \
         iptable_mangle, ip6table_mangle, iptable_filter, ip6table_filter; nf_tables and \
         nft_compat for the nft variant)"
    } else if is_permission(told) {
        "; this needs CAP_NET_ADMIN: run as root"
    } else if says(&[
        "missing kernel module",
        "Couldn't load match",
        "Couldn't load target",
    ]) {
        "; an extension is missing: install the full iptables package and the kernel's xt_* modules"
    } else if says(&["is incompatible"]) {
        "; nft has put objects into that table that iptables can't handle: move them to a table \
         of another name, or set [nat] backend = \"nftables\""
    } else {
        ""
    }
}

/// Whether a message speaks of missing privileges.
pub fn is_permission(message: &str) -> bool {
    [
        "Permission denied",
        "Operation not permitted",
        "must be root",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Whether a message says that the kernel has no such interface at all.
pub fn is_unsupported(message: &str) -> bool {
    [
        "Protocol not supported",
        "Operation not supported",
        "Function not implemented",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The tool or its state stands in the way of `operation`.
pub fn refused(operation: &str, reason: String) -> FirewallError {
    FirewallError::Refused {
        backend: BackendKind::Iptables,
        operation: operation.to_owned(),
        reason,
        errno: None,
    }
}

/// The tool could not be run.
pub fn io(operation: &str, source: std::io::Error) -> FirewallError {
    FirewallError::Io {
        backend: BackendKind::Iptables,
        operation: operation.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_variants() {
        let parsed = |text| Version::parse(text).map(|v| v.to_string());
        assert_eq!(
            parsed("iptables v1.8.9 (nf_tables)\n").as_deref(),
            Some("v1.8.9 (nf_tables)")
        );
        assert_eq!(
            parsed("ip6tables-save v1.6.1").as_deref(),
            Some("v1.6.1 (legacy)")
        );
        assert_eq!(
            parsed("iptables v1.8.10 (legacy)").as_deref(),
            Some("v1.8.10 (legacy)")
        );
        assert_eq!(parsed("busybox"), None);
        assert_eq!(parsed("x vy"), None);
    }

    #[test]
    fn a_program_that_fills_its_pipes_is_read_to_the_end() {
        let script = "cat; head -c 300000 /dev/zero >&2; exit 3";
        let input = "x".repeat(300_000);
        let output = run("sh", &["-c", script], &input, Duration::ZERO).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (300_000, 300_000)
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let late = collect(&mut child, "", begun + Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
