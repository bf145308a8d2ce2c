//! IPv4: the reverse path check (`rp_filter`) of packets from outside, answered by the kernel. The
//! check looks up the route back to the sender, and our rules lead this look-up to other interfaces.

use super::expected::Promise;
use super::packet::{Lookup, RouteDecision};
use super::probes::ordinary_partner;
use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
use crate::objects::RuleAction;
use crate::types::{Family, IfIndex};

const FAMILY: Family = Family::Ipv4;

/// `EXDEV` and `EINVAL`: the answers for a source that the check refuses, depending on the kernel
/// (`fib_validate_source`, net/ipv4/fib_frontend.c).
const REFUSED: [i32; 2] = [18, 22];

/// A packet from outside, as the kernel sees it before the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub lookup: Lookup,
    input: IfIndex,
}

/// Host role: the packets to ask the kernel about; none while our rules are not in the kernel, or
/// if no interface has the reverse path check.
pub fn incoming(promise: &Promise<'_>) -> Vec<Incoming> {
    if !promise.is_installed(FAMILY) || promise.forwards(FAMILY) {
        return Vec::new();
    }
    opening(promise).into_iter().flatten().collect()
}

/// Host role: the first packet of a connection from outside, with our mark.
fn opening(promise: &Promise<'_>) -> Vec<Option<Incoming>> {
    let desired = promise.desired;
    if desired.firewall.is_none() || desired.paths.get(FAMILY).egress == EgressPath::Main {
        return Vec::new();
    }
    let mut rules = desired.rules.iter();
    let mark = rules.find_map(|rule| match rule.action {
        RuleAction::Goto(_) if rule.family == FAMILY => rule.mark,
        _ => None,
    });
    let mut devices: Vec<IfIndex> = promise
        .facts
        .defaults(FAMILY)
        .iter()
        .filter_map(|route| route.device)
        .collect();
    devices.sort();
    devices.dedup();
    let open = |input: IfIndex| {
        let mut own = promise.facts.addresses.iter();
        let own = own.find(|own| own.link == input && Family::of_net(&own.net) == FAMILY)?;
        let lookup = Lookup {
            source: Some(ordinary_partner(promise, FAMILY)?),
            input: Some(input),
            mark: mark?.value,
            ..Lookup::from_socket(own.net.addr())
        };
        let checks = level(promise, &promise.facts.device_name(input)) > 0;
        checks.then_some(Incoming { lookup, input })
    };
    devices.into_iter().map(open).collect()
}

/// The effective level: the larger of the host's and the interface's own.
fn level(promise: &Promise<'_>, device: &str) -> u64 {
    let number = |name: &str| {
        let path = format!("net/ipv4/conf/{name}/rp_filter");
        promise.facts.sysctls.number(&path).unwrap_or(0)
    };
    number("all").max(number(device))
}

/// The degradation if the kernel refuses the packet.
pub fn judge_incoming(
    promise: &Promise<'_>,
    packet: &Incoming,
    decision: &RouteDecision,
) -> Option<Degradation> {
    refused(promise, Part::Inbound, packet.input, decision)
}

/// The degradation if the reverse path check of the interface `input` refuses a packet.
pub(super) fn refused(
    promise: &Promise<'_>,
    part: Part,
    input: IfIndex,
    decision: &RouteDecision,
) -> Option<Degradation> {
    let device = &promise.facts.device_name(input);
    let level = level(promise, device);
    if level == 0 || !matches!(decision, RouteDecision::Errno(errno) if REFUSED.contains(errno)) {
        return None;
    }
    let (what, advice) = match part {
        Part::Inbound => (
            "connections from outside",
            "sysctl -w net.ipv4.conf.all.src_valid_mark=1 (and in /etc/sysctl.d), or [kernel] manage = [\"src_valid_mark\"]".to_owned(),
        ),
        Part::Bypass => ("the answers of storage", loose(device)),
        _ => ("the answers of partners", loose(device)),
    };
    let reason = format!(
        "the reverse path check on {device} (rp_filter = {level}) drops {what}: the route back leads elsewhere"
    );
    Some(Degradation::new(part, FAMILY, reason).with_advice(advice))
}

fn loose(device: &str) -> String {
    format!(
        "sysctl -w net.ipv4.conf.{device}.rp_filter=2 (and in /etc/sysctl.d), or [kernel] manage = [\"rp_filter\"]"
    )
}
