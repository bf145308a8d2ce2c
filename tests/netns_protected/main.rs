//! `[kernel] protect_table`: other programs flush every table of nf_tables, and the table of a
//! running agent stays. Each scene shows the same flush without the protection too.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backend;
mod beside;
mod flushes;
mod host;
#[path = "../packets/mod.rs"]
mod packets;
mod saved;

use std::net::IpAddr;

use lab::*;
use packets::nat::*;
use packets::*;
use serde_json::Value;

const TABLE: &str = "trailblazer";
const TABLE_BESIDE_IPTABLES: &str = "trailblazer-guard";

/// A NAT instance with the setting.
fn machine<'a>(lab: &'a Lab, firewall: Firewall, protect: bool) -> Machine<'a> {
    let mut machine = one_gateway(NatLayout::TwoInterfaces, firewall).machine(lab);
    protecting(&mut machine, lab, protect);
    machine
}

/// The setting from the next pass or the next start of the agent on.
fn protecting(machine: &mut Machine, lab: &Lab, protect: bool) {
    let case = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables);
    let settings = (case.settings)(&lab.nat1);
    machine.configure(&format!(
        "{SOURCES}{settings}[kernel]\nprotect_table = {protect}\n"
    ));
}

/// Our table as `nft` lists it; `None` without the table.
fn listed(ns: &Ns, table: &str) -> Option<Value> {
    let tables = ns.exec(&["nft", "-j", "list", "tables"]).ok().json();
    let objects = tables["nftables"].as_array().unwrap().iter();
    let mut ours = objects.filter(|object| object["table"]["name"] == table);
    ours.next().map(|object| object["table"].clone())
}

/// True if the table belongs to a socket. nft before 1.1 has no name for the flag `persist`.
fn is_protected(ns: &Ns, table: &str) -> bool {
    let table = listed(ns, table).unwrap_or_default();
    let flags = table["flags"].as_array().into_iter().flatten();
    flags.into_iter().any(|flag| flag == "owner")
}

/// The number that the kernel gives to each new table: equal numbers mean that the table was never
/// away.
fn handle(ns: &Ns, table: &str) -> Option<u64> {
    listed(ns, table)?["handle"].as_u64()
}

fn flush_by_stranger(ns: &Ns) {
    ns.nft("flush ruleset");
}

/// Waits for the table of an agent that protects it.
#[track_caller]
fn wait_protected(ns: &Ns, table: &str) {
    eventually("the table is protected", || is_protected(ns, table));
}

/// Partners see the egress address of the NAT.
#[track_caller]
fn assert_translated(lab: &Lab) {
    let egress = [lab.nat1.egress_public, lab.nat1.egress6];
    for (partner, seen) in [PARTNER, PARTNER6].into_iter().zip(egress) {
        assert_eq!(lab.who("host1", partner), Ok(seen), "to {partner}");
    }
}
