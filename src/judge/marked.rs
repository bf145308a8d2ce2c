//! The marks that foreign chains write on ordinary packets before the routing decision: the kernel
//! decides about the marked packet.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{BaseChain, ChainPlace, Field, FlowPlace, Packet};
use super::expected::{Expected, Promise};
use super::marks::{Bits, Marks};
use super::probes::Question;
use super::seen::{in_order, meets, seen_at};
use super::stopping::{Marked, StoppingChain};
use crate::desired::EgressPath;
use crate::firewall::{Hook, Match, Statement};
use crate::types::{Family, IfIndex};

/// Marks at the routing decision, with the rule that wrote the packet's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AtRouting {
    pub(super) marks: Marks,
    by: Option<StoppingChain>,
}

/// Follows a packet through the chains before the routing decision. A packet of the host has a route
/// already: the kernel routes the packet again behind a chain that reroutes and has changed the mark.
pub(super) fn at_routing(chains: &[BaseChain], packet: &Packet) -> AtRouting {
    let is_own = packet.is_own();
    let before = in_order(chains, |chain| {
        let comes = match chain.place {
            ChainPlace::Output => is_own,
            ChainPlace::Ingress | ChainPlace::Prerouting => !is_own,
            // Chains of translation see the first packet alone.
            ChainPlace::Diversion => !is_own && packet.opens(),
            _ => false,
        };
        comes && meets(chain, packet)
    });
    let mut current = packet.clone();
    let mut routed = AtRouting {
        marks: packet.marks.clone(),
        by: None,
    };
    let mut by = None;
    for chain in before {
        let passage = chain.passage(&seen_at(chain, &current));
        let changes = passage.marks != current.marks;
        by = passage.marked_by.or(by);
        current.marks = passage.marks;
        if !is_own || chain.reroutes && changes {
            routed = AtRouting {
                marks: current.marks.clone(),
                by: by.clone(),
            };
        }
    }
    // The flow's mark is saved, wherever the packet goes.
    AtRouting {
        marks: routed.marks.with_flow_of(&current.marks),
        by: routed.by,
    }
}

/// The chains that a forwarded packet meets, in the order of the hooks, each with the packet and the
/// marks that the chains before have written.
pub(super) fn along<'c>(chains: &'c [BaseChain], packet: &Packet) -> Vec<(&'c BaseChain, Packet)> {
    use ChainPlace::{Input, Output, OutputDiversion};
    let forwarded = |chain: &BaseChain| !matches!(chain.place, Input | Output | OutputDiversion);
    let mut current = packet.clone();
    let mut found = Vec::new();
    for chain in in_order(chains, forwarded) {
        found.push((chain, current.clone()));
        current.marks = behind(chain, &current);
    }
    found
}

/// The marks of a packet behind a chain, of which the packet may meet none.
fn behind(chain: &BaseChain, packet: &Packet) -> Marks {
    use ChainPlace::{Diversion, Translation};
    // Chains of translation see the first packet alone.
    let sees = packet.opens() || !matches!(chain.place, Diversion | Translation);
    if sees && meets(chain, packet) {
        chain.passage(&seen_at(chain, packet)).marks
    } else {
        packet.marks.clone()
    }
}

/// The answer to a packet, with the marks of the flow behind all chains.
pub(super) fn answer_to(chains: &[BaseChain], opening: &Packet) -> Packet {
    let last = along(chains, opening).pop();
    let marks = last.map(|(chain, packet)| behind(chain, &packet).later());
    let answer = opening.answer();
    Packet {
        marks: marks.unwrap_or_else(|| answer.marks.clone()),
        ..answer
    }
}

/// The question, or the same question about each mark that the packets carry: the first of a flow,
/// and the later ones.
pub fn marked(promise: &Promise<'_>, question: Question) -> Vec<Question> {
    let mut found = by_foreign_chains(promise, question);
    let of_ours = found
        .iter()
        .filter_map(|question| seen_mark(promise, question));
    found.extend(of_ours.collect::<Vec<_>>());
    found
}

/// The question about a packet of the sources with the mark that our own firewall gives to packets
/// without one (NAT role), if a foreign rule compares the mark. The answers to these packets have none.
fn seen_mark(promise: &Promise<'_>, question: &Question) -> Option<Question> {
    let source = question
        .lookup
        .source
        .filter(|_| question.lookup.input.is_some())?;
    let chains = promise.desired.firewall.iter().flat_map(|it| &it.chains);
    let marking = chains.filter(|chain| chain.hook == Hook::PreroutingMark);
    let holds = |condition: &Match| match condition {
        Match::Source(net) => net.contains(&source),
        Match::PacketMark(mark) => question.lookup.mark & mark.mask == mark.value,
        _ => true,
    };
    let mark = marking
        .flat_map(|chain| &chain.rules)
        .filter(|rule| rule.matches.iter().all(holds))
        .find_map(|rule| match rule.verdict {
            Statement::SetPacketMark(mark) => Some(mark.value),
            _ => None,
        })?;
    let mut rules = promise.foreign_rules(question.family());
    let compared = rules.any(|rule| rule.mark.is_some_and(|of| of.mask & mark != 0));
    compared.then(|| {
        let mut marked = question.clone();
        marked.lookup.mark = mark;
        marked
    })
}

fn by_foreign_chains(promise: &Promise<'_>, question: Question) -> Vec<Question> {
    if promise.chains.is_empty() {
        return vec![question];
    }
    let opening = packet(promise, &question);
    let first = at_routing(promise.chains, &opening);
    let later = Packet {
        marks: first.marks.later(),
        place: FlowPlace::Later,
        ..opening
    };
    let later = at_routing(promise.chains, &later);
    let mut found: BTreeMap<u32, Option<Marked>> = BTreeMap::new();
    for AtRouting { marks, by } in [first, later] {
        let Some(by) = by else {
            found.insert(0, None);
            continue;
        };
        let certain = is_certain(&marks, our_bits(promise));
        for mark in possible(promise, question.family(), &marks) {
            let of_chain = Marked {
                by: by.clone(),
                certain,
            };
            let entry = found.entry(mark).or_insert_with(|| Some(of_chain.clone()));
            if certain && entry.as_ref().is_some_and(|known| !known.certain) {
                *entry = Some(of_chain);
            }
        }
    }
    let of_mark = |(mark, marked): (u32, Option<Marked>)| {
        let mut question = question.clone();
        question.lookup.mark = mark;
        question.marked = marked.filter(|_| mark != 0);
        question
    };
    found.into_iter().map(of_mark).collect()
}

/// True if all bits but ours are known.
fn is_certain(marks: &Marks, ours: u32) -> bool {
    let possible = marks.possible();
    possible.len() == 1 && possible.iter().all(|bits| bits.known | ours == u32::MAX)
}

/// The possible marks. One without known bits may be each of those that foreign rules select; unknown
/// bits of others are ours.
fn possible(promise: &Promise<'_>, family: Family, marks: &Marks) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for Bits { value, known } in marks.possible() {
        if known != 0 {
            found.insert(value);
            continue;
        }
        let rules = promise.foreign_rules(family);
        found.extend(rules.filter_map(|rule| Some(rule.mark?.value)));
    }
    found
}

/// The bits of marks that our own firewall writes.
pub(super) fn our_bits(promise: &Promise<'_>) -> u32 {
    let chains = promise.desired.firewall.iter().flat_map(|it| &it.chains);
    let rules = chains.flat_map(|chain| &chain.rules);
    rules.fold(0, |bits, rule| match &rule.verdict {
        Statement::SetFlowMark(mark) => bits | mark.mask,
        _ => bits,
    })
}

/// The first packet of a flow like that of the question.
fn packet(promise: &Promise<'_>, question: &Question) -> Packet {
    let lookup = &question.lookup;
    let family = question.family();
    let name = |index: IfIndex| promise.facts.device_name(index);
    let mut unseen = Vec::new();
    if lookup.source.is_none() {
        unseen.push(Field::Source(family));
    }
    let output = output(promise, question);
    if output.is_none() {
        unseen.extend([Field::OutputName, Field::OutputIndex]);
    }
    let own = || (IfIndex(0), String::new());
    let named = |index: IfIndex| (index, name(index));
    Packet {
        transport: lookup.transport,
        marks: Marks::none(our_bits(promise)),
        unseen,
        ..Packet::opening(
            lookup.input.map_or_else(own, named),
            output.map_or_else(own, named),
            lookup.source.unwrap_or(lookup.destination),
            lookup.destination,
        )
    }
}

/// The promised interface, which the chains of the host's own packets see.
fn output(promise: &Promise<'_>, question: &Question) -> Option<IfIndex> {
    let paths = promise.desired.paths.get(question.family());
    match &question.expected {
        Expected::Bypass(_) => Some(paths.bypass.as_ref()?.vias().next()?.device),
        Expected::Egress => match &paths.egress {
            EgressPath::Gateways(gateways) => {
                let mut devices = gateways
                    .iter()
                    .filter_map(|gateway| promise.facts.on_link(*gateway, None));
                devices.next()
            }
            EgressPath::Main | EgressPath::Closed => None,
        },
        Expected::Closed | Expected::Main => paths.leaves_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::marks::{MarkOf, MarkValue, MarkWrite};

    #[test]
    fn mark_from_a_map_is_not_certain() {
        let write = |value| MarkWrite {
            of: MarkOf::Packet,
            value,
        };
        let none = Marks::none(0x30);
        assert!(is_certain(&none, 0x30));
        assert!(!is_certain(&none.written(write(None), true), 0x30));
        let restored = write(Some(MarkValue {
            take: u32::MAX,
            ..MarkValue::default()
        }));
        assert!(is_certain(&none.written(restored, true), 0x30));
        assert!(!is_certain(&none.written(restored, true), 0));
    }
}
