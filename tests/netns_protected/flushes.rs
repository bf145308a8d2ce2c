//! `nft flush ruleset` beside an agent, ten times in three seconds.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::packets::*;
use crate::*;

const FLUSHES: u32 = 10;
const WITHIN: Duration = Duration::from_secs(3);
/// Open flows to each of three servers.
const FLOWS: usize = 14;

/// The effect of the flushes.
#[derive(Debug)]
struct Effect {
    /// The table was away at least once.
    replaced: bool,
    leaks: Leaks,
    broken: usize,
    slowest: Duration,
    /// Connections of the stream that failed, and all.
    failed: usize,
    opened: usize,
}

/// Flushes all tables beside the agent, under open flows and new connections.
fn flush_under_traffic(lab: &Lab, table: &str) -> Effect {
    let nat1 = lab.ns("nat1");
    count_from_now(lab);
    let before = handle(nat1, table);
    let flows: Vec<LongFlow> = [PARTNER, PARTNER6, S3]
        .into_iter()
        .flat_map(|to| (0..FLOWS).map(move |_| to))
        .map(|to| lab.long_flow("host1", to))
        .collect();
    let stream = lab.stream("host1", &[PARTNER, PARTNER6], 10);
    stream.wait_for(4);
    let started = Instant::now();
    let mut replaced = false;
    for number in 1..=FLUSHES {
        flush_by_stranger(nat1);
        replaced |= handle(nat1, table) != before;
        let due = WITHIN * number / FLUSHES;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    replaced |= handle(nat1, table) != before;
    eventually("the table is there", || handle(nat1, table).is_some());
    stream.wait_for(4);
    let report = stream.stop();
    // A retransmission after a gap takes a second or two.
    std::thread::sleep(Duration::from_secs(2));
    let reports: Vec<_> = flows.into_iter().map(LongFlow::stop).collect();
    // On a busy machine connections may time out.
    let failed = |one: &&Observation| one.seen.is_err_and(|why| why != ErrorKind::TimedOut);
    Effect {
        replaced,
        leaks: lab.leaks(),
        broken: reports.iter().filter(|flow| flow.broken.is_some()).count(),
        slowest: reports.iter().map(|flow| flow.slowest).max().unwrap(),
        failed: report.observations.iter().filter(failed).count(),
        opened: report.observations.len(),
    }
}

fn survives(firewall: Firewall, table: &str) {
    let lab = behind_nat1(NatLayout::TwoInterfaces);
    let nat1 = lab.ns("nat1");
    let mut machine = machine(&lab, firewall, false);
    let agent = machine.agent();
    agent.wait_in_force();
    assert_translated(&lab);

    // The scene without the protection.
    let effect = flush_under_traffic(&lab, table);
    eprintln!("{table} without the protection: {effect:?}");
    assert!(effect.replaced, "{effect:?}");

    // The same process with the setting: the plain table is replaced.
    protecting(&mut machine, &lab, true);
    agent.signal(rustix::process::Signal::HUP);
    wait_protected(nat1, table);
    agent.wait_in_force();
    let repairs = agent.status().unwrap()["drift"]["mended"].clone();
    let effect = flush_under_traffic(&lab, table);
    let slowest = effect.slowest;
    eprintln!("{table} with the protection: {effect:?}, slowest round trip {slowest:?}");
    if firewall == Firewall::Nftables {
        assert_eq!((effect.broken, effect.failed), (0, 0), "{effect:?}");
    }
    assert!(!effect.replaced && effect.opened > 0, "{effect:?}");
    assert_eq!(effect.leaks, Leaks::default());
    let after = agent.wait_in_force();
    if firewall == Firewall::Nftables {
        assert_eq!(after["drift"]["mended"], repairs, "a flush is no drift");
    }
    assert_translated(&lab);
    agent.stop();
    machine.flush();
    assert_eq!(listed(nat1, table), None);
}

#[test]
fn table_survives_flushes_nftables() {
    isolated(|| survives(Firewall::Nftables, TABLE));
}

#[test]
fn table_survives_flushes_beside_iptables() {
    isolated(|| survives(Firewall::Iptables, TABLE_BESIDE_IPTABLES));
}

/// Beside iptables the flush takes the translation, and the protected table stays. Open flows keep their
/// translation, and no packet has a private source, before any repair.
#[test]
fn flush_beside_iptables_leaves_open_flows_translated() {
    isolated(|| {
        let case = bulk_interface(Firewall::Iptables);
        let lab = behind_nat1(case.layout);
        let nat1 = lab.ns("nat1");
        let mut machine = case.machine(&lab);
        let settings = (case.settings)(&lab.nat1);
        machine.configure(&format!(
            "{SOURCES}{settings}[kernel]\nprotect_table = true\n"
        ));
        let mut agent = machine.agent();
        agent.wait_in_force();
        wait_protected(nat1, TABLE_BESIDE_IPTABLES);
        count_from_now(&lab);
        let targets = [PARTNER, PARTNER6, S3, S3_6];
        let flows = targets.map(|to| lab.long_flow("host1", to));
        // The kernel without any nat chain translates no flow.
        for away in [false, true] {
            agent.signal(rustix::process::Signal::STOP);
            flush_by_stranger(nat1);
            if away {
                agent.signal(rustix::process::Signal::KILL);
                // The kernel gives the table up with the last thread of the process.
                agent.wait();
                flush_by_stranger(nat1);
            }
            let before = flows.each_ref().map(LongFlow::round_trips);
            let moved = |number: usize| flows[number].round_trips() >= before[number] + 3;
            if away {
                std::thread::sleep(Duration::from_millis(200));
                assert!(!(0..4).any(moved), "without the table");
                break;
            }
            eventually("further round trips", || (0..4).all(moved));
            for target in targets {
                assert!(lab.who("host1", target).is_err(), "{target}");
            }
            assert_eq!(lab.leaks().unmapped, 0);
            agent.signal(rustix::process::Signal::CONT);
            agent.wait_in_force();
            assert_translated(&lab);
        }
        assert_eq!(lab.leaks().unmapped, 0);
    });
}
