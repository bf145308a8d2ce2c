//! Refused reloads, and the config in force: the status, the metrics, systemd and the journal name
//! both until a reload succeeds.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use crate::systemd::Systemd;
use lab::*;

const PORT: u16 = 9683;

/// An agent with metrics, in force.
fn reloadable() -> (Host, Agent) {
    let mut host = Host::new();
    host.set("agent.metrics", &format!("\"127.0.0.1:{PORT}\""));
    let agent = host.in_force();
    (host, agent)
}

fn file(host: &Host) -> PathBuf {
    host.path("trailblazer.toml")
}

/// The value of a metric without labels; `None` if absent.
fn metric(host: &Host, name: &str) -> Option<f64> {
    let (code, page) = host.http(PORT, "/metrics")?;
    assert_eq!(code, 200, "{page}");
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[track_caller]
fn is_shown(host: &Host, agent: &Agent, says: &str) -> Value {
    let status = agent.wait_for("the refusal", |status| {
        status["config"]["refused"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains(says))
    });
    assert_eq!(status["state"], "in_force", "{status:#}");
    assert!(host.has(FIRST), "the earlier config is in force");
    assert_eq!(metric(host, "trailblazer_config_reload_refused"), Some(1.0));
    let since = metric(
        host,
        "trailblazer_config_reload_refused_since_timestamp_seconds",
    );
    assert_eq!(since, status["config"]["refused"]["since"].as_f64());
    assert_eq!(host.http(PORT, "/readyz").unwrap().0, 200);
    status
}

#[track_caller]
fn is_over(host: &Host, agent: &Agent) {
    let status = agent.wait_for("no refusal", |status| status["config"]["refused"].is_null());
    assert_eq!(status["config"]["differs"], false, "{status:#}");
    assert_eq!(metric(host, "trailblazer_config_reload_refused"), Some(0.0));
    assert_eq!(metric(host, "trailblazer_config_differs"), Some(0.0));
    let since = metric(
        host,
        "trailblazer_config_reload_refused_since_timestamp_seconds",
    );
    assert_eq!(since, None);
}

/// The reloads in the journal: outcome and error.
fn reloads(host: &Host) -> Vec<(String, String)> {
    let journal = host.run(&["history", "--all", "-o", "json"]).json();
    let passes = journal["passes"].as_array().unwrap().iter();
    passes
        .filter(|pass| pass["cause"] == "reload")
        .map(|pass| {
            let text = |name: &str| pass[name].as_str().unwrap_or("").to_owned();
            (text("outcome"), text("error"))
        })
        .collect()
}

#[test]
fn refused_reload_is_shown_everywhere_until_the_file_is_restored() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", &format!("\"127.0.0.1:{PORT}\""));
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        is_over(&host, &agent);
        let good = std::fs::read_to_string(file(&host)).unwrap();
        let last = good.lines().count();
        std::fs::write(file(&host), format!("{good}bypass.gatway = \"auto\"\n")).unwrap();
        agent.signal(Signal::HUP);

        let status = is_shown(&host, &agent, "gatway");
        let config = &status["config"];
        assert_eq!(config["file"], file(&host).to_str().unwrap());
        assert_eq!(config["differs"], true, "{status:#}");
        assert_eq!(config["refused"]["line"], last + 1, "{status:#}");
        assert_eq!(config["refused"]["attempts"], 1, "{status:#}");
        assert_eq!(metric(&host, "trailblazer_config_differs"), Some(1.0));
        let path = file(&host);
        let words = ["status", "-c", path.to_str().unwrap()];
        let page = host.ns.exec_command(&mut trailblazer_command(&words)).ok();
        let second = page.stdout.lines().nth(1).unwrap();
        let place = format!("trailblazer.toml line {}: ", last + 1);
        assert!(second.starts_with("RELOAD REFUSED since "), "{page}");
        assert!(second.contains(&place), "{page}");
        assert!(second.contains("did you mean"), "{page}");
        assert!(second.ends_with("stays in force"), "{page}");
        eventually("systemd's status line", || {
            let line = systemd.came();
            let line = line.iter().rev().find_map(|it| it.value("STATUS"));
            line.is_some_and(|line| line.contains(&place))
        });
        eventually("a line in the journal", || reloads(&host).len() == 1);

        // The same mistake again: one more attempt, no further line.
        std::fs::write(file(&host), format!("{good}bypass.gatway = \"auto\"\n")).unwrap();
        agent.signal(Signal::HUP);
        agent.wait_for("the second attempt", |status| {
            status["config"]["refused"]["attempts"] == 2
        });

        std::fs::write(file(&host), &good).unwrap();
        // Not before the reload.
        let status = agent.wait_for("the restored file", |status| {
            status["config"]["differs"] == false
        });
        assert!(!status["config"]["refused"].is_null(), "{status:#}");
        agent.signal(Signal::HUP);
        is_over(&host, &agent);
        eventually("the end in the journal", || reloads(&host).len() == 2);
        let [(refused, error), (accepted, _)] = &reloads(&host)[..] else {
            panic!("{:?}", reloads(&host));
        };
        assert_eq!((&**refused, &**accepted), ("refused", "accepted"));
        assert!(
            error.contains(&place) && error.contains("gatway"),
            "{error}"
        );
        let line = systemd.came();
        let line = line.iter().rev().find_map(|it| it.value("STATUS"));
        assert!(!line.unwrap().contains("refused"), "{line:?}");
    });
}

#[test]
fn sound_text_that_does_not_fit_the_host_is_shown_without_a_line() {
    isolated(|| {
        let (mut host, agent) = reloadable();
        host.set("egress.gateways", "[\"10.9.9.9\"]");
        host.config();
        agent.signal(Signal::HUP);
        let status = is_shown(&host, &agent, "10.9.9.9");
        assert!(status["config"]["refused"]["line"].is_null(), "{status:#}");
        // Another config that fits ends the refusal too.
        host.set("egress.gateways", &format!("{OTHER_GATEWAYS:?}"));
        host.config();
        agent.signal(Signal::HUP);
        is_over(&host, &agent);
        eventually("the new gateways", || host.egress() == set(&OTHER_GATEWAYS));
    });
}

/// A fault of the host is no reason to refuse the settings that are in force already.
#[test]
fn restored_file_ends_the_refusal_beside_a_conflict() {
    isolated(|| {
        let (host, agent) = reloadable();
        let good = std::fs::read_to_string(file(&host)).unwrap();
        std::fs::write(file(&host), format!("{good}[egress\n")).unwrap();
        agent.signal(Signal::HUP);
        is_shown(&host, &agent, "");
        std::fs::write(file(&host), good).unwrap();
        host.ns.ip(&format!("route del {SMALL} table 1083"));
        host.ns
            .ip("route replace default via 10.0.1.1 dev eth0 table 1083 proto static");
        agent.wait_for("the conflict", |status| status["state"] == "degraded");
        agent.signal(Signal::HUP);
        is_over(&host, &agent);
    });
}

#[test]
fn change_without_a_reload_shows_as_a_difference_and_changes_nothing() {
    isolated(|| {
        let (host, agent) = reloadable();
        let good = std::fs::read_to_string(file(&host)).unwrap();
        let loaded = agent.status().unwrap()["config"].clone();
        std::fs::write(file(&host), format!("{good}# a word\n")).unwrap();
        let status = agent.status().unwrap();
        assert_eq!(status["config"]["differs"], true, "{status:#}");
        assert_eq!(status["config"]["digest"], loaded["digest"]);
        assert_eq!(metric(&host, "trailblazer_config_differs"), Some(1.0));
        agent.signal(Signal::HUP);
        let status = agent.wait_for("the new content", |status| {
            status["config"]["differs"] == false
        });
        assert_ne!(status["config"]["digest"], loaded["digest"], "{status:#}");
        assert!(status["config"]["refused"].is_null(), "{status:#}");
        assert_eq!(reloads(&host), [], "no refusal, no line");
    });
}

/// The file is a pipe without a writer: the reader gives up after ten seconds. The loop answers
/// meanwhile, the reload is refused, and a later reload succeeds.
#[test]
fn silent_file_is_refused_and_holds_nothing_up() {
    isolated(|| {
        let (host, agent) = reloadable();
        let good = std::fs::read_to_string(file(&host)).unwrap();
        std::fs::remove_file(file(&host)).unwrap();
        host.ns.run(&["mkfifo", file(&host).to_str().unwrap()]);
        agent.signal(Signal::HUP);
        let refused = || metric(&host, "trailblazer_config_reload_refused");
        wait_until(
            6 * SOON,
            Duration::from_millis(100),
            || (refused() == Some(1.0)).then_some(()),
            || agent.condition(),
        );
        assert_eq!(host.http(PORT, "/healthz").unwrap().0, 200);
        assert_eq!(metric(&host, "trailblazer_config_differs"), None, "unknown");
        // Repairs go on.
        host.ns.ip(&format!("route del {SMALL} table 1083"));
        eventually("the repaired route", || host.has(FIRST));

        let pipe = file(&host);
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, &good).unwrap();
        agent.signal(Signal::HUP);
        eventually("the end of the refusal", || refused() == Some(0.0));
        is_over(&host, &agent);
    });
}
