//! The NAT role with real packets: the servers' view of the hosts behind a NAT instance.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lab::*;
use packets::nat::*;
use packets::*;
use trailblazer::desired::shares::address_of;
use trailblazer::types::BackendKind;

const KEPT: [IpAddr; 4] = [S3, S3_SECOND, S3_6, S3_SECOND6];

fn pick(other: IpAddr, [v4, v6]: [IpAddr; 2]) -> IpAddr {
    if other.is_ipv4() { v4 } else { v6 }
}

fn egress(lab: &Lab) -> [IpAddr; 2] {
    [lab.nat1.egress_public, lab.nat1.egress6]
}

#[track_caller]
fn assert_storage(lab: &Lab, prefixes: &[&str], seen: [IpAddr; 2]) {
    for prefix in prefixes {
        let storage = address_in(prefix);
        let expected = pick(storage, seen);
        assert_eq!(
            lab.who("host1", storage),
            Ok(expected),
            "{storage} in {prefix}"
        );
    }
}

#[track_caller]
fn assert_partner(lab: &Lab) {
    for host in ["host1", "host2"] {
        for partner in [PARTNER, PARTNER6] {
            let expected = pick(partner, egress(lab));
            assert_eq!(lab.who(host, partner), Ok(expected), "{host} to {partner}");
            let datagram = lab.ns(host).who_udp(SocketAddr::new(partner, PORT));
            assert_eq!(datagram, Ok(expected), "{host} to {partner}, UDP");
        }
    }
}

/// The instance's own traffic is neither routed by path nor translated, also from addresses inside the
/// source networks.
#[track_caller]
fn assert_own_traffic(lab: &Lab) {
    let NatAddresses {
        private6,
        egress,
        egress6,
        second,
        second6,
        ..
    } = lab.nat1;
    let (nat1, public) = (
        lab.ns("nat1"),
        [lab.nat1.egress_public, lab.nat1.second_public],
    );
    let mut own = vec![(egress, public[0]), (egress6, egress6)];
    if lab.layout != NatLayout::BulkInterface {
        own.extend([
            (second, public[1]),
            (second6, second6),
            (private6, private6),
        ]);
    }
    for (source, seen) in own {
        let storage = if source.is_ipv4() { S3 } else { S3_6 };
        assert_eq!(nat1.who_from(source, storage), Ok(seen), "from {source}");
    }
}

/// Inside the VPC nothing is translated, and peered networks are reached.
#[track_caller]
fn assert_private(lab: &Lab) {
    let resolver = SocketAddr::new(RESOLVER_IN_VPC, DNS_PORT);
    assert_eq!(lab.ns("host1").who_udp(resolver), Ok(HOST1));
    assert_eq!(lab.who("host1", HOST2), Ok(HOST1));
    assert_eq!(lab.who("host1", HOST2_6), Ok(HOST1_6));
    for peer in [PEER, PEER6] {
        assert_eq!(lab.who("host1", peer), Ok(pick(peer, [HOST1, HOST1_6])));
        assert!(lab.who("nat1", peer).is_ok(), "nat1 to {peer}");
    }
    assert_eq!(lab.who("peer", HOST1), Ok(PEER));
    assert_eq!(lab.who("peer", HOST1_6), Ok(PEER6));
}

/// Prefixes that come and go, beside the constant `KEPT`.
const MOVING: [&str; 3] = ["3.5.0.0/19", "52.217.0.0/16", "2600:1ff0:8000::/39"];
const CHANGES: &[&[&str]] = &[
    &[
        "52.216.0.0/16",
        "54.231.0.0/16",
        "2600:1fa0:8000::/39",
        "2600:1ff0:8000::/39",
        "2600:1ff8:8000::/40",
    ],
    &[
        "3.5.0.0/19",
        "52.216.0.0/15",
        "54.231.0.0/17",
        "2600:1fa0:8000::/40",
        "2600:1ff8:8000::/41",
    ],
    FIRST,
];

fn whole_story(case: Case) {
    let lab = behind_nat1(case.layout);
    lab.serve_s3(MOVING);
    let mut machine = case.machine(&lab);
    machine.administrator();
    let foreign = machine.ns().foreign_snapshot();
    let bypass = (case.bypass)(&lab.nat1);
    let outside = egress(&lab);

    // Before: the administrator's translation serves everybody.
    assert_storage(&lab, &["52.216.0.0/15", "2600:1fa0:8000::/39"], outside);
    assert_partner(&lab);
    let mut open = Vec::new();
    for partner in [PARTNER, PARTNER6] {
        open.push(lab.long_flow("host1", partner));
    }
    for public in outside {
        open.push(lab.long_flow("outside", public));
    }
    // During the first pass.
    let inbound = lab.stream("outside", &outside, PACE);
    let partners = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    partners.wait_for(8);
    machine.changed();
    count_from_now(&lab);
    partners.wait_for(8);

    // After.
    assert_storage(&lab, FIRST, bypass);
    assert_partner(&lab);
    assert_private(&lab);
    assert_own_traffic(&lab);
    count_from_now(&lab);
    for target in [S3, S3_6] {
        open.push(lab.long_flow("host1", target));
    }
    machine.in_sync();
    foreign.assert_same(&machine.ns().foreign_snapshot());

    // Documents change under a steady stream.
    count_from_now(&lab);
    let moving = MOVING.map(address_in);
    let storage = lab.stream("host1", &[&KEPT[..], &moving].concat(), PACE);
    for prefixes in CHANGES {
        storage.wait_for(14);
        machine.publish(prefixes);
        machine.changed();
        assert_storage(&lab, prefixes, bypass);
        for address in moving {
            let selected =
                |prefix: &&str| prefix.parse::<ipnet::IpNet>().unwrap().contains(&address);
            let path = if prefixes.iter().any(selected) {
                bypass
            } else {
                outside
            };
            assert_eq!(
                lab.who("host1", address),
                Ok(pick(address, path)),
                "{address}"
            );
        }
        machine.in_sync();
    }
    storage.wait_for(14);
    let storage = storage.stop();
    for target in KEPT {
        storage.assert_only(target, &[pick(target, bypass)]);
    }
    let partners = partners.stop();
    for partner in [PARTNER, PARTNER6] {
        partners.assert_only(partner, &[pick(partner, outside)]);
    }
    let inbound = inbound.stop();
    inbound.assert_only(outside[0], &[OPERATOR]);
    inbound.assert_only(outside[1], &[OPERATOR6]);
    assert_partner(&lab);
    assert_eq!(lab.partner.peers(), BTreeSet::from(outside));
    let leaks = lab.leaks();
    assert_eq!((leaks.partner4, leaks.partner6, leaks.unmapped), (0, 0, 0));
    foreign.assert_same(&machine.ns().foreign_snapshot());
    for flow in open {
        flow.assert_alive();
    }
}

#[test]
fn bulk_interface_is_masqueraded_nftables() {
    isolated(|| whole_story(bulk_interface(Firewall::Nftables)));
}

#[test]
fn bulk_interface_is_masqueraded_iptables() {
    isolated(|| whole_story(bulk_interface(Firewall::Iptables)));
}

#[test]
fn nat_works_with_two_addresses_behind_one_gateway_nftables() {
    isolated(|| whole_story(one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables)));
}

#[test]
fn nat_works_with_two_addresses_behind_one_gateway_iptables() {
    isolated(|| whole_story(one_gateway(NatLayout::TwoInterfaces, Firewall::Iptables)));
}

#[test]
fn nat_works_on_one_interface_nftables() {
    isolated(|| whole_story(one_gateway(NatLayout::OneInterface, Firewall::Nftables)));
}

#[test]
fn nat_works_on_one_interface_iptables() {
    isolated(|| whole_story(one_gateway(NatLayout::OneInterface, Firewall::Iptables)));
}

#[test]
fn nat_works_on_one_interface_iptables_legacy() {
    isolated(|| {
        whole_story(one_gateway(
            NatLayout::OneInterface,
            Firewall::IptablesLegacy,
        ))
    });
}

#[test]
fn nat_works_with_two_gateways_on_one_interface_nftables() {
    isolated(|| whole_story(two_gateways(Firewall::Nftables)));
}

#[test]
fn nat_works_with_two_gateways_on_one_interface_iptables() {
    isolated(|| whole_story(two_gateways(Firewall::Iptables)));
}

/// Bypass traffic keeps its private source: the edge behind the instance translates.
fn untranslated(firewall: Firewall) {
    let case = Case {
        settings: |nat| format!("{}bypass = \"none\"\n", egress_line(nat)),
        ..one_gateway(NatLayout::OneInterface, firewall)
    };
    let lab = behind_nat1(case.layout);
    // The administrator's translate-all rule catches traffic that our rules leave alone.
    let machine = case.machine(&lab);
    let told = machine.run(&["reconcile"]).expect_code(1).stdout;
    assert!(told.contains("table inet natbox, chain"), "{told}");
    assert!(
        told.contains("which [nat] bypass = \"none\" leaves alone"),
        "{told}"
    );
    assert_storage(&lab, FIRST, egress(&lab));
    let natbox = ["nft", "delete", "table", "inet", "natbox"];
    lab.ns("nat1").run(&natbox);
    machine.in_sync();
    count_from_now(&lab);
    assert_storage(&lab, FIRST, [HOST1_PUBLIC, HOST1_6]);
    assert_partner(&lab);
    assert_private(&lab);
    assert_no_leaks(&lab);
}

#[test]
fn bypass_traffic_keeps_its_source_nftables() {
    isolated(|| untranslated(Firewall::Nftables));
}

#[test]
fn bypass_traffic_keeps_its_source_iptables() {
    isolated(|| untranslated(Firewall::Iptables));
}

/// The egress address of each of many source hosts.
fn shares(lab: &Lab, hosts: &[IpAddr]) -> BTreeMap<IpAddr, IpAddr> {
    let seen = |own: &IpAddr| {
        let partner = pick(*own, [PARTNER, PARTNER6]);
        let seen = lab.ns("host1").who_from(*own, partner);
        (
            *own,
            seen.unwrap_or_else(|kind| panic!("{own} to {partner}: {kind:?}")),
        )
    };
    hosts.iter().map(seen).collect()
}

fn several_egress_addresses(firewall: Firewall) {
    let case = Case {
        settings: |nat| {
            let further = [further(nat)[0], further(nat)[1]];
            format!(
                "egress_addresses = [\"{}\", \"{}\", \"{}\", \"{}\"]\n[bypass]\ninterface = \"bulk\"\n",
                further[0], nat.egress, nat.egress6, further[1]
            )
        },
        ..bulk_interface(firewall)
    };
    let lab = behind_nat1(case.layout);
    lab.serve_s3(MOVING);
    let [further4, further6] = further(&lab.nat1);
    lab.ns("nat1").ip_batch(&format!(
        "addr add {further4}/29 dev pub\naddr add {further6}/64 dev pub nodad\n"
    ));
    lab.set_egress(&[lab.nat1.egress, lab.nat1.egress6, further4, further6]);
    let mut hosts = Vec::new();
    let mut batch = String::new();
    for number in 100..112 {
        let own: IpAddr = format!("10.0.1.{number}").parse().unwrap();
        let own6: IpAddr = format!("2600:1f18:1000:1::{number}").parse().unwrap();
        batch.push_str(&format!(
            "addr add {own}/24 dev priv\naddr add {own6}/64 dev priv nodad\n"
        ));
        hosts.extend([own, own6]);
    }
    lab.ns("host1").ip_batch(&batch);

    let mut machine = case.machine(&lab);
    machine.changed();
    machine.in_sync();
    let first = shares(&lab, &hosts);
    let used: BTreeSet<IpAddr> = first.values().copied().collect();
    let all = BTreeSet::from([lab.nat1.egress, lab.nat1.egress6, further4, further6]);
    assert_eq!(used, all, "each address is used: {first:?}");
    // The same host, the same address: again, after a change of the document, after everything
    // was taken away and put back, and with the addresses in another order.
    assert_eq!(shares(&lab, &hosts), first);
    machine.publish(CHANGES[0]);
    machine.changed();
    assert_eq!(shares(&lab, &hosts), first);
    machine.flush();
    machine.changed();
    assert_eq!(shares(&lab, &hosts), first);
    let NatAddresses {
        egress, egress6, ..
    } = lab.nat1;
    machine.configure(&format!(
        "{SOURCES}egress_addresses = [\"{egress6}\", \"{further6}\", \"{egress}\", \"{further4}\"]\n\
         [bypass]\ninterface = \"bulk\"\n"
    ));
    machine.in_sync();
    assert_storage(&lab, CHANGES[0], second(&lab.nat1));
    assert_no_leaks(&lab);

    // The prediction of `check`.
    let backend = match firewall {
        Firewall::Nftables => BackendKind::Nftables,
        Firewall::Iptables | Firewall::IptablesLegacy => BackendKind::Iptables,
    };
    for (host, seen) in &first {
        let of_family = all.iter().filter(|own| own.is_ipv4() == host.is_ipv4());
        let addresses: Vec<IpAddr> = of_family.copied().collect();
        assert_eq!(
            address_of(*host, &addresses, backend),
            Some(*seen),
            "{host}"
        );
    }

    let check = machine.run(&["check"]).stdout;
    assert!(check.contains("ipv4: shares of the hosts: "), "{check}");
    let own = hosts.iter().find(|own| own.is_ipv4()).unwrap();
    let line = format!("{own} leaves as {}", first[own]);
    assert!(check.contains(&line), "{check}\nlacks {line}");
    // The substitutes for the routing decision ask for nothing.
    for line in ["realm 83 on the bypass routes", "routes carry no realm"] {
        let found = check.lines().find(|found| found.contains(line));
        assert!(
            found.is_some_and(|found| found.starts_with("ok ")),
            "{check}"
        );
    }

    // A third address in place of one: no host changes between the addresses that stay.
    let [third4, third6] = further_by(&lab.nat1, 2);
    lab.ns("nat1").ip_batch(&format!(
        "addr add {third4}/29 dev pub\naddr add {third6}/64 dev pub nodad\n"
    ));
    lab.set_egress(&[egress, egress6, third4, third6]);
    machine.configure(&format!(
        "{SOURCES}egress_addresses = [\"{egress6}\", \"{third6}\", \"{egress}\", \"{third4}\"]\n\
         [bypass]\ninterface = \"bulk\"\n"
    ));
    machine.changed();
    for (host, now) in shares(&lab, &hosts) {
        let before = first[&host];
        let came = match before {
            gone if gone == further4 => third4,
            gone if gone == further6 => third6,
            stays => stays,
        };
        assert_eq!(now, came, "{host}: {before} to {now}");
    }
}

fn further(nat: &NatAddresses) -> [IpAddr; 2] {
    further_by(nat, 1)
}

fn further_by(nat: &NatAddresses, more: u8) -> [IpAddr; 2] {
    let next = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) - u32::from(more)).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) + u128::from(more)).to_be_bytes()),
    };
    [next(nat.egress), next(nat.egress6)]
}

#[test]
fn sources_keep_one_of_several_egress_addresses_nftables() {
    isolated(|| several_egress_addresses(Firewall::Nftables));
}

#[test]
fn sources_keep_one_of_several_egress_addresses_iptables() {
    isolated(|| several_egress_addresses(Firewall::Iptables));
}

/// Sends requests to a port that `nat1` does not track, on both paths; nothing answers.
fn ask_untracked(lab: &Lab) {
    let ask = |target| {
        let host1 = lab.ns("host1").clone();
        std::thread::spawn(move || host1.who_at(SocketAddr::new(target, 7)).is_err())
    };
    let refused = [PARTNER, PARTNER6, S3, S3_6].map(ask);
    assert_eq!(refused.map(|asked| asked.join().unwrap()), [true; 4]);
}

/// Leaves the guard of iptables alone: without the chain after all translation, as on a kernel
/// without nf_tables, and behind an administrator's ACCEPT.
fn hide_behind_accept(nat1: &Ns, firewall: Firewall) {
    nat1.run(&["nft", "flush", "chain", "inet", "trailblazer-guard", "last"]);
    for family in ["ip", "ip6"] {
        let program = firewall.program(family);
        nat1.run(&[program.as_str(), "-I", "FORWARD", "-j", "ACCEPT"]);
    }
}

/// Packets that conntrack cannot assign or may not track are never translated, and must not leave
/// with their private source.
fn untranslatable(case: Case) {
    let lab = behind_nat1(case.layout);
    let nat1 = lab.ns("nat1");
    nat1.nft(
        "table inet untracked {
           chain pre { type filter hook prerouting priority raw; iifname priv tcp dport 7 notrack; }
         }",
    );
    // The administrator's translation alone lets the packet out: the lab sees the leak.
    eventually("the lab sees the leak of both families", || {
        ask_untracked(&lab);
        let leaks = lab.leaks();
        leaks.unmapped + leaks.partner4 > 0 && leaks.partner6 > 0
    });

    // From here on there is nobody but us.
    nat1.run(&["nft", "delete", "table", "inet", "natbox"]);
    let machine = case.machine(&lab);
    machine.changed();
    assert_partner(&lab);
    if case.firewall != Firewall::Nftables {
        hide_behind_accept(nat1, case.firewall);
    }
    let open = [PARTNER, PARTNER6].map(|partner| lab.long_flow("host1", partner));
    count_from_now(&lab);
    ask_untracked(&lab);
    assert_eq!(lab.leaks(), Leaks::default());

    // Invalid packets: the middle of a connection that conntrack has forgotten and does not pick up
    // again.
    nat1.sysctl(&[("net/netfilter/nf_conntrack_tcp_loose", "0")]);
    nat1.run(&["conntrack", "-F"]);
    std::thread::sleep(std::time::Duration::from_millis(600));
    for flow in open {
        let before = flow.round_trips();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(flow.round_trips(), before, "nothing of it passes any more");
        drop(flow);
    }
    assert_eq!(lab.leaks(), Leaks::default());
    assert_eq!(lab.partner.contacts(), []);
    // New connections are as before.
    assert_partner(&lab);
    assert_storage(&lab, FIRST, (case.bypass)(&lab.nat1));
}

#[test]
fn untranslatable_packets_never_leave_nftables() {
    isolated(|| untranslatable(bulk_interface(Firewall::Nftables)));
}

#[test]
fn untranslatable_packets_never_leave_iptables() {
    isolated(|| untranslatable(bulk_interface(Firewall::Iptables)));
}

#[test]
fn untranslatable_packets_never_leave_iptables_legacy() {
    isolated(|| untranslatable(bulk_interface(Firewall::IptablesLegacy)));
}

#[test]
fn untranslatable_packets_never_leave_on_one_interface() {
    isolated(|| untranslatable(one_gateway(NatLayout::OneInterface, Firewall::Nftables)));
}

fn flush(case: Case) {
    let lab = behind_nat1(case.layout);
    let machine = case.machine(&lab);
    machine.administrator();
    let before = machine.ns().snapshot();
    machine.changed();
    assert_storage(&lab, FIRST, (case.bypass)(&lab.nat1));
    let outside = egress(&lab);
    let open = outside.map(|public| lab.long_flow("outside", public));
    let partners = [PARTNER, PARTNER6].map(|partner| lab.long_flow("host1", partner));
    count_from_now(&lab);
    let stream = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    stream.wait_for(8);
    machine.flush();
    stream.wait_for(8);
    let report = stream.stop();
    for partner in [PARTNER, PARTNER6] {
        report.assert_only(partner, &[pick(partner, outside)]);
    }
    before.assert_same(&machine.ns().snapshot());
    // The administrator's own translation is in charge again, of everything.
    assert_partner(&lab);
    assert_eq!(lab.partner.refused(), BTreeSet::new());
    assert_storage(&lab, FIRST, outside);
    for flow in open.into_iter().chain(partners) {
        flow.assert_alive();
    }
}

#[test]
fn flush_leaves_the_administrators_translation_nftables() {
    isolated(|| flush(bulk_interface(Firewall::Nftables)));
}

#[test]
fn flush_leaves_the_administrators_translation_iptables() {
    isolated(|| flush(one_gateway(NatLayout::TwoInterfaces, Firewall::Iptables)));
}

/// Exempt destinations see the private source: here the internet gateway drops and counts such
/// packets.
fn exempt(firewall: Firewall) {
    let case = one_gateway(NatLayout::TwoInterfaces, firewall);
    let lab = behind_nat1(case.layout);
    lab.ns("nat1").nft("delete table inet natbox");
    let mut machine = case.machine(&lab);
    machine.changed();
    count_from_now(&lab);
    let partner = || lab.ns("host1").who_udp(SocketAddr::new(PARTNER, PORT));
    assert_eq!(partner(), Ok(lab.nat1.egress_public));
    assert_eq!(lab.leaks().unmapped, 0);
    let settings = (case.settings)(&lab.nat1);
    machine.configure(&format!("{SOURCES}exempt = [\"{PARTNER}/32\"]\n{settings}"));
    machine.changed();
    assert!(partner().is_err());
    assert_ne!(lab.leaks().unmapped, 0, "the private source left");
    assert_eq!(lab.who("host1", PARTNER6), Ok(lab.nat1.egress6));
    assert_storage(&lab, FIRST, second(&lab.nat1));
}

#[test]
fn exempt_destinations_see_the_private_source_nftables() {
    isolated(|| exempt(Firewall::Nftables));
}

#[test]
fn exempt_destinations_see_the_private_source_iptables() {
    isolated(|| exempt(Firewall::Iptables));
}
