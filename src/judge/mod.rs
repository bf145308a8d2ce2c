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
//! | `redirect.rs` | next hops from ICMP redirects |
//! | `packet.rs` | questions to the kernel and its answers |
//! | `probes.rs` | the few addresses and packets to ask about |
//! | `agreement.rs` | promise and decision, compared for one question |
//! | `culprit.rs` | the foreign rule or route behind an answer |
//! | `exemption.rs` | foreign state that wins on purpose |
//! | `chain.rs`, `fate.rs` | foreign firewall chains, and the fate of a packet in them |
//! | `forwarding.rs` | NAT role: obstacles in the path of a forwarded packet |

mod agreement;
pub mod chain;
mod culprit;
mod exemption;
mod expected;
pub mod fate;
mod forwarding;
pub mod ordinary;
mod packet;
mod probes;
mod redirect;
mod words;

use std::net::IpAddr;

use crate::degraded::{Degradation, Part, merge};
use crate::types::{Family, PerFamily};

pub use agreement::{Agreement, agreement};
pub use culprit::{Culprit, is_wide, named_rule, route_text, table_text};
pub use exemption::Exemption;
pub use expected::{Expected, Promise, expected};
pub use forwarding::is_forwarding;
pub use packet::{Lookup, Redirect, RouteDecision};
pub(crate) use probes::inside;
pub use probes::{Question, forwarded, ordinary_partner, questions};
pub use redirect::judge_redirects;
pub use words::{decision_text, errno_text, promised_text};

/// The judgement of the present state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// Parts and families with at least one answer, all as promised.
    pub in_force: Vec<(Part, Family)>,
    /// Foreign state that wins on purpose for its own packets.
    pub exempt: Vec<Exemption>,
    /// Promises that foreign state defeats for ordinary traffic.
    pub degraded: Vec<Degradation>,
    /// Obstacles that perhaps stop ordinary packets: the reader does not know a condition.
    pub doubts: Vec<Degradation>,
    /// Differences without a foreign cause: our own objects are not as planned.
    pub mismatches: Vec<Degradation>,
}

/// Judges answers to questions, foreign rules with selectors, and the foreign chains in the way of forwarded packets.
pub fn judge(
    promise: &Promise<'_>,
    own: &PerFamily<Option<IpAddr>>,
    answers: &[(Question, RouteDecision)],
) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let mut judged: Vec<(Part, Family)> = Vec::new();
    for (question, decision) in answers {
        let input = question.lookup.input;
        let is_off = is_forwarding(promise.facts, question.family()) == Some(false)
            || input.is_some_and(|index| {
                let device = promise.facts.device_name(index);
                promise.facts.forwards_from(question.family(), &device) == Some(false)
            });
        if is_off && question.lookup.input.is_some() {
            // The kernel answers `EHOSTUNREACH` about every packet; the sysctl is named below.
            continue;
        }
        let place = (question.part, question.family());
        judged.push(place);
        let found = agreement(promise, question, decision);
        verdicts.take(promise, question, decision, found);
    }
    forwarding::judge(promise, &mut verdicts);
    verdicts.exempt.extend(exemption::all(promise, own));
    verdicts.exempt.sort();
    verdicts.exempt.dedup();
    for list in [
        &mut verdicts.degraded,
        &mut verdicts.doubts,
        &mut verdicts.mismatches,
    ] {
        merge(list, []);
    }
    judged.sort();
    judged.dedup();
    let broken = |place: &(Part, Family)| {
        let all = verdicts.degraded.iter().chain(&verdicts.mismatches);
        all.into_iter()
            .any(|found| (found.part, found.family) == (place.0, Some(place.1)))
    };
    verdicts.in_force = judged
        .iter()
        .copied()
        .filter(|place| !broken(place))
        .collect();
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

    /// All findings that make the state degraded, the most important part first.
    pub fn all_degraded(&self) -> Vec<Degradation> {
        let mut all = self.degraded.clone();
        merge(&mut all, self.mismatches.iter().cloned());
        all
    }
}
