//! The judge: does the kernel do what the settings promise? Pure.
//!
//! Inputs are the promise, the kernel's answers to a few look-ups, and the foreign state that may
//! explain a difference. One [`Verdicts`] is the answer for `reconcile`, `status`, `explain`,
//! `check`, health and metrics, so that no two of them contradict each other.
//!
//! | file | content |
//! |---|---|
//! | `expected.rs` | the promise for an address |
//! | `ordinary.rs` | protocol, port and user of the ordinary packet |
//! | `gateway.rs` | gateways that answer no address resolution, filters on their links |
//! | `redirect.rs` | next hops from ICMP redirects |
//! | `remedy.rs` | commands that let packets pass a foreign chain |
//! | `reverse.rs` | the reverse path check of packets from outside |
//! | `packet.rs` | questions to the kernel and its answers |
//! | `hosts.rs` | networks of hosts |
//! | `probes.rs` | the few addresses and packets to ask about |
//! | `siblings.rs` | the packets that foreign rules tell apart |
//! | `agreement.rs` | promise and decision, compared for one question |
//! | `culprit.rs` | the foreign rule or route behind an answer |
//! | `exemption.rs` | foreign state that wins on purpose |
//! | `chain.rs`, `fate.rs`, `stopping.rs` | foreign firewall chains, and the fate of a packet in them |
//! | `field.rs`, `at_hook.rs`, `seen.rs` | a packet as the chains of a hook see the packet |
//! | `marks.rs`, `marked.rs` | marks written by foreign chains before the routing decision |
//! | `destination.rs` | conditions on the type of a destination |
//! | `displaced.rs` | host role: pinned flows away from the path of a new flow |
//! | `dropped.rs` | NAT role: packets dropped after all translation |
//! | `forwarding.rs`, `translation.rs` | NAT role: obstacles in the path of a forwarded packet |
//! | `zones.rs` | NAT role: conntrack zones of flows and answers |
//! | `output.rs` | host role: filters and diversions of the host's own packets and of answers |
//! | `clients.rs` | NAT role: the packets to follow through chains of translation |

mod agreement;
mod at_hook;
mod back;
pub mod chain;
mod clients;
mod culprit;
pub mod destination;
mod displaced;
mod dropped;
mod exemption;
mod expected;
pub mod fate;
mod field;
mod forwarding;
mod gateway;
mod hosts;
mod marked;
pub mod marks;
pub mod ordinary;
mod output;
mod packet;
mod probes;
mod redirect;
mod remedy;
mod reverse;
mod seen;
mod siblings;
mod stopping;
mod translation;
mod words;
mod zones;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::degraded::{Degradation, merge};
use crate::types::PerFamily;

pub use agreement::{Agreement, agreement};
pub use back::{Answer, answers, judge_answer};
pub use culprit::{Culprit, named_rule, route_text, table_text};
pub use displaced::{Counts, Displacement, FlowCount, KeptPath, NewPath, PathCounts, Pins, Why};
pub use dropped::judge_dropped;
pub use exemption::Exemption;
pub use expected::{Expected, Promise, expected};
pub use forwarding::{is_forwarding, switched_off};
pub use gateway::{Filter, Gateways, doubt_about, gateways, gateways_of, silent, unverified};
pub use marked::marked;
pub use packet::{Lookup, Redirect, RouteDecision};
pub(crate) use probes::inside;
pub use probes::{Question, deciding, forwarded, ordinary_partner, questions};
pub use redirect::judge_redirects;
pub use reverse::{Incoming, incoming, judge_incoming};
pub use siblings::siblings;
pub use words::{decision_text, errno_text, promised_text};

/// The judgement of the present state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// Foreign state that wins on purpose for its own packets.
    pub exempt: Vec<Exemption>,
    /// Promises that foreign state defeats for ordinary traffic.
    pub degraded: Vec<Degradation>,
    /// Obstacles that perhaps stop ordinary packets: the reader does not know a condition.
    pub doubts: Vec<Degradation>,
    /// Those of `degraded` that lie behind the routing decision of a whole path: silent gateways,
    /// filters of the host's own packets.
    pub on_path: Vec<Degradation>,
    /// NAT role: translations by other programs that no packet meets while ours is in.
    pub harmless: Vec<String>,
    /// Differences without a foreign cause: our own objects are not as planned.
    pub mismatches: Vec<Degradation>,
}

impl Verdicts {
    /// Adds an obstacle that no look-up of a route shows.
    pub fn behind_the_route(&mut self, found: Degradation) {
        self.on_path.push(found.clone());
        self.degraded.push(found);
    }
}

/// Judges answers to questions, foreign rules with selectors, and the foreign chains in the way of forwarded packets.
pub fn judge(
    promise: &Promise<'_>,
    own: &PerFamily<Option<IpAddr>>,
    answers: &[(Question, RouteDecision)],
) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for (question, decision) in answers {
        let (facts, family) = (promise.facts, question.family());
        let is_off = question
            .lookup
            .input
            .is_some_and(|index| switched_off(facts, family, &facts.device_name(index)).is_some());
        if is_off {
            // The kernel answers `EHOSTUNREACH` about every packet; the sysctl is named below.
            continue;
        }
        let found = agreement(promise, question, decision);
        verdicts.take(promise, question, decision, found);
    }
    forwarding::judge(promise, &mut verdicts);
    output::judge(promise, own, &mut verdicts);
    let questions = answers.iter().map(|(question, _)| question);
    let certain = questions.filter(|question| question.marked.as_ref().is_none_or(|it| it.certain));
    let carried: BTreeSet<u32> = certain.map(|question| question.lookup.mark).collect();
    verdicts
        .exempt
        .extend(exemption::all(promise, own, &carried));
    verdicts
        .degraded
        .extend(exemption::rejected_prefixes(promise));
    verdicts.exempt.sort();
    verdicts.exempt.dedup();
    verdicts.harmless.sort();
    verdicts.harmless.dedup();
    for list in [
        &mut verdicts.degraded,
        &mut verdicts.doubts,
        &mut verdicts.mismatches,
    ] {
        merge(list, []);
    }
    verdicts
}

impl Verdicts {
    fn take(
        &mut self,
        promise: &Promise<'_>,
        question: &Question,
        decision: &RouteDecision,
        found: Agreement,
    ) {
        let (part, family) = (question.part, question.family());
        match found {
            Agreement::Yes => {}
            Agreement::Foreign(what) => self.exempt.push(what),
            Agreement::Defeated { reason, advice } => {
                let degradation = Degradation::new(part, family, reason);
                self.degraded.push(degradation.with_advice(advice));
            }
            Agreement::PerhapsDefeated { reason } => {
                let reason = format!("perhaps {reason}");
                self.doubts.push(Degradation::new(part, family, reason));
            }
            Agreement::No => self.mismatches.push(Degradation::new(
                part,
                family,
                format!(
                    "{}{}: promised {}, but the kernel says {}",
                    question.lookup.destination,
                    question.sender_text(promise),
                    promised_text(promise, &question.expected),
                    decision_text(promise, decision)
                ),
            )),
        }
    }
}
