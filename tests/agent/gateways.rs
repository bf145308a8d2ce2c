//! Gateways and egress addresses in the status.

use std::net::UdpSocket;

use serde_json::Value;

use crate::host::*;
use lab::*;

/// The egress gateways in the status: address, use, neighbour.
fn egress(status: &Value) -> Vec<(String, bool, Option<String>)> {
    let gateways = status["gateways"].as_array().unwrap().iter();
    gateways
        .filter(|gateway| gateway["path"] == "egress")
        .map(|gateway| {
            let address = gateway["address"].as_str().unwrap().to_owned();
            let neighbour = gateway["neighbour"].as_str().map(str::to_owned);
            (address, gateway["in_use"] == true, neighbour)
        })
        .collect()
}

/// A packet for a partner makes the kernel ask for the gateway.
fn send(host: &Host, partner: &str) {
    host.ns.in_thread(|| {
        let any = if partner.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        // Without an answer of the gateway the kernel refuses the packet later.
        let _ = socket.send_to(b"x", (partner, 7_777));
    });
}

#[test]
fn gateway_that_stops_answering_shows_as_failed_and_recovers() {
    isolated(|| {
        let host = Host::new();
        let agent = host.in_force();
        let partners = ["203.0.113.77", "2001:db8:77::1"];
        for (gateway, partner) in GATEWAYS.into_iter().zip(partners) {
            let answers = |wanted: &[&str]| {
                agent.wait_for(&format!("{gateway}: {wanted:?}"), |status| {
                    send(&host, partner);
                    egress(status)
                        .into_iter()
                        .any(|(address, used, neighbour)| {
                            let state = neighbour.as_deref().unwrap_or("none");
                            address == gateway && used && wanted.contains(&state)
                        })
                })
            };
            let fine = ["reachable", "stale", "delay", "probe"];
            answers(&fine);
            let length = if gateway.contains(':') { 64 } else { 24 };
            host.far
                .ip(&format!("addr del {gateway}/{length} dev eth0"));
            host.ns.ip(&format!("neigh flush to {gateway} dev eth0"));
            let status = answers(&["failed", "incomplete"]);
            assert_eq!(status["state"], "in_force", "routes stay: {status:#}");
            let nodad = if gateway.contains(':') { " nodad" } else { "" };
            host.far
                .ip(&format!("addr add {gateway}/{length} dev eth0{nodad}"));
            answers(&fine);
        }
    });
}

#[test]
fn gateway_outside_all_networks_shows_as_left_out() {
    isolated(|| {
        let mut host = Host::new();
        let [v4, v6] = GATEWAYS;
        host.set(
            "egress.gateways",
            &format!("[{v4:?}, {v6:?}, \"10.77.0.1\"]"),
        );
        let agent = host.start();
        let status = agent.wait_for("the gateways", |status| egress(status).len() == 3);
        let left_out: Vec<String> = egress(&status)
            .into_iter()
            .filter_map(|(address, used, _)| (!used).then_some(address))
            .collect();
        assert_eq!(left_out, ["10.77.0.1"], "{status:#}");
        let page = host.run(&["status"]).stdout;
        assert!(page.contains("egress ipv4 10.77.0.1: LEFT OUT"), "{page}");
    });
}
