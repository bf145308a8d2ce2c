//! A wall clock that jumps by days between two passes: the real binary under libfaketime, which
//! changes the wall clock alone. The kernel's boot clock cannot be set, and the binary reads the
//! boot clock by a direct system call.

use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use trailblazer::guard::{Anchor, GuardState};
use trailblazer::state::StateFile;
use trailblazer::state::store::Store;

use crate::site::{ROWS, Row, Site, TOKEN, assert_verdict, document, verdict};

const NEWER: u64 = TOKEN + 100;
const DAY: i64 = 86_400;
/// Withdrawn, and few enough addresses for no hold.
const GONE: &str = "3.5.0.0/19";
/// More than half of the IPv4 addresses.
const BIG: &str = "52.216.0.0/15";
/// Seconds that a pass may need on a busy machine.
const SLACK: i64 = 30;

/// `reconcile` with the wall clock off by `offset`.
#[track_caller]
fn reconcile_at(site: &Site, offset: i64, code: i32) -> Value {
    let mut command: Command = site.command(&[]);
    command
        .env("LD_PRELOAD", lab::faketime("libfaketime.so.1"))
        .env("FAKETIME", format!("{offset:+}s"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
    let report = site
        .bare
        .ns
        .exec_command(&mut command)
        .expect_code(code)
        .json();
    // Proof that the binary saw the false clock.
    let end = site.journal_end();
    let at: Timestamp = end["at"].as_str().unwrap().parse().unwrap();
    let beside = at.as_second() - now() - offset;
    assert!(beside.abs() <= SLACK, "not faked by {offset} s: {end:#}");
    report
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn boottime() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

fn guard_state(site: &Site) -> GuardState {
    let store = Store::open(site.state_dir());
    store.read_json(StateFile::Guard).unwrap()
}

fn write_guard_state(site: &Site, state: &GuardState) {
    let store = Store::open(site.state_dir());
    store.write_json(StateFile::Guard, state).unwrap();
}

/// The last time in the message.
#[track_caller]
fn last_time(message: &Value) -> i64 {
    let words = message.as_str().unwrap().split([' ', ':', ',', ';']);
    // Splitting at colons cuts `2026-11-22T06:32:04Z` in three: join three words again.
    let words: Vec<&str> = words.collect();
    let mut times = words
        .windows(3)
        .filter_map(|three| three.join(":").parse::<Timestamp>().ok());
    times
        .next_back()
        .unwrap_or_else(|| panic!("no time in {message}"))
        .as_second()
}

fn rows_without(prefix: &str) -> Vec<Row> {
    ROWS.into_iter().filter(|row| row.0 != prefix).collect()
}

/// A hold-down of a day survives a clock that jumps two days forth and back: the route stays, and
/// the announced end moves along.
#[test]
fn hold_down_survives_clock_jumps() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let table = site.bypass();
        site.publish(document(NEWER, &rows_without(GONE)));
        let report = site.reconcile(&[], 0);
        assert_verdict(&report, "hold-down", "note", GONE);
        let state = guard_state(&site);
        let (since, anchor) = (state.hold_down[0].since, state.clock.unwrap());
        for offset in [2 * DAY, -2 * DAY, 400 * DAY, 0] {
            let report = reconcile_at(&site, offset, 0);
            assert_eq!(report["outcome"], "in_sync", "{report:#}");
            assert_eq!(site.bypass(), table, "{GONE} keeps its route");
            let until = last_time(&verdict(&report, "hold-down")["message"]);
            let moved = until - (since + offset + DAY);
            assert!(moved.abs() <= SLACK, "{moved} s off: {report:#}");
        }
        assert_eq!(guard_state(&site).clock, Some(anchor), "nothing to write");
    });
}

/// A hold-down of two seconds ends after two seconds, whatever the date.
#[test]
fn hold_down_ends_on_time_after_a_clock_change() {
    lab::isolated(|| {
        for offset in [-2 * DAY, 2 * DAY] {
            let mut site = Site::new();
            site.config.push_str("guard.hold_down = \"2s\"\n");
            site.install();
            site.publish(document(NEWER, &rows_without(GONE)));
            assert_verdict(&site.reconcile(&[], 0), "hold-down", "note", GONE);
            std::thread::sleep(Duration::from_millis(4100));
            let report = reconcile_at(&site, offset, 0);
            assert_eq!(report["outcome"], "changed", "{report:#}");
            assert_eq!(report["steps"][0]["dst"], GONE);
            assert!(!site.bypass().contains(&GONE.to_owned()));
        }
    });
}

/// An `accept_after` of a day does not end because the clock jumps; the anchor of each pass records
/// both clocks.
#[test]
fn hold_survives_clock_jumps() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        site.publish(document(NEWER, &rows_without(BIG)));
        let began = (now(), boottime());
        site.reconcile(&[], 3);
        for offset in [2 * DAY, -2 * DAY, 0] {
            // In the same second the source says nothing new, and nothing is written.
            std::thread::sleep(Duration::from_millis(2100));
            let report = reconcile_at(&site, offset, 3);
            assert_verdict(&report, "loss", "hold", BIG);
            let until = last_time(&verdict(&report, "loss")["message"]);
            let late = until - (began.0 + offset + DAY);
            assert!((-2..=SLACK).contains(&late), "{late} s late: {report:#}");
            assert!(site.bypass().contains(&BIG.to_owned()));
            let clock = guard_state(&site).clock.unwrap();
            let (boot, wall) = (clock.boottime_s as i64, clock.wall_s);
            assert!((began.1..=boottime()).contains(&boot), "not the true one");
            assert!((wall - now() - offset).abs() <= SLACK, "not the faked one");
        }
    });
}

#[test]
fn hold_ends_on_time_after_the_clock_went_back() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config
            .push_str("guard = { accept_after = \"2s\", hold_down = \"0s\" }\n");
        site.install();
        site.publish(document(NEWER, &rows_without(BIG)));
        site.reconcile(&[], 3);
        std::thread::sleep(Duration::from_millis(4100));
        let report = reconcile_at(&site, -2 * DAY, 0);
        assert_eq!(report["outcome"], "changed", "{report:#}");
        assert!(!site.bypass().contains(&BIG.to_owned()));
    });
}

/// A machine that was off for five days, or whose clock starts in the past, keeps the rest of the
/// day's hold.
#[test]
fn reboot_keeps_the_rest_of_a_hold_down() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let table = site.bypass();
        site.publish(document(NEWER, &rows_without(GONE)));
        site.reconcile(&[], 0);
        // Twenty hours ago, written then.
        let mut state = guard_state(&site);
        let hours = 20 * 3600;
        state.hold_down[0].since -= hours;
        write_guard_state(&site, &state);
        for (boot, offset) in [(1, 5 * DAY), (2, -5 * DAY), (3, 0)] {
            let boot_id = format!("{boot:08}-0000-4000-8000-000000000000");
            let file = site.path(&boot_id);
            std::fs::write(&file, format!("{boot_id}\n")).unwrap();
            let bound = Command::new("mount")
                .arg("--bind")
                .arg(&file)
                .arg("/proc/sys/kernel/random/boot_id")
                .status()
                .unwrap();
            assert!(bound.success());
            let report = reconcile_at(&site, offset, 0);
            assert_eq!(report["outcome"], "in_sync", "{report:#}");
            assert_eq!(site.bypass(), table);
            let until = last_time(&verdict(&report, "hold-down")["message"]);
            let left = until - (now() + offset);
            let expected = DAY - hours;
            assert!((left - expected).abs() <= SLACK, "{left} s left");
            let clock = guard_state(&site).clock.unwrap();
            assert_eq!(
                clock.boot_id, boot_id,
                "the new boot's clock runs from here"
            );
        }
    });
}

/// A pass renews the anchor only ten minutes after the last renewal, and never writes it alone.
#[test]
fn clock_anchor_is_renewed_after_ten_minutes() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        site.publish(document(NEWER, &rows_without(GONE)));
        site.reconcile(&[], 0);
        let state = guard_state(&site);
        let aged = |seconds: u64| {
            let clock = state.clock.clone().unwrap();
            GuardState {
                clock: Some(Anchor {
                    boottime_s: clock.boottime_s - seconds,
                    wall_s: clock.wall_s - seconds as i64,
                    ..clock
                }),
                ..state.clone()
            }
        };
        // A machine that booted minutes ago (a CI runner) has no boot clock old enough; the guard's
        // unit tests cover the case.
        let past = [(500, false), (601, true)]
            .into_iter()
            .filter(|(seconds, _)| boottime() > *seconds as i64 + 60)
            .map(|(seconds, renewed)| (aged(seconds), renewed));
        let others = [
            (aged(0), false),
            // In the format of an older version.
            (
                GuardState {
                    clock: None,
                    ..state.clone()
                },
                true,
            ),
        ];
        for (stored, renewed) in others.into_iter().chain(past) {
            write_guard_state(&site, &stored);
            let before = site.before();
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync");
            before.assert_kernel(&site);
            let after = guard_state(&site);
            assert_eq!(after.clock != stored.clock, renewed, "{stored:?}");
            let until = last_time(&verdict(&report, "hold-down")["message"]);
            // Each of the two clocks is read in whole seconds.
            let moved = until - (state.hold_down[0].since + DAY);
            assert!(moved.abs() <= 2, "moved by {moved} s");
        }
    });
}
