//! Programs and shell scripts, run where the test itself runs.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs a program, whatever its exit code.
pub fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot start `{program}`: {error} (make deps?)"))
}

/// Runs a program that must succeed; returns its standard output.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(
        output.status.success(),
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a shell script that must succeed (each command of it); returns its standard output.
#[track_caller]
pub fn sh(script: &str) -> String {
    run("sh", &["-ec", script])
}

/// The full path of a program.
pub fn which(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("no {program} in PATH ({path}): make deps"))
}
