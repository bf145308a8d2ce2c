//! Lines written and read back, whole and torn.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::state::directory::small_disk;
use lab::isolated;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + second).expect("in range")
}

fn pass(number: i64) -> PassId {
    PassId(format!("{number}-7"))
}

fn begin(number: i64) -> Record {
    Record::begin(time(number), pass(number), "reconcile")
        .with_sync_token(Some(1_710_355_389))
        .with_steps([json!({
            "action": "add", "object": "route", "dst": "3.5.0.0/19",
            "gateway": "10.0.1.1", "device": "eth0", "table": 1083,
        })])
}

fn end(number: i64, outcome: &str) -> Record {
    let took = Duration::from_millis(42);
    Record::end(time(number + 1), pass(number), "reconcile", outcome, took)
}

fn state() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::new(&dir.path().join("state"));
    (dir, journal)
}

#[test]
fn begin_and_end_make_one_pass() {
    let (dir, journal) = state();
    assert_eq!(
        journal.read().expect("no journal is no pass"),
        History::default()
    );
    journal.append(&begin(1)).expect("appended");
    journal.append(&end(1, "changed")).expect("appended");
    journal.append(&end(5, "in_sync")).expect("an end alone");
    let history = journal.read().expect("read");
    assert_eq!(history.damaged, []);
    let [first, second] = history.passes.as_slice() else {
        panic!("two passes: {history:#?}");
    };
    assert_eq!(first.outcome, "changed");
    assert_eq!(first.at, "2025-11-24T16:00:01.000Z");
    assert_eq!(first.ended_at.as_deref(), Some("2025-11-24T16:00:02.000Z"));
    assert_eq!(first.sync_token, Some(1_710_355_389));
    assert_eq!((first.steps.len(), first.steps_total), (1, 1));
    assert_eq!(first.duration_ms, Some(42));
    assert_eq!(
        (second.outcome.as_str(), second.steps_total),
        ("in_sync", 0)
    );
    let mode = |path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    // A umask may take more away, never give more.
    assert_eq!(mode(dir.path().join("state")) & !0o750, 0);
    assert_eq!(mode(journal.path()) & !0o640, 0);
}

#[test]
fn a_crash_between_shows_as_interrupted() {
    let (_dir, journal) = state();
    journal.append(&begin(1)).expect("appended");
    journal.append(&end(9, "in_sync")).expect("appended");
    let history = journal.read().expect("read");
    assert_eq!(history.passes[0].outcome, "interrupted");
    let text = history_text(&history);
    assert!(text.contains("interrupted (process"), "{text}");
    // Its process lives and has the lock, but has gone on to another pass.
    let own = Some(std::process::id());
    assert_eq!(history.with_running(own).passes[0].outcome, "interrupted");
    journal.append(&begin(10)).expect("appended");
    let history = journal.read().expect("read").with_running(own);
    assert_eq!(history.passes[2].outcome, "running");
}

#[test]
fn a_torn_line_costs_itself_only() {
    let (_dir, journal) = state();
    journal.append(&end(1, "in_sync")).expect("appended");
    let whole = fs::read(journal.path()).expect("read");
    // The last line cut at every byte, then another appended.
    for cut in 1..whole.len() {
        let mut torn = whole.clone();
        torn.extend_from_slice(&whole[..cut]);
        fs::write(journal.path(), &torn).expect("written");
        let history = journal.read().expect("read");
        let complete = cut == whole.len() - 1; // all but its newline
        assert_eq!(history.passes.len(), 1, "cut at {cut}");
        assert_eq!(history.damaged.is_empty(), complete, "cut at {cut}");
        if !complete {
            assert!(
                history.damaged[0].reason.contains("incomplete"),
                "{:?}",
                history.damaged
            );
        }
        journal.append(&end(3, "changed")).expect("appended");
        let history = journal.read().expect("read");
        assert_eq!(history.passes.len(), 2, "cut at {cut}");
        assert_eq!(history.damaged.is_empty(), complete, "cut at {cut}");
    }
}

#[test]
fn a_line_of_another_kind_is_reported_with_its_place() {
    let (_dir, journal) = state();
    journal.append(&end(1, "in_sync")).expect("appended");
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(journal.path())
        .expect("there");
    file.write_all(b"\xff\xfe\n{\"at\":\"x\",\"event\":\"later\"}\n\n")
        .expect("written");
    journal.append(&end(2, "in_sync")).expect("appended");
    let history = journal.read().expect("read");
    assert_eq!(history.passes.len(), 2);
    let lines: Vec<usize> = history.damaged.iter().map(|damage| damage.line).collect();
    assert_eq!(lines, [2, 3]);
    let text = history_text(&history);
    assert!(
        text.contains("journal.jsonl line 3: not a journal line"),
        "{text}"
    );
}

#[test]
fn journal_rotates_and_never_exceeds_two_files() {
    let (dir, journal) = state();
    let journal = journal.with_max_bytes(2_000).with_sync(false);
    for number in 0..100 {
        journal.append(&begin(number)).expect("appended");
        journal.append(&end(number, "changed")).expect("appended");
    }
    let files: Vec<_> = fs::read_dir(dir.path().join("state"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").metadata().expect("meta").len())
        .collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|size| *size <= 2_000), "{files:?}");
    let history = journal.read().expect("read");
    assert_eq!(history.damaged, []);
    assert_eq!(
        history.passes.last().map(|pass| pass.pass.clone()),
        Some(pass(99))
    );
    // Only the oldest pass may have lost its begin; all the others are whole over the seam.
    assert!(
        history
            .passes
            .iter()
            .skip(1)
            .all(|pass| pass.steps_total == 1)
    );
    assert!(history.passes.len() > 3);
}

#[test]
fn long_lists_of_a_line_are_cut_with_a_count() {
    let record = begin(1)
        .with_steps((0..7_904).map(|number| json!({ "dst": number })))
        .with_verdicts((0..3).map(|number| json!({ "guard": number })))
        .with_error(Some("ä".repeat(MAX_ERROR_BYTES)));
    assert_eq!(
        (record.steps.len(), record.steps_total),
        (MAX_LISTED, 7_904)
    );
    assert_eq!((record.verdicts.len(), record.verdicts_total), (3, 3));
    let error = record.error.clone().expect("kept");
    assert!(error.len() < MAX_ERROR_BYTES + 20 && error.ends_with("(cut)"));
    let first = begin(1).with_first_steps(vec![json!(1); 300], 11_012);
    assert_eq!((first.steps.len(), first.steps_total), (MAX_LISTED, 11_012));
    let line = serde_json::to_string(&record).expect("JSON");
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Record>(&line).expect("read"), record);
}

/// Root must not append to a file that the owner of the state dir has linked there.
#[test]
fn a_link_is_neither_appended_to_nor_read() {
    let (dir, journal) = state();
    let other = dir.path().join("other");
    fs::write(&other, "not ours\n").expect("written");
    fs::create_dir(dir.path().join("state")).expect("created");
    std::os::unix::fs::symlink(&other, journal.path()).expect("linked");
    let message = journal.append(&begin(1)).expect_err("a link").to_string();
    assert!(message.contains("it is a symbolic link"), "{message}");
    assert_eq!(fs::read_to_string(&other).expect("there"), "not ours\n");
    let history = journal.read().expect("the other file may be sound");
    assert_eq!(history.passes, []);
    assert!(
        history.damaged[0].reason.contains("it is a symbolic link"),
        "{history:?}"
    );
}

/// A disk that fills in the middle of a line: the line is cut off again.
#[test]
fn a_disk_that_fills_holds_no_part_of_a_line() {
    isolated(|| {
        let journal = Journal::new(&small_disk("size=32k"));
        let mut written = 0;
        let error = loop {
            match journal.append(&begin(written)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 1_000, "a small disk never filled");
        };
        for words in [
            "cannot append to the journal",
            "No space left on device",
            "free space",
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let history = journal.read().expect("read");
        assert_eq!(history.damaged, []);
        assert_eq!(history.passes.len() as i64, written);
    });
}

#[test]
fn unreadable_journal_is_not_empty() {
    let (dir, journal) = state();
    fs::create_dir_all(dir.path().join("state/journal.jsonl")).expect("created");
    let message = journal.read().expect_err("a directory").to_string();
    assert!(
        message.contains("journal.jsonl: it is a directory"),
        "{message}"
    );
}

/// A change by another program is a note, and no verdict holds anything up.
#[test]
fn history_tells_drift_and_its_repair() {
    let (_dir, journal) = state();
    let drift = |message: &str, repaired: Value| json!({"guard": "drift", "level": "note", "message": message, "repaired": repaired});
    for (second, outcome, verdict) in [
        (1, "changed", drift("pl-1: -3.5.0.0/19", true.into())),
        (2, "held", drift("pl-1: -3.5.0.0/19", false.into())),
        (3, "failed", drift("rtb-1: deleted", false.into())),
        (4, "changed", drift("of an older version", Value::Null)),
    ] {
        let record = end(second, outcome).with_verdicts([verdict]);
        journal.append(&record).expect("appended");
    }
    let text = history_text(&journal.read().expect("read"));
    for line in [
        "  drift, repaired: pl-1: -3.5.0.0/19\n",
        "  drift, held: pl-1: -3.5.0.0/19\n",
        "  drift, not repaired: rtb-1: deleted\n",
        "  drift, repaired: of an older version\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn history_names_the_tags_of_a_table() {
    let (_dir, journal) = state();
    let mark = json!({"trailblazer:token": "7", "trailblazer:token:7": ""});
    let steps = [
        json!({"action": "replace", "object": "tags", "table": "rtb-1", "tags": mark}),
        json!({"action": "delete", "object": "tags", "table": "rtb-1", "keys": ["trailblazer:token:6"]}),
    ];
    journal
        .append(&end(1, "changed").with_steps(steps))
        .expect("appended");
    let text = history_text(&journal.read().expect("read"));
    for words in [
        "tags: of rtb-1 (trailblazer:token trailblazer:token:7)",
        "tags: of rtb-1 (trailblazer:token:6)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn history_shows_a_table_and_json() {
    let (_dir, journal) = state();
    journal.append(&begin(1)).expect("appended");
    journal.append(&end(1, "changed")).expect("appended");
    let held = end(60, "held").with_verdicts([
        json!({"guard": "max_loss", "level": "hold", "message": "S3 us-east-1 ipv4 lost 31%"}),
        json!({"guard": "staleness", "level": "note", "message": "quiet"}),
    ]);
    journal.append(&held).expect("appended");
    let failed = end(120, "failed").with_error(Some("two\nlines".to_owned()));
    journal.append(&failed).expect("appended");
    let history = journal.read().expect("read");
    assert_eq!(
        history_text(&history),
        "\
WHEN                      CAUSE      OUTCOME  TOKEN       STEPS   TOOK
2025-11-24T16:00:01.000Z  reconcile  changed  1710355389      1  42 ms
  added route: 3.5.0.0/19 via 10.0.1.1 dev eth0 table 1083
2025-11-24T16:01:01.000Z  reconcile  held     -               0  42 ms
  hold (max_loss): S3 us-east-1 ipv4 lost 31%
2025-11-24T16:02:01.000Z  reconcile  failed   -               0  42 ms
  two
  lines
"
    );
    let json = history_json(&history.last(1));
    assert_eq!(json["passes"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["passes"][0]["outcome"], "failed");
    assert_eq!(history_text(&History::default()), "no pass yet\n");
}
