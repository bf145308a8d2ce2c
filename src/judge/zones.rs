//! NAT role: conntrack zones. An answer in another zone than its flow finds no flow, and nothing
//! gives the answer the address of the client again.

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Packet};
use super::expected::Promise;
use super::marks::Zone;
use super::seen::{CONNTRACK, in_order, seen_at};
use super::stopping::StoppingChain;
use crate::degraded::{Degradation, Part};

/// Adds the chain that separates answers from their flow.
pub(super) fn judge(promise: &Promise<'_>, opening: &Packet, verdicts: &mut Verdicts) {
    let answer = opening.answer();
    let (of_flow, of_answer) = (zone(promise.chains, opening), zone(promise.chains, &answer));
    let (Some((flow, first)), Some((reply, second))) = (of_flow, of_answer) else {
        return;
    };
    // The direction of answers counts (`nf_ct_key_equal`, net/netfilter/nf_conntrack_core.c).
    if flow.reply == reply.reply {
        return;
    }
    let Some(culprit) = first.or(second) else {
        return;
    };
    let (input, output) = (&opening.input.1, &opening.output.1);
    let reason = format!(
        "{culprit} separates packets from {input} and their answers from {output} (zones {} and {}), so that no answer reaches a client",
        flow.reply, reply.reply
    );
    let found = Degradation::new(Part::Translation, opening.family(), reason);
    let advice = "give both directions the same zone there, or remove the rule";
    verdicts.degraded.push(found.with_advice(advice.to_owned()));
}

/// The zone of a packet at conntrack, with the rule that set the zone; `None` for an unknown zone.
fn zone(chains: &[BaseChain], packet: &Packet) -> Option<(Zone, Option<StoppingChain>)> {
    let before = in_order(chains, |chain| {
        chain.place == ChainPlace::Prerouting && chain.priority < CONNTRACK
    });
    let mut found = (Zone::default(), None);
    for chain in before {
        if let Some((zone, culprit)) = chain.passage(&seen_at(chain, packet)).zone {
            found = (zone?, Some(culprit));
        }
    }
    Some(found)
}
