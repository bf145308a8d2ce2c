//! The memory of a pass beside a large conntrack table.

use std::process::Command;
use std::time::Instant;

use super::bounds::Bounds;
use super::subject::BINARY;
use super::{Mode, Res, arena};

/// The default limit of conntrack on a machine with 4 GiB or more.
const ENTRIES: [u32; 2] = [10_000, 250_000];
/// The memory above the one beside the small table, in KiB.
const MOST_GROWTH: u64 = 4 << 10;
/// The peak, in KiB: a quarter of the limit in the agent's unit.
const MOST: u64 = 64 << 10;

/// Runs a first pass of each role beside tables of two sizes, and compares the peaks of memory.
pub fn measure(_: Mode, bounds: &mut Bounds) -> Res<()> {
    for role in ["host", "nat"] {
        let [small, large] = ENTRIES.map(|entries| first_pass(role, entries));
        let ((small, _), (large, took)) = (small?, large?);
        bounds.add(
            large <= small + MOST_GROWTH && large <= MOST,
            format!("{role}: peak memory of a first pass beside {} flows", ENTRIES[1]),
            format!(
                "{large} KiB, {small} KiB beside {} flows, at most {MOST_GROWTH} KiB more; {took:.0} ms",
                ENTRIES[0]
            ),
        );
    }
    Ok(())
}

/// The peak of the resident memory in KiB, and the duration in ms.
fn first_pass(role: &str, entries: u32) -> Res<(u64, f64)> {
    let ns = arena::Ns::create(&format!("flows-{role}-{entries}"))?;
    ns.enter()?;
    let directory = std::env::temp_dir().join(format!("flows-{role}-{entries}"));
    std::fs::create_dir_all(&directory)?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let document = directory.join("doc.json");
    std::fs::write(
        &document,
        r#"{"syncToken":"1","createDate":"2026-01-01-00-00-00","prefixes":[{"ip_prefix":"52.216.0.0/15","region":"us-east-1","service":"S3","network_border_group":"us-east-1"}],"ipv6_prefixes":[]}"#,
    )?;
    let paths = match role {
        "host" => "[egress]\ngateways = [\"10.0.1.10\"]",
        _ => "[nat]\nsources = [\"10.0.0.0/16\"]\negress_addresses = [\"10.0.1.11\"]",
    };
    let config = directory.join("config.toml");
    std::fs::write(
        &config,
        format!(
            "role = \"{role}\"\n[source]\nurl = \"{}\"\nstate_dir = \"{}\"\n\
             [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\"]\n{paths}\n[vpc]\ncidrs = [\"10.0.0.0/16\"]\n",
            document.display(),
            directory.join("state").display(),
        ),
    )?;
    fill(entries, &directory.join("flows"))?;
    let started = Instant::now();
    let output = Command::new("/usr/bin/env")
        .args(["python3", "-c", PEAK, BINARY, "reconcile", "-c"])
        .arg(&config)
        .output()?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text
        .split_whitespace()
        .next_back()
        .and_then(|word| word.parse().ok());
    let peak = peak.filter(|_| output.status.success());
    Ok((peak.ok_or_else(|| format!("{output:?}"))?, took))
}

/// Runs its arguments and prints the peak of their resident memory (getrusage(2)).
const PEAK: &str = "import resource, subprocess, sys; \
    code = subprocess.call(sys.argv[1:]); \
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)";

fn sh(script: &str) -> Res<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{script}: {output:?}").into())
    }
}

/// Inserts entries of flows to this host from outside, without marks.
fn fill(entries: u32, file: &std::path::Path) -> Res<()> {
    use std::fmt::Write as _;
    let mut lines = String::new();
    for number in 0..entries {
        let source = std::net::Ipv4Addr::from(0xc633_0000 + number / 50_000);
        let port = 1024 + number % 50_000;
        writeln!(
            lines,
            "-A -t 600 -s {source} -d 10.0.1.11 -r 10.0.1.11 -q {source} -p udp --sport {port} --dport 443 --reply-port-src 443 --reply-port-dst {port}"
        )?;
    }
    std::fs::write(file, lines)?;
    sh(&format!(
        "sysctl -qw net.netfilter.nf_conntrack_max=400000 2>/dev/null || true; conntrack -R {} >/dev/null 2>&1",
        file.display()
    ))
}
