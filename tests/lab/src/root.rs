//! A fresh Debian root: a machine before the package's installation.
//!
//! ```ignore
//! let root = lab::root::Root::fresh("install");
//! root.put(&deb, "/tmp/trailblazer.deb");
//! let output = root.sh("dpkg -i /tmp/trailblazer.deb");
//! assert_eq!(output.code, 0, "{output}");
//! ```
//!
//! The root comes from the tarball of `packaging/dev/debian-root.sh` (built once, in two minutes)
//! and holds systemd, dbus, iproute2, nftables and iptables. The files belong to root: other users
//! need a sudo without a password.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A limit above the duration of any test in a root; on expiry all its processes are killed.
const DEADLINE_S: &str = "300";

/// A root, removed when dropped.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
}

/// The output of a program.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 and more for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, out, err) = (self.code, &self.stdout, &self.stderr);
        write!(f, "exit code {code}\n-- stdout\n{out}\n-- stderr\n{err}")
    }
}

/// A command run as root.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// A script of `packaging/`, in the environment of a shell: the variables that cargo gives to tests
/// would make a nested cargo rebuild everything.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(crate::repository().join("packaging").join(name));
    let of_cargo = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "LD_LIBRARY_PATH",
    ];
    for (key, _) in std::env::vars_os() {
        let text = key.to_string_lossy();
        if of_cargo.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&key);
        }
    }
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; make deps"));
    Output {
        code: output.status.code().unwrap_or(255),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.code, 0, "{command:?}: {output}");
    output.stdout
}

impl Root {
    /// A fresh root; `name` distinguishes the roots of one process.
    #[track_caller]
    pub fn fresh(name: &str) -> Root {
        let script = crate::repository().join("packaging/dev/debian-root.sh");
        let tarball = must(&mut as_root(&script.to_string_lossy()));
        let tarball = Path::new(tarball.trim());
        let directory = tarball.parent().expect("a file lies in a directory");
        let path = directory.join(format!("{name}-{}", std::process::id()));
        let root = Root { path };
        must(as_root("mkdir").arg(&root.path));
        must(
            as_root("tar")
                .args(["--numeric-owner", "-xf"])
                .arg(tarball)
                .arg("-C")
                .arg(&root.path),
        );
        root
    }

    /// The directory of the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies a file into the root.
    #[track_caller]
    pub fn put(&self, source: &Path, destination: &str) {
        let destination = self.path.join(destination.trim_start_matches('/'));
        must(
            as_root("install")
                .args(["-D", "-m", "644"])
                .arg(source)
                .arg(destination),
        );
    }

    /// Runs a shell script as root inside the root directory: a chroot without systemd, as in an
    /// image build, in its own network, pid and mount namespaces.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        let mut command = as_root("timeout");
        command
            .args(["--signal=KILL", DEADLINE_S, "env", "-i", "LC_ALL=C.UTF-8"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"])
            .args(["DEBIAN_FRONTEND=noninteractive", "unshare"])
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .arg(format!("--root={}", self.path.display()))
            .args(["--wd=/", "--mount-proc", "/bin/sh", "-c", script]);
        run(&mut command)
    }

    /// Every file with type, mode and owner, except below the paths of `without`.
    #[track_caller]
    pub fn list(&self, without: &[&str]) -> BTreeMap<String, String> {
        let mut list = as_root("find");
        list.arg(&self.path)
            .args(["-xdev", "-printf", "/%P\t%y %m %U:%G %l\n"]);
        let mut files: BTreeMap<String, String> = must(&mut list)
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(path, what)| (path.to_owned(), what.to_owned()))
            .collect();
        files.retain(|path, _| !without.iter().any(|start| path.starts_with(start)));
        files
    }

    /// Like `list`, with a checksum of each content.
    #[track_caller]
    pub fn files(&self, without: &[&str]) -> BTreeMap<String, String> {
        let mut files = self.list(without);
        let mut sums = as_root("find");
        sums.arg(&self.path)
            .args(["-xdev", "-type", "f", "-exec", "md5sum", "{}", "+"]);
        let prefix = self.path.to_string_lossy().into_owned();
        for line in must(&mut sums).lines() {
            let Some((sum, path)) = line.split_once("  ") else {
                continue;
            };
            if let Some(what) = path
                .strip_prefix(&prefix)
                .and_then(|path| files.get_mut(path))
            {
                what.push_str(sum);
            }
        }
        files
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // All mounts vanished with their namespaces.
        let _what_cargo_clean_removes = as_root("rm").arg("-rf").arg(&self.path).output();
    }
}

/// The differences between two lists of [`Root::files`], a line each.
pub fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut lines = String::new();
    for path in before
        .keys()
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
    {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            lines.push_str(&format!("{path}: {old:?} -> {new:?}\n"));
        }
    }
    lines
}
