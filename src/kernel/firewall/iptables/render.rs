//! The policy in iptables words. Pure.
//!
//! What fits one iptables rule becomes one. What doesn't (several prefixes, several negations)
//! goes through a chain of our own, `TRAILBLAZER-SET<n>`:
//!
//! ```text
//! -A TRAILBLAZER-POST -o eth1 -j TRAILBLAZER-SET1     what fits
//! -A TRAILBLAZER-SET1 -d 192.0.2.0/24 -j RETURN       none of: back to the next rule
//! -A TRAILBLAZER-SET1 -d 10.0.0.0/8 -j MASQUERADE     any of: one rule a prefix
//! ```
//!
//! *Accept* of our policy means: no later rule of ours sees the packet. In the nat table that is
//! ACCEPT, so that nobody's later rule translates it either. Elsewhere it is RETURN to the
//! built-in chain: ACCEPT there would carry the packet past the administrator's own filter rules.
//! Out of a `SET` chain, RETURN must leave our whole chain, so such a rule *goes* (`-g`) instead
//! of jumping, and the rules after it move to a chain of their own, `TRAILBLAZER-REST<n>`, to
//! which those packets go that the rule doesn't concern.

use std::collections::BTreeMap;

use super::conditions::{Conditions, Nothing, Side, checked, gather};
use super::model::{JUMP_COMMENT, Jump, Own, OwnTable, count_comment, place};
use super::rule::Rule;
use super::script::marker;
use crate::firewall::{FwRule, Hook, Ruleset, Verdict};
use crate::types::Family;

/// nf_tables lets chains lie 16 deep (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h; beyond it
/// says EMLINK), and counts `-g` as it counts `-j`. Each `SET` with its `REST` takes two.
const MOST_NESTED: usize = 6;

/// The policy of one family; the error says what iptables has no words for.
pub fn render(ruleset: &Ruleset, family: Family) -> Result<Own, String> {
    let mut tables: BTreeMap<String, Builder> = BTreeMap::new();
    for chain in &ruleset.chains {
        let (table, builtin, name) = place(chain.hook);
        let mut writer: Option<(String, usize)> = None;
        for rule in &chain.rules {
            let conditions = match gather(rule, chain.hook, family) {
                Ok(conditions) => conditions,
                Err(Nothing::NeverMatches) => continue,
                Err(Nothing::Inexpressible(what)) => return Err(what),
            };
            let verdict = verdict(rule, chain.hook)?;
            let builder = tables.entry(table.to_owned()).or_default();
            // A chain comes with its first rule: a family without rules stays untouched.
            let current = writer.get_or_insert_with(|| {
                builder.open(name);
                builder.hook(builtin, name);
                (name.to_owned(), 0)
            });
            builder.rule(current, conditions, &verdict)?;
        }
    }
    let finish = |builder: Builder| builder.table;
    Ok(Own(tables
        .into_iter()
        .map(|(name, builder)| (name, finish(builder)))
        .collect()))
}

fn verdict(rule: &FwRule, hook: Hook) -> Result<String, String> {
    let nat = hook == Hook::PostroutingNat;
    match &rule.verdict {
        Verdict::Snat(_) | Verdict::Masquerade if !nat => Err(format!(
            "source translation at {hook:?}: only the nat table translates"
        )),
        Verdict::Drop if nat => {
            // "The "nat" table is not intended for filtering" (iptables/iptables.c)
            Err("dropping in the nat table".to_owned())
        }
        // CONNMARK: ctmark = (ctmark & ~mask) ^ value, which with the value inside the mask is
        // exactly "write these bits" (iptables-extensions(8)).
        Verdict::SetFlowMark(mark) => match checked(*mark) {
            Ok(mark) => Ok(format!("-j CONNMARK --set-xmark {mark}")),
            Err(Nothing::Inexpressible(what)) => Err(what),
            Err(Nothing::NeverMatches) => Err(format!("mark {mark}")),
        },
        Verdict::RestoreMark { mask } => Ok(format!(
            "-j CONNMARK --restore-mark --nfmask {mask:#x} --ctmask {mask:#x}"
        )),
        Verdict::Snat(address) => Ok(format!("-j SNAT --to-source {address}")),
        Verdict::Masquerade => Ok("-j MASQUERADE".to_owned()),
        // A rule without a target counts, and that is all.
        Verdict::Count(path) => Ok(format!(
            "-m comment --comment \"{}\"",
            count_comment(*path, hook)
        )),
        Verdict::Accept if nat => Ok("-j ACCEPT".to_owned()),
        Verdict::Accept => Ok("-j RETURN".to_owned()),
        Verdict::Drop => Ok("-j DROP".to_owned()),
    }
}

#[derive(Default)]
struct Builder {
    table: OwnTable,
    sets: usize,
    rests: usize,
}

impl Builder {
    /// A chain with the mark of ownership in it.
    fn open(&mut self, chain: &str) {
        let rules = vec![Rule::parse(&marker())];
        self.table.chains.insert(chain.to_owned(), rules);
    }

    /// First place: of two nat rules the first that translates wins.
    fn hook(&mut self, builtin: &str, chain: &str) {
        self.table.jumps.push(Jump {
            from: builtin.to_owned(),
            position: 1,
            rule: Rule::spelled(&format!("-m comment --comment {JUMP_COMMENT} -j {chain}")),
        });
        self.table.jumps.sort_by(|a, b| a.from.cmp(&b.from));
    }

    fn add(&mut self, chain: &str, words: &[&str]) {
        self.table
            .chains
            .entry(chain.to_owned())
            .or_default()
            .push(Rule::spelled(&words.join(" ")));
    }

    /// Appends a rule to the chain named `current`, which may be another one afterwards; `nested`
    /// counts how often it became another.
    fn rule(
        &mut self,
        (current, nested): &mut (String, usize),
        mut conditions: Conditions,
        verdict: &str,
    ) -> Result<(), String> {
        let mut fitting = String::new();
        let mut lists = Lists::default();
        fit(&mut conditions.source, "-s", &mut fitting, &mut lists);
        fit(&mut conditions.destination, "-d", &mut fitting, &mut lists);
        fit(&mut conditions.input, "-i", &mut fitting, &mut lists);
        fit(&mut conditions.output, "-o", &mut fitting, &mut lists);
        lists.none_of.append(&mut conditions.exclusions);
        for words in &conditions.matches {
            fitting.push(' ');
            fitting.push_str(words);
        }
        if lists.any_of.is_empty() && lists.none_of.is_empty() {
            self.add(current, &[&fitting, verdict]);
            return Ok(());
        }
        let leaves = verdict == "-j RETURN";
        if leaves && lists.none_of.is_empty() {
            // A list to leave by needs no chain, only one rule a prefix.
            for condition in &lists.any_of {
                self.add(current, &[condition, &fitting, verdict]);
            }
            return Ok(());
        }

        self.sets += 1;
        let set = format!("TRAILBLAZER-SET{}", self.sets);
        self.open(&set);
        let (enter, not_concerned, rest) = if leaves {
            self.rests += 1;
            *nested += 1;
            if *nested > MOST_NESTED {
                return Err(format!(
                    "more than {MOST_NESTED} rules of one chain that accept what is outside a list: chains would lie too deep"
                ));
            }
            let rest = format!("TRAILBLAZER-REST{}", self.rests);
            self.open(&rest);
            (format!("-g {set}"), format!("-g {rest}"), Some(rest))
        } else {
            (format!("-j {set}"), "-j RETURN".to_owned(), None)
        };
        self.add(current, &[&fitting, &enter]);
        for condition in &lists.none_of {
            self.add(&set, &[condition, &not_concerned]);
        }
        if lists.any_of.is_empty() {
            self.add(&set, &[verdict]);
        } else {
            for condition in &lists.any_of {
                self.add(&set, &[condition, verdict]);
            }
        }
        if let Some(rest) = rest {
            if !lists.any_of.is_empty() {
                self.add(&set, &[&not_concerned]);
            }
            self.add(current, &[&not_concerned]);
            *current = rest;
        }
        Ok(())
    }
}

/// Conditions that need a chain of their own, each in iptables words. Only destinations come as
/// a list of which one must hold, so there is at most one such list a rule.
#[derive(Default)]
struct Lists {
    any_of: Vec<String>,
    none_of: Vec<String>,
}

/// Writes into the rule what it can take; the rest goes to `lists`.
fn fit<T: ToString>(side: &mut Side<T>, option: &str, fitting: &mut String, lists: &mut Lists) {
    let words = |value: &T| format!("{option} {}", value.to_string());
    match side.any_of.as_deref() {
        Some([one]) => {
            fitting.push(' ');
            fitting.push_str(&words(one));
        }
        Some(several) => lists.any_of.extend(several.iter().map(words)),
        None => {
            if let [one] = side.none_of.as_slice() {
                fitting.push_str(" ! ");
                fitting.push_str(&words(one));
                return;
            }
        }
    }
    lists.none_of.extend(side.none_of.iter().map(words));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Chain, Match, Path};
    use crate::types::{Mark, Realm};

    const MARK: Mark = Mark {
        value: 0x1000,
        mask: 0x3000,
    };

    fn lines(hook: Hook, rules: &[(&[Match], Verdict)], family: Family) -> Vec<String> {
        let rule = |(matches, verdict): &(&[Match], Verdict)| FwRule {
            family: None,
            matches: matches.to_vec(),
            verdict: verdict.clone(),
        };
        let ruleset = Ruleset {
            chains: vec![Chain {
                hook,
                rules: rules.iter().map(rule).collect(),
            }],
        };
        let own = match render(&ruleset, family) {
            Ok(own) => own,
            Err(what) => return vec![format!("cannot: {what}")],
        };
        own.text(family)
            .into_iter()
            .filter(|line| !line.contains("--comment"))
            .filter_map(|line| line.split_once(" -A ").map(|(_, rule)| rule.to_owned()))
            .collect()
    }

    fn net(text: &str) -> ipnet::IpNet {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
        texts.iter().map(|text| net(text)).collect()
    }

    #[test]
    fn what_fits_is_one_rule() {
        let matches = [
            Match::OutputInterface("eth1".into()),
            Match::Source(net("10.0.0.0/8")),
            Match::DestinationNoneOf(nets(&["192.0.2.0/24"])),
            Match::Realm(Realm(83)),
        ];
        assert_eq!(
            lines(
                Hook::PostroutingNat,
                &[(&matches, Verdict::Masquerade)],
                Family::Ipv4
            ),
            [
                "TRAILBLAZER-POST -s 10.0.0.0/8 ! -d 192.0.2.0/24 -o eth1 -m realm --realm 0x53/0xffff -j MASQUERADE"
            ]
        );
        assert!(
            lines(
                Hook::PostroutingNat,
                &[(&matches, Verdict::Masquerade)],
                Family::Ipv6
            )
            .is_empty()
        );
    }

    #[test]
    fn a_rule_that_counts_has_no_target() {
        let rule = FwRule {
            family: Some(Family::Ipv6),
            matches: vec![Match::ReplyDirection, Match::PacketMark(MARK)],
            verdict: Verdict::Count(Path::Egress),
        };
        let ruleset = Ruleset {
            chains: vec![Chain {
                hook: Hook::Prerouting,
                rules: vec![rule],
            }],
        };
        let own = render(&ruleset, Family::Ipv6).unwrap();
        assert_eq!(
            own.text(Family::Ipv6)[2],
            "ip6tables -t mangle -A TRAILBLAZER-PRE -m comment --comment \"trailblazer counts: egress, in\" -m conntrack --ctdir REPLY -m mark --mark 0x1000/0x3000"
        );
        assert!(render(&ruleset, Family::Ipv4).unwrap().is_empty());
    }

    #[test]
    fn lists_take_a_chain() {
        let matches = [
            Match::OutputInterface("eth1".into()),
            Match::DestinationAnyOf(nets(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"])),
            Match::DestinationNoneOf(nets(&["10.1.0.0/16", "172.16.0.0/12"])),
        ];
        assert_eq!(
            lines(
                Hook::PostroutingNat,
                &[(&matches, Verdict::Masquerade)],
                Family::Ipv4
            ),
            [
                "TRAILBLAZER-POST -o eth1 -j TRAILBLAZER-SET1",
                "TRAILBLAZER-SET1 -d 10.1.0.0/16 -j RETURN",
                "TRAILBLAZER-SET1 -d 10.0.0.0/8 -j MASQUERADE",
                "TRAILBLAZER-SET1 -d 192.0.2.0/24 -j MASQUERADE",
            ]
        );
    }

    #[test]
    fn accept_outside_nat_leaves_our_chains_only() {
        let none_of = [Match::DestinationNoneOf(nets(&[
            "10.0.0.0/8",
            "192.0.2.0/24",
        ]))];
        assert_eq!(
            lines(
                Hook::Prerouting,
                &[
                    (&none_of, Verdict::Accept),
                    (&[], Verdict::SetFlowMark(MARK))
                ],
                Family::Ipv4
            ),
            [
                "TRAILBLAZER-PRE -g TRAILBLAZER-SET1",
                "TRAILBLAZER-PRE -g TRAILBLAZER-REST1",
                "TRAILBLAZER-REST1 -j CONNMARK --set-xmark 0x1000/0x3000",
                "TRAILBLAZER-SET1 -d 10.0.0.0/8 -g TRAILBLAZER-REST1",
                "TRAILBLAZER-SET1 -d 192.0.2.0/24 -g TRAILBLAZER-REST1",
                "TRAILBLAZER-SET1 -j RETURN",
            ]
        );
        assert_eq!(
            lines(
                Hook::PostroutingNat,
                &[(&none_of, Verdict::Accept)],
                Family::Ipv4
            )
            .last()
            .unwrap(),
            "TRAILBLAZER-SET1 -j ACCEPT"
        );
    }

    #[test]
    fn each_source_has_exactly_one_bucket() {
        for buckets in 2..=32 {
            let mut owners = std::collections::BTreeMap::new();
            for bucket in 0..buckets {
                let share = Match::SourceBucket {
                    bucket,
                    buckets,
                    seed: 0x1234_5677,
                };
                let excluded: std::collections::BTreeSet<String> = lines(
                    Hook::PostroutingNat,
                    &[(&[share], Verdict::Masquerade)],
                    Family::Ipv6,
                )
                .into_iter()
                .filter(|line| line.ends_with("RETURN"))
                .collect();
                let mask = if buckets.is_power_of_two() {
                    buckets
                } else {
                    32
                };
                for class in 0..mask {
                    let bits = |n: u32| std::net::Ipv6Addr::from(u128::from(n));
                    let line = format!(
                        "TRAILBLAZER-SET1 -s {}/{} -j RETURN",
                        bits(class),
                        bits(mask - 1)
                    );
                    if !excluded.contains(&line) {
                        assert_eq!(owners.insert(class, bucket), None, "{class} of {buckets}");
                    }
                }
            }
            let used: std::collections::BTreeSet<u32> = owners.values().copied().collect();
            assert_eq!(used.len(), buckets as usize);
        }
    }

    #[test]
    fn a_list_to_accept_by_needs_no_chain_and_depth_has_its_limit() {
        let any_of = [Match::DestinationAnyOf(nets(&[
            "10.0.0.0/8",
            "192.0.2.0/24",
        ]))];
        assert_eq!(
            lines(
                Hook::Prerouting,
                &[(&any_of, Verdict::Accept)],
                Family::Ipv4
            ),
            [
                "TRAILBLAZER-PRE -d 10.0.0.0/8 -j RETURN",
                "TRAILBLAZER-PRE -d 192.0.2.0/24 -j RETURN",
            ]
        );
        let none_of = [Match::DestinationNoneOf(nets(&[
            "10.0.0.0/8",
            "192.0.2.0/24",
        ]))];
        let rules: Vec<(&[Match], Verdict)> = vec![(&none_of, Verdict::Accept); MOST_NESTED + 1];
        let at = |count: usize| lines(Hook::Prerouting, &rules[..count], Family::Ipv4);
        assert!(!at(MOST_NESTED)[0].starts_with("cannot"));
        assert!(at(MOST_NESTED + 1)[0].starts_with("cannot"));
    }

    #[test]
    fn what_can_never_be_is_no_rule() {
        let never: [&[Match]; 7] = [
            &[
                Match::OutputInterface("a".into()),
                Match::OutputInterface("b".into()),
            ],
            &[
                Match::Source(net("10.0.0.0/8")),
                Match::NotSource(net("10.0.0.0/7")),
            ],
            &[Match::DestinationNoneOf(nets(&["0.0.0.0/0"]))],
            &[Match::DestinationAnyOf(vec![])],
            &[Match::NewFlow, Match::NotTracked],
            &[Match::Realm(Realm(1)), Match::Realm(Realm(2))],
            &[
                Match::FlowMark(Mark { value: 1, mask: 3 }),
                Match::FlowMark(Mark { value: 2, mask: 2 }),
            ],
        ];
        for matches in never {
            let hook = Hook::PostroutingGuard;
            assert!(lines(hook, &[(matches, Verdict::Drop)], Family::Ipv4).is_empty());
        }
        assert_eq!(
            lines(
                Hook::PostroutingGuard,
                &[(
                    &[
                        Match::DestinationAnyOf(nets(&["0.0.0.0/0"])),
                        Match::DestinationNoneOf(vec![])
                    ],
                    Verdict::Drop
                )],
                Family::Ipv4
            ),
            ["TRAILBLAZER-GUARD -j DROP"]
        );
    }

    #[test]
    fn what_iptables_has_no_words_for_is_said() {
        let cases: [(Hook, Match, Verdict); 11] = [
            (
                Hook::PostroutingCount,
                Match::NotNextHop("10.0.0.1".parse().unwrap()),
                Verdict::Accept,
            ),
            (Hook::Prerouting, Match::NotRealm(Realm(1)), Verdict::Accept),
            (
                Hook::PostroutingNat,
                Match::NextHop("10.0.0.1".parse().unwrap()),
                Verdict::Masquerade,
            ),
            (Hook::Prerouting, Match::Realm(Realm(1)), Verdict::Accept),
            (
                Hook::Prerouting,
                Match::OutputInterface("eth0".into()),
                Verdict::Accept,
            ),
            (
                Hook::OutputReroute,
                Match::NotInputInterface("eth0".into()),
                Verdict::Accept,
            ),
            (
                Hook::PostroutingNat,
                Match::OutputInterface("ppp+".into()),
                Verdict::Masquerade,
            ),
            (
                Hook::PostroutingNat,
                Match::SourceBucket {
                    bucket: 2,
                    buckets: 2,
                    seed: 1,
                },
                Verdict::Masquerade,
            ),
            (
                Hook::PostroutingNat,
                Match::FlowMark(Mark { value: 4, mask: 3 }),
                Verdict::Masquerade,
            ),
            (Hook::PostroutingNat, Match::NewFlow, Verdict::Drop),
            (Hook::Prerouting, Match::NewFlow, Verdict::Masquerade),
        ];
        for (hook, condition, verdict) in cases {
            let text = lines(hook, &[(&[condition], verdict)], Family::Ipv4);
            assert!(text[0].starts_with("cannot: "), "{text:?}");
        }
    }
}
