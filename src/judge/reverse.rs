//! IPv4: the reverse path check (`rp_filter`) of packets from outside, answered by the kernel. The
//! check looks up the route back to the sender, and our rules lead this look-up to other interfaces.

use std::net::IpAddr;

use super::expected::Promise;
use super::packet::{Lookup, RouteDecision};
use super::probes::{forwarded, inside, ordinary_partner, selected};
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
    part: Part,
    device: String,
    level: u64,
}

/// The packets to ask the kernel about; none while our rules are not in the kernel, or where no
/// interface checks.
pub fn incoming(promise: &Promise<'_>) -> Vec<Incoming> {
    if !promise.is_installed(FAMILY) {
        return Vec::new();
    }
    let all = if promise.forwards(FAMILY) {
        answers(promise)
    } else {
        opening(promise)
    };
    all.into_iter().flatten().collect()
}

/// NAT role: answers to a host, from a partner and from storage.
fn answers(promise: &Promise<'_>) -> Vec<Option<Incoming>> {
    let paths = promise.desired.paths.get(FAMILY);
    let partner = ordinary_partner(promise, FAMILY);
    let storage = selected(promise, FAMILY).next().map(inside);
    let host = paths
        .inputs
        .first()
        .and_then(|input| forwarded(promise.facts, input, FAMILY.default_prefix().addr())?.source);
    let mut bypass: Vec<IfIndex> = match &paths.bypass {
        Some(path) => path.vias().map(|via| via.device).collect(),
        None => Vec::new(),
    };
    bypass.sort();
    bypass.dedup();
    let answer =
        |part, source: Option<IpAddr>, index| packet(promise, part, index, source?, host?, 0);
    let mut all: Vec<Option<Incoming>> = bypass
        .into_iter()
        .map(|index| answer(Part::Bypass, storage, index))
        .collect();
    all.extend(
        paths
            .leaves_by
            .map(|out| answer(Part::Translation, partner, out)),
    );
    all
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
    let open = |index: IfIndex| {
        let mut own = promise.facts.addresses.iter();
        let own = own.find(|own| own.link == index && Family::of_net(&own.net) == FAMILY)?;
        let partner = ordinary_partner(promise, FAMILY)?;
        packet(
            promise,
            Part::Inbound,
            index,
            partner,
            own.net.addr(),
            mark?.value,
        )
    };
    devices.into_iter().map(open).collect()
}

fn packet(
    promise: &Promise<'_>,
    part: Part,
    input: IfIndex,
    source: IpAddr,
    destination: IpAddr,
    mark: u32,
) -> Option<Incoming> {
    let device = promise.facts.device_name(input);
    let level = level(promise, &device);
    (level > 0).then_some(Incoming {
        lookup: Lookup {
            source: Some(source),
            input: Some(input),
            mark,
            ..Lookup::from_socket(destination)
        },
        part,
        device,
        level,
    })
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
pub fn judge_incoming(packet: &Incoming, decision: &RouteDecision) -> Option<Degradation> {
    let Incoming {
        part,
        device,
        level,
        ..
    } = packet;
    if !matches!(decision, RouteDecision::Errno(errno) if REFUSED.contains(errno)) {
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
    Some(Degradation::new(*part, FAMILY, reason).with_advice(advice))
}

fn loose(device: &str) -> String {
    format!(
        "sysctl -w net.ipv4.conf.{device}.rp_filter=2 (and in /etc/sysctl.d), or [kernel] manage = [\"rp_filter\"]"
    )
}
