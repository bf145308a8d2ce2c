//! Sources that misbehave: the agent reports the failure, and the kernel stays as before.

use serde_json::Value;

use crate::host::*;
use crate::packets::{FIRST, document};
use lab::*;

/// A fault of the mirror.
enum Wrong {
    /// With a good document.
    Mode(MirrorMode),
    /// Serves these documents in turn.
    Documents(Vec<Vec<u8>>),
}

/// The fault, the counted result of the fetch, and words of `last_error`.
type Case = (Wrong, &'static str, &'static str);

fn good() -> Vec<u8> {
    document(TOKEN, FIRST).into_bytes()
}

/// Runs each case, and lets the source recover between two cases.
#[track_caller]
fn the_kernel_stays(cases: Vec<Case>) {
    let host = Host::new();
    let agent = host.in_force();
    let kernel = host.ns.snapshot();
    for (wrong, result, says) in cases {
        let before = fetches(&agent.status().unwrap(), &[result]);
        match wrong {
            Wrong::Mode(mode) => host.mirror.set_mode(mode),
            Wrong::Documents(documents) => host.mirror.set_documents(documents),
        }
        let status = agent.wait_for(says, |status| {
            let error = status["source"]["last_error"].as_str().unwrap_or_default();
            error.contains(says) && fetches(status, &[result]) > before
        });
        assert_eq!(status["state"], "in_force", "{says}: {status:#}");
        assert_eq!(status["document"]["sync_token"], TOKEN, "{says}");
        assert_eq!(status["faults"]["ours"], 0, "{says}: {status:#}");
        kernel.assert_same(&host.ns.snapshot());

        host.mirror.set_mode(MirrorMode::Well);
        host.mirror.set_document(good());
        let status = agent.wait_for("well again", |status| {
            status["source"]["failures_in_a_row"] == 0
        });
        assert_eq!(status["source"]["last_error"], Value::Null);
        assert_eq!(status["source"]["breaker"], "closed");
    }
    let log = agent.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn failing_source_changes_nothing() {
    let mode = |mode, result, says| (Wrong::Mode(mode), result, says);
    let documents = |documents, says| (Wrong::Documents(documents), "rejected", says);
    isolated(|| {
        // In parallel, since the cases mostly wait for timeouts.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                the_kernel_stays(vec![
                    mode(MirrorMode::Status(500), "rejected", "reports an error: 500"),
                    mode(MirrorMode::Status(403), "rejected", "answered 403"),
                    mode(MirrorMode::Circle, "rejected", "in a loop"),
                ]);
            });
            scope.spawn(|| {
                the_kernel_stays(vec![
                    mode(
                        MirrorMode::Silent,
                        "failed",
                        "no complete answer within 500ms",
                    ),
                    mode(
                        MirrorMode::Drip,
                        "failed",
                        "no complete answer within 500ms",
                    ),
                ]);
            });
            scope.spawn(|| {
                let yesterday = || document(TOKEN - 86_400, &FIRST[1..]).into_bytes();
                let other_rows = document(TOKEN, &FIRST[1..]).into_bytes();
                let no_prefixes = format!("{{\"syncToken\": \"{}\"}}", TOKEN + 1);
                the_kernel_stays(vec![
                    mode(MirrorMode::Half, "rejected", "broke off"),
                    documents(vec![yesterday()], "older"),
                    documents(vec![good(), yesterday()], "older"),
                    documents(vec![good(), other_rows], "other rows"),
                    documents(vec![b"<html>sign in</html>".to_vec()], "web page"),
                    documents(vec![no_prefixes.into_bytes()], "prefixes"),
                    documents(vec![Vec::new()], "empty document"),
                ]);
            });
        });
    });
}

/// Two mirrors behind one name disagree: the newer document is in force whichever came first, and
/// the older one causes no back-off.
#[test]
fn newer_of_two_alternating_documents_stays_in_force() {
    isolated(|| {
        let host = Host::new();
        let more = [FIRST, &[NEW]].concat();
        let newer = document(TOKEN + 1, &more).into_bytes();
        host.mirror.set_documents([good(), newer]);
        let agent = host.start();
        agent.wait_for("the newer one", |status| {
            status["document"]["sync_token"] == TOKEN + 1 && status["state"] == "in_force"
        });
        let kernel = host.ns.snapshot();
        let status = agent.wait_for("each of them twice more", |status| {
            fetches(status, &["rejected"]) >= 2 && fetches(status, &["unchanged"]) >= 2
        });
        assert!(host.has(&more));
        kernel.assert_same(&host.ns.snapshot());
        assert_eq!(status["source"]["breaker"], "closed", "{status:#}");
        assert_eq!(
            status["pass_totals"]["outcomes"]["changed"], 2,
            "{status:#}"
        );
    });
}

/// An empty selection is held: the last known good stays in force, and the status names the hold.
#[test]
fn empty_selection_is_held() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let kernel = host.ns.snapshot();
        host.publish(TOKEN + 1, &[]);
        let status = agent.wait_for("held", |status| !status["hold"].is_null());
        assert_eq!(status["state"], "in_force", "{status:#}");
        assert_eq!(status["hold"]["sync_token"], TOKEN + 1);
        assert_eq!(status["hold"]["guards"], serde_json::json!(["empty"]));
        assert_eq!(status["document"]["sync_token"], TOKEN);
        kernel.assert_same(&host.ns.snapshot());
        // The agent goes on asking, without further effect.
        let status = agent.wait_for("more of the same", |status| fetches(status, &["held"]) >= 3);
        assert_eq!(status["source"]["last_error"], Value::Null, "{status:#}");
        assert_eq!(status["source"]["failures_in_a_row"], 0);
        host.publish(TOKEN + 2, FIRST);
        let status = agent.wait_for("not held any more", |status| status["hold"].is_null());
        assert_eq!(status["document"]["sync_token"], TOKEN + 2);
        kernel.assert_same(&host.ns.snapshot());
        let log = agent.log();
        assert_eq!(
            log.matches("guard: hold empty").count(),
            1,
            "said once:\n{log}"
        );
    });
}

/// A source that fails repeatedly is asked at growing intervals, and at the normal interval after a
/// success.
#[test]
fn breaker_opens_after_failures_and_closes_after_an_answer() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let kernel = host.ns.snapshot();
        // This failure is not retried within one fetch: five failures take five refreshes.
        host.mirror.set_mode(MirrorMode::Circle);
        let open = agent.wait_for("open", |status| status["source"]["breaker"] == "open");
        assert!(
            open["source"]["failures_in_a_row"].as_u64() >= Some(5),
            "{open:#}"
        );
        assert!(open["faults"]["others"].as_u64() >= Some(5), "{open:#}");
        assert_eq!(open["faults"]["ours"], 0, "{open:#}");
        assert_eq!(open["state"], "in_force");
        let log = agent.log();
        assert_eq!(log.matches("the breaker is open").count(), 1, "{log}");
        assert_eq!(log.matches("cannot fetch the document").count(), 2, "{log}");

        // Trials that time out slowly enough to be counted: one this way, three the other.
        host.mirror.set_mode(MirrorMode::Silent);
        agent.wait_for("half open", |status| {
            status["source"]["breaker"] == "half_open"
        });
        let again = agent.wait_for("open again", |status| status["source"]["breaker"] == "open");
        let error = again["source"]["last_error"].as_str().unwrap();
        assert!(error.contains("no complete answer within"), "{error}");
        kernel.assert_same(&host.ns.snapshot());

        host.mirror.set_mode(MirrorMode::Well);
        let well = agent.wait_for("closed", |status| status["source"]["breaker"] == "closed");
        assert_eq!(well["source"]["last_error"], Value::Null);
        assert_eq!(well["source"]["failures_in_a_row"], 0);
        assert!(agent.log().contains("the source answers again"));
        kernel.assert_same(&host.ns.snapshot());
    });
}

/// Repairs don't wait for a source.
#[test]
fn drift_is_repaired_during_a_hanging_fetch() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.timeout", "\"60s\"");
        let agent = host.in_force();
        host.hang_a_fetch();
        let before = agent.status().unwrap();
        host.ns.ip(&format!("route del {BIG} table 1083"));
        host.ns.ip("rule del pref 30020");
        let status = agent.wait_for("mended", |status| {
            let mended = &status["drift"]["mended"];
            mended["route"].as_u64() >= Some(1) && mended["rule"].as_u64() >= Some(1)
        });
        assert!(host.has(FIRST));
        // Link, routes and all.
        host.ns.flap("eth0");
        host.ns.ip_batch(
            "addr replace 2600:1f18:1000:1::11/64 dev eth0 nodad\n\
             route replace default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n\
             route replace default via fe80::1 dev eth0 proto ra metric 512\n",
        );
        eventually("all back after the link", || host.has(FIRST));
        let results = ["changed", "unchanged", "failed", "rejected"];
        assert_eq!(fetches(&before, &results), fetches(&status, &results));
        assert_eq!(agent.status().unwrap()["source"]["next_fetch_in_s"], 0);
    });
}

/// A command tells on standard error which source keeps it waiting, and for how long at most. On a
/// host without a route the wait is short, and a server on a host route still has its chance.
#[test]
fn commands_remark_a_long_wait_for_a_source() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.timeout", "\"4s\"");
        host.set("source.path", "\"bypass\"");
        host.mirror.set_mode(MirrorMode::Silent);
        let url = host.mirror.url();
        let waited = host.run(&["reconcile", "--dry-run", "-o", "json"]);
        let remark = format!("waiting for {url} by the main table's default, at most 13 s");
        assert!(waited.stderr.contains(&remark), "{waited}");
        assert!(waited.stderr.contains("still waiting for"), "{waited}");
        assert!(!waited.stdout.contains("waiting for"), "{waited}");
        assert_eq!(waited.json()["dry_run"], true);

        for family in ["-4", "-6"] {
            host.ns.ip(&format!("{family} route flush default"));
        }
        host.ns
            .ip(&format!("route add {MIRROR}/32 via 10.0.1.1 dev eth0"));
        let short = host.run(&["reconcile", "--dry-run"]);
        assert!(short.stderr.contains("at most 2 s"), "{short}");
        assert!(
            short.stderr.contains("no complete answer within 2s"),
            "{short}"
        );
        assert!(!short.stderr.contains("tries"), "{short}");
        host.mirror.set_mode(MirrorMode::Well);
        let found = host.run(&["reconcile", "--dry-run", "-o", "json"]).json();
        assert_eq!(found["sync_token"], TOKEN, "{found:#}");
    });
}
