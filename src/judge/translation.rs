//! NAT role: foreign chains that translate packets before ours, or give them another destination.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::Verdicts;
use super::chain::{BaseChain, Effect, Packet};
use super::expected::Promise;
use super::fate::{Fate, StoppingChain};
use super::probes::ordinary_partner;
use crate::degraded::{Degradation, Part};
use crate::firewall::{BackendKind, Statement};
use crate::types::Family;

/// The priority of our translation: `srcnat - 5` with nftables, the table nat with iptables.
fn our_priority(promise: &Promise<'_>) -> i32 {
    match promise.backend {
        BackendKind::Nftables => 95,
        BackendKind::Iptables => 100,
    }
}

/// Adds a finding if a chain of translation gives packets to partners another address before our
/// rules.
pub(super) fn translated_before_us(
    promise: &Promise<'_>,
    chain: &BaseChain,
    packet: &Packet,
    verdicts: &mut Verdicts,
) {
    let family = packet.family();
    let leaves_by = promise.desired.paths.get(family).leaves_by;
    let order = order(promise, chain, family);
    if leaves_by != Some(packet.output.0) || order == Order::After {
        return;
    }
    // Storage sees any address of this host; partners know the egress addresses.
    if ordinary_partner(promise, family) != Some(packet.destination) {
        return;
    }
    let Fate::Translated(to, culprit) = chain.fate(packet) else {
        return;
    };
    let promised = egress_addresses(promise, family);
    let primary = || {
        let mut own = promise.facts.addresses.iter();
        let first =
            own.find(|own| own.link == packet.output.0 && Family::of(own.net.addr()) == family);
        first.map(|own| own.net.addr())
    };
    if to.or_else(primary).is_some_and(|to| promised == [to]) {
        return;
    }
    let (list, verb) = match order {
        Order::Unknown => (&mut verdicts.doubts, "perhaps translates"),
        _ => (&mut verdicts.degraded, "translates"),
    };
    list.push(
        Degradation::new(
            Part::Translation,
            family,
            format!(
                "{culprit} {verb} packets from {} to partners before our rules",
                packet.input.1
            ),
        )
        .with_advice(format!(
            "exclude packets from {} there, or remove the rule",
            packet.input.1
        )),
    );
}

/// The place of a foreign chain in the sequence of translations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Before,
    After,
    /// Chains of equal priority, one of them in iptables-legacy.
    Unknown,
}

/// The order of a foreign chain and ours. Among chains of equal priority the newest comes first
/// (`nf_hook_entries_grow`, net/netfilter/core.c; seen with kernel 6.18). The handle of a table tells
/// its age, and chains are as old as their table, as a rule.
fn order(promise: &Promise<'_>, chain: &BaseChain, family: Family) -> Order {
    if holds_ours(chain) {
        return Order::Before;
    }
    let mut all = promise.chains.iter();
    let ours = all.find(|it| holds_ours(it) && it.families.contains(&family));
    match chain.priority.cmp(&our_priority(promise)) {
        Ordering::Less => Order::Before,
        Ordering::Greater => Order::After,
        Ordering::Equal if promise.backend == BackendKind::Nftables => Order::Before,
        Ordering::Equal => match (chain.order, ours.and_then(|ours| ours.order)) {
            (Some(theirs), Some(ours)) if theirs > ours => Order::Before,
            (Some(_), Some(_)) => Order::After,
            _ => Order::Unknown,
        },
    }
}

/// A connection to a partner that ends at a proxy goes on with an address of the proxy's.
pub(super) fn diverted(
    promise: &Promise<'_>,
    culprit: &StoppingChain,
    packet: &Packet,
    verdicts: &mut Verdicts,
) {
    let family = packet.family();
    let to_partner = ordinary_partner(promise, family) == Some(packet.destination);
    let (part, to) = if to_partner {
        (Part::Translation, "partners")
    } else {
        (Part::Bypass, "storage")
    };
    let input = &packet.input.1;
    let reason = format!("{culprit} gives packets from {input} to {to} another destination");
    let advice = format!("exclude packets from {input} there, or remove the rule");
    verdicts
        .degraded
        .push(Degradation::new(part, family, reason).with_advice(advice));
}

fn holds_ours(chain: &BaseChain) -> bool {
    let mut rules = chain.chains.values().flatten();
    rules.any(|rule| rule.effect == Effect::Ours)
}

fn egress_addresses(promise: &Promise<'_>, family: Family) -> Vec<IpAddr> {
    let chains = promise.desired.firewall.iter().flat_map(|it| &it.chains);
    let mut found: Vec<IpAddr> = chains
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| match rule.verdict {
            Statement::Snat(address) if Family::of(address) == family => Some(address),
            _ => None,
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
