//! `status`, `kick` and the pause of `flush`: without an agent, and with a fake loop behind the
//! real socket.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use trailblazer::status::control::*;
use trailblazer::status::snapshot::*;

use crate::agent::*;
use crate::metrics::promtool;
use lab::Output;

/// A host with a config, a state directory and a path for the socket.
struct Host {
    bare: lab::Bare,
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host {
            bare: lab::Bare::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ip-ranges.json");
        let text = format!(
            "role = \"host\"\n\
             source.url = {sample:?}\n\
             source.state_dir = {:?}\n\
             select.regions = [\"us-east-1\"]\n\
             egress.gateways = [\"10.0.1.10\"]\n\
             vpc.cidrs = [\"10.0.0.0/16\"]\n\
             agent.socket = {:?}\n",
            host.dir.path().join("state"),
            host.socket(),
        );
        std::fs::write(host.config(), text).unwrap();
        host
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("trailblazer.toml")
    }

    fn words<'a>(&self, config: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        [words, &["-c", config]].concat()
    }

    fn run(&self, words: &[&str]) -> Output {
        let config = self.config().display().to_string();
        lab::trailblazer(&self.bare.ns, &self.words(&config, words))
    }

    fn unprivileged(&self, words: &[&str]) -> Output {
        let config = self.config().display().to_string();
        let binary = lab::binary().display().to_string();
        let words = [&[binary.as_str()], &*self.words(&config, words)].concat();
        self.bare.ns.exec_unprivileged(&words)
    }

    #[track_caller]
    fn json(&self, words: &[&str], code: i32) -> Value {
        let words = [words, &["-o", "json"]].concat();
        self.run(&words).expect_code(code).json()
    }
}

/// A snapshot in another state.
fn in_state(state: State, reason: &str) -> Snapshot {
    Snapshot {
        state,
        reason: Some(reason.to_owned()),
        ..filled()
    }
}

#[test]
fn status_without_an_agent_reads_the_kernel() {
    lab::isolated(|| {
        let host = Host::new();
        let none = host.json(&["status"], 1);
        crate::page::check_absent(&none);
        assert_eq!(none["agent"], "not_running");
        assert_eq!(none["in_sync"], false);
        assert_eq!(none["document"], Value::Null);
        assert_eq!(none["passes"], json!([]));
        assert!(!host.dir.path().join("state").exists(), "it writes nothing");

        host.run(&["reconcile"]).ok();
        let before = host.bare.ns.snapshot();
        let sound = host.json(&["status"], 1);
        assert_eq!(sound["in_sync"], true, "{sound}");
        let zeros = json!({"add": 0, "replace": 0, "delete": 0});
        assert_eq!(sound["pending"], zeros);
        assert_eq!(sound["document"]["sync_token"], 1_795_021_512);
        assert_eq!(sound["routes"]["ipv4"], 4);
        assert_eq!(sound["firewalls"], json!(["nftables"]));
        assert_eq!(sound["passes"][0]["outcome"], "changed");
        let text = host.run(&["status"]).expect_code(1);
        assert!(text.stderr.is_empty(), "{text}");
        let socket = host.socket().display().to_string();
        for part in [
            &*format!("NOT RUNNING no process listens at {socket}\n"),
            "\nkernel     in sync with the last known good\n",
            "\ndocument   sync token 1795021512, published ",
            "\nroutes     ipv4 4, ipv6 2 in the bypass table\n",
            "  reconcile  changed ",
        ] {
            assert!(text.stdout.contains(part), "lacks {part}: {text}");
        }
        // Without privilege the firewall can't be read; routes and rules can.
        let nobody = host.unprivileged(&["status"]).expect_code(1);
        for part in [
            "in sync with the last known good, firewall not checked",
            "\nfirewall   not checked\n",
        ] {
            assert!(nobody.stdout.contains(part), "lacks {part}: {nobody}");
        }
        before.assert_same(&host.bare.ns.snapshot());

        host.bare.ns.ip("rule del pref 30020 protocol 83");
        let drifted = host.json(&["status"], 1);
        assert_eq!(drifted["in_sync"], false);
        assert_eq!(drifted["pending"]["add"], 1);
        let text = host.run(&["status"]).expect_code(1).stdout;
        let part = "DIFFERS from the last known good: 1 to add, 0 to replace, 0 to delete (1 rule)";
        assert!(text.contains(part), "{text}");

        host.run(&["flush"]).ok();
        let text = host.run(&["status"]).expect_code(1).stdout;
        assert!(
            text.contains("the kernel has no objects of Trailblazer: "),
            "{text}"
        );
        assert!(text.contains("  flush  "), "{text}");
    });
}

/// Without a role there is no desired state to compare with; our objects are found by their
/// numbers.
#[test]
fn status_without_an_agent_and_a_role_finds_our_objects() {
    lab::isolated(|| {
        let host = Host::new();
        host.run(&["reconcile"]).ok();
        let text = std::fs::read_to_string(host.config()).unwrap();
        std::fs::write(host.config(), text.replace("role = \"host\"\n", "")).unwrap();
        let status = host.json(&["status"], 1);
        assert_eq!(status["in_sync"], Value::Null);
        assert_eq!(status["routes"]["ipv4"], 4);
        assert_eq!(status["passes"].as_array().unwrap().len(), 1);
        let text = host.run(&["status"]).expect_code(1).stdout;
        assert!(text.contains("\nkernel     not compared\n"), "{text}");
        assert!(text.contains("the config has no role"), "{text}");
    });
}

/// Single passes by the enabled timer are no fault, as long as they keep the kernel in sync.
#[test]
fn status_accepts_the_timer_in_place_of_an_agent() {
    lab::isolated(|| {
        let host = Host::new();
        // The namespace has mounts of its own.
        let wants = "/etc/systemd/system/timers.target.wants";
        let units = "mkdir -p /etc/systemd && mount -t tmpfs none /etc/systemd";
        let link = format!(
            "{units} && mkdir -p {wants} && \
             ln -s /usr/lib/systemd/system/trailblazer-reconcile.timer {wants}/"
        );
        host.bare.ns.run(&["sh", "-c", &link]);
        let early = host.run(&["status"]).expect_code(1).stdout;
        assert!(
            early.starts_with("NO PASSES trailblazer-reconcile.timer is late"),
            "{early}"
        );
        host.run(&["reconcile"]).ok();
        let sound = host.json(&["status"], 0);
        crate::page::check_absent(&sound);
        assert_eq!(sound["agent"], "not_running");
        assert_eq!(sound["in_sync"], true);
        let text = host.run(&["status"]).ok().stdout;
        let first = "IN SYNC trailblazer-reconcile.timer runs the passes, the last ended at ";
        assert!(text.starts_with(first), "{text}");
        host.bare.ns.ip("rule del pref 30020 protocol 83");
        let drifted = host.run(&["status"]).expect_code(1).stdout;
        assert!(drifted.starts_with("NOT IN SYNC "), "{drifted}");
    });
}

#[test]
fn status_shows_the_agents_answer() {
    lab::isolated(|| {
        let host = Host::new();
        let agent = FakeAgent::start(&host.socket(), filled());
        let status = host.json(&["status"], 0);
        let mut expected = serde_json::to_value(filled()).unwrap();
        expected["agent"] = json!("running");
        expected["format"] = json!(1);
        assert_eq!(status, expected);
        let text = host.run(&["status"]).ok();
        assert!(
            text.stdout
                .starts_with("IN FORCE since 2026-11-20T11:50:00Z (")
        );
        assert!(text.stderr.is_empty(), "{text}");
        drop(agent);
        for state in State::ALL {
            let _agent = FakeAgent::start(&host.socket(), in_state(state, "because"));
            let code = i32::from(state != State::InForce);
            let text = host.run(&["status"]).expect_code(code).stdout;
            assert!(text.lines().next().unwrap().ends_with("because"), "{text}");
        }
    });
}

/// An agent that does not answer is not reported as "not running".
#[test]
fn status_reports_an_unreachable_agent() {
    lab::isolated(|| {
        let host = Host::new();
        host.run(&["reconcile"]).ok();
        let stuck = FakeAgent::behaving(&host.socket(), Box::new(|_| None));
        let output = host.run(&["status", "-o", "json"]).expect_code(1);
        let status = output.json();
        assert_eq!(status["agent"], "unreachable");
        assert_eq!(
            status["in_sync"], true,
            "the kernel is looked at all the same"
        );
        assert!(output.stderr.contains("its loop is stuck"), "{output}");
        drop(stuck);

        let _agent = FakeAgent::start(&host.socket(), filled());
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(host.socket(), closed).unwrap();
        let output = host.unprivileged(&["status"]).expect_code(1);
        assert!(
            output
                .stdout
                .starts_with("NO ANSWER an agent may be running")
        );
        assert!(output.stderr.contains("is not permitted"), "{output}");
    });
}

#[test]
fn status_watch_prints_json_until_the_pipe_closes() {
    lab::isolated(|| {
        let host = Host::new();
        let _agent = FakeAgent::start(&host.socket(), filled());
        let config = host.config().display().to_string();
        let words = host.words(&config, &["status", "--watch", "-o", "json"]);
        let mut command = lab::trailblazer_command(&words);
        let mut child = host.bare.ns.spawn(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let document: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(document["agent"], "running");
        }
        // With the reader gone, `watch` ends after the last state.
        drop(lines);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn status_watch_redraws_a_terminal() {
    lab::isolated(|| {
        let host = Host::new();
        let agent = FakeAgent::start(&host.socket(), filled());
        let command = format!(
            "{} status --watch -c {}",
            lab::binary().display(),
            host.config().display()
        );
        let mut script = std::process::Command::new("script");
        script.args(["-qfec", &command, "/dev/null"]);
        script.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = host.bare.ns.spawn(&mut script);
        let mut out = child.stdout.take().unwrap();
        let mut shown = String::new();
        let mut piece = [0; 4096];
        let mut until = |shown: &mut String, word: &str| {
            while !shown.contains(word) {
                let count = out.read(&mut piece).unwrap();
                assert_ne!(count, 0, "it ended without {word}: {shown}");
                shown.push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        };
        until(&mut shown, "Ctrl-C ends");
        assert!(shown.contains("\x1b[H\x1b[2J"), "{shown:?}");
        assert!(shown.contains("IN FORCE"), "{shown:?}");
        // The next screen shows the change.
        drop(agent);
        let _agent = FakeAgent::start(&host.socket(), in_state(State::Paused, "by flush"));
        until(&mut shown, "PAUSED");
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn kick_reports_the_agents_answer() {
    lab::isolated(|| {
        let host = Host::new();
        let none = host.run(&["kick"]).expect_code(1);
        assert!(none.stderr.contains("no agent is running"), "{none}");
        let none = host.json(&["kick"], 1);
        assert_eq!(none["outcome"], "failed");
        assert!(
            none["error"]
                .as_str()
                .unwrap()
                .contains("no process listens")
        );

        let agent = FakeAgent::start(&host.socket(), filled());
        let done = host.run(&["kick"]).ok();
        assert!(done.stdout.contains("starts a pass"), "{done}");
        let done = host.json(&["kick"], 0);
        assert_eq!(
            (&done["outcome"], &done["error"]),
            (&json!("asked"), &Value::Null)
        );
        assert_eq!(*agent.asked.lock().unwrap(), [Request::Kick, Request::Kick]);
        drop(agent);

        let no = |_: &Request| Some(Reply::Refused("it is stopping".to_owned()));
        let _agent = FakeAgent::behaving(&host.socket(), Box::new(no));
        let refused = host.run(&["kick"]).expect_code(1);
        assert!(
            refused.stderr.contains("refused: it is stopping"),
            "{refused}"
        );
    });
}

#[test]
fn flush_pauses_a_running_agent() {
    lab::isolated(|| {
        let host = Host::new();
        let before = host.bare.ns.snapshot();
        host.run(&["reconcile"]).ok();
        let agent = FakeAgent::start(&host.socket(), filled());
        let flushed = host.run(&["flush"]).ok();
        let note = "the agent is paused: it restores nothing until `trailblazer kick` or a restart";
        assert!(flushed.stdout.contains(note), "{flushed}");
        before.assert_same(&host.bare.ns.snapshot());
        let asked = agent.asked.lock().unwrap().clone();
        let [Request::Pause { by }] = &*asked else {
            panic!("{asked:?}");
        };
        assert!(by.starts_with("flush, pid "), "{by}");
        assert_eq!(host.json(&["flush"], 0)["agent"], "paused");
        drop(agent);

        // Without an agent no message mentions one.
        let flushed = host.run(&["flush"]).ok();
        assert!(!flushed.stdout.contains("agent"), "{flushed}");
        assert_eq!(host.json(&["flush"], 0)["agent"], "not_running");
    });
}

/// Everything is removed all the same, with a warning that a running agent may restore it.
#[test]
fn flush_reports_an_agent_refusing_to_pause() {
    lab::isolated(|| {
        let host = Host::new();
        let before = host.bare.ns.snapshot();
        host.run(&["reconcile"]).ok();
        let no = |_: &Request| Some(Reply::Refused("no".to_owned()));
        let _agent = FakeAgent::behaving(&host.socket(), Box::new(no));
        let output = host.run(&["flush", "-o", "json"]).expect_code(1);
        let report = output.json();
        assert_eq!(report["agent"], "unreachable");
        assert_eq!(report["outcome"], "failed");
        let error =
            "the agent is not paused and may restore the removed objects: pause refused: no";
        assert_eq!(report["errors"], json!([error]));
        assert!(output.stderr.contains(error), "{output}");
        before.assert_same(&host.bare.ns.snapshot());
    });
}

#[test]
fn flush_without_privilege_leaves_the_agent_alone() {
    lab::isolated(|| {
        let host = Host::new();
        let agent = FakeAgent::start(&host.socket(), filled());
        host.unprivileged(&["flush"]).expect_code(1);
        assert!(agent.asked.lock().unwrap().is_empty());
    });
}

/// Without an agent nobody serves `/metrics`: the pass leaves them in a file.
#[test]
fn single_pass_writes_metrics_for_the_textfile_collector() {
    lab::isolated(|| {
        let host = Host::new();
        let collector = host.dir.path().join("collector");
        std::fs::create_dir(&collector).unwrap();
        let (file, other) = (collector.join("tb.prom"), host.dir.path().join("other"));
        std::fs::write(&other, "other").unwrap();
        // The pass replaces a link, and leaves its target alone.
        std::os::unix::fs::symlink(&other, &file).unwrap();
        let reconcile = |path: &Path| {
            let path = path.display().to_string();
            host.run(&["reconcile", "--metrics-file", &path])
        };
        let first = reconcile(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        promtool(&["check", "metrics"], &text);
        let has = |line: &str| text.lines().any(|found| found.starts_with(line));
        let in_force = u8::from(first.code == Some(0));
        assert!(has(&format!("trailblazer_in_force {in_force}")), "{text}");
        assert!(has("trailblazer_last_pass_timestamp_seconds 1"), "{text}");
        assert!(has("trailblazer_document_sync_token "), "{text}");
        assert!(has("trailblazer_routes{family=\"ipv4\"}"), "{text}");
        assert!(!text.contains("trailblazer_uptime"), "{text}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "other");
        let meta = file.symlink_metadata().unwrap();
        assert!(meta.is_file());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(&collector).unwrap().count(), 1);
        // A directory that is missing costs a note, and nothing else.
        let missing = reconcile(&host.dir.path().join("missing/tb.prom"));
        let again = host.run(&["reconcile"]);
        assert_eq!(missing.code, again.code, "{missing}");
        let note = "cannot write the metrics to";
        assert!(missing.stdout.contains(note), "{missing}");
        // Nor does a directory in the place of the file.
        let place = reconcile(&collector);
        assert_eq!(place.code, again.code, "{place}");
        assert!(place.stdout.contains(note), "{place}");
        assert_eq!(std::fs::read_dir(host.dir.path()).unwrap().count(), 4);
        let path = file.display().to_string();
        let dry = host.run(&["reconcile", "--dry-run", "--metrics-file", &path]);
        assert_eq!(dry.code, Some(64), "{dry}");
    });
}
