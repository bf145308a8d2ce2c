//! NAT role: the whole path of a forwarded packet, beyond the routes: the forwarding sysctl, foreign
//! chains at the forward hook, and foreign translation before ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Field, Packet};
use super::clients::opening;
use super::expected::Promise;
use super::fate::Fate;
use super::probes::{inside, ordinary_partner, selected};
use super::remedy::accept_both;
use super::translation::{self, diverted};
use crate::degraded::{Degradation, Part};
use crate::facts::HostFacts;
use crate::objects::BypassPath;
use crate::types::{Family, IfIndex};

/// The priorities of conntrack before the routing decision, and of source translation
/// (linux/netfilter_ipv4.h).
const CONNTRACK: i32 = -200;
const SOURCE_NAT: i32 = 100;

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
        for input in &promise.desired.paths.get(family).inputs {
            let off = switched_off(promise.facts, family, &input.device);
            verdicts.degraded.extend(off);
            translation::judge(promise, family, input, verdicts);
            for (out, destination) in ways(promise, family) {
                let Some(packet) = opening(promise, input, out, destination) else {
                    continue;
                };
                for chain in promise.chains {
                    judge_chain(promise, chain, &packet, verdicts);
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
    let devices: BTreeSet<IfIndex> = path.vias().map(|via| via.device).collect();
    devices.into_iter().collect()
}

fn judge_chain(
    promise: &Promise<'_>,
    chain: &BaseChain,
    opening: &Packet,
    verdicts: &mut Verdicts,
) {
    use ChainPlace::{Input, Output, OutputDiversion, Translation};
    if matches!(chain.place, Translation | Input | Output | OutputDiversion) {
        return;
    }
    match chain.fate(&seen_at(chain, opening)) {
        Fate::Diverted(culprit) => return diverted(promise, &culprit, true, opening, verdicts),
        Fate::MayDivert(culprit) => return diverted(promise, &culprit, false, opening, verdicts),
        _ => {}
    }
    // Both directions must pass: the answer of a partner is a later packet of the flow.
    let answer = Packet {
        input: opening.output.clone(),
        output: opening.input.clone(),
        source: opening.destination,
        destination: opening.source,
        opens: false,
        unseen: Vec::new(),
    };
    for packet in [opening, &answer] {
        // Chains of translation see the first packet alone.
        let sees = packet.opens || chain.place != ChainPlace::Diversion;
        if sees && meets(chain, packet) && stopped(chain, packet, opening, verdicts) {
            break;
        }
    }
}

/// False for the ingress or egress of other interfaces.
pub(super) fn meets(chain: &BaseChain, packet: &Packet) -> bool {
    let device = match chain.place {
        ChainPlace::Ingress => &packet.input.1,
        ChainPlace::Egress => &packet.output.1,
        _ => return true,
    };
    chain.devices.contains(device)
}

/// The packet as the hook sees it: before the routing decision without an output interface, before
/// conntrack without a state, and between two translations with another address.
pub(super) fn seen_at(chain: &BaseChain, packet: &Packet) -> Packet {
    let (source, destination) = (
        Field::Source(packet.family()),
        Field::Destination(packet.family()),
    );
    let no_output = [Field::OutputName, Field::OutputIndex];
    let mut unseen = Vec::new();
    match chain.place {
        ChainPlace::Ingress => unseen.extend(no_output),
        ChainPlace::Prerouting | ChainPlace::Diversion => unseen.extend(no_output),
        ChainPlace::Egress => unseen.push(source),
        ChainPlace::Postrouting if chain.priority >= SOURCE_NAT => unseen.push(source),
        ChainPlace::Input => unseen.extend(no_output),
        ChainPlace::Output
        | ChainPlace::OutputDiversion
        | ChainPlace::Postrouting
        | ChainPlace::Forward
        | ChainPlace::Translation => {}
    }
    let untracked = match chain.place {
        ChainPlace::Ingress => true,
        ChainPlace::Prerouting | ChainPlace::Output => chain.priority <= CONNTRACK,
        _ => false,
    };
    if untracked {
        unseen.extend([Field::FlowState, Field::FlowStatus]);
    }
    if !packet.opens && matches!(chain.place, ChainPlace::Ingress | ChainPlace::Prerouting) {
        unseen.push(destination);
    }
    Packet {
        unseen,
        ..packet.clone()
    }
}

/// Adds a finding if the chain stops the packet, or keeps conntrack from the packet. `opening` is
/// the first packet of the same flow.
fn stopped(chain: &BaseChain, packet: &Packet, opening: &Packet, verdicts: &mut Verdicts) -> bool {
    let before_conntrack = chain.place == ChainPlace::Prerouting && chain.priority < CONNTRACK;
    let what = if packet.opens { "packets" } else { "answers" };
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
