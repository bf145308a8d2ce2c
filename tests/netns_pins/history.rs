//! The changes of S3's space from 2017 to 2023, as AWS published them, under open flows and a steady
//! stream of new connections.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use crate::packets::nat::{behind_nat1, bulk_interface};
use crate::packets::*;
use crate::*;
use lab::replay::{Replay, ReplayRow};
use lab::*;

/// The regions whose space is selected.
const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1"];
/// Flows to storage, and to each address of the partner.
const TO_STORAGE: usize = 120;
const TO_PARTNER: usize = 20;
/// The pause of a long flow between two round trips.
const PAUSE: Duration = Duration::from_millis(100);
/// New connections a second to each of a few targets.
const NEW: u32 = 8;

/// The space of each version with another space than the version before.
fn versions() -> Option<Vec<BTreeSet<IpNet>>> {
    let mut replay = Replay::open(&data::ip_ranges_dir()?);
    let wanted = |row: &ReplayRow| REGIONS.iter().any(|region| row.is("S3", region));
    let mut versions: Vec<BTreeSet<IpNet>> = Vec::new();
    while replay.advance_to_change(wanted) {
        let mut space = replay.selected(wanted);
        // The servers of the lab have addresses of their own.
        space.retain(|net| {
            ![PARTNER, PARTNER6, OPERATOR, OPERATOR6]
                .iter()
                .any(|it| net.contains(it))
        });
        if versions.last() != Some(&space) {
            versions.push(space);
        }
    }
    Some(versions)
}

/// Addresses that enter or leave the selection, spread over all changes.
fn changing(versions: &[BTreeSet<IpNet>]) -> Vec<IpAddr> {
    let holds = |space: &BTreeSet<IpNet>, it: &IpAddr| space.iter().any(|net| net.contains(it));
    let changes = versions
        .windows(2)
        .flat_map(|pair| pair[0].symmetric_difference(&pair[1]));
    let addresses = changes.map(|net| address_in(&net.to_string()));
    let mut found: Vec<IpAddr> = addresses
        .filter(|it| {
            versions
                .iter()
                .any(|space| holds(space, it) != holds(&versions[0], it))
        })
        .collect();
    found.sort();
    found.dedup();
    let every = found.len().div_ceil(TO_STORAGE / 2).max(1);
    found.into_iter().step_by(every).collect()
}

struct Seen {
    broken: usize,
    failed: usize,
    connections: usize,
}

/// Replays all versions on a machine, each in a pass of its own. With `kills`, every second pass is
/// killed at some moment and run again.
fn replayed(lab: &Lab, mut machine: Machine, versions: &[BTreeSet<IpNet>], kills: bool) -> Seen {
    let publish = |machine: &mut Machine, space: &BTreeSet<IpNet>| {
        let texts: Vec<String> = space.iter().map(ToString::to_string).collect();
        machine.publish(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let all: BTreeSet<&IpNet> = versions.iter().flatten().collect();
    lab.serve_s3(all);
    publish(&mut machine, &versions[0]);
    machine.changed();
    count_from_now(lab);
    let addresses = changing(versions);
    let host1 = lab.ns("host1");
    let mut flows = Flows(Vec::new());
    for target in addresses.iter().cycle().take(TO_STORAGE) {
        flows
            .0
            .push((*target, LongFlow::paced(host1, *target, PAUSE).unwrap()));
    }
    for target in [PARTNER, PARTNER6] {
        for _ in 0..TO_PARTNER {
            flows
                .0
                .push((target, LongFlow::paced(host1, target, PAUSE).unwrap()));
        }
    }
    let some = addresses
        .iter()
        .step_by(addresses.len().div_ceil(5))
        .copied();
    let targets: Vec<IpAddr> = some.chain([PARTNER, PARTNER6]).collect();
    let stream = lab.stream("host1", &targets, NEW);
    for (number, space) in versions.iter().enumerate().skip(1) {
        publish(&mut machine, space);
        if kills && number % 2 == 0 {
            let mut pass = machine.ns().spawn(&mut machine.command(&["reconcile"]));
            // Each pass dies at another moment.
            std::thread::sleep(Duration::from_millis(number as u64 * 7 % 150));
            drop(pass.kill());
            drop(pass.wait());
        }
        machine.reconcile();
    }
    // A change of the egress table ends the routes that IPv6 sockets keep.
    machine.publish(FIRST);
    machine.reconcile();
    stream.wait_for(20);
    let report = stream.stop();
    let failures = report.observations.iter().filter(|one| one.seen.is_err());
    let failed = failures.inspect(|one| println!("failed: {one:?}")).count();
    assert_no_leaks_to_partners(lab);
    Seen {
        failed,
        connections: report.observations.len(),
        broken: flows.broken(),
    }
}

#[track_caller]
fn assert_no_leaks_to_partners(lab: &Lab) {
    let leaks = lab.leaks();
    assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
}

fn host(pin: bool, kills: bool) -> Option<Seen> {
    let versions = versions()?;
    println!("{} changes of the space", versions.len());
    let lab = lab_with_nats();
    let machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, pin));
    Some(replayed(&lab, machine, &versions, kills))
}

fn nat(firewall: Firewall, pin: bool, kills: bool) -> Option<Seen> {
    let versions = versions()?;
    let case = bulk_interface(firewall);
    let lab = behind_nat1(case.layout);
    let mut machine = case.machine(&lab);
    let settings = (case.settings)(&lab.nat1);
    machine.configure(&format!(
        "{}{settings}[egress]\npin = {pin}\n",
        packets::nat::SOURCES
    ));
    Some(replayed(&lab, machine, &versions, kills))
}

/// No flow breaks and no connection fails; a busy machine may time out now and again.
#[track_caller]
fn assert_unbroken(seen: Option<Seen>) {
    let Some(seen) = seen else { return };
    let Seen {
        broken,
        failed,
        connections,
    } = seen;
    println!("{broken} flows broken, {failed} of {connections} connections failed");
    assert_eq!(broken, 0);
    assert!(failed * 100 <= connections, "{failed} of {connections}");
}

#[test]
fn history_breaks_no_flow_of_a_host() {
    isolated(|| assert_unbroken(host(true, false)));
}

#[test]
fn history_with_killed_passes_breaks_no_flow_of_a_host() {
    isolated(|| assert_unbroken(host(true, true)));
}

#[test]
fn history_breaks_flows_of_a_host_without_pins() {
    isolated(|| {
        if let Some(seen) = host(false, false) {
            println!("{} flows broken", seen.broken);
            assert!(seen.broken >= 40, "{}", seen.broken);
        }
    });
}

#[test]
fn history_breaks_no_flow_behind_a_nat_nftables() {
    isolated(|| assert_unbroken(nat(Firewall::Nftables, true, true)));
}

#[test]
fn history_breaks_no_flow_behind_a_nat_iptables() {
    isolated(|| assert_unbroken(nat(Firewall::Iptables, true, false)));
}

#[test]
fn history_breaks_flows_behind_a_nat_without_pins() {
    isolated(|| {
        if let Some(seen) = nat(Firewall::Nftables, false, false) {
            println!("{} flows broken", seen.broken);
            assert!(seen.broken > 0);
        }
    });
}
