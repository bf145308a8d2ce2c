//! The life of a machine, the same for every role.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::image::{Package, SETTINGS};
use crate::machine::{Machine, SERVICE, wait_for_line};
use crate::packets::{PACE, assert_no_leaks};
use lab::*;

/// The whole life takes half a minute; the rest is reserve for a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// Runs a test as the machine's root: services become other users, which a user namespace with
/// root alone doesn't have.
#[track_caller]
pub fn isolated_life(body: impl FnOnce()) {
    Isolation::default().as_root().deadline(DEADLINE).run(body);
}

/// `check` agrees with the service, and names a drop-in that takes a right away: the agent goes on
/// as started, and its next start would fail.
#[track_caller]
pub fn check_agrees_with_the_service(machine: &Machine) {
    let fine = machine.run("trailblazer check");
    assert_eq!(fine.code, Some(0), "{fine}");
    let file = "/etc/systemd/system/trailblazer.service.d/zz-test.conf";
    machine.ok(&format!(
        "mkdir -p $(dirname {file})
         printf '[Service]\nCapabilityBoundingSet=~CAP_NET_ADMIN\n' >{file}"
    ));
    let spoilt = machine.run("trailblazer check");
    assert_eq!(spoilt.code, Some(1), "{spoilt}");
    for words in ["CAP_NET_ADMIN", file, "systemctl daemon-reload"] {
        assert!(spoilt.stdout.contains(words), "{words}: {spoilt}");
    }
    machine.ok(&format!("rm {file}"));
    let fine = machine.run("trailblazer check");
    assert_eq!(fine.code, Some(0), "{fine}");
}

/// A service that keeps deleting a route is named by its unit, although the sandbox hides the
/// processes of other users from the agent.
#[track_caller]
pub fn culprit_is_named_by_its_unit(machine: &Machine) {
    machine.ok("systemd-run --unit=neighbour sh -c \
         'while sleep 0.1; do echo route del table 1083 52.216.0.0/15; done | ip -force -batch -'");
    let by = wait_until(
        Duration::from_secs(60),
        Duration::from_millis(100),
        || {
            let drift = &status(machine)["drift"];
            let conflicts = drift["conflicts"].as_array()?.iter();
            let mut culprits = conflicts.filter_map(|conflict| conflict["by"].as_str());
            culprits.next().map(str::to_owned)
        },
        || format!("a conflict: {:#}", status(machine)["drift"]),
    );
    assert!(
        by.starts_with("a program of unit neighbour.service (pid "),
        "{by}"
    );
    machine.ok("systemctl stop neighbour");
    machine.ok("trailblazer kick --wait");
    machine.wait_in_force(0);
}

/// The targets of the traffic streams.
pub const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];

/// The unit's only capability: `CAP_NET_ADMIN` is number 12 (linux/capability.h).
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
    // The agent's own mount namespace: visible and writable paths.
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

/// Our routes and rules, a line each, as listed by the kernel.
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

/// The agent's status.
#[track_caller]
pub fn status(machine: &Machine) -> Value {
    machine.run("trailblazer status -o json").json()
}

/// `systemctl reload`: the settings are read again, a bad file is refused, and nothing else happens.
#[track_caller]
pub fn reload(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    let good = machine.image.read(SETTINGS);
    let bad = format!("{good}\nnonsense = 1\n");
    machine.image.write(SETTINGS, &bad);
    machine.ok("systemctl reload trailblazer");
    wait_for_line(machine, "nonsense");
    machine.image.write(SETTINGS, &good);
    machine.ok("systemctl reload trailblazer");
    machine.wait_for("ActiveState", "active");
    machine.wait_in_force(0);
    assert_eq!(machine.number(SERVICE, "MainPID"), pid, "it was no restart");
}

/// After `kill -9` systemd starts a new agent, which finds everything in force.
#[track_caller]
pub fn killed(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    machine.ok(&format!("kill -9 {pid}"));
    let next = machine.wait_in_force(pid);
    assert_ne!(next, pid);
    assert!(machine.number(SERVICE, "NRestarts") >= 1);
}

/// A stopped process misses the watchdog and is killed and started again. The watchdog's timeout
/// here is seconds instead of minutes.
#[track_caller]
pub fn frozen(machine: &Machine) {
    let pid = machine.number(SERVICE, "MainPID");
    let restarts = machine.number(SERVICE, "NRestarts");
    machine.ok(&format!("kill -STOP {pid}"));
    machine.wait_in_force(pid);
    assert!(machine.number(SERVICE, "NRestarts") > restarts);
    assert!(
        machine.journal(SERVICE).contains("Watchdog timeout"),
        "{}",
        machine.journal(SERVICE)
    );
}

/// Another build of the package comes in: no packet is lost or misled, and nobody touches a route
/// meanwhile. The caller's streams judge the packets.
#[track_caller]
pub fn upgraded(machine: &Machine, ns: &Ns, package: &Package) {
    let pid = machine.number(SERVICE, "MainPID");
    let before = ours(ns);
    assert!(before.len() > 10, "{before:?}");
    let traffic = status(machine)["traffic"].clone();
    let monitor_log = machine.image.path("/var/tmp/monitor");
    let log = std::fs::File::create(&monitor_log).unwrap();
    let mut monitor = std::process::Command::new("ip");
    monitor.args(["monitor", "route", "rule"]).stdout(log);
    let mut monitor = ns.spawn(&mut monitor);

    let (other, version) = package.next();
    machine.install(&other);
    let next = machine.wait_in_force(pid);
    assert_ne!(next, pid, "the new program runs");
    let installed = machine.ok("dpkg-query -W -f '${Version}' trailblazer");
    assert_eq!(installed, version);

    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let heard = std::fs::read_to_string(monitor_log).unwrap();
    let of_ours = |line: &&str| line.contains("proto 83") || line.contains("proto trailblazer");
    let touched: Vec<&str> = heard.lines().filter(of_ours).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(ours(ns), before);
    let after = status(machine)["traffic"].clone();
    for path in ["bypass", "egress"] {
        for family in ["ipv4", "ipv6"] {
            let bytes = |traffic: &Value| traffic[path][family]["bytes"].as_u64();
            let (counted, now) = (bytes(&traffic), bytes(&after));
            assert!(counted > Some(0), "{path} {family}: {traffic}");
            assert!(now >= counted, "{path} {family}: {traffic}, {after}");
        }
    }
}

/// Removed: stopped and flushed, settings and state stay. Purged: nothing is left.
#[track_caller]
pub fn removed_and_purged(machine: &Machine, ns: &Ns, files_before: &BTreeSet<String>) {
    machine.ok("dpkg --remove trailblazer");
    assert_eq!(ours(ns), BTreeSet::new());
    let tables = ns.run(&["nft", "list", "tables"]);
    assert!(!tables.contains("trailblazer"), "{tables}");
    for family in ["ip", "ip6"] {
        let chains = ns.run(&[&format!("{family}tables-save")]);
        assert!(!chains.to_lowercase().contains("trailblazer"), "{chains}");
    }
    // The fetch child's name is the one of /proc/self/exe.
    let processes = machine.run("grep -lxE 'trailblazer|exe' /proc/[0-9]*/comm");
    assert_eq!(processes.stdout, "");
    assert!(machine.image.path(SETTINGS).exists());
    machine.ok("dpkg --purge trailblazer");
    assert_ne!(machine.run("ls -d /run/trailblazer").code, Some(0));
    machine.ok("systemctl daemon-reload");
    let units = machine.ok("systemctl list-units --all --plain --no-legend 'trailblazer*'");
    assert_eq!(units.trim(), "", "units are left");
    assert_ne!(machine.run("getent passwd trailblazer").code, Some(0));
    assert_ne!(machine.run("getent group trailblazer").code, Some(0));
    let after = machine.image.files();
    let left: Vec<&String> = after
        .difference(files_before)
        // The other files come from booting.
        .filter(|file| {
            ["trailblazer", "networkd", "iproute2"]
                .iter()
                .any(|it| file.contains(it))
        })
        // Drop-ins of the administrator, as made by `systemctl edit`.
        .filter(|file| !file.starts_with("/etc/systemd/system/trailblazer") || !file.contains(".d"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Each step while new connections are made and two are open: none may fail or be misled.
#[track_caller]
pub fn under_traffic(lab: &Lab, seen: impl Fn(IpAddr) -> IpAddr, steps: &[&dyn Fn()]) {
    let stream = lab.stream("host1", &TARGETS, PACE);
    let flows = [S3, PARTNER].map(|target| lab.long_flow("host1", target));
    stream.wait_for(8);
    for step in steps {
        step();
        stream.wait_for(8);
    }
    for flow in flows {
        flow.assert_alive();
    }
    assert_only(lab, &stream.stop(), seen);
}

/// Asserts that each target saw one source address only and no connection failed.
#[track_caller]
pub fn assert_only(lab: &Lab, report: &StreamReport, seen: impl Fn(IpAddr) -> IpAddr) {
    for target in TARGETS {
        report.assert_only(target, &[seen(target)]);
    }
    assert_no_leaks(lab);
}
