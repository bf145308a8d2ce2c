//! A machine: a Debian root, systemd as its first process, and the network of one of the lab's
//! namespaces.
//!
//! systemd-nspawn gives it its own processes, mounts, users' view and control groups, and nothing
//! that belongs to it runs outside of the test's pid namespace: it ends with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Ns, Output, eventually};

/// A root directory that becomes a machine.
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// A fresh copy of the base root, by this test's name.
    pub fn new(name: &str) -> Image {
        let base = crate::image::base();
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("machines")
            .join(name);
        let _what_a_killed_test_left = fs::remove_dir_all(&root);
        fs::create_dir_all(root.parent().expect("it was joined")).expect("target is writable");
        fs::create_dir(&root).expect("target is writable");
        let unpacked = Command::new("tar")
            .args(["--numeric-owner", "-xf"])
            .arg(&base)
            .arg("-C")
            .arg(&root)
            .status()
            .expect("tar is there");
        assert!(
            unpacked.success(),
            "unpacking {}: {unpacked}",
            base.display()
        );
        Image { root }
    }

    /// A path of the machine, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Writes a file of the machine.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file has a directory"))
            .and_then(|()| fs::write(&path, text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a file of the machine; empty when it isn't there.
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    /// Runs a command in the root while it is no machine, as an image's build does.
    #[track_caller]
    pub fn chroot(&self, script: &str) -> String {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(format!("--root={}", self.root.display()))
            .args(["--wd=/", "--mount-proc", "/bin/sh", "-ec", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive");
        finished(command, script).ok().stdout
    }

    /// Every file of the machine below some directories, without what programs log and cache.
    pub fn files(&self) -> Vec<String> {
        let listing = self.chroot(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
             -o -path /var/log -o -path /var/cache -o -path /var/tmp \\) -prune -o -print | sort",
        );
        listing.lines().map(str::to_owned).collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A root of a failed test is of use to whoever looks for why.
        if !std::thread::panicking() {
            let _only_disk_space = fs::remove_dir_all(&self.root);
        }
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
    /// Boots it in a network namespace, and waits until systemd says that it is up.
    #[track_caller]
    pub fn boot(image: &'a Image, ns: &Ns) -> Machine<'a> {
        // Tests run side by side, and their processes' numbers are those of their own namespaces.
        let name = image.root.file_name().expect("it was joined");
        let group = format!("trailblazer-{}", name.to_string_lossy());
        let console = image.root.with_extension("console");
        let log = fs::File::create(&console).expect("target is writable");
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
            .arg(&image.root)
            .arg(format!("--network-namespace-path=/run/netns/{}", ns.name()))
            .arg(format!("--machine={group}"))
            .args([
                "--boot",
                "--register=no",
                "--keep-unit",
                "--resolv-conf=off",
            ])
            // The network is its own: a real machine's root may change it, too.
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
        let started = Instant::now();
        loop {
            if let Some(leader) = machine.find_leader() {
                machine.leader = leader;
                let state = machine.run("systemctl is-system-running").stdout;
                if ["running", "degraded"].contains(&state.trim()) {
                    return machine;
                }
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the machine doesn't come up; its console:\n{}",
                fs::read_to_string(&console).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The machine's first process, as it is called here.
    fn find_leader(&self) -> Option<u32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Runs a shell script in the machine, whatever its exit code.
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
        finished(command, script)
    }

    /// The same; it must succeed.
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

    /// A property of a unit that is a number.
    #[track_caller]
    pub fn number(&self, unit: &str, name: &str) -> u64 {
        let value = self.property(unit, name);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} of {unit} is {value:?}"))
    }

    /// What a unit has logged.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!(
            "journalctl --no-pager -b -o short-monotonic -u {unit}"
        ))
        .stdout
    }

    /// Waits until a property of the service has a value.
    #[track_caller]
    pub fn wait_for(&self, name: &str, value: &str) {
        let started = Instant::now();
        loop {
            let now = self.property(SERVICE, name);
            if now == value {
                return;
            }
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{name} is {now:?}, not {value:?}; the journal:\n{}",
                self.journal(SERVICE)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the service is up and says that all is in force, by another process than
    /// `before`, and gives the process.
    #[track_caller]
    pub fn wait_in_force(&self, before: u64) -> u64 {
        let in_force = || {
            let pid = self.number(SERVICE, "MainPID");
            let active = self.property(SERVICE, "ActiveState") == "active";
            (active && pid != before && self.run("trailblazer status").code == Some(0))
                .then_some(pid)
        };
        let started = Instant::now();
        loop {
            if let Some(pid) = in_force() {
                return pid;
            }
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "not in force:\n{}\n{}\nthe journal:\n{}",
                self.run("trailblazer status"),
                self.run("systemctl status trailblazer"),
                self.journal(SERVICE)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
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

    /// Shuts it down, as `poweroff` does.
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

/// The unit that it is all about.
pub const SERVICE: &str = "trailblazer.service";

/// A control group of its own, in whatever hierarchies the machine below has: systemd makes its own
/// below it.
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

#[track_caller]
fn finished(mut command: Command, shown: &str) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error} (make deps?)"));
    Output {
        command: shown.to_owned(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits for a line in the service's journal.
#[track_caller]
pub fn wait_for_line(machine: &Machine, what: &str) {
    eventually(&format!("a line with {what:?}"), || {
        machine.journal(SERVICE).contains(what)
    });
}
