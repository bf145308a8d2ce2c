//! The agent's log: lines, levels and destination.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

/// The log's lines, parsed: each line is one JSON object.
#[track_caller]
fn lines(agent: &Agent) -> Vec<Value> {
    let log = agent.log();
    let parse = |line: &str| {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        for field in ["timestamp", "level"] {
            assert!(value[field].is_string(), "no {field}: {line}");
        }
        assert!(value["fields"]["message"].is_string(), "{line}");
        value
    };
    log.lines().map(parse).collect()
}

/// Kicks the agent and waits for the end of the pass that follows.
/// A kick starts a pass and a fetch, whose answer starts another pass. Waits for both passes: fetches
/// of kicks are 5 s apart.
#[track_caller]
fn kick(host: &Host, agent: &Agent) {
    let fetched = |status: &Value| fetches(status, &["changed", "unchanged"]);
    let before = agent.status().unwrap();
    host.run(&["kick"]).ok();
    agent.wait_for("the passes of a kick", |status| {
        passes(status) > passes(&before) && fetched(status) > fetched(&before)
    });
}

/// Waits for `count` lines and returns the message of the last line. Further passes must add none.
#[track_caller]
fn one_more(host: &Host, agent: &Agent, count: &mut usize) -> Value {
    *count += 1;
    eventually("a line", || lines(agent).len() >= *count);
    kick(host, agent);
    let lines = lines(agent);
    assert_eq!(lines.len(), *count, "{:#?}", &lines[*count - 1..]);
    lines.last().unwrap().clone()
}

#[test]
fn logs_one_json_line_for_each_change_and_none_without_change() {
    isolated(|| {
        let mut host = Host::new();
        // No fetch but the kicks'.
        host.set("source.refresh", "\"1h\"");
        host.set("kernel.protect_table", "false");
        let agent = host.start_with(|command| {
            command.args(["--log", "json"]);
        });
        agent.wait_for("in force", |status| fetches(status, &["changed"]) == 1);
        let mut count = lines(&agent).len();
        kick(&host, &agent);
        assert_eq!(lines(&agent).len(), count, "{}", agent.log());

        host.ns.ip(&format!("route del {BIG} table 1083"));
        let line = one_more(&host, &agent, &mut count);
        assert_eq!(line["level"], "INFO", "{line:#}");
        assert_eq!(line["fields"]["put_back"], 1, "{line:#}");
        let message = line["fields"]["message"].as_str().unwrap();
        assert!(message.contains(BIG), "what went: {message}");

        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        host.run(&["kick"]).ok();
        let line = one_more(&host, &agent, &mut count);
        assert_eq!(line["fields"]["cause"], "document", "{line:#}");
        assert_eq!(line["fields"]["steps"], 1, "{line:#}");
        assert_eq!(line["fields"]["sync_token"], TOKEN + 1, "{line:#}");

        // A firewall is for a pass to mend.
        host.ns.nft("delete table inet trailblazer");
        let line = one_more(&host, &agent, &mut count);
        assert_eq!(line["fields"]["cause"], "drift", "{line:#}");

        agent.signal(Signal::TERM);
        eventually("a last line", || lines(&agent).len() > count);
        let last = lines(&agent).pop().unwrap();
        let message = last["fields"]["message"].as_str().unwrap();
        assert!(message.starts_with("stopping"), "{message}");
    });
}

/// systemd names the journal's stream in the environment; if the stream cannot be reached, logs go
/// to standard error.
#[test]
fn logs_to_journald_and_falls_back_to_text() {
    isolated(|| {
        let host = Host::new();
        let start = || {
            host.start_with(|command| {
                command.env("JOURNAL_STREAM", "8:1234");
            })
        };
        let agent = start();
        agent.wait_in_force();
        let log = agent.log();
        assert!(log.contains("INFO pass document"), "{log}");
        drop(agent);

        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        journal
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let logged = log.len();
        let agent = start();
        agent.wait_in_force();
        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        agent.wait_for("the new document", |status| {
            status["document"]["sync_token"] == TOKEN + 1
        });
        let (mut came, mut buffer) = (String::new(), [0; 65536]);
        while let Ok(length) = journal.recv(&mut buffer) {
            came.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        for text in ["pass document: 1 added", "F_CAUSE", "F_SYNC_TOKEN"] {
            assert!(came.contains(text), "lacks {text}: {came:?}");
        }
        assert_eq!(agent.log().len(), logged, "{}", agent.log());
    });
}
