//! The first moments: the last known good from the state directory is in force before any source
//! answers.

use std::time::{Duration, Instant};

use crate::host::*;
use crate::packets::FIRST;
use crate::systemd::Systemd;
use lab::*;
use rustix::process::Signal;

/// The kernel at the moment in which READY=1 came.
#[track_caller]
fn ready_and_in_force(host: &Host, what: &str) -> (Agent, Systemd) {
    let systemd = Systemd::start(host);
    let agent = host.start_with(|command| systemd.notified_by(command));
    systemd.wait_for("READY", 0);
    assert!(
        host.has(FIRST),
        "{what}: ready without {:?}, {:?}, {:?}\n{}",
        host.bypass(),
        host.egress(),
        host.rules(),
        agent.log()
    );
    (agent, systemd)
}

/// The kernel is ready although no fetch has ended, well or not.
#[track_caller]
fn nobody_has_answered(agent: &Agent) {
    let status = agent.status().unwrap();
    assert_eq!(fetches(&status, &["changed", "unchanged"]), 0, "{status:#}");
    assert_eq!(status["state"], "in_force", "{status:#}");
    assert_eq!(status["document"]["sync_token"], TOKEN, "{status:#}");
}

#[test]
fn last_known_good_is_in_force_before_any_answer() {
    isolated(|| {
        for (what, verdict) in [("hangs", "drop"), ("is down", "reject with tcp reset")] {
            let mut host = Host::new();
            // The first fetch outlasts this test, so the state in force is the cached one.
            host.set("source.timeout", "\"60s\"");
            host.reconcile(&["--cache-only"]);
            assert!(host.has_nothing());
            host.cut_off(Some(verdict));
            let (agent, _systemd) = ready_and_in_force(&host, what);
            nobody_has_answered(&agent);
        }
    });
}

/// `regions = ["auto"]` with a cached answer of this machine's metadata service.
#[test]
fn cached_facts_replace_a_silent_metadata_service() {
    isolated(|| {
        let mut host = Host::new();
        host.set("select.regions", "[\"auto\"]");
        host.reconcile(&[]);
        host.run(&["flush"]).ok();
        host.imds.set_mode(ImdsMode::Silent);
        host.cut_off(Some("ip daddr 18.165.83.10 drop"));
        let (agent, _systemd) = ready_and_in_force(&host, "cached facts");
        nobody_has_answered(&agent);
        let log = agent.log();
        assert!(!log.contains("ERROR"), "{log}");
    });
}

/// Nothing is known and nobody answers: partners are safe behind the NAT all the same, and so is
/// S3 until a document says otherwise.
#[test]
fn first_boot_without_a_source_installs_the_egress_path() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", "\"127.0.0.1:9683\"");
        host.cut_off(Some("drop"));
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        eventually("the egress path is closed", || host.egress_is_in_force());
        systemd.wait_for("READY", 0);
        let status = agent.status().unwrap();
        assert_eq!(fetches(&status, &["failed"]), 1, "ready after one attempt");
        assert_eq!(status["state"], "starting", "{status:#}");
        assert_eq!(status["document"], serde_json::Value::Null);
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("no document"), "{reason}");
        assert_eq!(host.bypass(), set(&[]));
        assert!(
            host.table(1084).contains("10.0.0.0/8"),
            "private networks stay reachable"
        );
        assert_eq!(host.http(9683, "/healthz"), Some((200, "ok\n".to_owned())));
        let (code, why) = host.http(9683, "/readyz").unwrap();
        assert_eq!(code, 503);
        assert!(why.starts_with("starting: no document"), "{why}");
        systemd.wait_for_status("starting: no document", 0);

        host.cut_off(None);
        agent.wait_in_force();
        assert!(host.has(FIRST));
        assert_eq!(host.http(9683, "/readyz").unwrap().0, 200);
        systemd.wait_for_status("in force: 6 prefixes", 0);
        assert_eq!(systemd.with("READY", 0).len(), 1, "ready once");
    });
}

/// Without a cache and with a silent source, READY comes before the unit's `TimeoutStartSec` would
/// cause a restart loop. Three seconds stand for the agent's minute here.
#[test]
fn first_boot_is_ready_despite_a_hanging_source() {
    const FASTER: u32 = 20;
    isolated(|| {
        let mut host = Host::new();
        host.set("source.timeout", "\"10m\"");
        host.mirror.set_mode(MirrorMode::Silent);
        let systemd = Systemd::start(&host);
        let started = Instant::now();
        let agent = host.start_with(|command| {
            systemd.notified_by(command);
            command
                .env("LD_PRELOAD", faketime("libfaketimeMT.so.1"))
                .env("FAKETIME", format!("+0 x{FASTER}"))
                .env("NO_FAKE_STAT", "1");
        });
        eventually("the egress path is closed", || host.egress_is_in_force());
        systemd.wait_for("READY", 0);
        let minute = Duration::from_secs(60) / FASTER;
        assert!(started.elapsed() >= minute, "{:?}", started.elapsed());
        let status = agent.status().unwrap();
        assert_eq!(status["state"], "starting", "{status:#}");
        assert_eq!(host.mirror.requests().len(), 1, "it still waits for it");
        assert_eq!(fetches(&status, &["failed"]), 0, "{status:#}");
        assert_eq!(host.bypass(), set(&[]));
    });
}

/// Not even a link: the agent says so, is there, and does the rest when the link comes.
#[test]
fn first_boot_without_a_link_completes_with_the_link() {
    isolated(|| {
        let host = Host::new();
        host.ns
            .ip_batch("link set eth0 down\naddr flush dev eth0\n");
        let systemd = Systemd::start(&host);
        let agent = host.start_with(|command| systemd.notified_by(command));
        systemd.wait_for("READY", 0);
        let status = agent.status().unwrap();
        assert_eq!(status["state"], "starting", "{status:#}");
        host.ns.ip_batch(
            "link set eth0 up\n\
             addr add 10.0.1.11/24 dev eth0\n\
             addr add 2600:1f18:1000:1::11/64 dev eth0 nodad\n\
             route add default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n\
             route add default via fe80::1 dev eth0 proto ra metric 512\n",
        );
        agent.wait_in_force();
        eventually("both families", || host.has(FIRST));
    });
}

/// `reconcile --cache-only` runs on the machine where the image is built; the image boots first on
/// another machine, without any source in reach.
#[test]
fn image_boots_from_its_baked_document() {
    isolated(|| {
        let builder = Host::new();
        builder.reconcile(&["--cache-only"]);
        assert!(
            builder.has_nothing(),
            "the builder's own routes stay as they are"
        );
        let host = Host::new();
        host.cut_off(Some("drop"));
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([builder.state_dir(), host.state_dir()])
            .status()
            .unwrap();
        assert!(copied.success());
        let (agent, _systemd) = ready_and_in_force(&host, "baked");
        let log = agent.log();
        assert!(!log.contains("ERROR"), "{log}");
    });
}

/// A NAT instance's image is built on a machine with other addresses and without a metadata
/// service.
#[test]
fn nat_image_is_baked_without_metadata() {
    isolated(|| {
        let mut builder = Host::new();
        builder.imds.set_mode(ImdsMode::Status(403));
        builder.set("role", "\"nat\"");
        builder.set("egress.gateways", "[]");
        builder.set("nat.egress_addresses", "[\"198.51.100.5\"]");
        // A real pass closes the guard: nothing leaves with a private source.
        let pass = builder.run(&["reconcile"]).expect_code(1);
        assert!(pass.stdout.contains("Degraded: ipv4 translation"), "{pass}");
        builder.run(&["flush"]).ok();
        builder.reconcile(&["--cache-only"]);
        assert!(builder.has_nothing());
        assert!(builder.state_dir().join("last-known-good").exists());
        assert!(!builder.state_dir().join("facts.json").exists());
    });
}

#[test]
fn agent_starts_without_a_notify_socket() {
    isolated(|| {
        let host = Host::new();
        let systemd = Systemd::start(&host);
        let agent = host.in_force();
        let (status, _took) = agent.stop();
        assert!(status.success());
        assert_eq!(systemd.mark(), 0, "{:#?}", systemd.came());
    });
}

#[test]
fn second_agent_refuses_to_start() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let before = host.ns.snapshot();
        let second = host.run(&["agent"]).expect_code(1);
        let pid = format!("another agent (pid {}) is running", agent.pid());
        assert!(second.stderr.contains(&pid), "{second}");
        before.assert_same(&host.ns.snapshot());
        let status = agent.status().expect("the first is still there");
        assert_eq!(status["pid"], agent.pid());
    });
}

#[test]
fn second_agent_on_the_same_state_dir_refuses_to_start() {
    isolated(|| {
        let mut host = Host::new();
        let agent = host.in_force();
        let before = host.ns.snapshot();
        let other = format!("{:?}", host.path("other.sock"));
        host.set("agent.socket", &other);
        let second = host.run(&["agent"]).expect_code(1);
        let pid = format!("another agent (pid {}) uses the state dir", agent.pid());
        assert!(second.stderr.contains(&pid), "{second}");
        before.assert_same(&host.ns.snapshot());
        // The kernel releases the lock of a killed agent.
        agent.kill();
        let next = host.start();
        next.wait_in_force();
    });
}

/// A metrics address or control socket that cannot be bound does not prevent routing.
#[test]
fn busy_metrics_address_or_unusable_control_socket_costs_only_itself() {
    isolated(|| {
        let mut host = Host::new();
        host.set("agent.metrics", "\"127.0.0.1:9683\"");
        host.set("agent.socket", "\"/proc/trailblazer/control.sock\"");
        let _taken = host
            .ns
            .in_thread(|| std::net::TcpListener::bind("127.0.0.1:9683").unwrap());
        let agent = host.start();
        eventually("in force", || host.has(FIRST));
        let log = agent.log();
        assert_eq!(log.matches("WARN").count(), 2, "{log}");
        assert!(
            log.contains("cannot listen for metrics at 127.0.0.1:9683"),
            "{log}"
        );
        assert!(log.contains("/proc/trailblazer"), "{log}");
        let (status, _took) = agent.stop();
        assert!(status.success());
    });
}

#[test]
fn agent_without_privileges_names_the_capability() {
    isolated(|| {
        let host = Host::new();
        let config = host.config();
        let binary = binary();
        let words = [binary.to_str().unwrap(), "agent", "-c", &config];
        let output = host.ns.exec_unprivileged(&words).expect_code(1);
        assert!(output.stderr.contains("CAP_NET_ADMIN"), "{output}");
        assert!(host.has_nothing());
    });
}

/// The time in force goes on over a restart that finds everything in sync, and only then.
#[test]
fn time_in_force_survives_a_restart_in_sync() {
    isolated(|| {
        let host = Host::new();
        let since = |agent: &Agent| agent.status().unwrap()["in_force_since"].as_i64();
        let agent = host.in_force();
        let first = since(&agent).unwrap();
        let later = || {
            eventually("the next second", || {
                jiff::Timestamp::now().as_second() > first + 1
            });
        };
        eventually("the start is stored", || {
            let stored = std::fs::read_to_string(host.state_dir().join("in_force.json"));
            stored.is_ok_and(|text| text.contains(&first.to_string()))
        });
        agent.stop();
        later();
        let agent = host.in_force();
        assert_eq!(since(&agent), Some(first));
        // Also after a crash.
        agent.signal(Signal::KILL);
        drop(agent);
        let agent = host.in_force();
        assert_eq!(since(&agent), Some(first));
        agent.stop();
        host.ns.ip("route del 3.5.0.0/19 table 1083");
        let agent = host.in_force();
        assert!(since(&agent) > Some(first), "a route was missing");

        let history = host.run(&["history", "--all", "-o", "json"]).ok().json();
        let passes = history["passes"].as_array().unwrap();
        let failed = passes.iter().find(|pass| pass["outcome"] == "failed");
        assert_eq!(failed, None, "a first start is no failure");
        let text = host.run(&["history", "--all"]).ok().stdout;
        assert!(text.contains("added route: "), "{text}");
    });
}
