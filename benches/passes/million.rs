//! A million prefixes: whole processes, with their time and their peak of memory.

use std::fmt::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::bounds::Bounds;
use super::samples::{Rows, milliseconds};
use super::subject::Subject;
use super::{Mode, Res, arena, documents};

/// The number of prefixes.
pub const PREFIXES: usize = 1_000_000;
/// The most resident memory, in MiB.
const MOST: f64 = 600.0;
/// KiB in a MiB.
const KIB: f64 = 1024.0;

/// Measures a first installation, passes without changes, and one with another prefix. Returns the
/// times and the peaks of memory in MiB, by operation.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<Rows> {
    eprintln!("{PREFIXES} prefixes");
    let rounds = if mode == Mode::Full { 3 } else { 1 };
    let ns = arena::Ns::create("million")?;
    ns.enter()?;
    let prefixes = documents::prefixes(PREFIXES);
    let mut more = prefixes.clone();
    more.push(documents::another(PREFIXES));
    let subject = Subject::with_documents(
        "million",
        PREFIXES,
        dense(1_700_000_000, &prefixes),
        dense(1_700_000_001, &more),
    )?;
    drop((prefixes, more));
    let mut rows = Rows::default();
    for _ in 0..rounds {
        subject.forget()?;
        run(&subject, "first", &mut rows)?;
        run(&subject, "no-op", &mut rows)?;
        run(&subject, "no-op", &mut rows)?;
        subject.publish_another()?;
        run(&subject, "one more", &mut rows)?;
        subject.remove()?;
        arena::settle(PREFIXES);
    }
    let peak = ["first", "no-op", "one more"].map(|operation| {
        let peaks = rows.get("peak", operation);
        peaks.quantile(1.0)
    });
    let most = peak.iter().copied().fold(0.0, f64::max);
    let median = |operation| rows.get("process", operation).median();
    println!(
        "{PREFIXES} prefixes, whole process (ms): first {:.0}, no-op {:.0}, one more {:.0}",
        median("first"),
        median("no-op"),
        median("one more")
    );
    bounds.add(
        most <= MOST,
        format!("{PREFIXES} prefixes: memory of a whole process"),
        format!(
            "first {:.0} MiB, no-op {:.0} MiB, one more {:.0} MiB, at most {MOST:.0} MiB",
            peak[0], peak[1], peak[2]
        ),
    );
    Ok(rows)
}

/// One pass of the binary. The peak is the kernel's count (`VmHWM`), read until the process ends.
fn run(subject: &Subject, operation: &'static str, rows: &mut Rows) -> Res<()> {
    let mut child = subject.command().stderr(Stdio::null()).spawn()?;
    let started = Instant::now();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0.0f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let high = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
        // Between fork and exec the child is still a copy of this benchmark.
        if let Some(kilobytes) = high.filter(|_| text.starts_with("Name:\ttrailblazer")) {
            peak = peak.max(kilobytes / KIB);
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = milliseconds(started.elapsed());
    if !status.success() {
        return Err(format!("{operation} of {PREFIXES} prefixes ended with {status}").into());
    }
    rows.push("process", operation, took);
    rows.push("peak", operation, peak);
    Ok(())
}

/// A document without white space.
fn dense(token: u64, prefixes: &[IpNet]) -> String {
    let (region, service) = (documents::REGION, documents::SERVICE);
    let list = |ipv6: bool, key: &str| {
        let mut text = String::new();
        let of_family = |prefix: &&IpNet| matches!(prefix, IpNet::V6(_)) == ipv6;
        for prefix in prefixes.iter().filter(of_family) {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{\"{key}\":\"{prefix}\",\"region\":\"{region}\",\"service\":\"{service}\"}}"
            );
        }
        text
    };
    format!(
        "{{\"syncToken\":\"{token}\",\"createDate\":\"2025-11-22-07-23-04\",\"prefixes\":[{}],\"ipv6_prefixes\":[{}]}}",
        list(false, "ip_prefix"),
        list(true, "ipv6_prefix")
    )
}
