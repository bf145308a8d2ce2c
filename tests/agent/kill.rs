//! `kill -9` at any moment: the next start is in force again, and nothing else has changed.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::host::*;
use crate::packets::{FIRST, Firewall, Machine, PACE, count_from_now};
use crate::systemd::Systemd;
use lab::*;

/// Random numbers (SplitMix64), reproducible by the seed.
struct Chance(u64);

impl Chance {
    /// Seeded by the clock, or by the seed that a failed run printed.
    fn new() -> Chance {
        let seed = std::env::var("TRAILBLAZER_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            since.as_nanos() as u64
        });
        println!("TRAILBLAZER_SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn milliseconds(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(1000 * bound))
    }
}

/// Kills the agent, which must still be running.
#[track_caller]
fn kill(mut agent: Agent, when: &str) {
    agent.signal(Signal::KILL);
    let status = agent.wait();
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    assert!(killed, "{when}: {status}\n{}", agent.log());
}

/// Publishes documents and deletes our objects for a while.
fn load(host: &Host, chance: &mut Chance, token: &mut u64, time: Duration) {
    let more = [FIRST, &[NEW]].concat();
    let began = Instant::now();
    while began.elapsed() < time {
        match chance.below(6) {
            0 | 1 => {
                *token += 1;
                let wanted: &[&str] = if token.is_multiple_of(2) {
                    &more
                } else {
                    FIRST
                };
                host.publish(*token, wanted);
            }
            2 => drop(
                host.ns
                    .exec(&["nft", "delete", "table", "inet", "trailblazer"]),
            ),
            3 => drop(
                host.ns
                    .exec(&["ip", "rule", "del", "pref", "30020", "proto", "83"]),
            ),
            _ => {
                let prefix = FIRST[chance.below(FIRST.len() as u64) as usize];
                // An object that is already gone is no error.
                drop(
                    host.ns
                        .exec(&["ip", "route", "del", prefix, "table", "1083"]),
                );
            }
        }
    }
}

/// True if exactly one of the two documents is in force completely.
fn is_whole(host: &Host) -> bool {
    let bypass = host.bypass();
    let either = bypass == set(FIRST) || bypass == set(&[FIRST, &[NEW]].concat());
    either && host.egress_is_in_force()
}

/// Every line is readable, except those that a kill has cut short.
#[track_caller]
fn history(host: &Host) -> Value {
    let history = host
        .run(&["history", "-o", "json", "--last", "100000"])
        .ok()
        .json();
    for damage in history["damaged"].as_array().unwrap() {
        let reason = damage["reason"].as_str().unwrap();
        assert!(reason.starts_with("incomplete"), "{damage:#}");
    }
    history
}

#[test]
fn hundred_kills_leave_a_recoverable_state() {
    isolated(|| {
        let mut chance = Chance::new();
        let mut host = Host::new();
        host.set("guard.max_loss", "\"100%\"");
        host.set("guard.hold_down", "\"0s\"");
        host.ns.nft(
            "add table inet theirs
add chain inet theirs empty
",
        );
        host.ns.ip("route add blackhole 10.99.0.0/16 table 1083");
        drop(host.in_force());
        let foreign = host.ns.foreign_snapshot();
        let mut token = TOKEN;
        for round in 0..50 {
            let agent = host.start();
            let time = chance.milliseconds(60);
            load(&host, &mut chance, &mut token, time);
            kill(agent, &format!("round {round}, {time:?} after the start"));

            let systemd = Systemd::start(&host);
            let agent = host.start_with(|command| systemd.notified_by(command));
            wait_until(
                SOON,
                Duration::from_millis(1),
                || systemd.with("READY", 0).pop(),
                || format!("READY in round {round}; the agent: {}", agent.condition()),
            );
            // A fetch that was asked for before the kill may still arrive.
            eventually("in force again", || is_whole(&host));
            let time = chance.milliseconds(30);
            load(&host, &mut chance, &mut token, time);
            kill(agent, &format!("round {round}, in force"));
            std::fs::remove_file(host.path("notify")).unwrap();
            if round % 10 == 9 {
                history(&host);
                // A line cut short, as after a kill in the middle of a write.
                let mut journal = std::fs::OpenOptions::new()
                    .append(true)
                    .open(host.state_dir().join("journal.jsonl"))
                    .unwrap();
                journal
                    .write_all(b"{\"event\":\"begin\",\"at\":\"20")
                    .unwrap();
            }
        }
        token += 1;
        host.publish(token, FIRST);
        let agent = host.start();
        agent.wait_for("in force at last", |status| {
            status["state"] == "in_force" && status["document"]["sync_token"] == token
        });
        assert!(host.has(FIRST));
        let report = host.reconcile(&[]);
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
        foreign.assert_same(&host.ns.foreign_snapshot());
        let history = history(&host);
        let passes = history["passes"].as_array().unwrap();
        let damaged = history["damaged"].as_array().unwrap().len();
        assert!(damaged >= 5, "{damaged} torn lines; 5 were made by hand");
        let outcomes = passes.iter().map(|pass| pass["outcome"].as_str().unwrap());
        let count = |outcome: &str| outcomes.clone().filter(|it| *it == outcome).count();
        println!(
            "{} passes, {} interrupted",
            passes.len(),
            count("interrupted")
        );
        assert!(count("interrupted") > 0, "no kill has hit a pass");
        // The very first pass had no document.
        for pass in &passes[1..] {
            let outcome = pass["outcome"].as_str().unwrap();
            assert!(!["failed", "rolled_back"].contains(&outcome), "{pass:#}");
        }
        let log = agent.log();
        assert!(
            !log.contains("ERROR") && !log.contains("another agent"),
            "{log}"
        );
    });
}

/// The same under constant traffic to partners and S3: whatever is deleted or killed, partners see
/// the egress address or nothing.
#[test]
fn partners_see_the_egress_address_through_kills() {
    isolated(|| {
        let mut chance = Chance::new();
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let settings = format!("[egress]\ngateways = {GATEWAYS:?}\n");
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings);
        machine.administrator();
        machine.agent().wait_in_force();
        let foreign = machine.ns().foreign_snapshot();
        count_from_now(&lab);
        let stream = lab.stream("host1", &[S3, S3_6, PARTNER, PARTNER6], PACE);
        stream.wait_for(4);
        for round in 0..25 {
            let wanted = &FIRST[..FIRST.len() - round % 2];
            machine.publish(wanted);
            let agent = machine.agent();
            let began = Instant::now();
            let time = chance.milliseconds(80);
            while began.elapsed() < time {
                // Without its gateway the egress table closes by the fallback route; without a
                // prefix, S3 traffic takes the NAT. Rules and fallbacks keep packets on our paths,
                // so the load deletes none of them.
                let words = match chance.below(3) {
                    0 => "default via 10.0.1.10 table 1084",
                    1 => "52.216.0.0/15 table 1083",
                    _ => "2600:1fa0:8000::/39 table 1083",
                };
                let words = format!("ip route del {words}");
                let words: Vec<&str> = words.split(' ').collect();
                drop(machine.ns().exec(&words));
            }
            kill(agent, &format!("round {round}, {time:?} after the start"));
        }
        let agent = machine.agent();
        agent.wait_in_force();
        stream.wait_for(4);
        let report = stream.stop();
        let leaks = lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
        assert_eq!(leaks.unmapped, 0, "{leaks:?}");
        assert!(
            lab.partner.refused().is_empty(),
            "{:?}",
            lab.partner.refused()
        );
        for (partner, egress) in [
            (PARTNER, lab.nat1.egress_public),
            (PARTNER6, lab.nat1.egress6),
        ] {
            let seen = report.of(partner);
            assert!(seen[&egress.to_string()] > 0, "{seen:?}");
            assert_eq!(lab.who("host1", partner), Ok(egress));
        }
        assert_eq!(lab.who("host1", S3), Ok(HOST1_PUBLIC));
        assert_eq!(lab.who("host1", S3_6), Ok(HOST1_6));
        machine.in_sync();
        foreign.assert_same(&machine.ns().foreign_snapshot());
    });
}
