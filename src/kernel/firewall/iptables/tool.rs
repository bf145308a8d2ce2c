//! The iptables programs: version, execution with a time limit, and the meaning of failures.

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

/// The time limit of a program, without the waiting time for the lock. iptables-legacy loads 100,000
/// rules in some seconds; a program beyond the limit hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// The lock file of iptables-legacy, unless `XTABLES_LOCKFILE` names another (iptables(8)).
const LOCK_FILE: &str = "/run/xtables.lock";

/// The version of a program, and the kernel interface in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `v1.8.9` is (1, 8, 9).
    pub number: (u32, u32, u32),
    /// Before 1.8.0 only legacy existed, and the version named no variant.
    pub variant: Variant,
}

impl Version {
    /// Parses `iptables v1.8.9 (nf_tables)`.
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

/// A program without a known version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    NoBinary,
    /// The program exists but fails: the reason.
    Broken(String),
}

/// Asks `tool` for the version, through the `iptables` crate.
///
/// Nothing else of the crate is used: `exists` and `chain_exists` answer no after any failure, and
/// the listing calls ignore the exit status, so that a held lock would look like "no rules".
pub fn probe(tool: &'static str) -> Result<Version, Missing> {
    let refused = |error: Box<dyn std::error::Error>| match error.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == ErrorKind::NotFound => Missing::NoBinary,
        _ => Missing::Broken(format!("{tool} --version: {error}")),
    };
    let program = match tool {
        "iptables" => iptables::new(false).map_err(refused)?,
        "ip6tables" => iptables::new(true).map_err(refused)?,
        // The crate's constructor knows only the two names above.
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

/// Runs a program with `input` on standard input, for at most [`PATIENCE`] plus `extra`.
pub fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    extra: Duration,
) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        // The code below searches the messages for English text.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // The nft variant changes rules over netlink: register the child's port, so that the watcher
    // recognises the changes as ours.
    own::opened(NETLINK_NETFILTER, child.id());
    let deadline = Instant::now() + PATIENCE + extra;
    let output = collect(&mut child, input, deadline);
    own::closed(NETLINK_NETFILTER, child.id());
    if output.is_err() {
        // Kill and reap the child. Both calls fail only if the child has exited.
        let _ = child.kill();
        let _ = child.wait();
    }
    output
}

/// Writes and reads at the same time, with a thread for each pipe: if the program fills one pipe
/// while we wait on another, both sides would block.
fn collect(child: &mut Child, input: &str, deadline: Instant) -> std::io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A write error means an early exit of the program; the exit status has the reason.
        thread::Builder::new().spawn(move || stdin.write_all(input.as_bytes()))?;
    }
    let stdout = reader(child.stdout.take())?;
    let stderr = reader(child.stderr.take())?;
    let left = || deadline.saturating_duration_since(Instant::now());
    let too_late = |_| std::io::Error::new(ErrorKind::TimedOut, "killed after the time limit");
    let stdout = stdout.recv_timeout(left()).map_err(too_late)??;
    let stderr = stderr.recv_timeout(left()).map_err(too_late)??;
    // The pipes are closed, so the program is about to exit.
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

type PipeContent = mpsc::Receiver<std::io::Result<Vec<u8>>>;

/// # Errors
/// The system refuses a thread.
fn reader(pipe: Option<impl Read + Send + 'static>) -> std::io::Result<PipeContent> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let read = match pipe {
            Some(mut pipe) => pipe.read_to_end(&mut bytes).map(|_| bytes),
            None => Err(std::io::Error::other("no pipe to the program")),
        };
        // After a timeout the receiver is gone.
        let _ = sender.send(read);
    })?;
    Ok(receiver)
}

/// The error for a failure of `-restore`, with a remedy if known.
pub fn restore_failure(
    operation: String,
    output: &Output,
    input: &str,
    wait: u32,
) -> FirewallError {
    let stderr = String::from_utf8_lossy(&output.stderr);
    // "Another app is currently holding the xtables lock." (iptables/xshared.c). The exit status 4
    // is ambiguous: the nft variant exits with 4 after every refusal by the kernel.
    if stderr.contains("holding the xtables lock") {
        return FirewallError::Locked {
            lock: lock_file(&stderr),
            waited_s: wait,
            message: stderr.split_whitespace().collect::<Vec<_>>().join(" "),
        };
    }
    let message = explain(&stderr, input);
    let reason = if message.is_empty() {
        format!("{}, without a message", output.status)
    } else {
        format!("{message}{}", advice(&message))
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

fn advice(message: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "do you need to insmod",
        "nable to initialize",
        "initialize nft",
    ]) {
        "; the kernel lacks this table: load its module (iptable_nat, ip6table_nat, \
         iptable_mangle, ip6table_mangle, iptable_filter, ip6table_filter; nf_tables and \
         nft_compat for the nft variant)"
    } else if is_permission(message) {
        "; this needs CAP_NET_ADMIN: run as root"
    } else if says(&[
        "missing kernel module",
        "Couldn't load match",
        "Couldn't load target",
    ]) {
        "; an extension is missing: install the full iptables package and the kernel's xt_* modules"
    } else if says(&["is incompatible"]) {
        "; the table contains objects of nft that iptables can't handle: move the objects to a \
         table of another name, or set [nat] backend = \"nftables\""
    } else {
        ""
    }
}

/// True if a message reports missing privileges.
pub fn is_permission(message: &str) -> bool {
    [
        "Permission denied",
        "Operation not permitted",
        "must be root",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// True if a message reports a kernel without the interface.
pub fn is_unsupported(message: &str) -> bool {
    [
        "Protocol not supported",
        "Operation not supported",
        "Function not implemented",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The error for a refusal by the tool.
pub fn refused(operation: &str, reason: String) -> FirewallError {
    FirewallError::Refused {
        backend: BackendKind::Iptables,
        operation: operation.to_owned(),
        reason,
        errno: None,
    }
}

/// The error for a tool that could not be run.
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
    fn version_and_variant_are_parsed() {
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
    fn program_filling_both_pipes_is_read_to_the_end() {
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
    fn hanging_program_times_out() {
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
