//! Gateways and egress addresses on the page.

use super::figures::span;
use super::lines::Lines;
use crate::objects::NeighbourState;
use crate::status::snapshot::{EgressAddressStatus, GatewayStatus, HealthStatus};
use crate::words::counted;

/// The lines of the gateways.
pub(super) fn gateways(gateways: &[GatewayStatus], lines: &mut Lines) {
    for (index, gateway) in gateways.iter().enumerate() {
        let label = if index == 0 { "gateways" } else { "" };
        let device = gateway.device.as_deref();
        let device = device.map_or_else(String::new, |device| format!(" on {device}"));
        let used = used(gateway);
        let neighbour = match gateway.neighbour {
            Some(NeighbourState::Failed) => "neighbour FAILED: no answer on the link".to_owned(),
            Some(state) => format!("neighbour {state}"),
            None => "no neighbour entry: not asked yet".to_owned(),
        };
        let flows = gateway
            .flows
            .map_or_else(String::new, |flows| format!(", {}", counted(flows, "flow")));
        let probes = gateway.health.as_ref().map_or_else(String::new, health);
        let text = format!(
            "{} {} {}{device}: {used}{flows}, {neighbour}{probes}",
            gateway.path,
            gateway.family.as_str(),
            gateway.address
        );
        lines.line(gateway.is_bad(), label, &text);
    }
}

/// The share of a gateway in new flows.
fn used(gateway: &GatewayStatus) -> String {
    let used = match (gateway.in_use, gateway.reserve) {
        (true, _) => "in use",
        (false, true) => "in reserve",
        (false, false) => "LEFT OUT",
    };
    match &gateway.drained {
        None => used.to_owned(),
        Some(drain) => {
            let since = span(drain.since_s);
            let lasts = match gateway.in_use {
                true => ", and IN USE: no other gateway is well",
                false => "",
            };
            format!("drained for {since}{lasts}")
        }
    }
}

fn health(health: &HealthStatus) -> String {
    let HealthStatus {
        state,
        since_s,
        why,
        ..
    } = health;
    let since = span(*since_s);
    let millis = |micros: u64| format!("{}.{} ms", micros / 1000, micros % 1000 / 100);
    let latency = health.latency_us.map_or_else(String::new, |micros| {
        let quality = &health.quality;
        let most = quality.p99_us.filter(|_| quality.probes > 1);
        let most = most.map_or_else(String::new, |most| format!(" (p99 {})", millis(most)));
        format!(", {}{most}", millis(micros))
    });
    let lost = match (health.quality.lost, health.quality.probes) {
        (0, _) => String::new(),
        (lost, probes) => format!(", {lost} of the last {probes} probes lost"),
    };
    let watched = match health.traffic {
        Some(_) => "",
        None => ", watched by probes alone",
    };
    match state.as_str() {
        "up" => format!(", up for {since}{latency}{lost}{watched}"),
        _ => format!(
            ", {} for {since}: {why}{lost}{watched}",
            state.to_uppercase()
        ),
    }
}

/// The lines of a NAT's egress addresses.
pub(super) fn addresses(addresses: &[EgressAddressStatus], lines: &mut Lines) {
    for (index, address) in addresses.iter().enumerate() {
        let label = if index == 0 { "addresses" } else { "" };
        let own = address.own.as_ref().filter(|own| **own != address.address);
        let own = own.map_or_else(String::new, |own| format!(" ({own} on this host)"));
        let state = match address.state.as_str() {
            "here" => "here",
            "standby" => "STANDBY: no interface has it yet; the rules are ready",
            _ => "MISSING: not on this host",
        };
        let text = format!("{}{own}: {state}", address.address);
        lines.line(address.state != "here", label, &text);
    }
}
