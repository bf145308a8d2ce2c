//! The dialogue with systemd: status line, watchdog, reload, stop (sd_notify(3), and
//! `Type=notify-reload` in systemd.service(5)).

use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::host::*;
use crate::packets::{FIRST, document};
use crate::systemd::Systemd;
use lab::*;

/// Microseconds of the clock behind `MONOTONIC_USEC`.
fn monotonic_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

#[test]
fn status_line_follows_the_document() {
    isolated(|| {
        let host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        systemd.wait_for_status(&format!("in force: 6 prefixes, document {TOKEN}"), 0);
        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        systemd.wait_for_status(&format!("in force: 7 prefixes, document {}", TOKEN + 1), 0);
        // Held: said, and in force all the same.
        host.publish(TOKEN + 2, &[]);
        systemd.wait_for_status("7 prefixes, document 1795021513, held by the guard", 0);
        // Nothing is said twice, however many passes there are.
        let status = agent.status().unwrap();
        let mark = systemd.mark();
        agent.wait_for("three more passes", |later| {
            passes(later) >= passes(&status) + 3
        });
        assert_eq!(systemd.mark(), mark, "{:#?}", systemd.came());
        assert_eq!(systemd.with("READY", 0).len(), 1);
        assert_eq!(systemd.with("WATCHDOG", 0).len(), 0, "nobody asked for it");
    });
}

/// Pings come at half of the watchdog's timeout, stop while the process is stopped, and resume
/// afterwards together with the repairs.
#[test]
fn watchdog_pings_stop_with_the_loop_and_resume() {
    const PATIENCE: Duration = Duration::from_secs(2);
    isolated(|| {
        let host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| {
            systemd.notified_by(command);
            command.env("WATCHDOG_USEC", PATIENCE.as_micros().to_string());
        });
        systemd.wait_for("READY", 0);
        let mark = systemd.mark();
        eventually("pings", || systemd.with("WATCHDOG", mark).len() >= 4);
        let pings = systemd.with("WATCHDOG", mark);
        let pace = (pings[3].at - pings[0].at) / 3;
        // Half of the timeout is the pace; a much faster pace would keep systemd busy. The upper
        // bound is the timeout, which would also be missed in earnest on a machine that busy.
        assert!(pace > PATIENCE / 4 && pace < PATIENCE, "{pace:?}");

        agent.signal(Signal::STOP);
        // Datagrams sent before arrive in the queue and are read within this time.
        std::thread::sleep(Duration::from_millis(300));
        let mark = systemd.mark();
        host.ns.ip(&format!("route del {BIG} table 1083"));
        host.ns.ip("-6 rule del pref 30020");
        std::thread::sleep(PATIENCE + Duration::from_millis(500));
        assert_eq!(systemd.mark(), mark, "{:#?}", systemd.came());
        assert!(!host.has(FIRST), "nobody mends it meanwhile");

        agent.signal(Signal::CONT);
        systemd.wait_for("WATCHDOG", mark);
        eventually("what went meanwhile is back", || host.has(FIRST));
        eventually("pings go on", || systemd.with("WATCHDOG", mark).len() >= 3);
        let status = agent.wait_for("in force", |status| status["state"] == "in_force");
        assert_eq!(status["faults"]["ours"], 0, "{status:#}");
    });
}

/// RELOADING=1 with the time, then READY=1 once the new settings are in force.
#[test]
fn reload_puts_new_settings_in_force() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", "\"127.0.0.1:9683\"");
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        systemd.wait_for("READY", 0);
        assert_eq!(host.http(9683, "/healthz").unwrap().0, 200);

        host.set("egress.gateways", &format!("{OTHER_GATEWAYS:?}"));
        host.set("agent.metrics", "\"127.0.0.1:9684\"");
        host.set("select.include", "[\"18.34.0.0/19\"]");
        host.config();
        let (mark, sent) = (systemd.mark(), monotonic_usec());
        agent.signal(Signal::HUP);
        let ready = systemd.wait_for("READY", mark);
        assert_eq!(
            host.egress(),
            set(&OTHER_GATEWAYS),
            "ready when it is in force"
        );
        assert_eq!(host.bypass(), set(&[FIRST, &[NEW]].concat()));
        let reloading = systemd.with("RELOADING", mark);
        assert_eq!(reloading.len(), 1, "{:#?}", systemd.came());
        assert!(reloading[0].at <= ready.at);
        let usec: u64 = reloading[0]
            .value("MONOTONIC_USEC")
            .unwrap()
            .parse()
            .unwrap();
        assert!((sent..=monotonic_usec()).contains(&usec), "{sent} {usec}");
        eventually("metrics at the new place", || {
            host.http(9684, "/readyz").is_some()
        });
        eventually("none at the old one", || {
            host.http(9683, "/healthz").is_none()
        });
        let log = agent.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
        let journal = host.run(&["history", "-o", "json"]).ok().json();
        let last = journal["passes"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        assert_eq!(last["cause"], "config", "{last:#}");
    });
}

/// An unreadable config, or one that does not fit the host, is refused with a reason and changes
/// nothing.
#[test]
fn invalid_reload_is_refused_and_changes_nothing() {
    isolated(|| {
        let mut host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        systemd.wait_for("READY", 0);
        let kernel = host.ns.snapshot();
        let good = std::fs::read_to_string(host.config()).unwrap();
        let refused = |text: &str, says: &[&str]| {
            std::fs::write(host.path("trailblazer.toml"), text).unwrap();
            let (mark, logged) = (systemd.mark(), agent.log().len());
            agent.signal(Signal::HUP);
            systemd.wait_for("READY", mark);
            assert_eq!(systemd.with("RELOADING", mark).len(), 1);
            let log = agent.log().split_off(logged);
            assert_eq!(log.matches("ERROR").count(), 1, "{log}");
            assert!(
                log.contains("invalid config, the previous config stays in force"),
                "{log}"
            );
            for words in says {
                assert!(log.contains(words), "lacks {words:?}: {log}");
            }
            kernel.assert_same(&host.ns.snapshot());
            // `status` reads the config for the socket's path.
            std::fs::write(host.path("trailblazer.toml"), &good).unwrap();
            let status = agent.status().unwrap();
            assert_eq!(status["state"], "in_force", "{status:#}");
            assert_eq!(status["faults"]["ours"], 0, "{status:#}");
        };
        refused("role = \"host\"\n[egress\n", &["trailblazer.toml:2:"]);
        let wrong = good.replace("source.refresh", "source.refesh");
        refused(
            &wrong,
            &[
                "trailblazer.toml:6:8: source.refesh",
                "did you mean \"refresh\"?",
            ],
        );
        let wrong = good.replace("\"10.0.1.10\"", "\"10.9.9.9\"");
        refused(&wrong, &["10.9.9.9"]);

        // A valid config is accepted afterwards.
        host.set("egress.gateways", &format!("{OTHER_GATEWAYS:?}"));
        host.config();
        let mark = systemd.mark();
        agent.signal(Signal::HUP);
        systemd.wait_for("READY", mark);
        assert_eq!(host.egress(), set(&OTHER_GATEWAYS));
    });
}

/// A stop sends STOPPING=1, exits 0 and leaves the state in force unchanged.
#[test]
fn stop_leaves_everything_in_force() {
    isolated(|| {
        let mut host = Host::new();
        // The protection ends with the process, and the flag of the table with it.
        host.set("kernel.protect_table", "false");
        for signal in [Signal::TERM, Signal::INT] {
            let systemd = Systemd::start(&host);
            let mut agent = host.start_with(|command| systemd.notified_by(command));
            agent.wait_in_force();
            let kernel = host.ns.snapshot();
            let began = Instant::now();
            agent.signal(signal);
            let status = agent.wait();
            let took = began.elapsed();
            assert!(status.success(), "{signal:?}: {status}");
            // A pass takes a few milliseconds here; the promised second is ten times the need of a
            // busy machine.
            assert!(took < a_second(), "{signal:?}: {took:?}");
            systemd.wait_for("STOPPING", 0);
            assert_eq!(
                systemd.with("STOPPING", 0).len(),
                1,
                "{:#?}",
                systemd.came()
            );
            // A pass that ends meanwhile may change the status line, and nothing else.
            let came = systemd.came();
            let after = came.iter().skip_while(|it| it.value("STOPPING").is_none());
            for late in after.skip(1) {
                assert!(late.value("STATUS").is_some(), "{late:?}");
            }
            kernel.assert_same(&host.ns.snapshot());
            assert!(!host.path("control.sock").exists());
            std::fs::remove_file(host.path("notify")).unwrap();
        }
    });
}

/// A reload with another region, other numbers and another metadata service, which nobody has asked
/// before.
#[test]
fn reload_moves_region_numbers_and_sockets() {
    isolated(|| {
        let mut host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        let reload = |host: &Host| {
            host.config();
            let mark = systemd.mark();
            agent.signal(Signal::HUP);
            systemd.wait_for("READY", mark);
            assert_eq!(systemd.with("RELOADING", mark).len(), 1);
        };
        host.set("select.regions", "[\"auto\"]");
        host.imds.set("host", "placement/region", "eu-west-1");
        reload(&host);
        eventually("the other region's prefixes", || {
            host.has(&["52.218.0.0/17"])
        });

        host.set("bypass.table", "1183");
        host.set("egress.table", "1184");
        host.set("kernel.priority", "29000");
        let socket = host.path("other.sock");
        host.set("agent.socket", &format!("{socket:?}"));
        reload(&host);
        assert_eq!(host.table(1183), set(&["52.218.0.0/17"]));
        assert!(host.bypass().is_empty() && host.table(1084).is_empty());
        assert!(
            host.rules()
                .concat()
                .iter()
                .all(|rule| (29000..29100).contains(rule))
        );
        assert!(!host.path("control.sock").exists());
        // Objects under the new numbers are watched too.
        host.ns.ip("route del 52.218.0.0/17 table 1183");
        eventually("mended", || host.table(1183) == set(&["52.218.0.0/17"]));
        let status = agent.status().unwrap();
        // The other region lists no IPv6 prefix.
        assert_eq!(status["state"], "degraded", "{status:#}");
        assert_eq!(status["degraded"].as_array().unwrap().len(), 1);
        assert_eq!(status["degraded"][0]["part"], "selection");
        assert_eq!(status["degraded"][0]["family"], "ipv6");
    });
}

/// During a pause new settings restore nothing, and systemd does not wait for a pass.
#[test]
fn reload_during_a_pause_restores_nothing() {
    isolated(|| {
        let mut host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        host.run(&["flush"]).ok();
        host.set("egress.gateways", &format!("{OTHER_GATEWAYS:?}"));
        host.config();
        let mark = systemd.mark();
        agent.signal(Signal::HUP);
        systemd.wait_for("READY", mark);
        assert!(host.has_nothing());
        assert_eq!(agent.status().unwrap()["state"], "paused");
        host.run(&["kick"]).ok();
        eventually("the new settings", || host.egress() == set(&OTHER_GATEWAYS));
    });
}

/// Of several reloads at once the last config is in force.
#[test]
fn last_of_several_quick_reloads_wins() {
    isolated(|| {
        let mut host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        for round in 0..21 {
            let gateways = if round % 2 == 0 {
                OTHER_GATEWAYS
            } else {
                GATEWAYS
            };
            host.set("egress.gateways", &format!("{gateways:?}"));
            host.config();
            agent.signal(Signal::HUP);
            std::thread::sleep(Duration::from_millis(round));
        }
        eventually("the last settings", || {
            host.egress() == set(&OTHER_GATEWAYS)
        });
        eventually("ready after the last reload", || {
            let came = systemd.came();
            let last = |key: &str| came.iter().rposition(|it| it.value(key).is_some());
            last("READY") > last("RELOADING")
        });
        let log = agent.log();
        assert!(!log.contains("ERROR"), "{log}");
    });
}

/// A reload with another source does not wait for a fetch that hangs.
#[test]
fn reload_does_not_wait_for_a_hanging_fetch() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.timeout", "\"60s\"");
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        agent.wait_in_force();
        host.hang_a_fetch();

        let more = [FIRST, &[NEW]].concat();
        let file = host.path("ip-ranges.json");
        std::fs::write(&file, document(TOKEN + 1, &more)).unwrap();
        host.set("source.url", &format!("{file:?}"));
        host.config();
        let mark = systemd.mark();
        agent.signal(Signal::HUP);
        systemd.wait_for("READY", mark);
        let status = agent.wait_for("the other source's document", |status| {
            status["document"]["sync_token"] == TOKEN + 1
        });
        assert!(host.has(&more));
        assert_eq!(status["faults"]["others"], 0, "{status:#}");
        // And the timer goes on from there.
        agent.wait_for("asked again", |status| fetches(status, &["unchanged"]) >= 2);
    });
}
