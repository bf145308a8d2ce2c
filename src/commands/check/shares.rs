//! The shares of several egress addresses, and the address of each known host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::report::CheckReport;
use crate::desired::{DesiredState, shares};
use crate::firewall::{BackendKind, Match, Statement};
use crate::types::Family;

/// The number of hosts listed.
const MOST: usize = 16;

pub(super) fn all(backend: BackendKind, desired: &DesiredState, report: &mut CheckReport) {
    for family in Family::ALL {
        let owners = owners(desired, family);
        let mut slots: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for owner in &owners {
            *slots.entry(*owner).or_default() += 1;
        }
        let all = owners.len();
        if slots.len() < 2 {
            continue;
        }
        let share = |(address, slots): (&IpAddr, &usize)| {
            format!("{address} {} %", (100 * slots + all / 2) / all)
        };
        let shares: Vec<String> = slots.iter().map(share).collect();
        report.ok(
            "egress",
            format!("{family}: shares of the hosts: {}", shares.join(", ")),
        );
        let inputs = &desired.paths.get(family).inputs;
        let mut hosts = neighbours();
        hosts.retain(|host| {
            Family::of(*host) == family && inputs.iter().any(|input| input.source.contains(host))
        });
        let of_host = |host: &IpAddr| {
            let address = shares::owner_of(*host, &owners, backend)?;
            Some(format!("{host} leaves as {address}"))
        };
        let lines: Vec<String> = hosts.iter().take(MOST).filter_map(of_host).collect();
        if !lines.is_empty() {
            report.ok("egress", format!("{family}: {}", lines.join(", ")));
        }
    }
}

/// The address of each slot, by the rules of the policy; empty with one address.
fn owners(desired: &DesiredState, family: Family) -> Vec<IpAddr> {
    let chains = desired.firewall.iter().flat_map(|policy| &policy.chains);
    let mut found: BTreeMap<u32, IpAddr> = BTreeMap::new();
    for rule in chains.flat_map(|chain| &chain.rules) {
        let (Statement::SnatRandomly(address) | Statement::Snat(address)) = rule.verdict else {
            continue;
        };
        for condition in &rule.matches {
            if let Match::SourceSlots { slots, .. } = condition
                && Family::of(address) == family
            {
                found.extend(slots.iter().map(|slot| (*slot, address)));
            }
        }
    }
    found.into_values().collect()
}

/// The IPv4 neighbours (`/proc/net/arp`, net/ipv4/arp.c).
fn neighbours() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap_or_default();
    let address = |line: &str| line.split_whitespace().next()?.parse().ok();
    let mut found: Vec<IpAddr> = text.lines().filter_map(address).collect();
    found.sort();
    found
}
