//! ICMP redirects of a NAT with one interface: packets at the partner, with the lab's machines at the
//! kernel's defaults, which send and accept redirects.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use lab::*;
use packets::*;

const SETTINGS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// The rules of the lab's NAT, which the test takes away for a moment: a NAT that boots forwards
/// before its firewall is loaded.
fn without_translation(lab: &Lab, during: impl FnOnce()) {
    let nat = lab.ns("nat1");
    let rules = nat.run(&["nft", "list", "ruleset"]);
    nat.nft("flush ruleset");
    // A connection that the NAT knows keeps its translation.
    nat.run(&["conntrack", "-F"]);
    let partner = lab.ns("partner");
    partner.nft(
        "table inet mute { chain in { type filter hook input priority 0; th dport 9 drop; }\n}\n",
    );
    during();
    partner.nft("delete table inet mute");
    nat.nft(&rules);
}

/// True if a redirect of the NAT leads packets of `host1` to the router.
fn is_redirected(lab: &Lab, partner: IpAddr) -> bool {
    let route = lab.ns("host1").ip(&format!("route get {partner}"));
    !route.contains("via 10.0.1.10") && !route.contains("via 2600:1f18:1000:1::10")
}

/// Sends packets until the host follows a redirect. The kernel sends few redirects (20 ms, 40 ms ...
/// apart, IPv6 one a second), and the first of IPv4 only makes the host look for the router's
/// hardware address. IPv6 takes a redirect for a TCP connection, unless the program is just inside
/// a system call of the connection: only the second SYN, a second after the first, counts.
fn send_untranslated(lab: &Lab, partner: IpAddr, attempts: usize) -> bool {
    let host = lab.ns("host1");
    let to = SocketAddr::new(partner, 9);
    (0..attempts).any(|_| {
        host.in_thread(|| match partner {
            IpAddr::V4(_) => {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let _refused = socket.send_to(b"x", to);
                thread::sleep(Duration::from_millis(100));
            }
            IpAddr::V6(_) => {
                let _times_out = TcpStream::connect_timeout(&to, Duration::from_millis(1300));
            }
        });
        is_redirected(lab, partner)
    })
}

fn redirects_lead_nobody_past_the_nat(firewall: Firewall) {
    let lab = Lab::with(NatLayout::OneInterface);
    lab.plain_nat("nat1");
    lab.set_egress(&[lab.nat1.egress_public, lab.nat1.egress6]);
    let machine = Machine::new(&lab, "host1", firewall, SETTINGS);
    machine.changed();
    let partners = [PARTNER, PARTNER6];
    let promised = partners.map(|partner| lab.who("host1", partner).unwrap());

    // Without our firewall a redirect leads the host past the NAT, and keeps doing so.
    remove_firewall(&machine, firewall);
    without_translation(&lab, || {
        for partner in partners {
            assert!(
                send_untranslated(&lab, partner, 20),
                "{partner}: no redirect"
            );
        }
    });
    for (partner, promised) in partners.into_iter().zip(promised) {
        let seen = lab.who("host1", partner);
        assert_ne!(
            seen.ok(),
            Some(promised),
            "{partner}: the redirect does no harm"
        );
    }

    // A pass restores the firewall, and the kernel forgets the redirects.
    let text = machine.run(&["reconcile"]).expect_code(0).stdout;
    assert!(text.contains("an ICMP redirect leads packets to"), "{text}");
    for (partner, promised) in partners.into_iter().zip(promised) {
        assert!(!is_redirected(&lab, partner), "{partner}");
        assert_eq!(lab.who("host1", partner).unwrap(), promised, "{partner}");
    }

    // From now on the redirects reach nothing.
    without_translation(&lab, || {
        for partner in partners {
            assert!(
                !send_untranslated(&lab, partner, 4),
                "{partner}: redirected"
            );
        }
    });
    for (partner, promised) in partners.into_iter().zip(promised) {
        assert_eq!(lab.who("host1", partner).unwrap(), promised, "{partner}");
    }
    machine.run(&["reconcile", "--dry-run"]).expect_code(0);
}

fn remove_firewall(machine: &Machine<'_>, firewall: Firewall) {
    let ns = machine.ns();
    match firewall {
        Firewall::Nftables => ns.nft("flush ruleset"),
        Firewall::Iptables | Firewall::IptablesLegacy => {
            for family in ["ip", "ip6"] {
                let program = firewall.program(family);
                ns.run(&[
                    program.as_str(),
                    "-w",
                    "-t",
                    "mangle",
                    "-F",
                    "TRAILBLAZER-PRE",
                ]);
            }
        }
    }
}

#[test]
fn redirects_lead_nobody_past_the_nat_with_nftables() {
    isolated(|| redirects_lead_nobody_past_the_nat(Firewall::Nftables));
}

#[test]
fn redirects_lead_nobody_past_the_nat_with_iptables() {
    isolated(|| redirects_lead_nobody_past_the_nat(Firewall::Iptables));
}

#[test]
fn redirects_lead_nobody_past_the_nat_with_legacy_iptables() {
    isolated(|| redirects_lead_nobody_past_the_nat(Firewall::IptablesLegacy));
}
