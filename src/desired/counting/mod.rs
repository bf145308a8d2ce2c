//! Which firewall rules count traffic by path.
//!
//! A flow's path is the one that the routing decision of its own packets (its original direction)
//! takes; conntrack's mark remembers it for the answers. What leaves is told apart and counted in
//! postrouting, before any translation; answers are counted in prerouting by the mark alone:
//! most bytes of a download are theirs.
//!
//! ```text
//! count       original direction, not of this path yet, leaves by it  → flow mark
//!             original direction, flow mark of a path                 → count
//! prerouting  answer, flow mark of a path                             → count
//! ```
//!
//! Flows from outside carry the inbound mark and belong to neither path.

mod host;
mod nat;

use crate::config::Config;
use crate::firewall::{Chain, FwRule, Hook, Match, Path, Ruleset, Verdict};
use crate::types::{Family, Mark, PathMask};

pub use host::of_host;
pub use nat::of_nat;

/// How the paths of a family are told apart: all of one line's conditions must hold.
#[derive(Debug, Default)]
pub struct Told {
    /// A packet leaves by the bypass path.
    pub bypass: Vec<Vec<Match>>,
    /// It leaves by the egress path.
    pub egress: Vec<Vec<Match>>,
    /// The flow's first packet decides for good: where both paths leave alike they differ in the
    /// address, and a flow keeps the one that it began with.
    pub for_good: bool,
}

/// The rules of all families.
#[derive(Debug, Default)]
pub struct Counting {
    leaving: Vec<FwRule>,
    answers: Vec<FwRule>,
}

impl Counting {
    /// Adds a family's rules.
    pub fn add(&mut self, config: &Config, family: Family, told: Told) {
        let mask = config.kernel.path_mask;
        let rule = |matches, verdict| FwRule {
            family: Some(family),
            matches,
            verdict,
        };
        let lines = [(Path::Bypass, told.bypass), (Path::Egress, told.egress)];
        for (path, conditions) in lines {
            for conditions in conditions {
                let mut matches = vec![
                    Match::OriginalDirection,
                    // The agent's own fetch, say: its mark leads it past our rules.
                    Match::PacketMark(no_bits(mask.0)),
                    Match::FlowMark(no_bits(match told.for_good {
                        true => mask.0,
                        // The bits of this path's mark: neither its own nor the inbound mark,
                        // which is both. A flow that changes its path is told anew.
                        false => mark(mask, path).value,
                    })),
                ];
                matches.extend(conditions);
                let verdict = Verdict::SetFlowMark(mark(mask, path));
                self.leaving.push(rule(matches, verdict));
            }
        }
        for path in Path::ALL {
            let of = |way| vec![way, Match::FlowMark(mark(mask, path))];
            let verdict = Verdict::Count(path);
            self.leaving
                .push(rule(of(Match::OriginalDirection), verdict.clone()));
            self.answers.push(rule(of(Match::ReplyDirection), verdict));
        }
    }

    /// Puts the rules into a policy that marks inbound flows.
    pub fn complete(self, ruleset: &mut Ruleset) {
        for (hook, rules) in [
            (Hook::Prerouting, self.answers),
            (Hook::PostroutingCount, self.leaving),
        ] {
            if rules.is_empty() {
                continue;
            }
            match ruleset.chains.iter_mut().find(|chain| chain.hook == hook) {
                Some(chain) => chain.rules.extend(rules),
                None => ruleset.chains.push(Chain { hook, rules }),
            }
        }
        ruleset.chains.sort_by_key(|chain| chain.hook);
    }
}

fn mark(mask: PathMask, path: Path) -> Mark {
    match path {
        Path::Bypass => mask.bypass(),
        Path::Egress => mask.egress(),
    }
}

/// None of these bits.
fn no_bits(mask: u32) -> Mark {
    Mark { value: 0, mask }
}
