//! Programs that a benchmark runs, in the namespace of the thread.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Res;

/// Runs a program that must succeed, and returns its output.
pub fn output(program: &str, arguments: &[&str]) -> Res<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{program}` (is it installed?): {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()).into())
}

/// Runs a program that must succeed.
pub fn command(program: &str, arguments: &[&str]) -> Res<()> {
    output(program, arguments).map(drop)
}

/// Feeds lines to `ip -batch`.
pub fn ip_batch(lines: &str) -> Res<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run `ip` (install iproute2): {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    if child.wait()?.success() {
        return Ok(());
    }
    Err("ip -batch failed".into())
}
