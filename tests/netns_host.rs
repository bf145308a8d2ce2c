//! Host role, real packets: which server sees which address, before, during and after.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::*;
use packets::*;

/// One NAT instance, both families.
const ONE: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";
/// The other one.
const OTHER: &str = "[egress]\ngateways = [\"10.0.1.20\", \"2600:1f18:1000:1::20\"]\n";
/// Two of them.
const TWO: &str = "[egress]\ngateways = [\"10.0.1.10\", \"10.0.1.20\", \
                   \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]\n";

fn lab_with_nats() -> Lab {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    lab.guarded_nat("nat2");
    lab
}

/// The address of `host1` on the bypass path, as seen from outside.
fn bypass_of_host1(other: IpAddr) -> IpAddr {
    if other.is_ipv4() {
        HOST1_PUBLIC
    } else {
        HOST1_6
    }
}

/// The address of `nat1` that partners see.
fn egress_of_nat1(lab: &Lab, other: IpAddr) -> IpAddr {
    if other.is_ipv4() {
        lab.nat1.egress_public
    } else {
        lab.nat1.egress6
    }
}

#[track_caller]
fn assert_bypass(lab: &Lab, prefixes: &[&str]) {
    for prefix in prefixes {
        let storage = address_in(prefix);
        let seen = lab.who("host1", storage);
        assert_eq!(seen, Ok(bypass_of_host1(storage)), "{storage} in {prefix}");
    }
}

#[track_caller]
fn assert_egress(lab: &Lab) {
    for partner in [PARTNER, PARTNER6] {
        let seen = lab.who("host1", partner);
        assert_eq!(seen, Ok(egress_of_nat1(lab, partner)), "{partner}");
        let seen = lab.ns("host1").who_udp(SocketAddr::new(partner, PORT));
        assert_eq!(seen, Ok(egress_of_nat1(lab, partner)), "UDP to {partner}");
    }
}

/// New connections from outside to the host's public addresses: TCP and UDP.
#[track_caller]
fn assert_reachable_from_outside(lab: &Lab) {
    for (public, operator) in [(HOST1_PUBLIC, OPERATOR), (HOST1_6, OPERATOR6)] {
        let outside = lab.ns("outside");
        assert_eq!(outside.who(public), Ok(operator), "TCP to {public}");
        let datagram = outside.who_udp(SocketAddr::new(public, PORT));
        assert_eq!(datagram, Ok(operator), "UDP to {public}");
    }
}

/// Opens connections from outside that stay open.
fn open_from_outside(lab: &Lab) -> [LongFlow; 2] {
    [HOST1_PUBLIC, HOST1_6].map(|public| lab.long_flow("outside", public))
}

fn before_and_after(firewall: Firewall) {
    let lab = lab_with_nats();
    let machine = Machine::new(&lab, "host1", firewall, ONE);
    machine.administrator();
    let foreign = machine.ns().foreign_snapshot();

    // Before: everything leaves directly, and the partner refuses all of it.
    assert_bypass(&lab, FIRST);
    assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::ConnectionReset));
    assert_eq!(lab.who("host1", PARTNER6), Err(ErrorKind::ConnectionReset));
    assert_private_networks(&lab);
    assert_reachable_from_outside(&lab);
    let mut open: Vec<LongFlow> = open_from_outside(&lab).into();
    for storage in [S3, S3_6] {
        open.push(lab.long_flow("host1", storage));
    }
    for from in ["peer", "host2"] {
        open.push(lab.long_flow(from, HOST1));
        open.push(lab.long_flow(from, HOST1_6));
    }

    // During the first pass.
    let inbound = lab.stream("outside", &[HOST1_PUBLIC, HOST1_6], PACE);
    let storage = lab.stream("host1", &[S3, S3_6, PEER, PEER6], PACE);
    inbound.wait_for(10);
    machine.changed();
    count_from_now(&lab);
    inbound.wait_for(10);
    let inbound = inbound.stop();
    inbound.assert_only(HOST1_PUBLIC, &[OPERATOR]);
    inbound.assert_only(HOST1_6, &[OPERATOR6]);
    let storage = storage.stop();
    for target in [S3, S3_6] {
        storage.assert_only(target, &[bypass_of_host1(target)]);
    }
    for target in [PEER, PEER6] {
        storage.assert_only(target, &[own_of_host1(target)]);
    }

    // After.
    assert_bypass(&lab, FIRST);
    assert_egress(&lab);
    assert_private_networks(&lab);
    assert_reachable_from_outside(&lab);
    assert_no_leaks(&lab);
    // Another region's storage isn't selected.
    assert_eq!(lab.who("host1", S3_ELSEWHERE), Ok(lab.nat1.egress_public));
    machine.in_sync();
    foreign.assert_same(&machine.ns().foreign_snapshot());
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn storage_bypasses_and_partners_see_the_egress_address_nftables() {
    isolated(|| before_and_after(Firewall::Nftables));
}

#[test]
fn storage_bypasses_and_partners_see_the_egress_address_iptables() {
    isolated(|| before_and_after(Firewall::Iptables));
}

#[test]
fn storage_bypasses_and_partners_see_the_egress_address_iptables_legacy() {
    isolated(|| before_and_after(Firewall::IptablesLegacy));
}

/// Documents that add, withdraw, split and merge prefixes; the first and the last are `FIRST`, and
/// each contains `KEPT`.
const CHANGES: &[&[&str]] = &[
    &[
        "3.5.0.0/19",
        "16.182.0.0/16",
        "18.34.232.0/21",
        "52.216.0.0/15",
        "54.231.0.0/16",
        "2600:1fa0:8000::/39",
        "2600:1ff0:8000::/39",
        "2600:1ff8:8000::/40",
    ],
    &[
        "18.34.232.0/21",
        "52.216.0.0/16",
        "54.231.0.0/16",
        "2600:1fa0:8000::/40",
        "2600:1ff0:8000::/39",
        "2600:1ff8:8000::/40",
    ],
    &[
        "3.5.0.0/19",
        "52.216.0.0/17",
        "52.217.0.0/16",
        "54.231.0.0/17",
        "2600:1fa0:8000::/41",
        "2600:1ff8:8000::/41",
    ],
    FIRST,
];
const KEPT: [IpAddr; 4] = [S3, S3_SECOND, S3_6, S3_SECOND6];

fn document_change(firewall: Firewall) {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", firewall, ONE);
    let moving = [
        "3.5.0.0/19",
        "18.34.232.0/21",
        "52.217.0.0/16",
        "2600:1ff0:8000::/39",
    ];
    lab.serve_s3(moving);
    let moving = moving.map(address_in);
    machine.changed();
    let mut open: Vec<LongFlow> = open_from_outside(&lab).into();
    for target in [S3, S3_6, PARTNER, PARTNER6] {
        open.push(lab.long_flow("host1", target));
    }
    count_from_now(&lab);

    let targets = [&KEPT[..], &moving, &[PARTNER, PARTNER6, PEER, PEER6]].concat();
    let stream = lab.stream("host1", &targets, PACE);
    let inbound = lab.stream("outside", &[HOST1_PUBLIC, HOST1_6], PACE);
    for prefixes in CHANGES {
        stream.wait_for(targets.len());
        machine.publish(prefixes);
        machine.changed();
        assert_bypass(&lab, prefixes);
        for address in moving {
            let selected =
                |prefix: &&str| prefix.parse::<ipnet::IpNet>().unwrap().contains(&address);
            let expected = if prefixes.iter().any(selected) {
                bypass_of_host1(address)
            } else {
                egress_of_nat1(&lab, address)
            };
            assert_eq!(lab.who("host1", address), Ok(expected), "{address}");
        }
    }
    stream.wait_for(targets.len());
    machine.in_sync();
    let report = stream.stop();
    for target in KEPT {
        report.assert_only(target, &[bypass_of_host1(target)]);
    }
    for target in [PARTNER, PARTNER6] {
        report.assert_only(target, &[egress_of_nat1(&lab, target)]);
    }
    for target in [PEER, PEER6] {
        report.assert_only(target, &[own_of_host1(target)]);
    }
    let inbound = inbound.stop();
    inbound.assert_only(HOST1_PUBLIC, &[OPERATOR]);
    inbound.assert_only(HOST1_6, &[OPERATOR6]);
    // Every packet on the partner's wire, and every connection at the partner.
    let leaks = lab.leaks();
    assert_eq!((leaks.partner4, leaks.partner6, leaks.unmapped), (0, 0, 0));
    let partners = BTreeSet::from([lab.nat1.egress_public, lab.nat1.egress6]);
    assert_eq!(lab.partner.peers(), partners);
    // Storage saw the two addresses of each family and no third one.
    let storage: BTreeSet<IpAddr> = [S3, S3_6]
        .iter()
        .flat_map(|target| [bypass_of_host1(*target), egress_of_nat1(&lab, *target)])
        .collect();
    assert_eq!(lab.s3.peers(), storage);
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn document_change_sends_nothing_on_the_wrong_path_nftables() {
    isolated(|| document_change(Firewall::Nftables));
}

#[test]
fn document_change_sends_nothing_on_the_wrong_path_iptables() {
    isolated(|| document_change(Firewall::Iptables));
}

fn gateway_change(firewall: Firewall) {
    let lab = lab_with_nats();
    let mut machine = Machine::new(&lab, "host1", firewall, ONE);
    machine.changed();
    count_from_now(&lab);
    let open = open_from_outside(&lab);
    let stream = lab.stream("host1", &[S3, S3_6, PARTNER, PARTNER6], PACE);
    let inbound = lab.stream("outside", &[HOST1_PUBLIC, HOST1_6], PACE);
    for settings in [OTHER, TWO, ONE, OTHER] {
        stream.wait_for(8);
        machine.configure(settings);
        machine.changed();
        machine.in_sync();
    }
    stream.wait_for(8);
    let report = stream.stop();
    for target in [S3, S3_6] {
        report.assert_only(target, &[bypass_of_host1(target)]);
    }
    let inbound = inbound.stop();
    inbound.assert_only(HOST1_PUBLIC, &[OPERATOR]);
    inbound.assert_only(HOST1_6, &[OPERATOR6]);
    // A connection in the middle of its handshake may fail when the gateway changes, since the
    // other NAT lacks the flow; no connection is seen from a third address.
    assert_eq!(lab.who("host1", PARTNER), Ok(lab.nat2.egress_public));
    assert_eq!(lab.who("host1", PARTNER6), Ok(lab.nat2.egress6));
    assert_eq!(lab.leaks(), Leaks::default());
    assert_eq!(lab.partner.refused(), BTreeSet::new());
    for target in [PARTNER, PARTNER6] {
        let counts = report.of(target);
        let total: usize = counts.values().sum();
        let seen: usize = [lab.nat1, lab.nat2]
            .iter()
            .flat_map(|nat| [nat.egress_public, nat.egress6])
            .filter_map(|address| counts.get(&address.to_string()))
            .sum();
        assert!(seen + 4 >= total, "one at most for each change: {counts:?}");
    }
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn gateway_change_shows_partners_no_third_address_nftables() {
    isolated(|| gateway_change(Firewall::Nftables));
}

#[test]
fn gateway_change_shows_partners_no_third_address_iptables() {
    isolated(|| gateway_change(Firewall::Iptables));
}

#[test]
fn two_nat_instances_share_the_connections() {
    isolated(|| {
        let lab = lab_with_nats();
        let by_flow =
            format!("{TWO}spread = \"flow\"\n[kernel]\nmanage = [\"fib_multipath_hash_policy\"]\n");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &by_flow);
        let open = open_from_outside(&lab);
        machine.changed();
        machine.in_sync();
        // After the first pass, which writes the sysctl.
        let foreign = machine.ns().foreign_snapshot();
        count_from_now(&lab);
        let stream = lab.stream("host1", &[S3, S3_6, PARTNER, PARTNER6], 2 * PACE);
        stream.wait_for(160);
        let report = stream.stop();
        for (target, egress) in [
            (PARTNER, [lab.nat1.egress_public, lab.nat2.egress_public]),
            (PARTNER6, [lab.nat1.egress6, lab.nat2.egress6]),
        ] {
            report.assert_only(target, &egress);
            let counts = report.of(target);
            assert_eq!(counts.len(), 2, "both instances work: {counts:?}");
        }
        for target in [S3, S3_6] {
            report.assert_only(target, &[bypass_of_host1(target)]);
        }
        assert_private_networks(&lab);
        assert_reachable_from_outside(&lab);
        assert_no_leaks(&lab);
        foreign.assert_same(&machine.ns().foreign_snapshot());
        for flow in open {
            flow.assert_alive();
        }
    });
}

#[test]
fn partners_see_a_host_behind_two_nat_instances_from_one_address() {
    isolated(|| {
        let lab = lab_with_nats();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, TWO);
        let mut sources = |settings: &str| {
            machine.configure(settings);
            machine.changed();
            machine.in_sync();
            count_from_now(&lab);
            let stream = lab.stream("host1", &[PARTNER, PARTNER6], 2 * PACE);
            stream.wait_for(80);
            let report = stream.stop();
            [PARTNER, PARTNER6].map(|target| report.of(target).into_keys().collect::<Vec<_>>())
        };
        for seen in sources(TWO) {
            assert_eq!(seen.len(), 1, "a gateway for the whole host: {seen:?}");
        }
        let standby = format!("{TWO}spread = \"order\"\n").replace("10.0.1.10", "10.0.1.99");
        let standby = standby
            .replace("10.0.1.20", "10.0.1.10")
            .replace("10.0.1.99", "10.0.1.20");
        let [seen, seen6] = sources(&standby);
        assert_eq!(
            seen,
            [lab.nat2.egress_public.to_string()],
            "the first of the list"
        );
        assert_eq!(
            seen6,
            [lab.nat1.egress6.to_string()],
            "the first of the list"
        );
        assert_no_leaks(&lab);
    });
}

#[test]
fn partners_are_unreachable_without_the_egress_default() {
    isolated(|| {
        let lab = lab_with_nats();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, ONE);
        machine.changed();
        count_from_now(&lab);
        machine
            .ns()
            .ip("route del default via 10.0.1.10 table 1084");
        machine
            .ns()
            .ip("-6 route del default via 2600:1f18:1000:1::10 table 1084");
        for partner in [PARTNER, PARTNER6] {
            // At once, and with a reason: no waiting for a timeout.
            assert_eq!(lab.who("host1", partner), Err(ErrorKind::HostUnreachable));
            let asked = lab.ns("host1").who_udp(SocketAddr::new(partner, PORT));
            assert_eq!(asked, Err(ErrorKind::HostUnreachable));
        }
        assert_bypass(&lab, FIRST);
        assert_private_networks(&lab);
        assert_eq!(lab.partner.contacts(), []);
        assert_no_leaks(&lab);
        machine.changed();
        assert_egress(&lab);
        assert_no_leaks(&lab);
    });
}

#[test]
fn dead_nat_cuts_off_partners_and_nothing_else() {
    isolated(|| {
        let lab = lab_with_nats();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, ONE);
        machine.changed();
        count_from_now(&lab);
        let open = open_from_outside(&lab);
        lab.ns("nat1").ip("link set priv down");
        let stream = lab.stream("host1", &[S3, S3_6, PARTNER, PARTNER6], PACE);
        assert_private_networks(&lab);
        assert_reachable_from_outside(&lab);
        stream.wait_for(50);
        let report = stream.stop();
        for target in [S3, S3_6] {
            report.assert_only(target, &[bypass_of_host1(target)]);
        }
        for target in [PARTNER, PARTNER6] {
            let counts = report.of(target);
            // The kernel says so once the neighbour has been silent for three seconds.
            let down = |seen: &String| seen == "TimedOut" || seen == "HostUnreachable";
            assert!(counts.keys().all(down), "{target}: {counts:?}");
        }
        assert_eq!(lab.partner.contacts(), []);
        assert_no_leaks(&lab);
        for flow in open {
            flow.assert_alive();
        }
    });
}

/// Only one family is routed, or one is closed: the other settings of the matrix.
#[test]
fn family_without_a_gateway_keeps_its_default_unless_closed() {
    isolated(|| {
        let lab = lab_with_nats();
        let kernel = "[kernel]\nmanage = [\"tcp_fwmark_accept\"]\n";
        let only4 = "[egress]\ngateways = [\"10.0.1.10\"]\n";
        let settings = format!("{only4}{kernel}");
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings);
        let report = machine.changed();
        assert_bypass(&lab, FIRST);
        assert_eq!(lab.who("host1", PARTNER), Ok(lab.nat1.egress_public));
        assert_eq!(lab.who("host1", PARTNER6), Err(ErrorKind::ConnectionReset));
        let told = report["notes"].to_string();
        assert!(
            told.contains("partners reached over ipv6 see this host's own"),
            "{told}"
        );

        machine.configure(&format!("{only4}close = [\"ipv6\"]\n{kernel}"));
        // Opened under our marks and with the sysctl, so the socket carries the mark. A connection
        // opened earlier would stall, as after a flap (see `flap_without`).
        let open = open_from_outside(&lab);
        machine.changed();
        machine.in_sync();
        count_from_now(&lab);
        assert_bypass(&lab, FIRST);
        assert_eq!(lab.who("host1", PARTNER), Ok(lab.nat1.egress_public));
        assert_eq!(lab.who("host1", PARTNER6), Err(ErrorKind::HostUnreachable));
        assert_private_networks(&lab);
        assert_eq!(lab.who("outside", HOST1_PUBLIC), Ok(OPERATOR));
        assert_eq!(lab.who("outside", HOST1_6), Ok(OPERATOR6));
        assert_no_leaks(&lab);
        for flow in open {
            flow.assert_alive();
        }
    });
}

#[test]
fn unselected_family_takes_the_nat() {
    isolated(|| {
        let lab = lab_with_nats();
        for (families, own4, own6) in [
            ("ipv4", HOST1_PUBLIC, lab.nat1.egress6),
            ("ipv6", lab.nat1.egress_public, HOST1_6),
        ] {
            let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, ONE);
            machine.select(&[families], ONE);
            machine.changed();
            machine.in_sync();
            assert_eq!(lab.who("host1", S3), Ok(own4), "{families}");
            assert_eq!(lab.who("host1", S3_6), Ok(own6), "{families}");
            assert_egress(&lab);
            assert_private_networks(&lab);
            assert_reachable_from_outside(&lab);
        }
    });
}

fn flush(firewall: Firewall) {
    let lab = lab_with_nats();
    let machine = Machine::new(&lab, "host1", firewall, ONE);
    machine.administrator();
    let before = machine.ns().snapshot();
    machine.changed();
    let open = open_from_outside(&lab);
    let storage = lab.long_flow("host1", S3);
    let inbound = lab.stream("outside", &[HOST1_PUBLIC, HOST1_6], PACE);
    let bypass = lab.stream("host1", &[S3, S3_6, PEER, PEER6], PACE);
    inbound.wait_for(10);
    machine.flush();
    inbound.wait_for(10);
    let inbound = inbound.stop();
    inbound.assert_only(HOST1_PUBLIC, &[OPERATOR]);
    inbound.assert_only(HOST1_6, &[OPERATOR6]);
    let bypass = bypass.stop();
    for target in [S3, S3_6] {
        bypass.assert_only(target, &[bypass_of_host1(target)]);
    }
    for target in [PEER, PEER6] {
        bypass.assert_only(target, &[own_of_host1(target)]);
    }
    before.assert_same(&machine.ns().snapshot());
    assert_bypass(&lab, FIRST);
    assert_eq!(lab.who("host1", S3_ELSEWHERE), Ok(HOST1_PUBLIC));
    assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::ConnectionReset));
    assert_private_networks(&lab);
    assert_reachable_from_outside(&lab);
    storage.assert_alive();
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn flush_restores_the_host_nftables() {
    isolated(|| flush(Firewall::Nftables));
}

#[test]
fn flush_restores_the_host_iptables() {
    isolated(|| flush(Firewall::Iptables));
}

/// The state right after a flap, before any repair.
#[track_caller]
fn assert_closed_after_flap(lab: &Lab) {
    assert_private_networks(lab);
    for partner in [PARTNER, PARTNER6] {
        assert_eq!(lab.who("host1", partner), Err(ErrorKind::HostUnreachable));
    }
    // An application that binds its source address.
    let host1 = lab.ns("host1");
    for (own, partner) in [(HOST1, PARTNER), (HOST1_6, PARTNER6)] {
        let seen = host1.who_from(own, partner);
        assert_eq!(seen, Err(ErrorKind::HostUnreachable));
    }
    assert_eq!(lab.partner.contacts(), []);
    assert_no_leaks(lab);
}

/// A flap removes every route through the link, and table 1084 then holds only `unreachable`. An
/// answer to a client outside needs a route before `output` can mark the packet, and therefore
///
/// - `tcp_fwmark_accept=1`: the answer to a SYN and the accepted socket take the mark that
///   `prerouting` gave the SYN (`net.ipv4.tcp_fwmark_accept` governs both families);
/// - with `rp_filter` 1 or 2 also `src_valid_mark=1`: the check of the client's own address would
///   otherwise ignore the mark and find `unreachable`, which fails in the loose mode too. IPv6 has
///   no such check.
fn flap(firewall: Firewall, reverse_path_filter: &str) {
    let lab = lab_with_nats();
    let settings = format!("{ONE}[kernel]\nmanage = [\"tcp_fwmark_accept\", \"src_valid_mark\"]\n");
    let machine = Machine::new(&lab, "host1", firewall, &settings);
    machine.ns().sysctl(&[
        ("net/ipv4/conf/all/rp_filter", reverse_path_filter),
        ("net/ipv4/conf/priv/rp_filter", reverse_path_filter),
    ]);
    machine.changed();
    machine.in_sync();
    assert_egress(&lab);
    assert_reachable_from_outside(&lab);
    let open = open_from_outside(&lab);
    let partners = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    partners.wait_for(8);
    lab.flap_host("host1");
    count_from_now(&lab);

    assert_closed_after_flap(&lab);
    // A UDP server's answer has no mark before `output`, whatever the sysctls.
    let datagrams = [HOST1_PUBLIC, HOST1_6].map(|public| {
        let ns = lab.ns("outside").clone();
        std::thread::spawn(move || ns.who_udp(SocketAddr::new(public, PORT)))
    });
    for datagram in datagrams {
        assert_eq!(datagram.join().unwrap(), Err(ErrorKind::TimedOut));
    }
    let inbound = lab.stream("outside", &[HOST1_PUBLIC, HOST1_6], PACE);
    inbound.wait_for(20);
    let before = open.each_ref().map(LongFlow::round_trips);
    let alive = |flow: &LongFlow, before: &usize| flow.round_trips() > *before;
    wait_until(
        PATIENCE,
        Duration::from_millis(5),
        || {
            let mut open = open.iter().zip(&before);
            open.all(|(flow, before)| alive(flow, before)).then_some(())
        },
        || "a round trip of each open connection".to_owned(),
    );

    // One pass repairs everything.
    machine.changed();
    machine.in_sync();
    assert_bypass(&lab, FIRST);
    assert_egress(&lab);
    assert_private_networks(&lab);
    let inbound = inbound.stop();
    inbound.assert_only(HOST1_PUBLIC, &[OPERATOR]);
    inbound.assert_only(HOST1_6, &[OPERATOR6]);
    assert_no_leaks(&lab);
    let partners = partners.stop();
    for partner in [PARTNER, PARTNER6] {
        let counts = partners.of(partner);
        let egress = egress_of_nat1(&lab, partner).to_string();
        // Connections in flight when the link went down: lost, or refused as unreachable.
        let others = ["HostUnreachable", "NetworkUnreachable", "TimedOut"];
        let fine = |seen: &String| *seen == egress || others.contains(&seen.as_str());
        assert!(counts.keys().all(fine), "{partner}: {counts:?}");
    }
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn after_a_flap_nothing_leaks_and_clients_outside_are_answered_nftables() {
    isolated(|| flap(Firewall::Nftables, "0"));
}

#[test]
fn after_a_flap_nothing_leaks_and_clients_outside_are_answered_iptables() {
    isolated(|| flap(Firewall::Iptables, "0"));
}

#[test]
fn after_a_flap_nothing_leaks_with_a_strict_reverse_path_filter() {
    isolated(|| flap(Firewall::Nftables, "1"));
}

#[test]
fn after_a_flap_nothing_leaks_with_a_loose_reverse_path_filter() {
    isolated(|| flap(Firewall::Nftables, "2"));
}

/// The effect of each missing sysctl; connections opened earlier (sockets without a mark) continue
/// after a pass has repaired the routes.
fn flap_without(sysctls: &[(&str, &str)], answered: [bool; 2]) {
    let lab = lab_with_nats();
    let machine = Machine::new(&lab, "host1", Firewall::Nftables, ONE);
    machine.ns().sysctl(sysctls);
    let open = open_from_outside(&lab);
    machine.changed();
    count_from_now(&lab);
    lab.flap_host("host1");
    assert_closed_after_flap(&lab);
    let clients = [HOST1_PUBLIC, HOST1_6].map(|public| {
        let ns = lab.ns("outside").clone();
        std::thread::spawn(move || ns.who(public).is_ok())
    });
    assert_eq!(clients.map(|client| client.join().unwrap()), answered);
    machine.changed();
    assert_reachable_from_outside(&lab);
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn without_tcp_fwmark_accept_clients_outside_wait_for_the_repair() {
    isolated(|| flap_without(&[], [false, false]));
}

#[test]
fn without_src_valid_mark_a_reverse_path_filter_drops_clients_outside() {
    isolated(|| {
        let sysctls = [
            ("net/ipv4/tcp_fwmark_accept", "1"),
            ("net/ipv4/conf/all/rp_filter", "2"),
        ];
        flap_without(&sysctls, [false, true]);
    });
}
