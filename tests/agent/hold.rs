//! Held documents: one line in the history, the effect in the status, and the operator's word,
//! which reaches a running agent.

use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

/// The lines of the history with a held document.
fn held_lines(host: &Host) -> Vec<Value> {
    let history = host.run(&["history", "--all", "-o", "json"]).ok().json();
    let passes = history["passes"].as_array().unwrap().iter();
    let held = passes.filter(|pass| pass["outcome"] == "held");
    held.cloned().collect()
}

fn without_big() -> Vec<&'static str> {
    without(FIRST, &[BIG])
}

#[track_caller]
fn wait_held(agent: &Agent, token: u64) -> Value {
    agent.wait_for("the hold", |status| status["hold"]["sync_token"] == token)
}

#[test]
fn hold_of_an_agent_is_one_line_until_it_changes() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        host.publish(TOKEN + 1, &without_big());
        let status = wait_held(&agent, TOKEN + 1);
        let change = &status["hold"]["changes"][0];
        assert_eq!(change["family"], "ipv4", "{status:#}");
        assert_eq!(change["lost"], serde_json::json!([BIG]), "{status:#}");
        assert_eq!(change["lost_prefixes"], 1, "{status:#}");
        let percent = change["lost_percent"].as_f64().unwrap();
        assert_eq!(percent, 48.5, "{status:#}");
        let page = host.run(&["status"]).stdout;
        let line = format!("would lose {percent:.1} % of its addresses, 1 prefix: {BIG}");
        assert!(page.contains(&line), "{page}");

        let before = fetches(&status, &["held"]);
        agent.wait_for("more fetches", |status| {
            fetches(status, &["held"]) >= before + 3
        });
        assert_eq!(held_lines(&host).len(), 1, "{:#?}", held_lines(&host));
        drop(agent);
        let agent = host.start();
        agent.wait_for("fetches of the next agent", |status| {
            fetches(status, &["held"]) >= 2
        });
        assert_eq!(held_lines(&host).len(), 1, "{:#?}", held_lines(&host));

        // Another document of the same selection is the same hold, another selection is not.
        host.publish(TOKEN + 2, &without_big());
        wait_held(&agent, TOKEN + 2);
        assert_eq!(held_lines(&host).len(), 1, "{:#?}", held_lines(&host));
        host.publish(TOKEN + 3, &without(FIRST, &[BIG, SMALL]));
        wait_held(&agent, TOKEN + 3);
        eventually("another line", || held_lines(&host).len() == 2);
    });
}

#[test]
fn hold_of_single_passes_is_one_line_with_a_count() {
    isolated(|| {
        let host = Host::new();
        host.reconcile(&[]);
        host.publish(TOKEN + 1, &without_big());
        for _ in 0..3 {
            host.run(&["reconcile"]).expect_code(3);
        }
        let lines = held_lines(&host);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_eq!(lines[0]["repeats"], 2, "{lines:#?}");
        assert!(lines[0]["last_at"].is_string(), "{lines:#?}");
        let text = host.run(&["history"]).ok().stdout;
        assert!(
            text.contains("held on in 2 more passes, the last at "),
            "{text}"
        );
        // The status without an agent knows the hold too.
        let status = host.run(&["status", "-o", "json"]).json();
        assert_eq!(status["hold"]["sync_token"], TOKEN + 1, "{status:#}");
        assert_eq!(status["hold"]["changes"][0]["lost"][0], BIG, "{status:#}");
        let page = host.run(&["status"]).stdout;
        assert!(page.contains("HELD: loss holds document"), "{page}");
        // A pass that repairs something during the hold is a line of its own.
        host.ns.ip(&format!("route del {SMALL} table 1083"));
        host.run(&["reconcile"]).expect_code(3);
        assert_eq!(held_lines(&host).len(), 2, "{:#?}", held_lines(&host));
    });
}

/// The agent's own fetch is an hour away.
fn agent_with_a_hold() -> (Host, Agent) {
    let mut host = Host::new();
    host.set("source.refresh", "\"1h\"");
    host.set("guard.hold_down", "\"0s\"");
    let agent = host.in_force();
    host.publish(TOKEN + 1, &without_big());
    host.run(&["kick"]).ok();
    wait_held(&agent, TOKEN + 1);
    (host, agent)
}

#[test]
fn accepted_document_reaches_the_agent_at_once_and_is_not_fought() {
    isolated(|| {
        let (host, agent) = agent_with_a_hold();
        let accept = (TOKEN + 1).to_string();
        host.run(&["reconcile", "--accept", &accept]).ok();
        assert!(host.has(&without_big()), "the command's own pass");
        let status = agent.wait_for("the accepted document", |status| {
            status["hold"].is_null() && status["document"]["sync_token"] == TOKEN + 1
        });
        assert_eq!(status["state"], "in_force", "{status:#}");
        assert!(host.has(&without_big()), "{}", agent.log());
        // A resync later, nothing has come back, and nobody was blamed.
        host.run(&["kick", "--wait"]).ok();
        let status = agent.status().unwrap();
        assert!(host.has(&without_big()), "{status:#}");
        let mended = status["drift"]["mended"]["route"].as_u64().unwrap_or(0);
        assert_eq!(mended, 0, "{status:#}\n{}", agent.log());
        assert_eq!(status["faults"]["others"], 0, "{status:#}");
    });
}

#[test]
fn accepting_during_a_pause_stores_the_document_and_keeps_the_pause() {
    isolated(|| {
        let (host, agent) = agent_with_a_hold();
        host.run(&["flush"]).ok();
        let accept = (TOKEN + 1).to_string();
        host.run(&["reconcile", "--cache-only", "--accept", &accept])
            .ok();
        let status = agent.status().unwrap();
        assert_eq!(status["state"], "paused", "{status:#}");
        assert!(host.has_nothing());
        host.run(&["kick"]).ok();
        agent.wait_for("the accepted document", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == TOKEN + 1
        });
        assert!(host.has(&without_big()), "{}", agent.log());
    });
}
