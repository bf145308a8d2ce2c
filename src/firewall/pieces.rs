//! Parts of the policy that a kernel may refuse while the rest stays useful.

use std::collections::BTreeSet;

use super::{Chain, FwRule, Hook, Match, Ruleset, Statement, Traces};
use crate::types::Family;

/// A part of the policy of one family. The order is the order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// All rules of the family.
    All,
    /// The marks of flows opened from outside.
    Inbound,
    /// The limit of TCP segments.
    Clamp,
    /// The drop of packets with a wrong address after all translation.
    Last,
    /// The drop of packets on neither path, and the packet marks of pinned flows (host role).
    Closed,
    /// The marks for the policies that close the path after a flush.
    Switch,
    /// The byte counters, with the flow marks of the paths.
    Counting,
    /// The rules for flows that the agent has ended.
    Ended,
}

impl Piece {
    /// The parts that translation and guard work without, the least important part first.
    pub const OPTIONAL: [Piece; 7] = [
        Piece::Ended,
        Piece::Counting,
        Piece::Switch,
        Piece::Closed,
        Piece::Last,
        Piece::Clamp,
        Piece::Inbound,
    ];

    fn holds(self, hook: Hook, rule: &FwRule) -> bool {
        let counts = hook == Hook::PostroutingCount
            || matches!(rule.verdict, Statement::Count(_) | Statement::CountWay(..));
        let marks = matches!(hook, Hook::Prerouting | Hook::OutputReroute);
        let ended = hook == Hook::ForwardEnded || marks && rule.is_about_handshakes_of_a_flow();
        let in_place = hook == Hook::OutputReroute && rule.verdict == Statement::Accept;
        let pins = marks && (in_place || matches!(rule.verdict, Statement::SetPacketMark(_)));
        match self {
            Piece::All => true,
            Piece::Counting => counts,
            Piece::Ended => ended,
            Piece::Switch => hook.is_of_switch(),
            Piece::Closed => hook == Hook::PostroutingClosed || hook.is_of_pins() || pins,
            Piece::Last => hook == Hook::PostroutingLast,
            Piece::Clamp => matches!(rule.verdict, Statement::ClampMss(_)),
            Piece::Inbound => !counts && !pins && !ended && marks,
        }
    }
}

/// Parts of a policy, each of one family.
pub type Pieces = BTreeSet<(Family, Piece)>;

/// True for the nat chain without rules, which keeps the translation of older flows.
pub(crate) fn keeps_flows(chain: &Chain) -> bool {
    chain.hook == Hook::PostroutingNat && chain.rules.is_empty()
}

impl FwRule {
    /// The family of the packets that the rule matches; `None` for both.
    fn only_of(&self) -> Option<Family> {
        let of_match = |condition: &Match| match condition {
            Match::Source(net) | Match::NotSource(net) => Some(Family::of_net(net)),
            Match::NextHop(address) | Match::NotNextHop(address) => Some(Family::of(*address)),
            Match::LinkLocalHop => Some(Family::Ipv6),
            Match::Realm(_) | Match::NotRealm(_) => Some(Family::Ipv4),
            _ => None,
        };
        self.family
            .or_else(|| self.matches.iter().find_map(of_match))
    }

    fn is_about_handshakes_of_a_flow(&self) -> bool {
        let mut matches = self.matches.iter();
        self.matches.contains(&Match::TcpSyn) && matches.any(|it| matches!(it, Match::FlowMark(_)))
    }

    fn applies_to(&self, family: Family) -> bool {
        self.only_of().is_none_or(|only| only == family)
    }
}

impl Ruleset {
    /// The policy with translations that keep ports where possible.
    pub fn without_random_ports(&self) -> Ruleset {
        let mut policy = self.clone();
        for rule in policy.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            if let Statement::SnatRandomly(address) = rule.verdict {
                rule.verdict = Statement::Snat(address);
            }
        }
        policy
    }

    /// The policy whose drops leave these traces at most.
    pub fn with_traces(&self, most: Traces) -> Ruleset {
        let mut policy = self.clone();
        for rule in policy.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            let Some((reason, traces)) = rule.verdict.drops() else {
                continue;
            };
            let fewer = Traces {
                log: traces.log && most.log,
                record: traces.record && most.record,
            };
            if fewer != traces {
                rule.verdict = Statement::DropTraced(reason, fewer);
            }
        }
        policy
    }

    /// The policy without the rules that look at sockets, which some kernels cannot have.
    pub fn without_sockets(&self) -> Ruleset {
        let looks = |rule: &FwRule| {
            let socket = |condition: &Match| matches!(condition, Match::UdpWithSocket(_));
            rule.matches.iter().any(socket)
        };
        let chains = self.chains.iter().map(|chain| Chain {
            hook: chain.hook,
            rules: chain
                .rules
                .iter()
                .filter(|rule| !looks(rule))
                .cloned()
                .collect(),
        });
        Ruleset {
            chains: chains
                .filter(|chain| keeps_flows(chain) || !chain.rules.is_empty())
                .collect(),
        }
    }

    /// The policy without some parts. A rule of both families whose part is left out for one family
    /// becomes a rule of the other family.
    pub fn without(&self, pieces: &Pieces) -> Ruleset {
        let whole = pieces.is_empty();
        let chains = self.chains.iter().map(|chain| {
            let keeps = |rule: &FwRule, family: Family| {
                let mut gone = pieces.iter().filter(|(of, _)| *of == family);
                rule.applies_to(family) && !gone.any(|(_, piece)| piece.holds(chain.hook, rule))
            };
            let rules = chain.rules.iter().filter_map(|rule| {
                let kept: Vec<Family> = Family::ALL
                    .into_iter()
                    .filter(|family| keeps(rule, *family))
                    .collect();
                let family = match (kept.as_slice(), rule.only_of()) {
                    ([], _) => return None,
                    ([only], None) => Some(*only),
                    _ => rule.family,
                };
                Some(FwRule {
                    family,
                    ..rule.clone()
                })
            });
            Chain {
                hook: chain.hook,
                rules: rules.collect(),
            }
        });
        Ruleset {
            // A kernel that refuses a part perhaps knows no translation at all.
            chains: chains
                .filter(|chain| !chain.rules.is_empty() || whole && keeps_flows(chain))
                .collect(),
        }
    }

    /// The optional parts of a family, the least important part first.
    pub fn optional(&self, family: Family) -> Vec<Piece> {
        let has = |piece: &Piece| {
            self.chains.iter().any(|chain| {
                let mut rules = chain.rules.iter();
                rules.any(|rule| rule.applies_to(family) && piece.holds(chain.hook, rule))
            })
        };
        Piece::OPTIONAL.into_iter().filter(has).collect()
    }

    /// The families with a rule.
    pub fn families(&self) -> Vec<Family> {
        let has = |family: &Family| {
            let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
            rules.any(|rule| rule.applies_to(*family))
        };
        Family::ALL.into_iter().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Path;
    use crate::types::Mark;

    fn policy() -> Ruleset {
        let mark = Mark { value: 1, mask: 3 };
        let rule = |family, verdict| FwRule {
            family,
            matches: vec![Match::NewFlow],
            verdict,
        };
        let chain = |hook, rules| Chain { hook, rules };
        let (ipv4, ipv6) = (Some(Family::Ipv4), Some(Family::Ipv6));
        Ruleset {
            chains: vec![
                chain(
                    Hook::Prerouting,
                    vec![
                        rule(None, Statement::RestoreMark { mask: 1 }),
                        rule(ipv4, Statement::Count(Path::Egress)),
                    ],
                ),
                chain(Hook::Forward, vec![rule(ipv4, Statement::ClampMss(1400))]),
                chain(
                    Hook::PostroutingCount,
                    vec![rule(ipv6, Statement::SetFlowMark(mark))],
                ),
                chain(
                    Hook::PostroutingNat,
                    vec![
                        rule(ipv4, Statement::Masquerade),
                        rule(ipv6, Statement::Masquerade),
                    ],
                ),
            ],
        }
    }

    fn hooks(ruleset: &Ruleset) -> Vec<(Hook, usize)> {
        let chains = ruleset.chains.iter();
        chains
            .map(|chain| (chain.hook, chain.rules.len()))
            .collect()
    }

    #[test]
    fn translation_remains_without_all_optional_parts() {
        let policy = policy();
        let optional = [Piece::Counting, Piece::Clamp, Piece::Inbound];
        assert_eq!(policy.optional(Family::Ipv4), optional);
        let all = Family::ALL.map(|family| Piece::OPTIONAL.map(|piece| (family, piece)));
        let bare = policy.without(&all.into_iter().flatten().collect());
        assert_eq!(hooks(&bare), [(Hook::PostroutingNat, 2)]);
        let uncounted = policy.without(&[(Family::Ipv4, Piece::Counting)].into());
        let left = [
            (Hook::Prerouting, 1),
            (Hook::Forward, 1),
            (Hook::PostroutingCount, 1),
            (Hook::PostroutingNat, 2),
        ];
        assert_eq!(hooks(&uncounted), left);
    }

    #[test]
    fn rules_of_both_families_become_rules_of_the_family_left() {
        for piece in [Piece::All, Piece::Inbound] {
            let one = policy().without(&[(Family::Ipv6, piece)].into());
            let first = &one.chains[0].rules[0];
            assert_eq!(first.family, Some(Family::Ipv4));
        }
        let one = policy().without(&[(Family::Ipv6, Piece::All)].into());
        assert_eq!(one.families(), [Family::Ipv4]);
        let none = policy().without(&Family::ALL.map(|family| (family, Piece::All)).into());
        assert_eq!(none, Ruleset::default());
        assert_eq!(policy().without(&Pieces::new()), policy());
    }
}
