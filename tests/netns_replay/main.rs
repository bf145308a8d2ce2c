//! The acceptance of pinned flows: seven years of changes of S3's space, ten a second, under open
//! flows and a steady stream of new connections, on each machine that Trailblazer runs on. No flow
//! breaks or hangs, no connection fails, and no packet has a wrong source.
//!
//! The whole matrix takes half an hour (`make test-long`); each test prints a line of figures.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod documents;
#[path = "../no_nf_tables/mod.rs"]
mod no_nf_tables;
#[path = "../packets/mod.rs"]
mod packets;
mod scenes;
mod site;
mod subject;
mod traffic;

use std::time::Duration;

use lab::{Isolation, NatLayout, name_around};
use packets::Firewall::{self, Iptables, Nftables};
use subject::{Kind, Subject};
use traffic::Seen;

/// The longest replay has a hundred starts of an agent.
const DEADLINE: Duration = Duration::from_secs(900);

/// Runs a replay in namespaces of its own, and requires that it met no fault.
#[track_caller]
fn unbroken<F: FnOnce() -> Option<Seen>>(body: F) {
    let name = name_around(&body);
    Isolation::default().deadline(DEADLINE).run_named(name, || {
        if subject::is_pass() {
            return;
        }
        let Some(seen) = body() else { return };
        assert_eq!(seen.faults(), [0; 7], "{seen:?}");
    });
}

const fn subject(name: &'static str, kind: Kind, firewall: Firewall) -> Subject {
    Subject {
        name,
        kind,
        firewall,
    }
}

const HOST: Subject = subject("host, nftables", Kind::Host, Nftables);
const NAT: Subject = subject(
    "nat bulk, nftables",
    Kind::Nat(NatLayout::BulkInterface),
    Nftables,
);

#[test]
fn replay_breaks_no_flow_of_a_host() {
    unbroken(|| scenes::passes(HOST, true));
}

#[test]
fn replay_breaks_no_flow_behind_a_nat() {
    unbroken(|| scenes::passes(NAT, true));
}

/// The same flows break without pins: the replay sees the fault.
#[test]
fn replay_breaks_flows_of_a_host_without_pins() {
    Isolation::default().deadline(DEADLINE).run(|| {
        if let Some(seen) = scenes::passes(HOST, false) {
            assert!(seen.broken + seen.hung >= 90, "{seen:?}");
            assert!(seen.stray >= 90, "{seen:?}");
        }
    });
}

macro_rules! matrix {
    ($($module:ident: $subject:expr, [$($test:ident: $scene:expr),* $(,)?];)*) => { $(
        mod $module {
            use super::*;

            $(
                #[test]
                #[ignore = "minutes: part of `make test-long`"]
                fn $test() {
                    unbroken(|| $scene($subject));
                }
            )*
        }
    )* };
}

/// The scenes of a machine with agents.
macro_rules! machines {
    ($($module:ident: $name:literal, $kind:expr, $firewall:expr;)*) => {
        matrix! { $(
            $module: subject($name, $kind, $firewall), [
                passes: |it| scenes::passes(it, true),
                killed_passes: scenes::killed_passes,
                agent: scenes::agent,
                agent_with_each_version: scenes::agent_with_each_version,
                killed_agents: scenes::killed_agents,
                upgrades: scenes::upgrades,
                restarts_beside_a_protected_table: |it| scenes::restarts(it, true),
                ways_out: scenes::ways,
            ];
        )* }
    };
}

machines! {
    host_nftables: "host, nftables", Kind::Host, Nftables;
    host_iptables: "host, iptables", Kind::Host, Iptables;
    host_two_addresses: "host two addresses, nftables", Kind::HostWithTwoAddresses, Nftables;
    nat_bulk_nftables: "nat bulk, nftables", Kind::Nat(NatLayout::BulkInterface), Nftables;
    nat_bulk_iptables: "nat bulk, iptables", Kind::Nat(NatLayout::BulkInterface), Iptables;
    nat_two_nftables: "nat two, nftables", Kind::Nat(NatLayout::TwoInterfaces), Nftables;
    nat_two_iptables: "nat two, iptables", Kind::Nat(NatLayout::TwoInterfaces), Iptables;
    nat_one_nftables: "nat one, nftables", Kind::Nat(NatLayout::OneInterface), Nftables;
    nat_one_iptables: "nat one, iptables", Kind::Nat(NatLayout::OneInterface), Iptables;
}

matrix! {
    host_without_nf_tables: subject("host, iptables alone", Kind::HostWithoutNfTables, Iptables), [
        passes: |it| scenes::passes(it, true),
        killed_passes: scenes::killed_passes,
        ways_out: scenes::ways,
    ];
}

/// Restarts beside an agent with `[kernel] protect_table = false` may break displaced flows; no packet
/// has a wrong source all the same.
mod plain_tables {
    use super::*;

    #[track_caller]
    fn closed<F: FnOnce() -> Option<Seen>>(body: F) {
        let name = name_around(&body);
        Isolation::default().deadline(DEADLINE).run_named(name, || {
            if let Some(seen) = body() {
                assert_eq!((seen.wrong, seen.private), (0, 0), "{seen:?}");
            }
        });
    }

    #[test]
    #[ignore = "minutes: part of `make test-long`"]
    fn restarts_open_no_egress_of_a_host() {
        closed(|| scenes::restarts(HOST, false));
    }

    #[test]
    #[ignore = "minutes: part of `make test-long`"]
    fn restarts_open_no_egress_of_a_nat() {
        closed(|| scenes::restarts(NAT, false));
    }
}
