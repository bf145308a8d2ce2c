//! The agent among neighbours, with real packets: what others take away is back, and partners see
//! the egress address only, all the while.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod lab;
mod packets;

use std::net::IpAddr;

use lab::*;
use packets::*;
use serde_json::Value;

/// One NAT instance, both families.
const ONE: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

fn bypass_of_host1(other: IpAddr) -> IpAddr {
    match other.is_ipv4() {
        true => HOST1_PUBLIC,
        false => HOST1_6,
    }
}

fn egress_of_nat1(lab: &Lab, other: IpAddr) -> IpAddr {
    match other.is_ipv4() {
        true => lab.nat1.egress_public,
        false => lab.nat1.egress6,
    }
}

/// A lab, a host with an agent in force, and streams of new connections that judge in the end.
fn in_force(firewall: Firewall, body: impl FnOnce(&Machine, &Agent)) {
    let lab = Lab::new();
    lab.plain_nat("nat1");
    let machine = Machine::new(&lab, "host1", firewall, ONE);
    machine.administrator();
    let agent = machine.agent();
    agent.wait_in_force();
    let foreign = machine.ns().foreign_snapshot();
    count_from_now(&lab);
    let stream = lab.stream("host1", &[S3, S3_6, PARTNER, PARTNER6], PACE);
    stream.wait_for(8);
    body(&machine, &agent);
    stream.wait_for(8);
    let report = stream.stop();
    for partner in [PARTNER, PARTNER6] {
        let seen = report.of(partner);
        let egress = egress_of_nat1(&lab, partner).to_string();
        assert!(
            seen.get(&egress).is_some_and(|count| *count > 0),
            "{seen:?}"
        );
    }
    assert_no_leaks(&lab);
    for target in [S3, S3_6] {
        assert_eq!(lab.who("host1", target), Ok(bypass_of_host1(target)));
    }
    for target in [PARTNER, PARTNER6] {
        assert_eq!(lab.who("host1", target), Ok(egress_of_nat1(&lab, target)));
    }
    machine.in_sync();
    foreign.assert_same(&machine.ns().foreign_snapshot());
}

fn mended(status: &Value, kind: &str) -> u64 {
    status["drift"]["mended"][kind].as_u64().unwrap_or(0)
}

#[test]
fn a_route_and_a_rule_that_somebody_deletes_are_back() {
    isolated(|| {
        in_force(Firewall::Nftables, |machine, agent| {
            machine.ns().ip("route del 52.216.0.0/15 table 1083");
            machine.ns().ip("rule del pref 30020");
            let status = agent.wait_for("both mended", |status| {
                mended(status, "route") >= 1 && mended(status, "rule") >= 1
            });
            assert_eq!(status["drift"]["conflicts"], Value::Array(Vec::new()));
            eventually("the journal tells", || {
                let history = machine.run(&["history", "-o", "json"]).ok().json();
                history["passes"].as_array().unwrap().iter().any(|pass| {
                    pass["cause"] == "mended" && pass["steps_total"].as_u64() >= Some(1)
                })
            });
        });
    });
}
