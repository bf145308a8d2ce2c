//! SIGTERM in the middle of a big pass: the process ends within the promised second, the steps done
//! so far stay, and the next start does the rest.

use std::net::Ipv4Addr;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::host::*;
use crate::packets::{FIRST, document};
use lab::*;

const COUNT: usize = 50_000;

/// `FIRST` and `many` /28s, none adjacent to another, so that nothing aggregates.
fn many() -> Vec<u8> {
    let first = u32::from(Ipv4Addr::new(101, 0, 0, 0));
    let more: Vec<String> = (0..COUNT as u32)
        .map(|number| format!("{}/28", Ipv4Addr::from(first + 0x20 * number)))
        .collect();
    let all = FIRST.iter().copied().chain(more.iter().map(String::as_str));
    document(TOKEN + 1, &all.collect::<Vec<_>>()).into_bytes()
}

/// How many IPv4 routes the bypass table holds.
fn count(host: &Host) -> usize {
    let words = ["ip", "-4", "route", "show", "table", "1083"];
    host.ns.exec(&words).stdout.lines().count()
}

/// Sends SIGTERM and expects an exit within a second: a pass looks for the signal every 4,096
/// routes (20 ms of an unoptimized build) and no wait is longer than half a second.
#[track_caller]
fn stop(mut agent: Agent, when: &str) {
    let began = Instant::now();
    agent.signal(Signal::TERM);
    let status = agent.wait();
    let took = began.elapsed();
    println!("{when}: {took:?}");
    assert!(status.success(), "{when}: {status}");
    assert!(took < a_second(), "{when}: {took:?}");
}

/// Waits for the journal line that marks the begin of the big pass.
#[track_caller]
fn begins(host: &Host, token: u64) {
    let says = [format!("\"steps_total\":{COUNT}"), token.to_string()];
    eventually(&format!("a pass on {token}"), || {
        let journal = std::fs::read_to_string(host.state_dir().join("journal.jsonl"));
        let journal = journal.unwrap_or_default();
        let mut lines = journal.lines();
        lines.any(|line| says.iter().all(|words| line.contains(words)))
    });
}

fn last_pass(host: &Host) -> Value {
    let history = host.run(&["history", "-o", "json"]).ok().json();
    history["passes"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone()
}

/// Stopped between two steps, or, on a machine too busy to finish a step in half a second, within a
/// step.
fn has_stopped(pass: &Value) -> bool {
    pass["outcome"] == "stopped" || pass["outcome"] == "interrupted"
}

#[test]
fn stop_during_a_large_pass_ends_in_time() {
    isolated(|| {
        let mut host = Host::new();
        host.set("guard.max_prefixes", "200000");
        host.set("guard.max_loss", "\"100%\"");
        host.set("guard.hold_down", "\"0s\"");
        host.set("source.timeout", "\"10s\"");
        let agent = host.in_force();
        let few = count(&host);
        let all = few + COUNT;

        host.mirror.set_document(many());
        begins(&host, TOKEN + 1);
        stop(agent, "while routes are added");
        let part = count(&host);
        assert!((few..all).contains(&part), "not in the middle: {part}");
        assert!(host.egress_is_in_force());
        let pass = last_pass(&host);
        assert!(has_stopped(&pass), "{pass:#}");
        assert_eq!(pass["steps_total"], COUNT);

        // The next pass continues from there. A pass stopped before its first reading has changed
        // nothing.
        let agent = host.start();
        eventually("it is there", || host.path("control.sock").exists());
        stop(agent, "at the start");
        assert_eq!(count(&host), part);
        let agent = host.start();
        let in_force = |status: &Value, token: u64| {
            status["state"] == "in_force" && status["document"]["sync_token"] == token
        };
        agent.wait_for("all of it", |status| in_force(status, TOKEN + 1));
        assert_eq!(count(&host), all);
        let pass = last_pass(&host);
        assert_eq!(pass["steps_total"], all - part, "only the rest: {pass:#}");

        host.publish(TOKEN + 2, FIRST);
        begins(&host, TOKEN + 2);
        stop(agent, "while routes are deleted");
        let part = count(&host);
        assert!((few + 1..=all).contains(&part), "not in the middle: {part}");
        assert!(has_stopped(&last_pass(&host)));
        assert!(host.bypass().is_superset(&set(FIRST)));
        let agent = host.start();
        agent.wait_for("all gone", |status| in_force(status, TOKEN + 2));
        assert!(host.has(FIRST));
    });
}
