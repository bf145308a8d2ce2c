//! The tools and their input files.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a directory with this ending, as paths in the repository; at least one must exist.
#[track_caller]
pub fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(repository().join(directory))
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending))
        .map(|name| format!("{directory}/{name}"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {directory}");
    found
}

/// The directory of `packaging/dev/image-tools.sh`; a missing one fails the test.
#[track_caller]
fn tools() -> PathBuf {
    let tools = repository().join("target/tools/images");
    assert!(
        tools.join(".complete").exists(),
        "packaging/dev/image-tools.sh fetches the tools of this test (`make test-images` runs both)"
    );
    tools
}

/// The directory of cloud-init's schema and units.
#[track_caller]
pub fn cloud_init() -> PathBuf {
    tools().join("cloud-init")
}

/// Runs a tool in the repository; returns success and output.
#[track_caller]
pub fn try_tool(name: &str, words: &[&str]) -> (bool, String) {
    let own = repository().join("target/tools/images/venv/bin").join(name);
    // Tools outside the venv come from the distribution.
    let program = if own.exists() {
        own
    } else {
        PathBuf::from(name)
    };
    let output = Command::new(program)
        .args(words)
        .current_dir(repository())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

/// Runs a tool that must succeed.
#[track_caller]
pub fn tool(name: &str, words: &[&str]) -> String {
    let (succeeded, text) = try_tool(name, words);
    assert!(succeeded, "{name} {words:?}:\n{text}");
    text
}

/// An answer of `ask.py`.
#[track_caller]
pub fn ask(words: &[&str]) -> Value {
    let output = Command::new(tools().join("venv/bin/python"))
        .arg("tests/images/ask.py")
        .args(words)
        .current_dir(repository())
        .output()
        .expect("the tools' own python");
    assert!(
        output.status.success(),
        "ask.py {words:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The text of each fenced block in `language` on a page.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == fence {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(block.join("\n") + "\n");
        }
    }
    found
}
