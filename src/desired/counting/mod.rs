//! Firewall rules that count traffic by path.
//!
//! The path of a flow is the routing decision for packets in the original direction; the conntrack
//! mark stores the path for the answers. Leaving packets are classified and counted in postrouting,
//! before any translation. Answers, which are most bytes of a download, are counted in prerouting,
//! by the mark alone.
//!
//! ```text
//! count       original direction, flow mark that stays                     → count
//!             original direction, no mark of the path, leaves by the path  → flow mark
//!             original direction, flow mark of a path                      → count
//! prerouting  answer, flow mark of a path                                  → count
//! ```
//!
//! Flows opened from outside carry the inbound mark and belong to neither path.

mod host;
mod nat;

use super::pins::Pins;
use crate::config::Config;
use crate::firewall::{BackendKind, FwRule, Hook, Match, Path, Ruleset, Statement};
use crate::types::{Family, Mark, PathMask};

pub use host::{MOST_BESIDE, of_host};
pub use nat::of_nat;

/// The matches that tell the paths of a family apart. Each inner list is one rule, with all matches
/// required.
#[derive(Debug, Default)]
pub struct PathMatches {
    pub bypass: Vec<Vec<Match>>,
    pub egress: Vec<Vec<Match>>,
    /// True if the first packet of a flow decides the path for the whole flow: the paths then
    /// differ only in the translated address, which a flow keeps.
    pub decided_by_first_packet: bool,
}

/// The counting rules of all families.
#[derive(Debug, Default)]
pub struct Counting {
    /// The counts of flows that keep the mark of their first packet.
    marked: Vec<FwRule>,
    /// The marks of the paths beside iptables.
    told: Vec<FwRule>,
    leaving: Vec<FwRule>,
    answers: Vec<FwRule>,
}

impl Counting {
    /// Adds a family's rules.
    pub fn add(
        &mut self,
        config: &Config,
        family: Family,
        paths: PathMatches,
        pins: Option<&Pins>,
    ) {
        let mask = config.kernel.path_mask;
        let rule = |matches, verdict| FwRule {
            family: Some(family),
            matches,
            verdict,
        };
        let for_good = match pins {
            Some(pins) if pins.beside_iptables => Vec::new(),
            Some(pins) => pins.flow_marks(),
            None if paths.decided_by_first_packet => {
                Path::ALL.map(|path| (mark(mask, path), path)).to_vec()
            }
            None => Vec::new(),
        };
        self.marked.extend(for_good.into_iter().map(|(mark, path)| {
            let matches = vec![Match::FlowMark(mark), Match::OriginalDirection];
            rule(matches, Statement::Count(path))
        }));
        let lines = [(Path::Bypass, paths.bypass), (Path::Egress, paths.egress)];
        for (path, conditions) in lines {
            for conditions in conditions {
                let pinned = pins.map(|pins| pins.first(&conditions, path));
                let absent = match &pinned {
                    Some(pinned) => pinned.absent,
                    None if paths.decided_by_first_packet => mask.0,
                    // Neither the mark of this path nor the inbound mark, which has the bits of
                    // both paths. A flow with the other path's mark is classified again.
                    None => mark(mask, path).value,
                };
                let mut matches = vec![
                    // First, since all packets of a flow but the first one fail it.
                    Match::FlowMark(no_bits(absent)),
                    Match::OriginalDirection,
                    // A packet with a mark goes past our rules, such as the agent's own fetch.
                    Match::PacketMark(no_bits(mask.packet().mask)),
                ];
                matches.extend(conditions);
                let of_path = pinned.map_or(mark(mask, path), |pinned| pinned.mark);
                let verdict = Statement::SetFlowMark(of_path);
                let beside = pins.is_some_and(|pins| pins.beside_iptables);
                let chain = if beside {
                    &mut self.told
                } else {
                    &mut self.leaving
                };
                chain.push(rule(matches, verdict));
            }
        }
        for path in Path::ALL {
            let of = |way| vec![way, Match::FlowMark(mark(mask, path))];
            let verdict = Statement::Count(path);
            self.leaving
                .push(rule(of(Match::OriginalDirection), verdict.clone()));
            self.answers.push(rule(of(Match::ReplyDirection), verdict));
        }
    }

    /// Adds the rules to a policy with the rules for inbound flows. Those concern no answer to a flow of
    /// ours, so that the answers are counted before them.
    pub fn complete(self, backend: BackendKind, ruleset: &mut Ruleset) {
        ruleset.lead(Hook::Prerouting, self.answers);
        // In iptables the number belongs to the rule, and a second rule of a path would take a part.
        let marked = match backend {
            BackendKind::Nftables => self.marked,
            BackendKind::Iptables => Vec::new(),
        };
        for (hook, rules) in [
            (Hook::PostroutingPin, self.told),
            (Hook::PostroutingCount, marked),
            (Hook::PostroutingCount, self.leaving),
        ] {
            ruleset.extend(hook, rules);
        }
    }
}

fn mark(mask: PathMask, path: Path) -> Mark {
    match path {
        Path::Bypass => mask.bypass(),
        Path::Egress => mask.egress(),
    }
}

/// Matches marks without any bit of the mask.
fn no_bits(mask: u32) -> Mark {
    Mark { value: 0, mask }
}
