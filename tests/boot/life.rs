//! What every machine goes through, whatever its role.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::image::Packages;
use crate::lab::*;
use crate::machine::{Machine, SERVICE, wait_for_line};
use crate::packets::assert_no_leaks;

/// The targets of the streams that judge.
pub const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];

/// The capability that the unit has: `CAP_NET_ADMIN` is number 12 (linux/capability.h).
pub const NET_ADMIN: u64 = 1 << 12;
/// `CAP_NET_RAW` (linux/capability.h).
pub const NET_RAW: u64 = 1 << 13;
/// `CAP_DAC_READ_SEARCH` (linux/capability.h).
pub const DAC_READ_SEARCH: u64 = 1 << 2;

/// The agent runs as the unit says: the process is asked, not the unit.
#[track_caller]
pub fn assert_sandboxed(machine: &Machine, capabilities: u64) {
    let pid = machine.number(SERVICE, "MainPID");
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        let value = machine.process_status(pid, set);
        assert_eq!(u64::from_str_radix(&value, 16), Ok(capabilities), "{set}");
    }
    assert_eq!(machine.process_status(pid, "NoNewPrivs"), "1");
    // SECCOMP_MODE_FILTER (proc(5)).
    assert_eq!(machine.process_status(pid, "Seccomp"), "2");
    let user = machine.ok("id -u trailblazer").trim().to_owned();
    let users = machine.process_status(pid, "Uid");
    assert_eq!(users, [user.as_str(); 4].join(" "));
    // Its own mounts: what it sees, and what it may write.
    let may_write = |path: &str| {
        let script = format!(
            "nsenter --target {pid} --mount --wd=/ sh -c 'touch {path}/probe && rm {path}/probe'"
        );
        machine.run(&script).code == Some(0)
    };
    for path in ["/usr", "/etc", "/var", "/root", "/proc/sys/net"] {
        assert!(!may_write(path), "{path} is writable");
    }
    assert!(may_write("/var/lib/trailblazer"), "the state dir");
    assert!(may_write("/run/trailblazer"), "the runtime dir");
    let devices = machine.ok(&format!("nsenter --target {pid} --mount --wd=/ ls /dev"));
    assert!(!devices.contains("console"), "{devices}");
}

/// Our routes and rules, a line each, as the kernel lists them.
pub fn ours(ns: &Ns) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for family in ["-4", "-6"] {
        for words in [
            "rule show",
            "route show table 1083",
            "route show table 1084",
        ] {
            // A table without routes isn't there, says the kernel.
            let listing = ns.exec(
                &format!("ip {family} -N {words}")
                    .split(' ')
                    .collect::<Vec<_>>(),
            );
            let of_ours = |line: &&str| !words.starts_with("rule") || line.contains("proto 83");
            let found = listing.stdout.lines().filter(of_ours);
            lines.extend(found.map(|line| format!("{family} {words}: {}", line.trim())));
        }
    }
    lines
}

/// The agent's account of itself.
#[track_caller]
pub fn status(machine: &Machine) -> Value {
    machine.run("trailblazer status -o json").json()
}

/// `systemctl reload`: the settings are read again, a bad file is refused, and nothing else happens.
#[track_caller]
pub fn reload(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    let path = "/etc/trailblazer/trailblazer.toml";
    let good = machine.image.read(path);
    machine
        .image
        .write(path, &format!("{good}\nnonsense = 1\n"));
    machine.ok("systemctl reload trailblazer");
    wait_for_line(machine, "nonsense");
    machine.image.write(path, &good);
    machine.ok("systemctl reload trailblazer");
    machine.wait_for("ActiveState", "active");
    machine.wait_in_force(0);
    assert_eq!(machine.number(SERVICE, "MainPID"), pid, "it was no restart");
}

/// `kill -9`: systemd starts another one, which finds everything in place.
#[track_caller]
pub fn killed(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    machine.ok(&format!("kill -9 {pid}"));
    let next = machine.wait_in_force(pid);
    assert_ne!(next, pid);
    assert!(machine.number(SERVICE, "NRestarts") >= 1);
}

/// A process that stands still feeds no watchdog: it is killed and started again. The machine's
/// watchdog was told to wait for seconds instead of minutes.
#[track_caller]
pub fn frozen(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    let restarts = machine.number(SERVICE, "NRestarts");
    machine.ok(&format!("kill -STOP {pid}"));
    machine.wait_in_force(pid);
    assert_eq!(machine.number(SERVICE, "NRestarts"), restarts + 1);
    assert!(
        machine.journal(SERVICE).contains("Watchdog timeout"),
        "{}",
        machine.journal(SERVICE)
    );
}

/// The watchdog of the machines here: as a drop-in, so that the unit stays as it is shipped.
pub const SHORT_WATCHDOG: &str = "[Service]\nWatchdogSec=3\n";

/// Another build of the package comes in: no packet is lost or misled, and nobody touches a route
/// meanwhile. The caller's streams judge the packets.
#[track_caller]
pub fn upgraded(machine: &Machine, ns: &Ns, packages: &Packages) {
    let pid = machine.number(SERVICE, "MainPID");
    let before = ours(ns);
    assert!(before.len() > 10, "{before:?}");
    let traffic = status(machine)["traffic"].clone();
    let monitor_log = machine.image.path("/var/tmp/monitor");
    let log = std::fs::File::create(&monitor_log).unwrap();
    let mut monitor = std::process::Command::new("ip");
    monitor.args(["monitor", "route", "rule"]).stdout(log);
    let mut monitor = ns.spawn(&mut monitor);

    machine.install(&packages.next);
    let next = machine.wait_in_force(pid);
    assert_ne!(next, pid, "the new program runs");
    let installed = machine.ok("dpkg-query -W -f '${Version}' trailblazer");
    assert_eq!(installed, packages.next_version);

    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let heard = std::fs::read_to_string(monitor_log).unwrap();
    let of_ours = |line: &&str| line.contains("proto 83") || line.contains("proto trailblazer");
    let touched: Vec<&str> = heard.lines().filter(of_ours).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(ours(ns), before);
    let after = status(machine)["traffic"].clone();
    for path in ["bypass", "egress"] {
        let bytes = |traffic: &Value| traffic[path]["bytes"].as_u64();
        if let Some(counted) = bytes(&traffic) {
            assert!(bytes(&after) >= Some(counted), "{path}: {traffic}, {after}");
        }
    }
}

/// Removed: stopped and flushed, settings and state stay. Purged: nothing is left.
#[track_caller]
pub fn removed_and_purged(machine: &Machine, ns: &Ns, files_before: &[String]) {
    machine.ok("dpkg --remove trailblazer");
    assert_eq!(ours(ns), BTreeSet::new());
    let tables = ns.run(&["nft", "list", "tables"]);
    assert!(!tables.contains("trailblazer"), "{tables}");
    for family in ["ip", "ip6"] {
        let chains = ns.run(&[&format!("{family}tables-save")]);
        assert!(!chains.to_lowercase().contains("trailblazer"), "{chains}");
    }
    assert_eq!(
        machine.run("grep -lx trailblazer /proc/[0-9]*/comm").stdout,
        ""
    );
    assert!(
        machine
            .image
            .path("/etc/trailblazer/trailblazer.toml")
            .exists()
    );
    machine.ok("dpkg --purge trailblazer");
    assert_ne!(machine.run("ls -d /run/trailblazer").code, Some(0));
    machine.ok("systemctl daemon-reload");
    let units = machine.ok("systemctl list-units --all --plain --no-legend 'trailblazer*'");
    assert_eq!(units.trim(), "", "units are left");
    assert_ne!(machine.run("getent passwd trailblazer").code, Some(0));
    assert_ne!(machine.run("getent group trailblazer").code, Some(0));
    let here: BTreeSet<&String> = files_before.iter().collect();
    let after = machine.image.files();
    let left: Vec<&String> = after
        .iter()
        .filter(|file| !here.contains(file))
        // The rest is what the machine wrote when it booted.
        .filter(|file| {
            ["trailblazer", "networkd", "iproute2"]
                .iter()
                .any(|it| file.contains(it))
        })
        // The administrator's own, as `systemctl edit` makes them.
        .filter(|file| !file.starts_with("/etc/systemd/system/trailblazer") || !file.contains(".d"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The streams' verdict: each target was seen from one address only, and none failed.
#[track_caller]
pub fn assert_only(lab: &Lab, report: &StreamReport, seen: impl Fn(IpAddr) -> IpAddr) {
    for target in TARGETS {
        report.assert_only(target, &[seen(target)]);
    }
    assert_no_leaks(lab);
}
