//! Commands beside the agent: `flush`, `kick`, `reconcile`.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

/// Long enough for a pass, a repair and the end of a burst, several times over.
const A_WHILE: Duration = Duration::from_millis(700);

/// Events of all kinds, each of which is followed by a look otherwise.
fn stir(host: &Host) {
    host.ns.ip_batch(
        "route add 192.0.2.0/24 via 10.0.1.1 dev eth0\n\
         route del 192.0.2.0/24 via 10.0.1.1 dev eth0\n\
         addr add 10.0.1.77/24 dev eth0\n\
         addr del 10.0.1.77/24 dev eth0\n\
         route add 3.5.0.0/19 via 10.0.1.1 dev eth0 table 1083\n\
         route del 3.5.0.0/19 via 10.0.1.1 dev eth0 table 1083\n\
         rule add pref 30050 lookup main\n\
         rule del pref 30050 lookup main\n",
    );
    host.ns
        .nft("table inet theirs { }\ndelete table inet theirs");
}

#[track_caller]
fn flush(host: &Host) {
    let flushed = host.run(&["flush", "-o", "json"]).ok().json();
    assert_eq!(flushed["agent"], "paused", "{flushed:#}");
    assert_eq!(flushed["outcome"], "changed", "{flushed:#}");
    assert!(host.has_nothing());
}

/// After a flush nothing of ours comes back, whatever happens, until the next start or kick.
#[test]
fn flush_pauses_until_a_kick_or_a_restart() {
    isolated(|| {
        let host = Host::new();
        let before = host.ns.snapshot();
        let agent = host.in_force();
        flush(&host);
        before.assert_same(&host.ns.snapshot());
        let status = agent.status().unwrap();
        assert_eq!(status["state"], "paused", "{status:#}");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.starts_with("paused by flush, pid "), "{reason}");
        let asked = host.mirror.requests().len();
        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        stir(&host);
        std::thread::sleep(A_WHILE);
        host.ns.flap("eth0");
        host.ns.ip_batch(
            "addr replace 2600:1f18:1000:1::11/64 dev eth0 nodad\n\
             route replace default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n\
             route replace default via fe80::1 dev eth0 proto ra metric 512\n",
        );
        // Two refreshes and more.
        std::thread::sleep(3 * A_WHILE);
        assert!(host.has_nothing());
        let later = agent.status().unwrap();
        assert_eq!(later["state"], "paused", "{later:#}");
        assert_eq!(passes(&later), passes(&status), "no pass in a pause");
        let more = host.mirror.requests().len() - asked;
        assert!(
            more <= 1,
            "{more} fetches in a pause; one may have been under way"
        );
        // Twice is once.
        let again = host.run(&["flush", "-o", "json"]).ok().json();
        assert_eq!(again["agent"], "paused");

        host.run(&["kick"]).ok();
        let status = agent.wait_for("in force, on the new document", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == TOKEN + 1
        });
        assert_eq!(status["drift"]["conflicts"], Value::Array(Vec::new()));
        assert!(host.has(&[FIRST, &[NEW]].concat()));

        flush(&host);
        let (ended, _took) = agent.stop();
        assert!(ended.success());
        assert!(host.has_nothing());
        let agent = host.start();
        agent.wait_in_force();
        assert!(host.has(&[FIRST, &[NEW]].concat()));
    });
}

#[test]
fn kick_waits_for_the_pass() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        host.ns.ip("route del 3.5.0.0/19 table 1083");
        let kicked = host.run(&["kick", "--wait", "-o", "json"]).ok().json();
        let outcome = kicked["outcome"].as_str().unwrap();
        assert!(["in_sync", "changed"].contains(&outcome), "{kicked:#}");
        assert!(host.has(FIRST), "the pass has ended: {kicked:#}");
        drop(agent);
    });
}

/// The agent tells the settings in force, and is found even if no line of the file can be read.
#[test]
fn commands_that_show_or_ask_work_with_a_broken_config() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let config = host.config();
        let sound = std::fs::read_to_string(&config).unwrap();
        let first = FIRST[0].split('/').next().unwrap();
        // Not `host.run`, which writes a sound file first.
        let run = |words: &[&str]| {
            let words = [words, &["-c", &config]].concat();
            host.ns.exec_command(&mut trailblazer_command(&words)).ok()
        };
        let commands = [
            &["status"][..],
            &["history"],
            &["kick"],
            &["kick", "--wait"],
            &["explain", first],
            &["explain", "203.0.113.80"],
        ];
        for broken in [
            format!("{sound}\n[egress\n").into_bytes(),
            format!("{sound}\nrolle = 1\n").into_bytes(),
            sound.replace("gateways", "gatewys").into_bytes(),
            sound.replace("role = ", "role = router # ").into_bytes(),
            b"{{{{\n".to_vec(),
            b"\xff\xfe\n".to_vec(),
        ] {
            std::fs::write(&config, &broken).unwrap();
            let broken = String::from_utf8_lossy(&broken).into_owned();
            for words in commands {
                let shown = run(words);
                let continues = "the config that the running agent keeps in force: the state dir";
                assert!(shown.stderr.contains(continues), "{broken}\n{shown}");
                assert!(shown.stderr.contains(&config), "{broken}\n{shown}");
            }
            for (address, path) in [(first, "bypass"), ("203.0.113.80", "egress")] {
                let explained = run(&["explain", address, "-o", "json"]).json();
                assert_eq!(explained["expected"]["path"], path, "{broken}");
                let notes = explained["notes"].to_string();
                assert!(notes.contains(&config), "{broken}\n{notes}");
            }
        }
        // Without the agent the readable part counts, and the answer says so.
        drop(agent);
        std::fs::write(&config, format!("{sound}\n[egress\n")).unwrap();
        for words in [&["explain", first][..], &["history"]] {
            let shown = run(words);
            let continues = "the readable part of the file: the state dir";
            assert!(shown.stderr.contains(continues), "{shown}");
        }
        let explained = run(&["explain", first, "-o", "json"]).json();
        let summary = explained["summary"].as_str().unwrap();
        assert!(summary.starts_with("By the readable part"), "{summary}");
    });
}

/// A kick does not wait for a fetch that began before the pause.
#[test]
fn pause_discards_the_fetch_in_flight() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.timeout", "\"60s\"");
        let agent = host.in_force();
        host.hang_a_fetch();
        flush(&host);
        host.mirror.set_mode(MirrorMode::Well);
        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        host.run(&["kick"]).ok();
        agent.wait_for("the new document", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == TOKEN + 1
        });
        assert!(host.has(&[FIRST, &[NEW]].concat()));
    });
}

/// A kick is a pass and a fetch, now.
#[test]
fn kick_fetches_at_once() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.refresh", "\"1h\"");
        let agent = host.in_force();
        host.publish(TOKEN + 1, &[FIRST, &[NEW]].concat());
        let asked = host.run(&["kick", "-o", "json"]).ok().json();
        assert_eq!(asked["outcome"], "asked");
        let status = agent.wait_for("the new document", |status| {
            status["document"]["sync_token"] == TOKEN + 1
        });
        assert!(host.has(&[FIRST, &[NEW]].concat()));
        let causes = status["passes"].as_array().unwrap().iter();
        let causes: Vec<&str> = causes.map(|pass| pass["cause"].as_str().unwrap()).collect();
        assert_eq!(causes, ["document", "kick", "document", "start"]);
    });
}

/// `reconcile` beside an agent: `reconcile` brings documents, and the agent repairs the state that
/// `reconcile` put in force. Neither reports the other's changes as foreign.
#[test]
fn reconcile_and_agent_share_a_host() {
    isolated(|| {
        let mut host = Host::new();
        host.set("guard.max_loss", "\"100%\"");
        host.set("guard.hold_down", "\"0s\"");
        let agent = host.in_force();
        let foreign = host.ns.foreign_snapshot();
        let more = [FIRST, &[NEW]].concat();
        let mut token = TOKEN;
        for round in 0..12 {
            token += 1;
            let wanted: &[&str] = if round % 2 == 0 { &more } else { FIRST };
            host.publish(token, wanted);
            if round % 3 == 0 {
                host.ns.ip(&format!("route del {BIG} table 1083"));
            }
            let report = host.reconcile(&[]);
            assert_eq!(report["sync_token"], token, "{report:#}");
            // The agent may have been faster.
            let outcome = report["outcome"].as_str().unwrap();
            assert!(["changed", "in_sync"].contains(&outcome), "{report:#}");
            eventually("the kernel has it", || host.has(wanted));
        }
        let status = agent.wait_for("the last document", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == token
        });
        assert_eq!(
            status["drift"]["conflicts"],
            Value::Array(Vec::new()),
            "{status:#}"
        );
        assert_eq!(status["faults"]["ours"], 0, "{status:#}");
        assert_eq!(status["faults"]["others"], 0, "{status:#}");
        let report = host.reconcile(&[]);
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
        let log = agent.log();
        assert!(!log.contains("conflict") && !log.contains("ERROR"), "{log}");
        foreign.assert_same(&host.ns.foreign_snapshot());
        let history = host.run(&["history", "-o", "json"]).ok().json();
        assert_eq!(history["damaged"], Value::Array(Vec::new()));
    });
}

/// A flush works in whatever state the agent is at the time.
#[test]
fn flush_wins_at_any_moment() {
    isolated(|| {
        let mut host = Host::new();
        host.set("guard.max_loss", "\"100%\"");
        host.set("guard.hold_down", "\"0s\"");
        let more = [FIRST, &[NEW]].concat();
        let agent = host.in_force();
        for round in 0..12 {
            let wanted: &[&str] = if round % 2 == 0 { &more } else { FIRST };
            host.publish(TOKEN + 1 + round, wanted);
            host.run(&["kick"]).ok();
            // Each prefix twice in all: a third time would engage the limiter of repairs.
            let gone = FIRST[round as usize % FIRST.len()];
            let family = if round % 2 == 0 { "-4" } else { "-6" };
            let priority = 30010 + 10 * (round / 2 % 3);
            host.ns.ip(&format!("route del {gone} table 1083"));
            host.ns.ip(&format!("{family} rule del pref {priority}"));
            std::thread::sleep(Duration::from_millis(2 * round));
            // The flush may find more or fewer objects than are in force.
            host.run(&["flush"]).ok();
            assert!(host.has_nothing(), "round {round}");
            std::thread::sleep(Duration::from_millis(150));
            assert!(host.has_nothing(), "round {round}, a while later");
            host.run(&["kick"]).ok();
            agent.wait_for("in force", |status| status["state"] == "in_force");
        }
        let status = agent.status().unwrap();
        assert_eq!(status["faults"]["ours"], 0, "{status:#}\n{}", agent.log());
        assert_eq!(status["faults"]["others"], 0, "{status:#}");
        // Objects that a flush removes (some 20 a round) must not count as drift. An object that
        // disappears during a pass counts twice if both the watcher and the pass restore it.
        let mended = status["drift"]["mended"].as_object().unwrap().values();
        let mended: u64 = mended.filter_map(Value::as_u64).sum();
        assert!(mended <= 48, "{status:#}\n{}", agent.log());
    });
}

/// A pass that waited for the lock during a flush restores nothing afterwards.
#[test]
fn pass_behind_a_flush_restores_nothing() {
    isolated(|| {
        let mut host = Host::new();
        host.set("kernel.protect_table", "false");
        let agent = host.in_force();
        for round in 0..8 {
            let lock = std::fs::File::open(host.state_dir().join("lock")).unwrap();
            lock.lock().unwrap();
            host.ns.nft("delete table inet trailblazer");
            host.run(&["kick"]).ok();
            let words = ["flush", "-c", &host.config()];
            let mut command = trailblazer_command(&words);
            let mut flush = host.ns.spawn(command.stdout(Stdio::null()));
            agent.wait_for("paused", |status| status["state"] == "paused");
            // Both processes try the lock every 20 ms, so either may be the first.
            drop(lock);
            assert!(flush.wait().unwrap().success());
            assert!(host.has_nothing(), "round {round}");
            std::thread::sleep(Duration::from_millis(150));
            assert!(host.has_nothing(), "round {round}, a while later");
            host.run(&["kick"]).ok();
            agent.wait_for("in force", |status| status["state"] == "in_force");
        }
    });
}

/// `reconcile --accept` releases a held document, and the running agent follows.
#[test]
fn agent_adopts_a_document_accepted_by_reconcile() {
    isolated(|| {
        let mut host = Host::new();
        host.set("guard.hold_down", "\"0s\"");
        let agent = host.in_force();
        host.publish(TOKEN + 1, &without(FIRST, &[BIG]));
        agent.wait_for("held", |status| !status["hold"].is_null());
        let report = host.reconcile(&["--accept", &(TOKEN + 1).to_string()]);
        assert_eq!(report["outcome"], "changed", "{report:#}");
        let status = agent.wait_for("no hold any more", |status| {
            status["hold"].is_null() && status["document"]["sync_token"] == TOKEN + 1
        });
        assert_eq!(status["drift"]["conflicts"], Value::Array(Vec::new()));
        eventually("without it", || host.has(&without(FIRST, &[BIG])));
    });
}

/// The state directory is emptied under a running agent: the state in force stays, and the agent
/// writes the files again.
#[test]
fn cleared_state_dir_changes_nothing_and_is_refilled() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let kernel = host.ns.snapshot();
        let cleared = |mode: MirrorMode| {
            host.mirror.set_mode(mode);
            let before = agent.status().unwrap();
            std::fs::remove_dir_all(host.state_dir()).unwrap();
            host.run(&["kick"]).ok();
            agent.wait_for("two more passes", |status| {
                passes(status) >= passes(&before) + 2
            });
            kernel.assert_same(&host.ns.snapshot());
        };
        cleared(MirrorMode::Circle);
        cleared(MirrorMode::Well);
        let last_known_good = host.state_dir().join("last-known-good");
        eventually("the document is kept again", || last_known_good.exists());
        agent.wait_for("in force", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == TOKEN
        });
        host.ns.ip(&format!("route del {BIG} table 1083"));
        eventually("mended", || host.has(FIRST));
    });
}

/// The CPU time of a process, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let mut fields = fields
        .split(' ')
        .skip(11)
        .map(|field| field.parse::<u64>().unwrap());
    fields.next().unwrap() + fields.next().unwrap()
}

#[test]
fn agent_waits_for_the_lock_without_a_busy_loop() {
    isolated(|| {
        let mut host = Host::new();
        host.set("source.refresh", "\"1s\"");
        let agent = host.in_force();
        let lock = std::fs::File::open(host.state_dir().join("lock")).unwrap();
        lock.lock().unwrap();
        // The fetch after the next one is due while an answer waits for its pass.
        let asked = host.mirror.requests().len();
        eventually("two fetches", || host.mirror.requests().len() >= asked + 2);
        let before = cpu_ticks(agent.pid());
        std::thread::sleep(4 * A_WHILE);
        let used = cpu_ticks(agent.pid()) - before;
        // 2.8 s are 280 ticks of a busy core; a waiting agent uses about 20 in a debug build. On a
        // busy machine a busy loop may stay unnoticed, but a waiting agent never fails.
        assert!(used < 100, "{used} ticks");
        lock.unlock().unwrap();
        agent.wait_in_force();
    });
}
