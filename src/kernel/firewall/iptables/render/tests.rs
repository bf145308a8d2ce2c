//! Policies as iptables rules, for both families.

use super::super::builder::MOST_NESTED;
use super::*;
use crate::firewall::{Chain, Match, Path};
use crate::types::{Mark, Realm};

const MARK: Mark = Mark {
    value: 0x1000,
    mask: 0x3000,
};

fn lines(hook: Hook, rules: &[(&[Match], Statement)], family: Family) -> Vec<String> {
    let rule = |(matches, verdict): &(&[Match], Statement)| FwRule {
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
fn compatible_conditions_share_one_rule() {
    let matches = [
        Match::OutputInterface("eth1".into()),
        Match::Source(net("10.0.0.0/8")),
        Match::DestinationNoneOf(nets(&["192.0.2.0/24"])),
        Match::Realm(Realm(83)),
    ];
    assert_eq!(
        lines(
            Hook::PostroutingNat,
            &[(&matches, Statement::Masquerade)],
            Family::Ipv4
        ),
        [
            "TRAILBLAZER-POST -s 10.0.0.0/8 ! -d 192.0.2.0/24 -o eth1 -m realm --realm 0x53/0xffff -j MASQUERADE"
        ]
    );
    assert!(
        lines(
            Hook::PostroutingNat,
            &[(&matches, Statement::Masquerade)],
            Family::Ipv6
        )
        .is_empty()
    );
}

#[test]
fn counting_rule_returns_to_the_chain_of_the_kernel() {
    let rule = FwRule {
        family: Some(Family::Ipv6),
        matches: vec![Match::ReplyDirection, Match::PacketMark(MARK)],
        verdict: Statement::Count(Path::Egress),
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
        "ip6tables -t mangle -A TRAILBLAZER-PRE -m comment --comment \"trailblazer counts: egress, in\" -m conntrack --ctdir REPLY -m mark --mark 0x1000/0x3000 -j RETURN"
    );
    assert!(render(&ruleset, Family::Ipv4).unwrap().is_empty());
}

#[test]
fn lists_become_a_chain() {
    let matches = [
        Match::OutputInterface("eth1".into()),
        Match::DestinationAnyOf(nets(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"])),
        Match::DestinationNoneOf(nets(&["10.1.0.0/16", "172.16.0.0/12"])),
    ];
    assert_eq!(
        lines(
            Hook::PostroutingNat,
            &[(&matches, Statement::Masquerade)],
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
fn accept_outside_nat_returns_to_the_built_in_chain() {
    let none_of = [Match::DestinationNoneOf(nets(&[
        "10.0.0.0/8",
        "192.0.2.0/24",
    ]))];
    assert_eq!(
        lines(
            Hook::Prerouting,
            &[
                (&none_of, Statement::Accept),
                (&[], Statement::SetFlowMark(MARK))
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
            &[(&none_of, Statement::Accept)],
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
            let share = Match::SourceSlots {
                slots: vec![bucket],
                of: buckets,
                seed: 0x1234_5677,
            };
            let excluded: std::collections::BTreeSet<String> = lines(
                Hook::PostroutingNat,
                &[(&[share], Statement::Masquerade)],
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
fn accepted_list_needs_no_chain_and_depth_is_limited() {
    let any_of = [Match::DestinationAnyOf(nets(&[
        "10.0.0.0/8",
        "192.0.2.0/24",
    ]))];
    assert_eq!(
        lines(
            Hook::Prerouting,
            &[(&any_of, Statement::Accept)],
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
    let rules: Vec<(&[Match], Statement)> = vec![(&none_of, Statement::Accept); MOST_NESTED + 1];
    let at = |count: usize| lines(Hook::Prerouting, &rules[..count], Family::Ipv4);
    assert!(!at(MOST_NESTED)[0].starts_with("cannot"));
    assert!(at(MOST_NESTED + 1)[0].starts_with("cannot"));
}

#[test]
fn contradictory_conditions_render_no_rule() {
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
        assert!(lines(hook, &[(matches, Statement::Drop)], Family::Ipv4).is_empty());
    }
    assert_eq!(
        lines(
            Hook::PostroutingGuard,
            &[(
                &[
                    Match::DestinationAnyOf(nets(&["0.0.0.0/0"])),
                    Match::DestinationNoneOf(vec![])
                ],
                Statement::Drop
            )],
            Family::Ipv4
        ),
        ["TRAILBLAZER-GUARD -j DROP"]
    );
}

#[test]
fn inexpressible_rules_are_errors() {
    let cases: [(Hook, Match, Statement); 11] = [
        (
            Hook::PostroutingCount,
            Match::NotNextHop("10.0.0.1".parse().unwrap()),
            Statement::Accept,
        ),
        (
            Hook::Prerouting,
            Match::NotRealm(Realm(1)),
            Statement::Accept,
        ),
        (
            Hook::PostroutingNat,
            Match::NextHop("10.0.0.1".parse().unwrap()),
            Statement::Masquerade,
        ),
        (Hook::Prerouting, Match::Realm(Realm(1)), Statement::Accept),
        (
            Hook::Prerouting,
            Match::OutputInterface("eth0".into()),
            Statement::Accept,
        ),
        (
            Hook::OutputReroute,
            Match::NotInputInterface("eth0".into()),
            Statement::Accept,
        ),
        (
            Hook::PostroutingNat,
            Match::OutputInterface("ppp+".into()),
            Statement::Masquerade,
        ),
        (
            Hook::PostroutingNat,
            Match::SourceSlots {
                slots: vec![2],
                of: 2,
                seed: 1,
            },
            Statement::Masquerade,
        ),
        (
            Hook::PostroutingNat,
            Match::FlowMark(Mark { value: 4, mask: 3 }),
            Statement::Masquerade,
        ),
        (Hook::PostroutingNat, Match::NewFlow, Statement::Drop),
        (Hook::Prerouting, Match::NewFlow, Statement::Masquerade),
    ];
    for (hook, condition, verdict) in cases {
        let text = lines(hook, &[(&[condition], verdict)], Family::Ipv4);
        assert!(text[0].starts_with("cannot: "), "{text:?}");
    }
}
