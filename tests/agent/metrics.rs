//! Metrics and health of the real agent over real HTTP.

use std::collections::BTreeMap;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

const PORT: u16 = 9683;

/// Samples by name and labels, as they are written.
#[track_caller]
fn scrape(host: &Host) -> BTreeMap<String, f64> {
    let (status, page) = host.http(PORT, "/metrics").expect("it listens");
    assert_eq!(status, 200, "{page}");
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Waits until a sample reaches a value.
#[track_caller]
fn wait_for(host: &Host, sample: &str, value: f64) {
    eventually(&format!("{sample} {value}"), || {
        scrape(host).get(sample).is_some_and(|now| *now >= value)
    });
}

#[test]
fn metrics_follow_drift_fetches_and_documents() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", &format!("\"127.0.0.1:{PORT}\""));
        let agent = host.in_force();
        assert_eq!(host.http(PORT, "/healthz").unwrap(), (200, "ok\n".into()));
        assert_eq!(
            host.http(PORT, "/readyz").unwrap(),
            (200, "in force\n".into())
        );
        let first = scrape(&host);
        for (sample, value) in [
            ("trailblazer_in_force", 1.0),
            ("trailblazer_state{state=\"in_force\"}", 1.0),
            ("trailblazer_document_sync_token", TOKEN as f64),
            ("trailblazer_routes{family=\"ipv4\"}", 4.0),
            ("trailblazer_routes{family=\"ipv6\"}", 2.0),
            ("trailblazer_breaker_state{state=\"closed\"}", 1.0),
            ("trailblazer_fetches_total{result=\"changed\"}", 1.0),
            ("trailblazer_conflicts", 0.0),
            ("trailblazer_held", 0.0),
            ("trailblazer_faults_total{whose=\"ours\"}", 0.0),
            ("trailblazer_faults_total{whose=\"others\"}", 0.0),
        ] {
            assert_eq!(first.get(sample), Some(&value), "{sample}: {first:#?}");
        }
        // The source is asked every second; each time a pass judges the answer.
        wait_for(
            &host,
            "trailblazer_fetches_total{result=\"unchanged\"}",
            2.0,
        );
        wait_for(&host, "trailblazer_passes_total{outcome=\"in_sync\"}", 2.0);

        host.ns.ip(&format!("route del {BIG} table 1083"));
        host.ns.ip("rule del pref 30020");
        wait_for(
            &host,
            "trailblazer_drift_mended_total{object=\"route\"}",
            1.0,
        );
        wait_for(
            &host,
            "trailblazer_drift_mended_total{object=\"rule\"}",
            1.0,
        );

        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        wait_for(&host, "trailblazer_routes{family=\"ipv4\"}", 5.0);
        wait_for(&host, "trailblazer_fetches_total{result=\"changed\"}", 2.0);

        host.mirror.set_mode(MirrorMode::Circle);
        wait_for(&host, "trailblazer_faults_total{whose=\"others\"}", 2.0);
        let last = scrape(&host);
        assert_eq!(last["trailblazer_faults_total{whose=\"ours\"}"], 0.0);
        assert_eq!(
            last["trailblazer_in_force"], 1.0,
            "the source is another matter"
        );
        assert_eq!(host.http(PORT, "/readyz").unwrap().0, 200);
        // Counters only grow, and time in force is time.
        for (sample, value) in first.iter().filter(|(sample, _)| sample.contains("_total")) {
            assert!(last[sample] >= *value, "{sample} fell from {value}");
        }
        let in_force = |samples: &BTreeMap<String, f64>| {
            samples["trailblazer_in_force_seconds_total"]
                / samples["trailblazer_uptime_seconds_total"]
        };
        assert!(in_force(&last) > in_force(&first), "{last:#?}");

        host.run(&["flush"]).ok();
        let (status, why) = host.http(PORT, "/readyz").unwrap();
        assert_eq!(status, 503);
        assert!(why.starts_with("paused: "), "{why}");
        assert_eq!(scrape(&host)["trailblazer_in_force"], 0.0);
        drop(agent);
        assert_eq!(host.http(PORT, "/healthz"), None, "nobody listens any more");
    });
}

/// Puts scripts in front of the iptables programs: a script sleeps while the file `hang` exists.
fn hanging_iptables(host: &Host) -> (String, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = host.path("bin");
    std::fs::create_dir_all(&directory).unwrap();
    let hang = host.path("hang");
    for variant in ["", "-nft", "-legacy"] {
        for program in ["iptables", "ip6tables"] {
            for action in ["", "-save", "-restore"] {
                let name = format!("{program}{variant}{action}");
                let Some(real) = ["/usr/sbin", "/sbin", "/usr/bin"]
                    .map(|place| std::path::Path::new(place).join(&name))
                    .into_iter()
                    .find(|path| path.exists())
                else {
                    continue;
                };
                let script =
                    format!("#!/bin/sh\n[ -e {hang:?} ] && exec sleep 20\nexec {real:?} \"$@\"\n");
                let path = directory.join(&name);
                std::fs::write(&path, script).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    (format!("{}:{path}", directory.display()), hang)
}

#[test]
fn hanging_iptables_delays_neither_health_nor_the_end() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", &format!("\"127.0.0.1:{PORT}\""));
        host.set("nat.backend", "\"iptables\"");
        let (path, hang) = hanging_iptables(&host);
        let agent = host.start_with(|command| {
            command.env("PATH", &path);
        });
        agent.wait_in_force();
        std::fs::write(&hang, "").unwrap();
        for _ in 0..12 {
            assert_eq!(host.http(PORT, "/healthz").unwrap(), (200, "ok\n".into()));
            assert_eq!(host.http(PORT, "/metrics").unwrap().0, 200);
        }
        assert!(agent.status().is_some());
        let (status, took) = agent.stop();
        assert!(status.success());
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    });
}
