//! Holds and hold-downs of a running agent outlast restarts and changes of the wall clock.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

const DAY: i64 = 86_400;
/// Seconds that a few passes may need on a busy machine.
const SLACK: i64 = 60;

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Withdraws `SMALL` (gets a hold-down) and then `BIG` (the guard holds the document). Nothing
/// changes in the kernel. Returns the agent's status.
#[track_caller]
fn withdrawn(host: &Host, agent: &Agent) -> Value {
    let kernel = host.ns.snapshot();
    host.publish(TOKEN + 1, &without(FIRST, &[SMALL]));
    agent.wait_for("a hold-down", |status| status["hold_down_total"] == 1);
    host.publish(TOKEN + 2, &without(FIRST, &[SMALL, BIG]));
    let status = agent.wait_for("a hold", |status| !status["hold"].is_null());
    assert_eq!(status["hold"]["guards"], serde_json::json!(["loss"]));
    assert_eq!(status["hold"]["sync_token"], TOKEN + 2);
    assert_eq!(status["hold_down"][0]["prefix"], SMALL);
    assert_eq!(status["document"]["sync_token"], TOKEN + 1);
    kernel.assert_same(&host.ns.snapshot());
    status
}

/// When the hold began and ends, and when the hold-down ends.
fn times(status: &Value) -> [i64; 3] {
    [
        &status["hold"]["since"],
        &status["hold"]["until"],
        &status["hold_down"][0]["until"],
    ]
    .map(|time| time.as_i64().unwrap())
}

/// Restarts and kills neither forget a hold or hold-down nor restart its time: the end is the
/// announced one.
#[test]
fn holds_and_hold_down_keep_their_ends_across_restarts() {
    isolated(|| {
        let mut host = Host::new();
        host.set("guard.accept_after", "\"8s\"");
        host.set("guard.hold_down", "\"8s\"");
        let agent = host.in_force();
        let said = times(&withdrawn(&host, &agent));
        let (ended, _took) = agent.stop();
        assert!(ended.success());
        let agent = host.start();
        let status = agent.wait_in_force();
        assert_eq!(times(&status), said, "after a restart: {status:#}");
        agent.kill();
        let agent = host.start();
        let status = agent.wait_in_force();
        assert_eq!(times(&status), said, "after a kill: {status:#}");
        assert!(host.has(FIRST));

        let [_, hold_ends, hold_down_ends] = said;
        eventually("the hold-down ends", || !host.bypass().contains(SMALL));
        // Whole seconds of two clocks: one counts since the boot, whose fraction is another.
        let is_due = |end: i64| now() + 1 >= end;
        assert!(is_due(hold_down_ends), "too early");
        eventually("the hold ends", || {
            let status = agent.status().unwrap();
            status["hold"].is_null() && status["document"]["sync_token"] == TOKEN + 2
        });
        assert!(is_due(hold_ends), "too early");
        // The accepted withdrawal starts a hold-down of its own.
        let status = agent.status().unwrap();
        assert_eq!(status["hold_down"][0]["prefix"], BIG, "{status:#}");
        assert_eq!(host.bypass(), set(&without(FIRST, &[SMALL])));
    });
}

/// Sets the wall clock of the agent that reads this file.
fn set_clock(file: &Path, offset: i64) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, format!("{offset:+}\n")).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

/// The wall clock jumps two days ahead, two days back and right again under a running agent:
/// durations are unaffected.
#[test]
fn durations_ignore_wall_clock_jumps() {
    isolated(|| {
        let host = Host::new();
        let file = host.path("clock");
        set_clock(&file, 0);
        let agent = host.start_with(|command| {
            command
                .env("LD_PRELOAD", faketime("libfaketimeMT.so.1"))
                .env("FAKETIME_TIMESTAMP_FILE", &file)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
        });
        agent.wait_in_force();
        let said = times(&withdrawn(&host, &agent));
        let kernel = host.ns.snapshot();
        let asked = ["changed", "unchanged", "held", "rejected", "failed"];
        for offset in [2 * DAY, -2 * DAY, 0] {
            set_clock(&file, offset);
            let before = agent.status().unwrap();
            let after = agent.wait_for("the timer goes on", |status| {
                fetches(status, &asked) >= fetches(&before, &asked) + 3
            });
            // Proof that the agent saw the false clock.
            let at = after["passes"][0]["at"].as_i64().unwrap();
            let beside = at - now() - offset;
            assert!(beside.abs() <= SLACK, "not faked by {offset} s: {after:#}");

            let fetched = fetches(&after, &asked) - fetches(&before, &asked);
            let passed = passes(&after) - passes(&before);
            assert!(
                passed <= fetched + 1,
                "{passed} passes for {fetched} fetches"
            );
            assert!(
                after["source"]["next_fetch_in_s"].as_u64() <= Some(2),
                "{after:#}"
            );
            assert_eq!(after["source"]["breaker"], "closed", "{after:#}");
            let age = after["document"]["age_s"].as_i64().unwrap();
            assert!((0..=SLACK).contains(&age), "{age} s at {offset}");
            assert_eq!(after["document"]["freshness"], "fresh");
            assert_eq!(after["hold_down_total"], 1, "{after:#}");
            assert_eq!(after["hold"]["sync_token"], TOKEN + 2, "{after:#}");
            for (now, then) in times(&after).into_iter().zip(said) {
                // In terms of the clock as now set.
                let moved = now - then - offset;
                assert!(moved.abs() <= 2, "{moved} s off at {offset}: {after:#}");
            }
            kernel.assert_same(&host.ns.snapshot());
        }
        let log = agent.log();
        assert!(!log.contains("ERROR"), "{log}");
    });
}
