//! A test in namespaces of its own: the test binary starts itself again under `unshare`.

use std::process::{Command, Output};

const INSIDE: &str = "TRAILBLAZER_TEST_ISOLATED";

/// True inside. Outside it runs the named test again in fresh user, network, mount and process
/// namespaces, panics if that fails, and returns false: the caller returns.
///
/// Inside there is a private `/run` (so that `ip netns` is private too) and `lo` is up.
pub fn isolated(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let own = std::env::current_exe().expect("the test binary has a path");
    let output = Command::new("unshare")
        .args(["-Urnmpf", "--kill-child"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("`unshare` of util-linux must be installed");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{test} failed inside:\n{text}");
    assert!(
        text.contains("1 passed"),
        "{test} did not run inside:\n{text}"
    );
    eprint!("{text}");
    false
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
