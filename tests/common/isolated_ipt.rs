//! Runs a test in namespaces of its own: user, network, mount, pid; with a private `/run`, so
//! that neither the xtables lock nor named network namespaces meet those of the machine.

use std::path::PathBuf;
use std::process::Command;

const INSIDE: &str = "TRAILBLAZER_TEST_ISOLATED";

/// How the inner process differs from the usual one.
#[derive(Default)]
pub struct Inner<'a> {
    /// Its `PATH`, where it must be another.
    pub path: Option<&'a str>,
    /// Without any capability.
    pub powerless: bool,
}

/// True inside the namespaces: go on with the test. Outside it runs the test named `name` again
/// inside and asserts that it passed there; then false: the test is over.
pub fn isolated(name: &str, inner: Inner) -> bool {
    if std::env::var(INSIDE).as_deref() == Ok(name) {
        return true;
    }
    // /run/xtables.lock and /run/netns; lo carries the packets of a host to itself.
    let mut script = String::from("set -e; mount -t tmpfs tmpfs /run; ip link set lo up; ");
    script.push_str("exec ");
    if inner.powerless {
        script.push_str("setpriv --bounding-set=-all --inh-caps=-all ");
    }
    if let Some(path) = inner.path {
        script.push_str(&format!("env PATH={path} "));
    }
    script.push_str("\"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["-Urnmpf", "--kill-child", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("the test binary has a path"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output()
        .expect("unshare runs: install util-linux");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{name} failed in its namespaces ({}). Needs: user namespaces \
         (kernel.unprivileged_userns_clone=1 or root), iproute2, iptables with both variants, \
         nftables, util-linux.\n{stdout}\n{stderr}",
        output.status
    );
    false
}

/// Runs a shell command that must succeed, and returns what it prints.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", command])
        .output()
        .expect("sh runs");
    assert!(
        output.status.success(),
        "`{command}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The full path of a program.
#[allow(dead_code)]
pub fn which(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} isn't in PATH ({path}): install it"))
}
