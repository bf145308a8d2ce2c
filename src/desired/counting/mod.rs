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
//!             answer to a SYN, flow mark of ended flows                    → drop
//! ```
//!
//! In nf_tables each way of pinned flows has a counter for each direction: packets out without answers
//! show a gateway that is silent.
//!
//! Flows opened from outside carry the inbound mark and belong to neither path.

mod host;
mod nat;

use super::pins::Pins;
use crate::config::Config;
use crate::firewall::{BackendKind, Direction, FwRule, Hook, Match, Path, Ruleset, Statement};
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
    main: Rules,
    /// The marks of the paths, and the counts of ways, in nf_tables beside iptables.
    beside: Rules,
}

#[derive(Debug, Default)]
struct Rules {
    /// The counts of flows that keep the mark of their first packet.
    marked: Vec<FwRule>,
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
        let rule = |matches: &[Match], verdict| FwRule {
            family: Some(family),
            matches: matches.to_vec(),
            verdict,
        };
        let of_path = |path| (Match::FlowMark(mark(mask, path)), Statement::Count(path));
        let beside = pins.is_some_and(|pins| pins.beside_iptables);
        let ways = pins.filter(|pins| pins.in_nftables || beside);
        let ways = ways.map_or_else(Vec::new, Pins::flow_marks);
        let late = pins.map_or_else(Vec::new, Pins::late_answers);
        let chains = if beside {
            &mut self.beside
        } else {
            &mut self.main
        };
        if pins.is_none() && paths.decided_by_first_packet {
            let marked = Path::ALL.map(of_path).into_iter();
            let marked = marked.map(|(mark, count)| rule(&[mark, Match::OriginalDirection], count));
            chains.marked.extend(marked);
        }
        let counts = ways.iter().map(|(flow, slot)| {
            let count = |direction| Statement::CountWay(*slot, direction);
            (Match::FlowMark(*flow), count)
        });
        for (mark, count) in counts.clone() {
            let matches = [mark, Match::OriginalDirection];
            chains.marked.push(rule(&matches, count(Direction::Out)));
        }
        chains.leaving.extend(classified(mask, family, paths, pins));
        for (mark, count) in counts {
            let out = [Match::OriginalDirection, mark.clone()];
            // A NAT without an uplink answers with ICMP errors.
            let back = [Match::ReplyDirection, mark, Match::Established];
            chains.leaving.push(rule(&out, count(Direction::Out)));
            chains.answers.push(rule(&back, count(Direction::Back)));
        }
        // Before the count of egress flows without a slot, which ends the chain.
        chains.answers.extend(late);
        for path in Path::ALL {
            // The bypass path is one way. Egress flows may lack a slot.
            if beside || ways.is_empty() || path == Path::Egress {
                let (mark, count) = of_path(path);
                let out = [Match::OriginalDirection, mark.clone()];
                let back = [Match::ReplyDirection, mark];
                self.main.leaving.push(rule(&out, count.clone()));
                self.main.answers.push(rule(&back, count));
            }
        }
    }

    /// Adds the rules to a policy with the rules for inbound flows. Those concern no answer to a flow of
    /// ours, so that the answers are counted before them.
    pub fn complete(self, backend: BackendKind, ruleset: &mut Ruleset) {
        // In iptables the number belongs to the rule, and a second rule of a path would take a part.
        let marked = match backend {
            BackendKind::Nftables => self.main.marked,
            BackendKind::Iptables => Vec::new(),
        };
        ruleset.lead(Hook::Prerouting, self.main.answers);
        ruleset.lead(Hook::PreroutingPin, self.beside.answers);
        for (hook, rules) in [
            (Hook::PostroutingPin, self.beside.marked),
            (Hook::PostroutingPin, self.beside.leaving),
            (Hook::PostroutingCount, marked),
            (Hook::PostroutingCount, self.main.leaving),
        ] {
            ruleset.extend(hook, rules);
        }
    }
}

/// The rules that give flows the mark of the path of their first packet.
fn classified(
    mask: PathMask,
    family: Family,
    paths: PathMatches,
    pins: Option<&Pins>,
) -> Vec<FwRule> {
    let mut rules = Vec::new();
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
            let foreign = pins.map_or(mask.packet().mask, |pins| pins.foreign_bits(mask));
            let mut matches = vec![
                // First, since all packets of a flow but the first one fail it.
                Match::FlowMark(no_bits(absent)),
                Match::OriginalDirection,
                // A packet with a mark goes past our rules, such as the agent's own fetch.
                Match::PacketMark(no_bits(foreign)),
            ];
            matches.extend(conditions);
            let of_path = pinned.map_or(mark(mask, path), |pinned| pinned.mark);
            rules.push(FwRule {
                family: Some(family),
                matches,
                verdict: Statement::SetFlowMark(of_path),
            });
        }
    }
    rules
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
