//! The secret key and the session token: in no log at the finest level, in no file, in no core dump.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use cloud::{Fault, Wrong};

use crate::world::*;

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.append(&mut files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The agent's life with faults, logged at the finest level: state, journal and log hold no secret.
#[test]
fn files_and_the_finest_log_hold_no_secret() {
    let scene = Scene::new("deadline = \"2s\"\n");
    let mut agent = Agent::start_with(&scene, |command| {
        command.env("TRAILBLAZER_LOG", "trace");
    });
    scene.wait_for_state(&agent, "in_force");
    let wrongs = [
        Wrong::Code("SignatureDoesNotMatch".to_owned()),
        Wrong::Code("UnauthorizedOperation".to_owned()),
        Wrong::Truncated,
        Wrong::Dropped,
    ];
    for wrong in wrongs {
        scene.cloud.fail_next(Fault::before(wrong));
        let calls = scene.cloud.next_call();
        assert!(eventually(|| scene.cloud.next_call() > calls + 1));
    }
    scene.wait_for_state(&agent, "in_force");
    scene.publish(TOKEN + 60, &["3.5.0.0/19", "2600:1fa0::/40"]);
    assert!(eventually(|| scene.ipv4() == ["3.5.0.0/19"]));
    for words in [
        &["history"][..],
        &["check"],
        &["explain", "3.5.0.1"],
        &["flush"],
    ] {
        let mut command = scene.command(words);
        finish(command.env("TRAILBLAZER_LOG", "trace"));
    }
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));
    let log = agent.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "{log}");
    let files = files(scene.directory.path());
    let names: Vec<_> = files.iter().filter_map(|it| it.file_name()).collect();
    assert!(names.iter().any(|it| *it == "journal.jsonl"), "{names:?}");
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        for secret in SECRETS {
            let at = bytes
                .windows(secret.len())
                .position(|it| it == secret.as_bytes());
            assert_eq!(at, None, "{secret} in {}", file.display());
        }
    }
}

/// True while the process waits for room in a pipe.
fn waits_for_a_reader(pid: &str) -> bool {
    let place = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
    place.contains("pipe_write")
}

/// Runs a command without a limit of core dumps, ends it by ABRT once `ready`, and returns its status.
fn aborted(command: &Command, directory: &Path, ready: impl Fn(&str) -> bool) -> ExitStatus {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .current_dir(directory)
        // The end of a pipe that nobody reads: a long text makes the process wait.
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    let pid = child.id().to_string();
    // The shell lifts the limit before it becomes the program.
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert!(eventually(|| name() != "sh\n"));
    assert!(eventually(|| ready(&pid)));
    let sent = Command::new("kill").args(["-s", "ABRT", &pid]).status();
    assert!(sent.unwrap().success());
    child.wait().unwrap()
}

/// A process that holds credentials leaves no core dump, whatever its limits allow.
#[test]
fn aborted_process_with_credentials_leaves_no_core_dump() {
    let place = tempfile::tempdir().unwrap();
    let mut other = Command::new("sleep");
    other.arg("600");
    let other = aborted(&other, place.path(), |_| true);
    assert_eq!(other.signal(), Some(6), "{other:?}");
    if !other.core_dumped() {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let line = format!("NOT TESTED: no process dumps core here (core_pattern {pattern:?})\n");
        // libtest captures `eprintln!` of a passing test, but not a write to standard error.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    for words in ["agent", "reconcile", "status", "history"] {
        let scene = Scene::new("");
        if words == "history" {
            assert_eq!(scene.run(&["reconcile"]).status.code(), Some(0));
            let journal = scene.path("state/journal.jsonl");
            let pass = std::fs::read_to_string(&journal).unwrap();
            let passes =
                (0..1000).map(|n| pass.replace("\"pass\":\"", &format!("\"pass\":\"{n}-")));
            std::fs::write(&journal, passes.collect::<String>()).unwrap();
        }
        for call in 0..1000 {
            scene.cloud.fail(call, Fault::before(Wrong::Hangs));
        }
        let mut command = scene.command(&[words]);
        if words == "history" {
            command.arg("--all");
        }
        let status = aborted(&command, scene.directory.path(), |pid| match words {
            "history" => waits_for_a_reader(pid),
            _ => scene.cloud.next_call() > 0,
        });
        assert_eq!(status.signal(), Some(6), "{words}: {status:?}");
        assert!(!status.core_dumped(), "{words}");
        let files = files(scene.directory.path());
        let core = |it: &&PathBuf| {
            it.file_name()
                .is_some_and(|it| it.to_string_lossy().starts_with("core"))
        };
        assert_eq!(files.iter().find(core), None, "{words}");
    }
}
