//! The units as systemd reads them: no unknown key, no dangling reference, and a sandbox with a
//! score.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// `systemd-analyze security` counts up to 10.0; the promised limit is 1.5.
const WORST_EXPOSURE: &str = "15";

/// A root with the system's units and ours, as installed by the packages.
struct Root(TempDir);

impl Root {
    fn new() -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        fs::create_dir_all(root.units()).unwrap();
        fs::create_dir_all(root.path("usr/bin")).unwrap();
        fs::create_dir_all(root.path("bin")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.path("lib")).unwrap();
        let system = ["/usr/lib/systemd/system", "/lib/systemd/system"];
        let system = system.iter().map(Path::new).find(|path| path.is_dir());
        let system = system.expect("systemd is installed: make deps");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(system.join("."))
            .arg(root.units())
            .status();
        assert!(copied.unwrap().success());
        // The programs started by the units must exist and be executable.
        for program in ["usr/bin/trailblazer", "bin/sh"] {
            fs::copy("/bin/true", root.path(program)).unwrap();
        }
        for unit in ours() {
            fs::copy(&unit, root.units().join(unit.file_name().unwrap())).unwrap();
        }
        root
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn units(&self) -> PathBuf {
        self.path("usr/lib/systemd/system")
    }

    fn drop_in(&self, name: &str) {
        let from = repository().join("packaging/files/dropins").join(name);
        let directory = self.units().join("trailblazer.service.d");
        fs::create_dir_all(&directory).unwrap();
        fs::copy(from, directory.join(name)).unwrap();
    }

    fn analyze(&self, words: &[&str]) -> Output {
        Command::new("systemd-analyze")
            .args(words)
            .arg("--root")
            .arg(self.0.path())
            .env("SYSTEMD_PAGER", "")
            .output()
            .expect("systemd-analyze runs: make deps")
    }

    /// The complaints about the units.
    fn complaints(&self) -> Vec<String> {
        let units: Vec<String> = ours()
            .iter()
            .map(|unit| self.units().join(unit.file_name().unwrap()))
            .map(|unit| unit.to_str().unwrap().to_owned())
            .collect();
        let mut words = vec!["verify", "--man=no"];
        words.extend(units.iter().map(String::as_str));
        let output = self.analyze(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut complaints: Vec<String> = said.lines().map(str::to_owned).collect();
        if !output.status.success() && complaints.is_empty() {
            complaints.push(format!("{}: {said}", output.status));
        }
        complaints
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every unit of the repository.
fn ours() -> Vec<PathBuf> {
    let directory = fs::read_dir(repository().join("systemd")).unwrap();
    let mut units: Vec<PathBuf> = directory.map(|entry| entry.unwrap().path()).collect();
    units.sort();
    assert_eq!(units.len(), 7, "{units:?}");
    units
}

#[test]
fn units_pass_systemd_analyze() {
    assert_eq!(Root::new().complaints(), Vec::<String>::new());
}

/// The check above can fail.
#[test]
fn unit_with_a_typo_is_detected() {
    let root = Root::new();
    let unit = root.units().join("trailblazer.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, text.replace("WatchdogSec", "WatchDogSec")).unwrap();
    let complaints = root.complaints();
    assert!(
        complaints.iter().any(|line| line.contains("WatchDogSec")),
        "{complaints:?}"
    );
}

#[test]
fn drop_ins_are_verified_too() {
    let root = Root::new();
    root.drop_in("iptables.conf");
    root.drop_in("sysctls.conf");
    root.drop_in("processes.conf");
    assert_eq!(root.complaints(), Vec::<String>::new());
}

/// Debian 12 has systemd 252: there only this drop-in has unknown keys, and no unit.
#[test]
fn only_the_drop_in_for_restart_steps_needs_systemd_254() {
    let root = Root::new();
    root.drop_in("restart-steps.conf");
    for complaint in root.complaints() {
        let newer = ["RestartSteps", "RestartMaxDelaySec"];
        assert!(
            newer.iter().any(|key| complaint.contains(key)),
            "{complaint}"
        );
    }
}

#[test]
fn sandbox_leaves_little_exposed() {
    let root = Root::new();
    let units = [
        ("trailblazer.service", WORST_EXPOSURE),
        ("trailblazer-reconcile.service", WORST_EXPOSURE),
        // Without mounts of its own.
        ("trailblazer-shut.service", "32"),
        ("trailblazer-vpc.service", WORST_EXPOSURE),
        ("trailblazer-vpc-agent.service", WORST_EXPOSURE),
    ];
    for (unit, worst) in units {
        let threshold = format!("--threshold={worst}");
        let output = root.analyze(&["security", "--offline=yes", &threshold, unit]);
        let table = String::from_utf8_lossy(&output.stdout);
        let verdict = table.lines().last().unwrap_or_default();
        println!("{verdict}");
        assert!(output.status.success(), "{table}");
        assert!(verdict.contains("exposure level"), "{table}");
    }
}

/// The lines of a unit that make its sandbox, sorted.
fn sandbox(unit: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("systemd").join(unit)).unwrap();
    let keys = [
        "Ambient",
        "Capabilit",
        "Protect",
        "Private",
        "Restrict",
        "SystemCall",
        "NoNew",
        "Lock",
        "MemoryDeny",
        "Device",
        "RemoveIPC",
        "MemoryMax",
        "TasksMax",
        "UMask",
        "DynamicUser",
        "LimitCORE",
        "User=",
        "Group=",
    ];
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| keys.iter().any(|key| line.starts_with(key)))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Both services of the role without a kernel have the sandbox of the other units, without the
/// capability, the system's user and netlink.
#[test]
fn vpc_service_has_the_sandbox_without_any_capability() {
    let kernels = |line: &String| {
        let keys = ["Ambient", "Capabilit", "User=", "Group=", "RestrictAddress"];
        keys.iter().any(|key| line.starts_with(key))
    };
    let vpc = sandbox("trailblazer-vpc.service");
    assert_eq!(vpc, sandbox("trailblazer-vpc-agent.service"));
    for line in sandbox("trailblazer-reconcile.service") {
        assert!(kernels(&line) || vpc.contains(&line), "{line}: {vpc:?}");
    }
    assert!(
        vpc.contains(&"CapabilityBoundingSet=".to_owned()),
        "{vpc:?}"
    );
    assert!(!vpc.iter().any(|line| line.contains("CAP_")), "{vpc:?}");
    assert!(!vpc.iter().any(|line| line.contains("NETLINK")), "{vpc:?}");
}

/// Both agents start, end and use memory in the same way.
#[test]
fn agents_share_their_life() {
    let life = |unit: &str| -> Vec<String> {
        let text = read(&format!("systemd/{unit}.service"));
        let keys = [
            "Type=",
            "NotifyAccess=",
            "ExecReload=",
            "TimeoutStopSec=",
            "WatchdogSec=",
            "Restart",
            "StartLimit",
            "OOMPolicy=",
            "Environment=",
        ];
        let of_life = |line: &&str| keys.iter().any(|key| line.starts_with(key));
        text.lines().filter(of_life).map(str::to_owned).collect()
    };
    let agent = life("trailblazer");
    assert!(agent.len() > 8, "{agent:?}");
    assert_eq!(agent, life("trailblazer-vpc-agent"));
}

/// The units with a kernel have the same sandbox.
#[test]
fn services_share_one_sandbox() {
    let agent = sandbox("trailblazer.service");
    assert!(agent.len() > 20, "{agent:?}");
    assert_eq!(agent, sandbox("trailblazer-reconcile.service"));
    // At boot mounts come and go, so that no setting may copy the mounts; and no file is written.
    let needs_mounts = |line: &String| {
        let kinds = ["Private", "Protect", "Device"];
        kinds.iter().any(|kind| line.starts_with(kind))
    };
    let differs = |line: &String| needs_mounts(line) || line.starts_with("UMask=");
    let early = |lines: Vec<String>| -> Vec<String> {
        let lines = lines.into_iter();
        lines.filter(|line| !differs(line)).collect()
    };
    let shut = sandbox("trailblazer-shut.service");
    assert!(!shut.iter().any(needs_mounts), "{shut:?}");
    assert_eq!(early(agent), early(shut));
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The units have a config and a state of their own, so that they run beside the agent of a NAT. The
/// commands find both by the role.
#[test]
fn units_share_no_file_with_the_agent_of_a_kernel() {
    for name in ["trailblazer-vpc", "trailblazer-vpc-agent"] {
        let unit = read(&format!("systemd/{name}.service"));
        for line in [
            "ConditionPathExists=/etc/trailblazer/vpc.toml\n",
            "-c /etc/trailblazer/vpc.toml\n",
            "StateDirectory=trailblazer-vpc\n",
            "User=trailblazer-vpc\n",
        ] {
            assert!(unit.contains(line), "{name}: {line}");
        }
        assert!(!unit.contains("/etc/trailblazer/trailblazer.toml"));
    }
    let config = trailblazer::config::parse(&read("examples/vpc.toml"), "example").unwrap();
    assert_eq!(
        config.source.state_dir,
        Path::new("/var/lib/trailblazer-vpc")
    );
    let socket = Path::new("/run/trailblazer-vpc/control.sock");
    assert_eq!(config.agent.socket, socket);
    let agent = read("systemd/trailblazer-vpc-agent.service");
    assert!(agent.contains("RuntimeDirectory=trailblazer-vpc\n"));
}

#[test]
fn places_of_the_settings_beat_those_of_the_role() {
    let text = "role = \"vpc\"\nsource.state_dir = \"/srv/tb\"\nagent.socket = \"/srv/tb.sock\"\n\
                [vpc_plane]\ntables = [\"rtb-0123456789abcdef0\"]\n\
                target.ipv4 = \"igw-0123456789abcdef0\"\n";
    let config = trailblazer::config::parse(text, "test").unwrap();
    assert_eq!(config.source.state_dir, Path::new("/srv/tb"));
    assert_eq!(config.agent.socket, Path::new("/srv/tb.sock"));
}
