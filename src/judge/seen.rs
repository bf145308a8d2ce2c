//! A packet as the chains of each hook see the packet.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::chain::{BaseChain, ChainPlace, Field, FlowPlace, Packet};

/// The priorities of conntrack before the routing decision, and of source translation
/// (linux/netfilter_ipv4.h).
pub(super) const CONNTRACK: i32 = -200;
const SOURCE_NAT: i32 = 100;
/// The priority of destination translation, which gives answers the address of the client again.
const DESTINATION_NAT: i32 = -100;

/// False for the ingress or egress of other interfaces.
pub(super) fn meets(chain: &BaseChain, packet: &Packet) -> bool {
    let device = match chain.place {
        ChainPlace::Ingress => &packet.input.1,
        ChainPlace::Egress => &packet.output.1,
        _ => return true,
    };
    chain.devices.contains(device)
}

/// Some of the chains, in the order in which a packet meets them.
pub(super) fn in_order(
    chains: &[BaseChain],
    is_wanted: impl Fn(&BaseChain) -> bool,
) -> Vec<&BaseChain> {
    use ChainPlace::{
        Diversion, Egress, Forward, Ingress, Input, Output, OutputDiversion, Postrouting,
        Prerouting, Translation,
    };
    let rank = |place: ChainPlace| match place {
        Ingress => 0,
        Prerouting | Diversion | Output | OutputDiversion => 1,
        Forward | Input => 2,
        Postrouting | Translation => 3,
        Egress => 4,
    };
    let mut found: Vec<&BaseChain> = chains.iter().filter(|chain| is_wanted(chain)).collect();
    found.sort_by_key(|chain| (rank(chain.place), chain.priority));
    found
}

/// The packet as the hook sees it: before the routing decision without an output interface, before
/// conntrack without a state, and between two translations with another address.
pub(super) fn seen_at(chain: &BaseChain, packet: &Packet) -> Packet {
    let (source, destination) = (
        Field::Source(packet.family()),
        Field::Destination(packet.family()),
    );
    let no_output = [Field::OutputName, Field::OutputIndex];
    let mut unseen = packet.unseen.clone();
    let mut seen = packet.clone();
    match chain.place {
        ChainPlace::Ingress
        | ChainPlace::Prerouting
        | ChainPlace::Diversion
        | ChainPlace::Input => unseen.extend(no_output),
        ChainPlace::Egress => translated(packet, &mut seen.source, source, &mut unseen),
        ChainPlace::Postrouting if chain.priority > SOURCE_NAT => {
            translated(packet, &mut seen.source, source, &mut unseen);
        }
        ChainPlace::Postrouting if chain.priority == SOURCE_NAT => unseen.push(source),
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
        unseen.extend([Field::FlowState, Field::FlowStatus, Field::FlowMark]);
    }
    if packet.place == FlowPlace::Answer {
        match (chain.place, chain.priority.cmp(&DESTINATION_NAT)) {
            (ChainPlace::Ingress, _) | (ChainPlace::Prerouting, Ordering::Less) => {
                translated(packet, &mut seen.destination, destination, &mut unseen);
            }
            (ChainPlace::Prerouting, Ordering::Equal) => unseen.push(destination),
            _ => {}
        }
    }
    seen.unseen = unseen;
    seen
}

/// The address of the client as others see the client, as far as it is known.
fn translated(packet: &Packet, address: &mut IpAddr, field: Field, unseen: &mut Vec<Field>) {
    match packet.client_seen_as {
        Some(translated) => *address = translated,
        None => unseen.push(field),
    }
}
