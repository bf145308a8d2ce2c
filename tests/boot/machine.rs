//! A machine: a Debian root, systemd as its first process, and the network of one of the lab's
//! namespaces.
//!
//! systemd-nspawn gives the machine its own processes, mounts, users' view and control groups. All
//! of them are inside the test's pid namespace and end with the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::root::Root;
use lab::{Ns, Output, eventually, scratch, wait_until};

/// A root directory from which a machine boots.
pub struct Image {
    name: String,
    root: Root,
}

impl Image {
    /// A fresh root, named after the test.
    #[track_caller]
    pub fn new(name: &str) -> Image {
        Image {
            name: name.to_owned(),
            root: Root::fresh(name),
        }
    }

    /// A path of the machine, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside.trim_start_matches('/'))
    }

    /// Writes a file of the machine.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file has a directory"))
            .and_then(|()| fs::write(&path, text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a file of the machine; empty if missing.
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    /// Runs a script in the root while no machine runs, as an image build does; every command must
    /// succeed.
    #[track_caller]
    pub fn chroot(&self, script: &str) {
        let output = self.root.sh(&format!("set -e\n{script}"));
        assert_eq!(output.code, 0, "{script}: {output}");
    }

    /// Every file of the machine, except logs and caches.
    pub fn files(&self) -> BTreeSet<String> {
        let passing = [
            "/proc",
            "/sys",
            "/dev",
            "/run",
            "/tmp",
            "/var/log",
            "/var/cache",
            "/var/tmp",
        ];
        self.root.list(&passing).into_keys().collect()
    }
}

/// A booted [`Image`].
pub struct Machine<'a> {
    pub image: &'a Image,
    nspawn: Child,
    leader: u32,
    group: String,
}

impl<'a> Machine<'a> {
    /// Boots the image in a network namespace, and waits until systemd reports the boot complete.
    #[track_caller]
    pub fn boot(image: &'a Image, ns: &Ns) -> Machine<'a> {
        // Tests run side by side, and process numbers are per pid namespace, so the image's name
        // makes the group unique.
        let group = format!("trailblazer-{}", image.name);
        let console = scratch().join("console");
        let log = fs::File::create(&console).expect("/run is ours");
        let nspawn = Command::new("sh")
            .args([
                "-ec",
                ENTER_GROUP,
                "sh",
                &group,
                "systemd-nspawn",
                "--quiet",
            ])
            .arg("-D")
            .arg(image.root.path())
            .arg(format!("--network-namespace-path=/run/netns/{}", ns.name()))
            .arg(format!("--machine={group}"))
            .args([
                "--boot",
                "--register=no",
                "--keep-unit",
                "--resolv-conf=off",
            ])
            // The machine owns its network, and root on a real machine may change it too.
            .arg("--capability=CAP_NET_ADMIN,CAP_NET_RAW")
            .arg("--kill-signal=SIGRTMIN+4")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be had twice"))
            .stderr(log)
            .spawn()
            .expect("sh is there");
        let mut machine = Machine {
            image,
            nspawn,
            leader: 0,
            group,
        };
        wait_until(
            Duration::from_secs(60),
            Duration::from_millis(50),
            || {
                machine.leader = machine.find_leader()?;
                let state = machine.run("systemctl is-system-running").stdout;
                ["running", "degraded"]
                    .contains(&state.trim())
                    .then_some(())
            },
            || {
                let said = fs::read_to_string(&console).unwrap_or_default();
                format!("the machine is up; its console:\n{said}")
            },
        );
        machine
    }

    /// The machine's first process, by its number out here.
    fn find_leader(&self) -> Option<u32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Runs a shell script in the machine, with any exit code.
    #[track_caller]
    pub fn run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.leader.to_string())
            .args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"])
            .args(["--root", "/bin/sh", "-ec"])
            .arg(format!("cd /; {script}"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("TERM", "dumb")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("SYSTEMD_PAGER", "")
            .env("SYSTEMD_COLORS", "0");
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error} (make deps?)"));
        Output {
            command: script.to_owned(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell script in the machine, which must succeed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.run(script).ok().stdout
    }

    /// A property of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let value = self.ok(&format!("systemctl show --value -p {name} {unit}"));
        value.trim().to_owned()
    }

    /// A numeric property of a unit.
    #[track_caller]
    pub fn number(&self, unit: &str, name: &str) -> u64 {
        let value = self.property(unit, name);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} of {unit} is {value:?}"))
    }

    /// The log of a unit.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!(
            "journalctl --no-pager -b -o short-monotonic -u {unit}"
        ))
        .stdout
    }

    /// Waits until a property of the service has a value.
    #[track_caller]
    pub fn wait_for(&self, name: &str, value: &str) {
        wait_until(
            Duration::from_secs(30),
            Duration::from_millis(20),
            || (self.property(SERVICE, name) == value).then_some(()),
            || {
                let (now, journal) = (self.property(SERVICE, name), self.journal(SERVICE));
                format!("{name} {value:?}, but {now:?}; the journal:\n{journal}")
            },
        );
    }

    /// Waits until the service reports everything in force from another process than `before`, and
    /// returns the process.
    #[track_caller]
    pub fn wait_in_force(&self, before: u64) -> u64 {
        let in_force = || {
            let pid = self.number(SERVICE, "MainPID");
            let active = self.property(SERVICE, "ActiveState") == "active";
            (active && pid != before && self.run("trailblazer status").code == Some(0))
                .then_some(pid)
        };
        wait_until(
            Duration::from_secs(30),
            Duration::from_millis(20),
            in_force,
            || {
                format!(
                    "in force:\n{}\n{}\nthe journal:\n{}",
                    self.run("trailblazer status"),
                    self.run("systemctl status trailblazer"),
                    self.journal(SERVICE)
                )
            },
        )
    }

    /// A line of the service's `/proc/pid/status`.
    #[track_caller]
    pub fn process_status(&self, pid: u64, key: &str) -> String {
        let status = self.ok(&format!("cat /proc/{pid}/status"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}:")))
            .unwrap_or_else(|| panic!("no {key} in {status}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Shuts the machine down, as `poweroff` does.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if matches!(self.nspawn.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = rustix::process::Pid::from_child(&self.nspawn);
        let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(self.nspawn.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone_already = self.nspawn.kill();
        let _gone_already = self.nspawn.wait();
        let _only_names = Command::new("sh")
            .args(["-c", LEAVE_GROUP, "sh", &self.group])
            .status();
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

pub const SERVICE: &str = "trailblazer.service";

/// Enters a control group of its own, in each hierarchy of the machine below: systemd makes its
/// groups inside.
const ENTER_GROUP: &str = "group=$1; shift
trees=/sys/fs/cgroup
[ -f /sys/fs/cgroup/cgroup.controllers ] || trees='/sys/fs/cgroup/*'
for tree in $trees; do
    [ -f \"$tree/cgroup.procs\" ] || continue
    # A new group of cpusets has none, and takes no process.
    case $tree in */cpuset) continue ;; esac
    mkdir -p \"$tree/$group\" && echo $$ >\"$tree/$group/cgroup.procs\"
done
exec \"$@\"";

const LEAVE_GROUP: &str = "for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d \"$tree/$1\" ] && find \"$tree/$1\" -depth -type d -exec rmdir {} \\;
done 2>/dev/null";

/// Waits for a line in the service's journal.
#[track_caller]
pub fn wait_for_line(machine: &Machine, what: &str) {
    eventually(&format!("a line with {what:?}"), || {
        machine.journal(SERVICE).contains(what)
    });
}
