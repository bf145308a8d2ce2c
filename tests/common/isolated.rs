//! A test in namespaces of its own, and the programs that it runs there.

use std::process::{Command, Output};

#[path = "../lab/isolate.rs"]
#[allow(dead_code)] // the lab uses the rest
mod isolate;

/// Whether this is the inner process of that test; outside it is run there, and is over.
pub fn isolated(test: &str) -> bool {
    isolate::is_isolated(test, &[])
}

/// Runs a program, whatever comes of it.
pub fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("`{program}` must be installed: {error}"))
}

/// Runs a program that must succeed; returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a line of words, split at spaces.
pub fn sh(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    run(words[0], &words[1..])
}
