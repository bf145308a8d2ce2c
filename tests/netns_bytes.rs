//! Traffic by path with real packets: bytes sent and received are counted for their path, in both
//! directions, and for no other path; the counts outlive every replacement of the rules.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod packets;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lab::*;
use packets::nat::*;
use packets::*;
use trailblazer::firewall::{Path, PathTraffic};
use trailblazer::types::Family;

/// The payload of one transfer: about two hundred full segments.
const PAYLOAD: usize = 300_000;
/// Headers, handshakes and acknowledgements of one transfer: 52 or 72 bytes a segment of 1,448,
/// acknowledged by as much at most.
const MOST: u64 = PAYLOAD as u64 * 12 / 10 + 4096;
/// Late bytes of an earlier connection on the other path.
const LATE: u64 = 1024;

/// The targets of each path.
const TARGETS: [(Path, [IpAddr; 2]); 2] = [
    (Path::Bypass, [S3, S3_6]),
    (Path::Egress, [PARTNER, PARTNER6]),
];

fn each() -> impl Iterator<Item = (Path, Family)> {
    Path::ALL
        .into_iter()
        .flat_map(|path| Family::ALL.map(|family| (path, family)))
}

fn bytes(traffic: &PathTraffic, path: Path, family: Family) -> u64 {
    traffic.of(path).get(family).bytes
}

#[track_caller]
fn read(machine: &Machine) -> PathTraffic {
    machine.traffic().expect("our rules count")
}

/// Runs `body` and asserts that the counts of `counted` grow, and no others.
#[track_caller]
fn assert_counts(machine: &Machine, counted: Option<(Path, Family)>, body: impl FnOnce()) {
    let before = read(machine);
    body();
    let after = read(machine);
    for (path, family) in each() {
        let more = bytes(&after, path, family) - bytes(&before, path, family);
        let packets = after.of(path).get(family).packets - before.of(path).get(family).packets;
        if counted == Some((path, family)) {
            assert!(
                (PAYLOAD as u64..=MOST).contains(&more) && packets > 2,
                "{path:?} {family}: {more} bytes in {packets} packets"
            );
        } else {
            assert!(more <= LATE, "{path:?} {family}: {more} bytes too many");
        }
    }
}

#[track_caller]
fn transfer(lab: &Lab, from: &str, to: IpAddr, up: usize, down: usize) {
    let moved = lab.ns(from).transfer(to, up, down);
    assert_eq!(moved, Ok(()), "{from} to {to}");
}

/// Both paths, both families (`told`: the distinguishable ones), both directions.
#[track_caller]
fn assert_paths(lab: &Lab, machine: &Machine, told: &[Family]) {
    for (path, targets) in TARGETS {
        for target in targets {
            let family = Family::of(target);
            let counted = told.contains(&family).then_some((path, family));
            for (up, down) in [(PAYLOAD, 0), (0, PAYLOAD)] {
                assert_counts(machine, counted, || {
                    transfer(lab, "host1", target, up, down);
                });
            }
        }
    }
}

/// Traffic between the two takes neither path, in both directions.
#[track_caller]
fn assert_neither(lab: &Lab, machine: &Machine, from: &str, targets: &[IpAddr]) {
    for target in targets {
        assert_counts(machine, None, || {
            transfer(lab, from, *target, PAYLOAD, PAYLOAD);
        });
    }
}

/// Changes the firewall's rules and asserts that no count is lost.
#[track_caller]
fn assert_kept(machine: &Machine, change: impl FnOnce()) {
    let before = read(machine);
    change();
    let after = read(machine);
    for (path, family) in each() {
        let (old, new) = (before.of(path).get(family), after.of(path).get(family));
        assert!(
            old.bytes <= new.bytes && old.packets <= new.packets,
            "{path:?} {family}: {old:?}, then {new:?}"
        );
    }
}

/// Runs a pass that must change the firewall, or must not.
#[track_caller]
fn changes(machine: &Machine, firewall: bool) {
    let report = machine.changed();
    let steps = report["steps"].as_array().unwrap();
    let found = steps.iter().any(|step| step["object"] == "nat");
    assert_eq!(found, firewall, "{report:#}");
}

/// Somebody puts rules into ours.
fn meddle(machine: &Machine, firewall: Firewall) {
    if firewall == Firewall::Nftables {
        machine
            .ns()
            .nft("add rule inet trailblazer count counter\nadd rule inet trailblazer prerouting counter\n");
        return;
    }
    for family in ["ip", "ip6"] {
        let program = firewall.program(family);
        for chain in ["TRAILBLAZER-PRE", "TRAILBLAZER-COUNT"] {
            let listed = machine
                .ns()
                .run(&[program.as_str(), "-w", "-t", "mangle", "-S"]);
            if listed.contains(&format!("-N {chain}")) {
                let words = [program.as_str(), "-w", "-t", "mangle", "-I", chain, "2"];
                machine.ns().run(&words);
            }
        }
    }
}

const ONE: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";
const OTHER: &str = "[egress]\ngateways = [\"10.0.1.20\", \"2600:1f18:1000:1::20\"]\n";

fn host(firewall: Firewall, pin: bool, told: &[Family]) {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    lab.guarded_nat("nat2");
    let mut machine = Machine::new(&lab, "host1", firewall, &format!("{ONE}pin = {pin}\n"));
    assert_eq!(machine.traffic(), None);
    machine.changed();
    assert_paths(&lab, &machine, told);
    assert_neither(&lab, &machine, "host1", &[PEER, PEER6, HOST2, HOST2_6]);
    assert_neither(&lab, &machine, "outside", &[HOST1_PUBLIC, HOST1_6]);
    assert_neither(&lab, &machine, "peer", &[HOST1, HOST1_6]);
    // Packets with the mark for traffic past our rules, like the agent's own fetch: sent by the
    // bypass path's route, but not counted.
    assert_counts(&machine, None, || {
        lab.ns("host1").in_thread(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket2::SockRef::from(&socket).set_mark(0x10).unwrap();
            socket
                .send_to(&[b'x'; 1400], SocketAddr::new(S3_ELSEWHERE, PORT))
                .unwrap();
        });
    });
    machine.in_sync();

    // Prefixes change without a change of the firewall, and a flow is counted for its path.
    let datagrams = lab.ns("host1").in_thread(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(SocketAddr::new(S3_SECOND, PORT)).unwrap();
        socket
    });
    let send = || {
        for _ in 0..PAYLOAD / 1000 {
            datagrams.send(&[b'x'; 1000]).unwrap();
        }
    };
    assert_counts(&machine, Some((Path::Bypass, Family::Ipv4)), send);
    machine.publish(&["52.216.0.0/15", "2600:1fa0:8000::/39"]);
    changes(&machine, false);
    let path = if pin { Path::Bypass } else { Path::Egress };
    assert_counts(&machine, Some((path, Family::Ipv4)), send);

    // Each replacement keeps the counts, and continues counting open flows.
    let storage = lab.long_flow("host1", S3);
    assert_kept(&machine, || {
        meddle(&machine, firewall);
        changes(&machine, true);
    });
    let before = read(&machine);
    storage.assert_alive();
    assert!(read(&machine).bypass.ipv4.packets > before.bypass.ipv4.packets);
    machine.configure(&format!("{OTHER}pin = {pin}\n"));
    // The firewall drops the redirects of the configured gateways.
    assert_kept(&machine, || changes(&machine, true));
    machine.in_sync();
    assert_paths(&lab, &machine, told);
    let before = read(&machine);
    machine.flush();
    assert_eq!(machine.traffic(), None);
    machine.changed();
    assert!(read(&machine).bypass.ipv4.bytes < before.bypass.ipv4.bytes);
    assert_paths(&lab, &machine, told);
}

#[test]
fn host_traffic_is_counted_by_path_nftables() {
    isolated(|| host(Firewall::Nftables, true, &Family::ALL));
}

/// The rules of pinned flows, in nf_tables, tell the paths of both families.
#[test]
fn host_traffic_is_counted_by_path_iptables() {
    isolated(|| host(Firewall::Iptables, true, &Family::ALL));
}

/// With one interface iptables cannot match the next hop of IPv6.
#[test]
fn host_traffic_is_counted_by_path_iptables_legacy_without_pins() {
    isolated(|| host(Firewall::IptablesLegacy, false, &[Family::Ipv4]));
}

/// Both paths are one: no traffic is counted.
#[test]
fn host_without_an_egress_path_counts_nothing() {
    isolated(|| {
        let lab = Lab::new();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, "");
        machine.changed();
        assert_eq!(machine.traffic(), None);
    });
}

fn nat(case: Case) {
    let lab = behind_nat1(case.layout);
    let firewall = case.firewall;
    // Peered networks through the instance, too.
    lab.ns("host1")
        .ip_batch("route del 10.8.0.0/16\nroute del fd08:8::/64\n");
    let mut machine = case.machine(&lab);
    machine.changed();
    assert_paths(&lab, &machine, &Family::ALL);
    assert_neither(&lab, &machine, "host1", &[PEER, PEER6, HOST2]);
    let outside = [lab.nat1.egress_public, lab.nat1.egress6];
    assert_neither(&lab, &machine, "outside", &outside);
    // The instance's own traffic.
    assert_neither(&lab, &machine, "nat1", &[S3, S3_6]);
    machine.in_sync();

    assert_kept(&machine, || {
        meddle(&machine, firewall);
        changes(&machine, true);
    });
    // Another source network moves rules ahead of the counting rules.
    let settings = (case.settings)(&lab.nat1);
    machine.configure(&format!(
        "sources = [\"10.0.0.0/16\", \"172.20.0.0/16\", \"2600:1f18:1000:1::/64\", \"2600:1f18:1000:7::/64\"]\n{settings}"
    ));
    assert_kept(&machine, || changes(&machine, true));
    machine.in_sync();
    assert_paths(&lab, &machine, &Family::ALL);
    assert_neither(&lab, &machine, "outside", &outside);
}

#[test]
fn nat_traffic_is_counted_by_interface_nftables() {
    isolated(|| nat(bulk_interface(Firewall::Nftables)));
}

#[test]
fn nat_traffic_is_counted_by_interface_iptables() {
    isolated(|| nat(bulk_interface(Firewall::Iptables)));
}

#[test]
fn nat_traffic_is_counted_on_one_interface_nftables() {
    isolated(|| nat(one_gateway(NatLayout::OneInterface, Firewall::Nftables)));
}

#[test]
fn nat_traffic_is_counted_on_one_interface_iptables() {
    isolated(|| nat(one_gateway(NatLayout::OneInterface, Firewall::Iptables)));
}

#[test]
fn nat_traffic_is_counted_on_one_interface_iptables_legacy() {
    isolated(|| {
        nat(one_gateway(
            NatLayout::OneInterface,
            Firewall::IptablesLegacy,
        ))
    });
}

#[test]
fn nat_traffic_is_counted_by_gateway_nftables() {
    isolated(|| nat(two_gateways(Firewall::Nftables)));
}
