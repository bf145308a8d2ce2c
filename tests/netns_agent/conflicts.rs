//! Fights: other programs delete or replace an object of ours after every repair.

use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::packets::*;
use crate::scene::*;
use lab::*;

/// A prefix without traffic in the scene.
const FOUGHT: &str = "3.5.0.0/19";

/// A process that repeats the same `ip` commands every few milliseconds until dropped.
struct Neighbour {
    child: Child,
    stopping: Arc<AtomicBool>,
    feeding: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn repeating(ns: &Ns, lines: String) -> Neighbour {
        Neighbour::running(ns, Command::new("ip"), lines)
    }

    /// Runs `ip` under another file name, which becomes the name of the process.
    fn named(ns: &Ns, name: &str, lines: String) -> Neighbour {
        let program = scratch().join(name);
        let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];
        let ip = ip.iter().find(|path| Path::new(path).exists()).unwrap();
        std::os::unix::fs::symlink(ip, &program).unwrap();
        let mut command = Command::new(program);
        command.arg0("ip");
        Neighbour::running(ns, command, lines)
    }

    fn running(ns: &Ns, mut command: Command, lines: String) -> Neighbour {
        // `-force` continues after failures, such as a deletion of a missing object.
        command.args(["-force", "-batch", "-"]);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = ns.spawn(&mut command);
        let mut stdin = child.stdin.take().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let feeding = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) && stdin.write_all(lines.as_bytes()).is_ok() {
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Neighbour {
            child,
            stopping,
            feeding: Some(feeding),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(feeding) = self.feeding.take() {
            feeding.join().unwrap();
        }
        // The process ends with its input.
        self.child.wait().unwrap();
    }
}

/// Processor time of a process so far, all threads (proc_pid_stat(5): utime and stime, in ticks of
/// a hundredth of a second on every Linux concerned).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn passes(status: &Value) -> u64 {
    status["pass_totals"]["duration"]["count"].as_u64().unwrap()
}

/// How often the log tells of a fight over an object.
fn told(scene: &Scene, object: &str) -> usize {
    let log = scene.agent.log();
    log.matches(&format!("conflict: {object} was restored"))
        .count()
}

#[test]
fn name_of_a_program_is_one_escaped_word_in_status_and_log() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let ns = scene.machine.ns();
            let name = "\u{1b}[31mX\nFORGED";
            let fight = Neighbour::named(ns, name, format!("route del {FOUGHT} table 1083\n"));
            let status = scene.agent.wait_for("a conflict", |status| {
                !conflicts(status).is_empty() && status["state"] == "degraded"
            });
            let culprit = format!(r"program \u{{1b}}[31mX\nFORGED (pid {}", fight.child.id());
            let by = conflicts(&status)[0]["by"].as_str().unwrap();
            assert!(by.starts_with(&culprit), "{status:#}");
            let shown = scene.machine.run(&["status"]);
            for text in [&shown.stdout, &shown.stderr, &scene.agent.log()] {
                assert!(!text.contains('\u{1b}'), "{text:?}");
                assert!(
                    !text.lines().any(|line| line.starts_with("FORGED")),
                    "{text}"
                );
            }
            assert!(shown.stdout.contains(&culprit), "{}", shown.stdout);
            assert!(
                scene.agent.log().contains(&culprit),
                "{}",
                scene.agent.log()
            );
        });
    });
}

#[test]
fn repeatedly_deleted_route_becomes_a_conflict() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let pid = scene.agent.pid();
            let before = scene.agent.status().unwrap();
            let (started, spent) = (Instant::now(), processor_time(pid));
            let ns = scene.machine.ns();
            let fight = Neighbour::repeating(ns, format!("route del {FOUGHT} table 1083\n"));
            let object = format!("route {FOUGHT} in table 1083");
            // The state follows at the end of a pass.
            let status = scene.agent.wait_for("a conflict", |status| {
                !conflicts(status).is_empty() && status["state"] == "degraded"
            });
            let conflict = conflicts(&status)[0];
            assert_eq!(conflict["object"], object.as_str(), "{conflict:#}");
            let culprit = format!("program ip (pid {}, ", fight.child.id());
            let by = conflict["by"].as_str().unwrap();
            assert!(by.starts_with(&culprit), "{conflict:#}");
            // The parent is this test, unless a service of the machine runs the test.
            let origin = [", unit ", ", started by netns_agent"];
            assert!(origin.iter().any(|word| by.contains(word)), "{by}");
            assert!(conflict["repairs"].as_u64() >= Some(5), "{conflict:#}");
            let reason = status["reason"].as_str().unwrap();
            assert!(reason.contains(&object), "{reason}");

            // Objects without a fight are repaired at once during several rounds of the fight.
            let rest = || {
                let mut ours = scene.ours();
                ours.retain(|line| !line.contains(FOUGHT));
                ours
            };
            let ours = rest();
            for _ in 0..4 {
                scene.shell("ip route del 54.231.0.0/16 table 1083; ip -6 rule del pref 30010");
                eventually("what isn't fought over is back", || rest() == ours);
                std::thread::sleep(Duration::from_secs(2));
            }

            // A fight costs nearly nothing: five repairs, then one after each growing pause. Without
            // a limit, the object would be repaired hundreds of times. The two other objects were
            // deleted four times each.
            let status = scene.agent.status().unwrap();
            let (took, spent) = (started.elapsed(), processor_time(pid) - spent);
            let passes = passes(&status) - passes(&before);
            let seconds = took.as_secs() + 1;
            println!(
                "{spent:?} of {took:?}, {passes} passes: {:#}",
                status["drift"]
            );
            assert!(spent < took / 4, "{spent:?} of {took:?}");
            assert!(passes <= 4 * seconds, "{passes} in {took:?}");
            let repairs = mended(&status, "route") + mended(&status, "rule");
            assert!((8..100).contains(&repairs), "{status:#}");
            assert_eq!(told(scene, &object), 1, "{}", scene.agent.log());
            assert_eq!(status["faults"]["ours"], 0, "{status:#}");
            assert_eq!(
                status["pass_totals"]["outcomes"]["rolled_back"],
                Value::Null
            );
        });
    });
}

/// A fight over every route of the table.
#[test]
fn repeatedly_flushed_table_becomes_a_conflict() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let ns = scene.machine.ns();
            let story = scene.story();
            scene.gap(|| {
                let fight = Neighbour::repeating(ns, "route flush table 1083\n".to_owned());
                scene.agent.wait_for("conflicts", |status| {
                    status["drift"]["conflicts_total"].as_u64() >= Some(4)
                });
                // The egress path is nobody's quarrel.
                scene.ip("rule del pref 30030");
                eventually("the egress rule is back", || {
                    let ours = scene.ours();
                    ours.iter().any(|line| line.starts_with("-4 30030"))
                });
                drop(fight);
            });
            scene.told(&story, &["add rule ipv4 30030".to_owned()]);
        });
    });
}

/// A foreign object in the place of one of ours stays untouched until removed by its owner.
fn replaced(family: &str, route: &str, foreign: &str) {
    in_force(Setting::default(), |scene| {
        let ours = scene.ours();
        let prefix = route.split(' ').next().unwrap();
        scene.ip(&format!(
            "{family} route replace {route} {foreign} proto 186"
        ));
        let status = scene.agent.wait_for("a conflict", |status| {
            let reason = status["reason"].as_str().unwrap_or_default();
            reason.contains(&format!("conflict: foreign route {prefix}"))
        });
        assert_eq!(status["state"], "degraded");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("protocol 186"), "{reason}");

        // Everything else works: objects with notifications, and objects that only a pass repairs.
        let rest = || {
            let mut ours = scene.ours();
            ours.retain(|line| !line.contains(prefix));
            ours
        };
        let mended = rest();
        scene.gap_in(rest, || {
            scene.shell("ip rule del pref 30010; nft delete table inet trailblazer");
        });
        scene.lab.flap_host("host1");
        let foreign_again = format!("{family} route replace {route} {foreign} proto 186");
        scene.ip(&foreign_again);
        eventually("what the link took is back", || rest() == mended);
        scene.forgive_storage_by_egress();
        scene.machine.run(&["kick"]).ok();
        scene.agent.wait_for("another look", |status| {
            status["passes"][0]["cause"] == "kick" || status["passes"][1]["cause"] == "kick"
        });
        let there = scene.ip(&format!("{family} -N route show {route}"));
        assert!(there.contains("proto 186"), "never overwritten: {there}");
        let status = scene.agent.status().unwrap();
        assert_eq!(status["faults"]["ours"], 0, "{status:#}");
        let log = scene.agent.log();
        assert_eq!(log.matches("conflict: foreign route").count(), 1, "{log}");

        scene.ip(&format!("{family} route del {route} proto 186"));
        eventually("ours is back as it was", || scene.ours() == ours);
    });
}

#[test]
fn foreign_route_in_our_place_is_a_conflict() {
    isolated(|| replaced("-4", "3.5.0.0/19 table 1083", "via 10.0.1.20"));
}

#[test]
fn foreign_route_in_our_place_is_a_conflict_ipv6() {
    isolated(|| {
        replaced(
            "-6",
            "2600:1ff8:8000::/40 table 1083 metric 1024",
            "via fe80::1 dev priv",
        )
    });
}

/// A second default in the egress table would take the traffic that should meet our default.
#[test]
fn foreign_default_in_the_egress_table_is_a_conflict() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            for (family, router) in [("-4", "10.0.1.1"), ("-6", "fe80::1")] {
                let foreign =
                    format!("default via {router} dev priv table 1084 metric 5000 proto 186");
                scene.ip(&format!("{family} route add {foreign}"));
                let status = scene.agent.wait_for("a conflict", |status| {
                    let reason = status["reason"].as_str().unwrap_or_default();
                    reason.contains("is a default route in Trailblazer's table")
                });
                assert_eq!(status["state"], "degraded");
                scene.gap(|| drop(scene.ip("rule del pref 30020")));
                let there = scene.ip(&format!("{family} -N route show table 1084"));
                assert!(there.contains("proto 186"), "left alone: {there}");
                scene.ip(&format!("{family} route del {foreign}"));
                scene
                    .agent
                    .wait_for("in force", |status| status["state"] == "in_force");
            }
        });
    });
}

/// Another program deletes an object of the egress path every 1.5 s: each time the object is back
/// within milliseconds, and the conflict is reported.
fn deleted_every_1500_ms(delete: &str, object: &str) {
    in_force(Setting::default(), |scene| {
        let probes = [PARTNER, PARTNER6];
        let (status, report) = scene.delete_every_1500_ms(delete, &probes, 200);
        for probe in probes {
            let counts = report.of(probe);
            println!("{probe}: {counts:?}");
            let right = (egress_of_nat1(scene.lab, probe)).to_string();
            let count = |seen: &str| counts.get(seen).copied().unwrap_or_default();
            // The partner refuses other addresses. A withheld repair lets more than a half of the
            // connections pass; on a busy machine others time out.
            let (right, wrong) = (count(&right), count("ConnectionReset"));
            assert!(right > 100 && wrong * 2 <= right, "{probe}: {counts:?}");
        }
        assert_eq!(status["state"], "degraded", "{status:#}");
        let listed = conflicts(&status);
        let listed = listed.iter().find(|conflict| conflict["object"] == object);
        assert_eq!(listed.unwrap()["paused_for_s"], 0, "{status:#}");
        // Several conflicts begin together: the log names some of them, each once.
        let log = scene.agent.log();
        assert!(log.contains("each change is repaired at once"), "{log}");
        assert!(told(scene, object) <= 1, "{log}");
        count_from_now(scene.lab);
    });
}

#[test]
fn egress_rule_deleted_again_and_again_is_restored_at_once() {
    isolated(|| {
        deleted_every_1500_ms(
            "ip rule del pref 30030; ip -6 rule del pref 30030",
            "ipv4 rule 30030",
        )
    });
}

#[test]
fn egress_default_deleted_again_and_again_is_restored_at_once() {
    isolated(|| {
        deleted_every_1500_ms(
            "ip route flush table 1084; ip -6 route flush table 1084",
            "route 0.0.0.0/0 in table 1084",
        )
    });
}
