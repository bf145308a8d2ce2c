//! NAT role, real packets: what the servers see of the hosts behind a NAT instance.

mod lab;
mod packets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lab::*;
use packets::*;

/// The private networks behind the instance.
const SOURCES: &str = "sources = [\"10.0.0.0/16\", \"2600:1f18:1000:1::/64\"]\n";
const KEPT: [IpAddr; 4] = [S3, S3_SECOND, S3_6, S3_SECOND6];

/// One way to connect and configure an instance.
struct Case {
    layout: NatLayout,
    firewall: Firewall,
    /// What follows `sources` in `[nat]`, and further sections.
    settings: fn(&NatAddresses) -> String,
    /// What storage sees of `host1`, both families.
    bypass: fn(&NatAddresses) -> [IpAddr; 2],
}

impl Case {
    /// A lab whose hosts leave through `nat1`, where the administrator translates as they did
    /// before Trailblazer came, and lets clients outside in to `host1`.
    fn lab(&self) -> Lab {
        let lab = Lab::with(self.layout);
        lab.plain_nat("nat1");
        for host in ["host1", "host2"] {
            lab.default_via(host, "nat1");
            // A subnet's route table sends peered networks straight there, in both directions.
            lab.ns(host).ip_batch(&format!(
                "route add 10.8.0.0/16 via {ROUTER}\nroute add fd08:8::/64 via {ROUTER6} dev priv\n"
            ));
        }
        let link = match self.layout {
            NatLayout::OneInterface => PRIVATE_LINK,
            NatLayout::TwoInterfaces | NatLayout::BulkInterface => PUBLIC_LINK,
        };
        let NatAddresses {
            egress, egress6, ..
        } = lab.nat1;
        lab.ns("nat1").nft(&format!(
            "table inet letin {{
               chain pre {{
                 type nat hook prerouting priority dstnat;
                 iifname {link} ip daddr {egress} tcp dport {PORT} dnat ip to {HOST1}
                 iifname {link} ip6 daddr {egress6} tcp dport {PORT} dnat ip6 to {HOST1_6}
               }}
             }}"
        ));
        lab
    }

    fn machine<'a>(&self, lab: &'a Lab) -> Machine<'a> {
        let settings = format!("{SOURCES}{}", (self.settings)(&lab.nat1));
        Machine::new(lab, "nat1", self.firewall, &settings)
    }
}

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

/// Prefixes that come and go; `KEPT` stay.
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
    let lab = case.lab();
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
    for target in [S3, S3_6] {
        // The instance's own traffic isn't steered.
        let seen = machine
            .ns()
            .who_from(pick(target, [lab.nat1.egress, lab.nat1.egress6]), target);
        assert_eq!(seen, Ok(pick(target, outside)));
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

fn egress_line(nat: &NatAddresses) -> String {
    format!(
        "egress_addresses = [\"{}\", \"{}\"]\n",
        nat.egress, nat.egress6
    )
}

fn second(nat: &NatAddresses) -> [IpAddr; 2] {
    [nat.second_public, nat.second6]
}

/// A bulk interface with a gateway of its own; its address by masquerading.
fn bulk_interface(firewall: Firewall) -> Case {
    Case {
        layout: NatLayout::BulkInterface,
        firewall,
        settings: |nat| format!("{}[bypass]\ninterface = \"bulk\"\n", egress_line(nat)),
        bypass: second,
    }
}

/// One interface to the internet with one gateway: nothing but the destination tells the paths apart.
fn one_gateway(layout: NatLayout, firewall: Firewall) -> Case {
    Case {
        layout,
        firewall,
        settings: |nat| {
            format!(
                "{}bypass = [\"{}\", \"{}\"]\n",
                egress_line(nat),
                nat.second,
                nat.second6
            )
        },
        bypass: second,
    }
}

#[test]
fn a_bulk_interface_is_masqueraded_nftables() {
    isolated(|| whole_story(bulk_interface(Firewall::Nftables)));
}

#[test]
fn a_bulk_interface_is_masqueraded_iptables() {
    isolated(|| whole_story(bulk_interface(Firewall::Iptables)));
}

#[test]
fn two_addresses_behind_one_gateway_nftables() {
    isolated(|| whole_story(one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables)));
}

#[test]
fn two_addresses_behind_one_gateway_iptables() {
    isolated(|| whole_story(one_gateway(NatLayout::TwoInterfaces, Firewall::Iptables)));
}

#[test]
fn one_interface_for_everything_nftables() {
    isolated(|| whole_story(one_gateway(NatLayout::OneInterface, Firewall::Nftables)));
}

#[test]
fn one_interface_for_everything_iptables() {
    isolated(|| whole_story(one_gateway(NatLayout::OneInterface, Firewall::Iptables)));
}

#[test]
fn one_interface_for_everything_iptables_legacy() {
    isolated(|| {
        whole_story(one_gateway(
            NatLayout::OneInterface,
            Firewall::IptablesLegacy,
        ))
    });
}
