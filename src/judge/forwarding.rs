//! NAT role: the whole path of a forwarded packet, beyond the routes: the forwarding sysctl, foreign
//! chains at the forward hook, and foreign translation before ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Packet};
use super::clients::opening;
use super::expected::Promise;
use super::fate::Fate;
use super::marked::{along, answer_to};
use super::ordinary::Transport;
use super::probes::{inside, ordinary_partner, selected};
use super::remedy::accept_both;
use super::seen::{CONNTRACK, meets, seen_at};
use super::translation::{self, diverted};
use super::zones;
use crate::degraded::{Degradation, Part};
use crate::desired::InputPath;
use crate::facts::HostFacts;
use crate::objects::BypassPath;
use crate::types::{Family, IfIndex};

/// True if the kernel forwards packets of a family; `None` without an answer.
pub fn is_forwarding(facts: &HostFacts, family: Family) -> Option<bool> {
    let path = match family {
        Family::Ipv4 => "net/ipv4/ip_forward",
        Family::Ipv6 => "net/ipv6/conf/all/forwarding",
    };
    facts.sysctls.values.get(path).map(|value| value != "0")
}

/// Adds the obstacles in the path of forwarded packets.
pub(super) fn judge(promise: &Promise<'_>, verdicts: &mut Verdicts) {
    for family in Family::ALL {
        if !promise.forwards(family) {
            continue;
        }
        verdicts
            .degraded
            .extend(switched_off_outside(promise, family));
        for input in &promise.desired.paths.get(family).inputs {
            let off = switched_off(promise.facts, family, &input.device);
            verdicts.degraded.extend(off);
            translation::judge(promise, family, input, verdicts);
            for opening in openings(promise, family, input) {
                zones::judge(promise, &opening, verdicts);
                let answer = answer_to(promise.chains, &opening);
                let both = along(promise.chains, &opening)
                    .into_iter()
                    .zip(along(promise.chains, &answer));
                for ((chain, opening), (_, answer)) in both {
                    if chain.place == ChainPlace::Translation {
                        // Judged with the packets that its rules name.
                        continue;
                    }
                    let flow = [opening, answer];
                    if !judge_chain(promise, chain, &flow, verdicts) {
                        judge_udp(chain, flow, verdicts);
                    }
                }
            }
        }
    }
}

/// The sysctl that keeps packets from an interface from being forwarded; `None` if none does.
pub fn switched_off(facts: &HostFacts, family: Family, device: &str) -> Option<Degradation> {
    match is_forwarding(facts, family) {
        Some(false) => Some(family_off(family)),
        Some(true) if facts.forwards_from(family, device) == Some(false) => {
            Some(interface_off(device))
        }
        _ => None,
    }
}

/// The sysctls that keep answers, which come in by the outer interfaces, from being forwarded.
fn switched_off_outside(promise: &Promise<'_>, family: Family) -> Vec<Degradation> {
    let paths = promise.desired.paths.get(family);
    let bypass = paths.bypass.iter().flat_map(BypassPath::devices);
    let outside: BTreeSet<IfIndex> = bypass.chain(paths.leaves_by).collect();
    let names = outside
        .into_iter()
        .map(|index| promise.facts.device_name(index));
    names
        .filter_map(|device| switched_off(promise.facts, family, &device))
        .collect()
}

/// The first packets to follow: for each interface by which packets leave, and for each egress
/// address.
fn openings(promise: &Promise<'_>, family: Family, input: &InputPath) -> Vec<Packet> {
    let paths = promise.desired.paths.get(family);
    let mut found = Vec::new();
    for (out, destination) in ways(promise, family) {
        let Some(packet) = opening(promise, input, out, destination) else {
            continue;
        };
        let to_partner = ordinary_partner(promise, family) == Some(destination);
        let translated = paths.egress_addresses.iter().filter(|_| to_partner);
        let seen_as: Vec<Option<IpAddr>> = translated.copied().map(Some).collect();
        let unknown = seen_as.is_empty().then_some(None);
        found.extend(seen_as.into_iter().chain(unknown).map(|address| Packet {
            client_seen_as: address,
            ..packet.clone()
        }));
    }
    found
}

/// IPv4 only: IPv6 forwards by the switch of all interfaces alone.
fn interface_off(device: &str) -> Degradation {
    let name = format!("net.ipv4.conf.{device}.forwarding");
    let reason = format!("{name} is off: no packet that comes in by {device} is forwarded");
    Degradation::new(Part::Forwarding, Family::Ipv4, reason)
        .with_advice(format!("sysctl -w {name}=1 (and in /etc/sysctl.d)"))
}

fn family_off(family: Family) -> Degradation {
    let name = match family {
        Family::Ipv4 => "net.ipv4.ip_forward",
        Family::Ipv6 => "net.ipv6.conf.all.forwarding",
    };
    Degradation::new(
        Part::Forwarding,
        family,
        format!("{name} is off: no packet of a host is forwarded"),
    )
    .with_advice(format!(
        "sysctl -w {name}=1 (and in /etc/sysctl.d), or [kernel] manage = [\"ip_forward\"]"
    ))
}

/// The interfaces by which packets leave, each with a destination.
fn ways(promise: &Promise<'_>, family: Family) -> Vec<(IfIndex, IpAddr)> {
    let paths = promise.desired.paths.get(family);
    let egress = paths.leaves_by.zip(ordinary_partner(promise, family));
    let storage = selected(promise, family).next().map(inside);
    let devices = paths.bypass.as_ref().map(bypass_devices);
    let bypass = devices.unwrap_or_default().into_iter();
    let bypass = bypass.filter_map(|device| Some((device, storage?)));
    egress.into_iter().chain(bypass).collect()
}

/// The interfaces of the path, each once.
pub(super) fn bypass_devices(path: &BypassPath) -> Vec<IfIndex> {
    let devices = path.devices();
    devices.into_iter().collect()
}

/// Adds the findings about one chain; true with one.
fn judge_chain(
    promise: &Promise<'_>,
    chain: &BaseChain,
    flow: &[Packet; 2],
    verdicts: &mut Verdicts,
) -> bool {
    let opening = &flow[0];
    let diverted_by = match chain.fate(&seen_at(chain, opening)) {
        Fate::Diverted(culprit) => Some((culprit, true)),
        Fate::MayDivert(culprit) => Some((culprit, false)),
        _ => None,
    };
    if let Some((culprit, certain)) = diverted_by {
        diverted(promise, &culprit, certain, opening, verdicts);
        return true;
    }
    directions(chain, flow).any(|packet| stopped(chain, packet, opening, verdicts))
}

/// The first packet and its answer, as far as the chain meets them: both directions must pass.
fn directions<'p>(chain: &BaseChain, flow: &'p [Packet; 2]) -> impl Iterator<Item = &'p Packet> {
    // Chains of translation see the first packet alone.
    let sees = |packet: &Packet| packet.opens() || chain.place != ChainPlace::Diversion;
    flow.iter()
        .filter(move |packet| sees(packet) && meets(chain, packet))
}

/// A filter of UDP alone may be on purpose: TCP passes. The chain is named.
fn judge_udp(chain: &BaseChain, flow: [Packet; 2], verdicts: &mut Verdicts) {
    let flow = flow.map(|packet| Packet {
        transport: Transport::Udp,
        ..packet
    });
    let stopped =
        directions(chain, &flow).find_map(|packet| match chain.fate(&seen_at(chain, packet)) {
            Fate::Stopped(culprit) => Some((packet, culprit)),
            _ => None,
        });
    let Some((packet, culprit)) = stopped else {
        return;
    };
    let (input, output) = (&packet.input.1, &packet.output.1);
    let reason = format!("{culprit} stops UDP packets from {input} to {output}; TCP passes");
    let found = Degradation::new(Part::Forwarding, packet.family(), reason);
    let advice = "let UDP pass there too, unless the filter is on purpose".to_owned();
    verdicts.doubts.push(found.with_advice(advice));
}

/// Adds a finding if the chain stops the packet, or keeps conntrack from the packet. `opening` is
/// the first packet of the same flow.
fn stopped(chain: &BaseChain, packet: &Packet, opening: &Packet, verdicts: &mut Verdicts) -> bool {
    let before_conntrack = chain.place == ChainPlace::Prerouting && chain.priority < CONNTRACK;
    let what = if packet.opens() { "packets" } else { "answers" };
    let (input, output) = (&packet.input.1, &packet.output.1);
    let (list, culprit, verb) = match chain.fate(&seen_at(chain, packet)) {
        Fate::Untracked(culprit) if before_conntrack => {
            verdicts.degraded.push(
                Degradation::new(
                    Part::Translation,
                    packet.family(),
                    format!(
                        "{culprit} keeps {what} from {input} away from conntrack, so that nothing translates them and the guard drops them"
                    ),
                )
                .with_advice(format!("exclude packets from {input} there, or remove the rule")),
            );
            return true;
        }
        Fate::Stopped(culprit) => (&mut verdicts.degraded, culprit, "stops"),
        Fate::MayStop(culprit) => (&mut verdicts.doubts, culprit, "perhaps stops"),
        Fate::Passes
        | Fate::Translated(..)
        | Fate::MayTranslate(..)
        | Fate::Diverted(_)
        | Fate::MayDivert(_)
        | Fate::Untracked(_) => return false,
    };
    let advice = match chain.place {
        ChainPlace::Forward => accept_both(chain, &opening.input.1, &opening.output.1),
        _ => format!(
            "let packets between {} and {} pass there, or remove the rule",
            opening.input.1, opening.output.1
        ),
    };
    list.push(
        Degradation::new(
            Part::Forwarding,
            packet.family(),
            format!("{culprit} {verb} {what} from {input} to {output}"),
        )
        .with_advice(advice),
    );
    true
}
