//! A gateway that answers no address resolution: packets are lost although every route is right, and
//! every command says so.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::net::IpAddr;

use lab::*;
use packets::nat::*;
use packets::*;

const SETTINGS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// Each command names the gateway.
#[track_caller]
fn assert_named(machine: &Machine<'_>, partner: IpAddr, words: &str) {
    let partner = partner.to_string();
    let commands: [&[&str]; 3] = [&["reconcile"], &["check"], &["explain", &partner]];
    for command in commands {
        let output = machine.run(command);
        assert_eq!(output.code, Some(1), "{command:?}: {}", output.stdout);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains(words), "{command:?}: {text}");
    }
}

/// A pass makes the kernel look again, which the kernel does once a second.
fn assert_recovers(machine: &Machine<'_>) {
    eventually("the gateway answers again", || {
        machine.run(&["reconcile"]).code == Some(0)
    });
}

/// Takes an address away from a machine, which no longer answers for it.
fn without_address(ns: &Ns, address: &str, link: &str, during: impl FnOnce()) {
    ns.ip(&format!("addr del {address} dev {link}"));
    during();
    let nodad = if address.contains(':') { "nodad" } else { "" };
    ns.ip_batch(&format!("addr add {address} dev {link} {nodad}\n"));
}

/// Makes the host look for the gateway until the kernel has given up.
fn lose_packets(lab: &Lab, from: &str, partner: IpAddr, neighbour: &str) {
    lab.ns(from).ip("neigh flush all");
    eventually("the kernel gives the gateway up", || {
        let _lost = lab.who(from, partner);
        let shown = lab.ns(from).ip(&format!("neigh show {neighbour}"));
        shown.contains("FAILED") || shown.contains("INCOMPLETE")
    });
}

#[test]
fn each_command_names_a_silent_egress_gateway_of_a_host() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, SETTINGS);
        machine.changed();
        for (partner, gateway, length, how) in [
            (PARTNER, "10.0.1.10", 24, "ARP"),
            (PARTNER6, "2600:1f18:1000:1::10", 64, "neighbour discovery"),
        ] {
            assert!(lab.who("host1", partner).is_ok());
            let address = format!("{gateway}/{length}");
            without_address(lab.ns("nat1"), &address, PRIVATE_LINK, || {
                lose_packets(&lab, "host1", partner, gateway);
                let words = format!("the gateway {gateway} on {PRIVATE_LINK} answers no {how}");
                assert_named(&machine, partner, &words);
            });
            assert_recovers(&machine);
            assert!(lab.who("host1", partner).is_ok());
        }
    });
}

#[test]
fn an_agent_notices_a_gateway_that_goes_silent_and_comes_back() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, SETTINGS);
        let agent = machine.agent();
        agent.wait_in_force();
        without_address(lab.ns("nat1"), "10.0.1.10/24", PRIVATE_LINK, || {
            lose_packets(&lab, "host1", PARTNER, "10.0.1.10");
            let status = agent.wait_for("a silent gateway", |it| it["state"] == "degraded");
            let reason = status["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("the gateway 10.0.1.10"), "{status:#}");
        });
        agent.wait_in_force();
        assert!(lab.who("host1", PARTNER).is_ok());
    });
}

#[test]
fn each_command_names_a_silent_router_of_a_nat() {
    isolated(|| {
        let case = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables);
        let lab = Lab::with(case.layout);
        let machine = case.machine(&lab);
        lab.default_via("host1", "nat1");
        machine.changed();
        assert!(lab.who("host1", PARTNER).is_ok());
        let router = lab.nat1.gateway.to_string();
        let link = format!("nat1-{PUBLIC_LINK}");
        without_address(lab.ns("vpc"), &format!("{router}/29"), &link, || {
            lab.ns("nat1").ip("neigh flush all");
            lose_packets(&lab, "nat1", PARTNER, &router);
            let words = format!("the gateway {router} on {PUBLIC_LINK} answers no ARP");
            assert_named(&machine, PARTNER, &words);
            // The router is the gateway of the bypass path too.
            assert_named(&machine, S3, &words);
        });
        assert_recovers(&machine);
        assert!(lab.who("host1", PARTNER).is_ok());
    });
}

/// A permanent entry with a wrong address loses packets, and no question to the kernel shows it.
#[test]
fn permanent_neighbour_entry_of_a_gateway_is_a_note() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, SETTINGS);
        machine.changed();
        for (partner, gateway) in [(PARTNER, "10.0.1.10"), (PARTNER6, "2600:1f18:1000:1::10")] {
            assert!(lab.who("host1", partner).is_ok());
            let wrong = "02:00:00:00:00:99";
            let entry = format!("{gateway} dev {PRIVATE_LINK}");
            lab.ns("host1").ip(&format!(
                "neigh replace {entry} lladdr {wrong} nud permanent"
            ));
            assert!(lab.who("host1", partner).is_err(), "packets are lost");
            let words = format!(
                "the gateway {gateway} on {PRIVATE_LINK} has a permanent neighbour entry, {wrong}"
            );
            for command in ["reconcile", "check", "status"] {
                let text = machine.run(&[command]).stdout;
                assert!(text.contains(&words), "{command}: {text}");
            }
            lab.ns("host1").ip(&format!("neigh del {entry}"));
            let text = machine.run(&["reconcile"]).stdout;
            assert!(!text.contains("permanent neighbour entry"), "{text}");
            assert!(lab.who("host1", partner).is_ok());
        }
    });
}

#[test]
fn a_filter_of_traffic_control_is_named_as_a_doubt() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, SETTINGS);
        machine.changed();
        let ns = lab.ns("host1");
        let words = format!("tc filter u32 at egress of {PRIVATE_LINK} perhaps drops or redirects");
        let quiet = machine.run(&["reconcile"]).expect_code(0).stdout;
        assert!(!quiet.contains("tc filter"), "{quiet}");
        ns.ip_batch("link add d0 type veth peer name d1\nlink set d0 up\n");
        for line in [
            format!("tc qdisc add dev {PRIVATE_LINK} clsact"),
            format!(
                "tc filter add dev {PRIVATE_LINK} egress protocol ip u32 match u32 0 0 action mirred egress redirect dev d0"
            ),
        ] {
            ns.run(&line.split(' ').collect::<Vec<_>>());
        }
        assert!(lab.who("host1", PARTNER).is_err());
        for command in ["reconcile", "check"] {
            let text = machine.run(&[command]).stdout;
            assert!(text.contains(&words), "{command}: {text}");
        }
    });
}
