//! The text of `status`.

use std::path::Path;

use trailblazer::columns::Style;
use trailblazer::status::snapshot::*;
use trailblazer::status::text::to_text;

use crate::agent::*;

/// Compares with the file, or rewrites the file if TRAILBLAZER_BLESS is set.
#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/status/golden")
        .join(name);
    if std::env::var_os("TRAILBLAZER_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} (TRAILBLAZER_BLESS=1 writes it anew):\n{text}"
    );
}

#[test]
fn text_of_a_healthy_agent_is_as_expected() {
    let mut snapshot = filled();
    let config = snapshot.config.as_mut().unwrap();
    (config.refused, config.differs) = (None, Some(false));
    snapshot.hold = None;
    snapshot.hold_down.clear();
    snapshot.hold_down_total = 0;
    snapshot.drift = DriftStatus::default();
    let table = snapshot.conntrack.as_mut().unwrap();
    (table.entries, table.percent) = (1_234, Some(0.5));
    table.busiest.clear();
    snapshot.gateways.truncate(1);
    snapshot.egress_addresses.clear();
    snapshot.faults.clear();
    snapshot.notes.clear();
    snapshot.passes.truncate(2);
    golden("well.txt", &to_text(&snapshot, NOW, Style::Plain));
}

/// The operation page shows the real output.
#[test]
fn text_matches_the_operation_page() {
    let page = include_str!("../../docs/operation.md");
    let shown = page
        .split("```text\n")
        .find(|part| part.starts_with("IN FORCE"));
    let (shown, _) = shown.unwrap().split_once("…\n```").unwrap();
    assert!(
        include_str!("golden/well.txt").starts_with(shown),
        "{shown}"
    );
}

#[test]
fn text_shows_all_troubles_at_once() {
    golden("everything.txt", &to_text(&filled(), NOW, Style::Plain));
}

#[test]
fn text_shows_a_state_out_of_force() {
    let mut snapshot = filled();
    snapshot.state = State::Degraded;
    snapshot.reason = Some("conflict: route 3.5.0.0/19 in table 1083 is not ours".to_owned());
    snapshot.degraded = vec![missing_part()];
    snapshot.in_force_since = None;
    let document = snapshot.document.as_mut().unwrap();
    document.freshness = Freshness::Alarm;
    document.age_s = 8 * 86_400;
    snapshot.source.breaker = BreakerState::Open;
    snapshot.source.failures_in_a_row = 7;
    snapshot.source.last_error = Some("https://x.test/ip-ranges.json: connection refused".into());
    snapshot.traffic = None;
    snapshot.saved_dollars = None;
    snapshot.hold_down_total = 123;
    golden("down.txt", &to_text(&snapshot, NOW, Style::Plain));
}

#[test]
fn text_before_the_first_pass_is_as_expected() {
    let snapshot = Snapshot {
        state: State::Starting,
        document: None,
        source: SourceStatus::default(),
        selection: vec![],
        firewall: None,
        passes: vec![],
        traffic: None,
        saved_dollars: None,
        in_force_since: None,
        uptime_s: 0.0,
        ..filled()
    };
    let text = to_text(&snapshot, NOW, Style::Plain);
    assert!(text.starts_with("STARTING no pass has succeeded yet\n"));
    for line in [
        "document   none in force",
        "prefixes   none selected",
        "no pass yet",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}:\n{text}");
    }
}

#[test]
fn text_has_colours_only_on_request() {
    let mut snapshot = filled();
    snapshot.state = State::Paused;
    let plain = to_text(&snapshot, NOW, Style::Plain);
    let coloured = to_text(&snapshot, NOW, Style::Coloured);
    let coloured = trailblazer::printable::page(&coloured).into_owned();
    assert!(!plain.contains('\x1b'));
    assert!(coloured.starts_with("\x1b[1;31mPAUSED\x1b[0m "));
    let stripped = ["\x1b[1;31m", "\x1b[1;33m", "\x1b[0m"]
        .iter()
        .fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

/// One line for each program that keeps changing our objects, whatever their number.
#[test]
fn conflicts_are_grouped_by_culprit() {
    let conflict = |object: &str, by: &str, paused_for_s| ConflictStatus {
        object: object.to_owned(),
        by: by.to_owned(),
        repairs: 6,
        paused_for_s,
    };
    let cron = "program ip (pid 17, unit cron.service)";
    let mut snapshot = filled();
    snapshot.drift.conflicts = vec![
        conflict("route 1.0.0.0/8", cron, 40),
        conflict("rule 30000", "the kernel", 0),
        conflict("route 2.0.0.0/8", cron, 20),
        conflict("route 3.0.0.0/8", cron, 90),
        conflict("route 4.0.0.0/8", cron, 90),
        conflict("route 5.0.0.0/8", cron, 90),
    ];
    snapshot.drift.conflicts_total = 6;
    let text = to_text(&snapshot, NOW, Style::Plain);
    let part = "\nconflicts  route 1.0.0.0/8, route 2.0.0.0/8, route 3.0.0.0/8 and 2 more: \
                changed by program ip (pid 17, unit cron.service); repaired 30 times, next repair \
                in 20 s\n           rule 30000: changed by the kernel; repaired 6 times, next \
                repair at once\n";
    assert!(text.contains(part), "lacks {part}: {text}");
}
