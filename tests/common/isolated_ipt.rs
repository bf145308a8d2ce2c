//! A test of iptables in namespaces of its own: with a private `/run`, so that neither the xtables
//! lock nor named network namespaces meet those of the machine.

use std::path::PathBuf;
use std::process::Command;

#[path = "../lab/isolate.rs"]
#[allow(dead_code)] // the lab uses the rest
mod isolate;

/// How the inner process differs from the usual one.
#[derive(Default)]
pub struct Inner<'a> {
    /// Its `PATH`, where it must be another.
    pub path: Option<&'a str>,
    /// Without any capability.
    pub powerless: bool,
}

/// Whether this is the inner process of that test; outside it is run there, and is over.
pub fn isolated(name: &str, inner: Inner) -> bool {
    let path = inner.path.map(|path| format!("PATH={path}"));
    let mut before = Vec::new();
    if inner.powerless {
        before.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    }
    if let Some(path) = &path {
        before.extend(["env", path]);
    }
    isolate::is_isolated(name, &before)
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
