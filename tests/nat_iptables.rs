//! The iptables backend against the real tools, both variants, both families.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::shell::{sh, which};
use lab::{Isolation, isolated};
use trailblazer::firewall::{
    BackendKind, Chain, FwRule, Hook, Match, ObservedFirewall, OwnedFirewall, Path, Ruleset,
    Statement,
};
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::types::{Family, Mark, Realm};

const VARIANTS: [(&str, &str); 2] = [
    ("iptables-nft", "ip6tables-nft"),
    ("iptables-legacy", "ip6tables-legacy"),
];

const HOOKS: [Hook; 5] = [
    Hook::Prerouting,
    Hook::OutputReroute,
    Hook::PostroutingCount,
    Hook::PostroutingNat,
    Hook::PostroutingGuard,
];

const MARK: Mark = Mark {
    value: 0x1000,
    mask: 0x3000,
};

fn backend((ipv4, ipv6): (&'static str, &'static str)) -> IptablesBackend {
    IptablesBackend::with_tools(ipv4, ipv6, 1)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn rule(matches: &[Match], verdict: Statement) -> FwRule {
    FwRule {
        family: None,
        matches: matches.to_vec(),
        verdict,
    }
}

fn chain(hook: Hook, rules: Vec<FwRule>) -> Chain {
    Chain { hook, rules }
}

fn owned(backend: &mut IptablesBackend) -> OwnedFirewall {
    match backend.observe().unwrap() {
        ObservedFirewall::Owned(owned) => owned,
        other => panic!("not owned: {other:?}"),
    }
}

fn in_sync(backend: &mut IptablesBackend, ruleset: &Ruleset) {
    let rendered = backend.render(ruleset).unwrap();
    assert_eq!(owned(backend).text, rendered);
}

/// A policy like the nat role's, with helper chains.
fn policy() -> Ruleset {
    let list = vec![
        net("192.0.2.0/25"),
        net("198.51.100.0/24"),
        net("2001:db8:3::/48"),
    ];
    Ruleset {
        chains: vec![
            chain(
                Hook::Prerouting,
                vec![
                    rule(&[Match::DestinationNoneOf(list.clone())], Statement::Accept),
                    rule(
                        &[Match::NotInputInterface("eth1".into()), Match::NewFlow],
                        Statement::SetFlowMark(MARK),
                    ),
                ],
            ),
            chain(
                Hook::OutputReroute,
                vec![rule(&[], Statement::RestoreMark { mask: 0x3000 })],
            ),
            chain(
                Hook::PostroutingCount,
                vec![rule(&[Match::NewFlow], Statement::SetFlowMark(MARK))],
            ),
            chain(
                Hook::PostroutingNat,
                vec![
                    rule(&[Match::DestinationAnyOf(list)], Statement::Masquerade),
                    rule(
                        &[Match::Source(net("10.0.0.0/16"))],
                        Statement::Snat("10.0.0.20".parse().unwrap()),
                    ),
                    rule(
                        &[Match::Source(net("2001:db8:1::/64"))],
                        Statement::Snat("2001:db8::20".parse().unwrap()),
                    ),
                ],
            ),
            chain(
                Hook::PostroutingGuard,
                vec![rule(&[Match::NotTracked], Statement::Drop)],
            ),
        ],
    }
}

fn every_match() -> Vec<Match> {
    let v4 = [net("192.0.2.0/25"), net("198.51.100.7/32")];
    let v6 = [net("2001:db8:3::/48"), net("2001:db8:4::1/128")];
    let mixed: Vec<IpNet> = v4.iter().chain(&v6).copied().collect();
    let mut all = vec![
        Match::NotInputInterface("eth0.12".into()),
        Match::OutputInterface("eth1".into()),
        Match::DestinationIsLocal,
        Match::SourceNotLocal,
        Match::NewFlow,
        Match::NotTracked,
        Match::FlowMark(MARK),
        Match::FlowMark(Mark {
            value: 7,
            mask: u32::MAX,
        }),
        Match::Realm(Realm(83)),
        Match::NotRealm(Realm(83)),
        Match::OriginalDirection,
        Match::ReplyDirection,
        Match::PacketMark(MARK),
        Match::DestinationAnyOf(mixed.clone()),
        Match::DestinationNoneOf(mixed),
        Match::SourceSlots {
            slots: vec![31],
            of: 32,
            seed: 0,
        },
        Match::SourceSlots {
            slots: vec![0],
            of: 2,
            seed: 0xdead_beef,
        },
    ];
    for text in [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "0.0.0.0/0",
        "2001:db8::/33",
        "2001:db8::1/128",
        "::/0",
    ] {
        all.extend([
            Match::Source(net(text)),
            Match::NotSource(net(text)),
            Match::DestinationAnyOf(vec![net(text)]),
            Match::DestinationNoneOf(vec![net(text)]),
        ]);
    }
    all
}

fn every_verdict() -> Vec<Statement> {
    vec![
        Statement::SetFlowMark(MARK),
        Statement::SetFlowMark(Mark {
            value: 0,
            mask: u32::MAX,
        }),
        Statement::RestoreMark { mask: 0x3000 },
        Statement::RestoreMark { mask: u32::MAX },
        Statement::Count(Path::Egress),
        Statement::Snat("10.0.0.20".parse().unwrap()),
        Statement::Snat("2001:db8::20".parse().unwrap()),
        Statement::SnatRandomly("10.0.0.20".parse().unwrap()),
        Statement::SnatRandomly("2001:db8::20".parse().unwrap()),
        Statement::Masquerade,
        Statement::Accept,
        Statement::Drop,
    ]
}

#[test]
fn every_match_and_verdict_is_read_back_as_rendered() {
    isolated(|| {
        for variant in VARIANTS {
            let mut backend = backend(variant);
            assert_eq!(backend.kind(), BackendKind::Iptables);
            let word = if variant.0.ends_with("nft") {
                "(nf_tables)"
            } else {
                "(legacy)"
            };
            assert!(backend.description().starts_with("iptables v1."));
            assert!(
                backend.description().ends_with(word),
                "{}",
                backend.description()
            );
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            let mut expressed = std::collections::BTreeSet::new();
            for hook in HOOKS {
                for verdict in every_verdict() {
                    let mut rules = Vec::new();
                    for condition in every_match() {
                        for family in [None, Some(Family::Ipv4), Some(Family::Ipv6)] {
                            let one = FwRule {
                                family,
                                matches: vec![condition.clone(), Match::DestinationIsLocal],
                                verdict: verdict.clone(),
                            };
                            let alone = Ruleset {
                                chains: vec![chain(hook, vec![one.clone()])],
                            };
                            match backend.render(&alone) {
                                Ok(_) => {
                                    expressed.insert((condition.clone(), verdict.clone()));
                                    rules.push(one);
                                }
                                Err(FirewallError::Inexpressible { .. }) => {}
                                Err(other) => panic!("{other}"),
                            }
                        }
                    }
                    // At most six such rules fit one chain: an accept outside a list nests the
                    // chains.
                    let most = if verdict == Statement::Accept {
                        6
                    } else {
                        rules.len().max(1)
                    };
                    for rules in rules.chunks(most) {
                        let ruleset = Ruleset {
                            chains: vec![chain(hook, rules.to_vec())],
                        };
                        backend.replace(&ruleset).unwrap();
                        if backend.render(&ruleset).unwrap().is_empty() {
                            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
                        } else {
                            in_sync(&mut backend, &ruleset);
                        }
                    }
                }
            }
            for condition in every_match() {
                assert!(
                    expressed.iter().any(|(one, _)| *one == condition),
                    "{condition:?}"
                );
            }
            for verdict in every_verdict() {
                assert!(
                    expressed.iter().any(|(_, one)| *one == verdict),
                    "{verdict:?}"
                );
            }
            backend.remove().unwrap();
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            backend.remove().unwrap();
        }
    });
}

/// The output of both tools, counters included, without dates and without our chains. Policy
/// counters are left out: both variants zero them with any second command on a table (`iptables -A
/// FORWARD` zeroes those of OUTPUT; tried with 1.8.9 and kernel 6.18).
fn foreign_text((ipv4, ipv6): (&str, &str)) -> String {
    let all = sh(&format!("{ipv4}-save -c; {ipv6}-save -c"));
    all.lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| !line.contains("TRAILBLAZER-") || line.contains("-foreign"))
        .map(|line| match line.split_once(" [") {
            Some((policy, _)) if line.starts_with(':') => {
                format!("{policy}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn deepest_rendered_chains_are_accepted() {
    isolated(|| {
        let list = vec![net("192.0.2.0/25"), net("198.51.100.0/24")];
        let mut rules = vec![rule(&[Match::DestinationNoneOf(list.clone())], Statement::Accept); 6];
        rules.push(rule(
            &[Match::DestinationAnyOf(list)],
            Statement::SetFlowMark(MARK),
        ));
        let ruleset = Ruleset {
            chains: vec![chain(Hook::Prerouting, rules)],
        };
        for variant in VARIANTS {
            let mut backend = backend(variant);
            backend.replace(&ruleset).unwrap();
            in_sync(&mut backend, &ruleset);
            backend.remove().unwrap();
        }
    });
}

#[test]
fn foreign_rules_stay_byte_for_byte() {
    isolated(|| {
        for variant in VARIANTS {
            for tool in [variant.0, variant.1] {
                sh(&format!(
                    "{tool} -t nat -N KUBE-POSTROUTING; \
                     {tool} -t nat -A POSTROUTING -m comment --comment \"it's \\\"quoted\\\" trailblazer\" -j KUBE-POSTROUTING; \
                     {tool} -t nat -A KUBE-POSTROUTING -o lo -j RETURN; \
                     {tool} -t mangle -A PREROUTING -i lo -m comment --comment trailblazer -j MARK --set-xmark 0x80/0x80; \
                     {tool} -t mangle -P FORWARD DROP; \
                     {tool} -t raw -N TRAILBLAZER; {tool} -t raw -A PREROUTING -j TRAILBLAZER; \
                     {tool} -t mangle -A OUTPUT -o lo; {tool} -A FORWARD -i eth7 -j DROP; \
                     {tool} -t mangle -A PREROUTING; {tool} -t nat -A OUTPUT"
                ));
            }
            // Foreign counters must survive too.
            for target in ["127.0.0.1", "::1"] {
                let socket = std::net::UdpSocket::bind((target, 0)).unwrap();
                socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            }
            let before = foreign_text(variant);
            assert!(before.contains("[1:"), "the counters count: {before}");
            let mut backend = backend(variant);
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            backend.replace(&policy()).unwrap();
            in_sync(&mut backend, &policy());
            assert_eq!(foreign_text(variant), before);
            let snapshot = owned(&mut backend).snapshot;
            let mut smaller = policy();
            smaller.chains.truncate(1);
            backend.replace(&smaller).unwrap();
            in_sync(&mut backend, &smaller);
            assert_eq!(foreign_text(variant), before);
            backend.restore(&snapshot).unwrap();
            in_sync(&mut backend, &policy());
            assert_eq!(owned(&mut backend).snapshot, snapshot);
            assert_eq!(foreign_text(variant), before);
            backend.remove().unwrap();
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            assert_eq!(foreign_text(variant), before);
        }
    });
}

#[test]
fn drift_is_detected_and_repaired() {
    isolated(|| {
        let drifts = [
            "T -t nat -F",
            "T -t nat -F; T -t nat -X",
            "T -t nat -F POSTROUTING",
            "T -t mangle -F TRAILBLAZER-PRE",
            "T -t mangle -D TRAILBLAZER-PRE 1",
            "T -t mangle -A TRAILBLAZER-PRE -j RETURN",
            "T -t mangle -I TRAILBLAZER-OUT 1 -j DROP",
            "T -t mangle -D TRAILBLAZER-GUARD 2",
            "T -t nat -A TRAILBLAZER-POST -j MASQUERADE",
            "T -t nat -I POSTROUTING 1 -m comment --comment trailblazer -j TRAILBLAZER-POST",
            "T -t nat -I POSTROUTING 1 -o lo -m comment --comment trailblazer -j TRAILBLAZER-POST",
            "T -t nat -N TRAILBLAZER-OLD",
            "T -t mangle -D PREROUTING -m comment --comment trailblazer -j TRAILBLAZER-PRE; \
             T -t mangle -A OUTPUT -m comment --comment trailblazer -j TRAILBLAZER-PRE",
            "T -t filter -F; T -t filter -X; T -t mangle -F; T -t mangle -X; T -t nat -F; T -t nat -X",
            // Remains of a version with another table.
            "T -t raw -N TRAILBLAZER-RAW; \
             T -t raw -A TRAILBLAZER-RAW -m comment --comment 'trailblazer: managed, do not edit'; \
             T -t raw -I PREROUTING -m comment --comment trailblazer -j TRAILBLAZER-RAW",
        ];
        for variant in VARIANTS {
            let mut backend = backend(variant);
            backend.replace(&policy()).unwrap();
            in_sync(&mut backend, &policy());
            let wanted = backend.render(&policy()).unwrap();
            for tool in [variant.0, variant.1] {
                for drift in drifts {
                    sh(&drift.replace("T -t", &format!("{tool} -t")));
                    assert_ne!(owned(&mut backend).text, wanted, "{tool}: {drift}");
                    backend.replace(&policy()).unwrap();
                    in_sync(&mut backend, &policy());
                }
                for piece in [
                    "-t nat -F POSTROUTING",
                    "-t nat -F TRAILBLAZER-POST",
                    "-t mangle -D TRAILBLAZER-PRE 1",
                ] {
                    sh(&format!("{tool} {piece}"));
                    backend.remove().unwrap();
                    assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
                    backend.replace(&policy()).unwrap();
                }
            }
            backend.remove().unwrap();
        }
    });
}

#[test]
fn displaced_jump_is_noted_and_restored_by_rollback() {
    isolated(|| {
        for variant in VARIANTS {
            let mut backend = backend(variant);
            backend.replace(&policy()).unwrap();
            assert!(backend.jumps_behind_others().unwrap().is_empty());
            sh(&format!(
                "{} -t nat -I POSTROUTING 1 -o lo -j ACCEPT",
                variant.0
            ));
            sh(&format!(
                "{} -t nat -A POSTROUTING -o lo -j ACCEPT",
                variant.0
            ));
            in_sync(&mut backend, &policy());
            let behind = backend.jumps_behind_others().unwrap();
            assert_eq!(
                behind,
                [
                    "ipv4: Trailblazer's jump in chain POSTROUTING of table nat is rule 2, behind foreign rules"
                ]
            );
            let snapshot = owned(&mut backend).snapshot;
            backend.remove().unwrap();
            backend.restore(&snapshot).unwrap();
            assert_eq!(backend.jumps_behind_others().unwrap(), behind);
            // Fewer rules than the snapshot remembers: the place is no longer there.
            backend.remove().unwrap();
            sh(&format!("{} -t nat -F POSTROUTING", variant.0));
            backend.restore(&snapshot).unwrap();
            in_sync(&mut backend, &policy());
            backend.remove().unwrap();
        }
    });
}

#[test]
fn foreign_chain_of_our_name_is_refused() {
    isolated(|| {
        for variant in VARIANTS {
            for tool in [variant.0, variant.1] {
                let mut backend = backend(variant);
                sh(&format!(
                    "{tool} -t nat -N TRAILBLAZER-POST; {tool} -t nat -A TRAILBLAZER-POST -o lo -j ACCEPT"
                ));
                let before = sh(&format!("{tool}-save | grep -v '^#'"));
                let ObservedFirewall::Foreign(what) = backend.observe().unwrap() else {
                    panic!("not foreign");
                };
                assert!(
                    what.contains("chain TRAILBLAZER-POST of table nat"),
                    "{what}"
                );
                let error = backend.replace(&policy()).unwrap_err().to_string();
                assert!(
                    error.contains("conflict") && error.contains("TRAILBLAZER-POST"),
                    "{error}"
                );
                backend.remove().unwrap();
                assert_eq!(sh(&format!("{tool}-save | grep -v '^#'")), before);
                sh(&format!("{tool} -t nat -F; {tool} -t nat -X"));
                assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            }
        }
    });
}

#[test]
fn removal_names_a_foreign_jump_into_our_chain() {
    isolated(|| {
        for variant in VARIANTS {
            let mut backend = backend(variant);
            backend.replace(&policy()).unwrap();
            sh(&format!(
                "{} -t mangle -A FORWARD -i eth7 -j TRAILBLAZER-GUARD",
                variant.0
            ));
            in_sync(&mut backend, &policy());
            let error = backend.remove().unwrap_err().to_string();
            assert!(
                error.contains("iptables -t mangle -A FORWARD -i eth7 -j TRAILBLAZER-GUARD"),
                "{error}"
            );
            assert_eq!(
                owned(&mut backend).text,
                [
                    "iptables -t mangle -N TRAILBLAZER-GUARD",
                    "iptables -t mangle -A TRAILBLAZER-GUARD -m comment --comment \"trailblazer: managed, do not edit\"",
                ]
            );
            sh(&format!("{} -t mangle -D FORWARD 1", variant.0));
            backend.remove().unwrap();
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
        }
    });
}

#[test]
fn held_lock_is_reported_within_the_wait() {
    isolated(|| {
        let lock = std::fs::File::create("/run/xtables.lock").unwrap();
        lock.try_lock().unwrap();
        let mut legacy = backend(VARIANTS[1]);
        let begun = Instant::now();
        let error = legacy.replace(&policy()).unwrap_err();
        let took = begun.elapsed();
        let FirewallError::Locked {
            lock: path,
            waited_s,
            ..
        } = &error
        else {
            panic!("not Locked: {error}");
        };
        assert_eq!((path.as_str(), *waited_s), ("/run/xtables.lock", 1));
        assert!(
            took >= Duration::from_millis(900) && took < Duration::from_secs(4),
            "{took:?}"
        );
        // Reading takes no lock.
        assert_eq!(legacy.observe().unwrap(), ObservedFirewall::Absent);
        // The nft variant has no such lock.
        let mut nft = backend(VARIANTS[0]);
        nft.replace(&policy()).unwrap();
        in_sync(&mut nft, &policy());
        assert!(
            nft.notes().iter().all(|note| note.contains("legacy")),
            "{:?}",
            nft.notes()
        );
        drop(lock);
        legacy.replace(&policy()).unwrap();
        in_sync(&mut legacy, &policy());
        nft.observe().unwrap();
        assert!(
            nft.notes()
                .iter()
                .any(|note| note.contains("iptables-legacy tables present")),
            "{:?}",
            nft.notes()
        );
    });
}

#[test]
fn missing_binary_means_unavailable() {
    Isolation::default().path("/nonexistent").run(|| {
        let mut backend = IptablesBackend::detect();
        let ObservedFirewall::Unavailable(why) = backend.observe().unwrap() else {
            panic!("not unavailable");
        };
        assert!(
            why.contains("no iptables binary in PATH (/nonexistent)"),
            "{why}"
        );
        assert_eq!(backend.description(), "iptables (no binary in PATH)");
        backend.remove().unwrap();
        let error = backend.replace(&policy()).unwrap_err().to_string();
        assert!(error.contains("package iptables"), "{error}");
    });
}

#[test]
fn missing_ipv6_tool_affects_only_ipv6_rules() {
    isolated(|| {
        for variant in VARIANTS {
            let mut backend = backend((variant.0, "ip6tables-nonexistent"));
            let error = backend.replace(&policy()).unwrap_err().to_string();
            assert!(error.contains("ip6tables-nonexistent"), "{error}");
            assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
            let mut only_ipv4 = policy();
            for chain in &mut only_ipv4.chains {
                for rule in &mut chain.rules {
                    rule.family = Some(Family::Ipv4);
                }
                chain.rules.retain(|rule| {
                    !matches!(rule.matches.first(), Some(Match::Source(prefix)) if Family::of_net(prefix) == Family::Ipv6)
                });
            }
            backend.replace(&only_ipv4).unwrap();
            in_sync(&mut backend, &only_ipv4);
            backend.remove().unwrap();
        }
    });
}

#[test]
fn unprivileged_read_is_unreadable_and_not_empty() {
    Isolation::default().without_capabilities().run(|| {
        for variant in VARIANTS {
            let mut backend = backend(variant);
            let ObservedFirewall::Unreadable(why) = backend.observe().unwrap() else {
                panic!("{variant:?}: not unreadable");
            };
            assert!(why.contains("CAP_NET_ADMIN"), "{why}");
            let error = backend.replace(&policy()).unwrap_err().to_string();
            assert!(error.contains("CAP_NET_ADMIN"), "{error}");
            assert!(backend.remove().is_err());
        }
    });
}

#[test]
fn table_filled_by_nft_is_unreadable_and_not_empty() {
    isolated(|| {
        sh(
            "nft 'add table ip nat; add chain ip nat mine { type nat hook postrouting priority 42; }'",
        );
        let mut nft = backend(VARIANTS[0]);
        let ObservedFirewall::Unreadable(why) = nft.observe().unwrap() else {
            panic!("not unreadable: {:?}", nft.observe());
        };
        assert!(why.contains("table nat"), "{why}");
        assert!(nft.replace(&policy()).is_err());
        // A table of another name is nobody's business.
        sh(
            "nft 'delete table ip nat; add table ip mine; add chain ip mine nat { type nat hook postrouting priority 42; }'",
        );
        assert_eq!(nft.observe().unwrap(), ObservedFirewall::Absent);
    });
}

/// A directory of tools: links to the real ones, except for the scripted ones.
fn tools_with(scripts: &[(&str, &str)]) -> (tempfile::TempDir, &'static str, &'static str) {
    let directory = tempfile::tempdir().unwrap();
    for name in ["iptables", "ip6tables"] {
        for part in ["", "-save", "-restore"] {
            let file = directory.path().join(format!("{name}{part}"));
            let real = which(&format!("{name}-legacy{part}"));
            let body = scripts
                .iter()
                .find(|(scripted, _)| *scripted == format!("{name}{part}"))
                .map_or("exec REAL \"$@\"", |(_, body)| body);
            let body = body.replace("REAL", real.to_str().unwrap());
            std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    let path = |name: &str| -> &'static str {
        Box::leak(
            directory
                .path()
                .join(name)
                .to_str()
                .unwrap()
                .to_owned()
                .into_boxed_str(),
        )
    };
    let (ipv4, ipv6) = (path("iptables"), path("ip6tables"));
    (directory, ipv4, ipv6)
}

#[test]
fn partial_failure_restores_the_previous_rules() {
    isolated(|| {
        let marker = "/run/fault-fired";
        // The first restore of IPv6 loses its last table and fails; later restores are real.
        let fault = format!(
            "case \"$1\" in --version) exec REAL \"$@\";; esac\n\
             if [ -e {marker} ]; then exec REAL \"$@\"; fi\n\
             touch {marker}\n\
             sed '/^\\*nat/,$d' | REAL \"$@\"\n\
             echo 'ip6tables-restore: line 3 failed' >&2; exit 1"
        );
        for start in [Ruleset::default(), {
            let mut smaller = policy();
            smaller.chains.remove(1);
            smaller
        }] {
            let mut real = backend(VARIANTS[1]);
            real.replace(&start).unwrap();
            let before = sh("{ iptables-legacy-save; ip6tables-legacy-save; } | sed '/^#/d'");
            let (_directory, ipv4, ipv6) = tools_with(&[("ip6tables-restore", &fault)]);
            let mut faulty = IptablesBackend::with_tools(ipv4, ipv6, 1);
            let error = faulty.replace(&policy()).unwrap_err().to_string();
            assert!(std::path::Path::new(marker).exists(), "the fault fired");
            assert!(error.contains("line 3 failed (that line is `"), "{error}");
            if start.chains.is_empty() {
                assert_eq!(real.observe().unwrap(), ObservedFirewall::Absent);
            } else {
                let after = sh("{ iptables-legacy-save; ip6tables-legacy-save; } | sed '/^#/d'");
                assert_eq!(after, before);
            }
            faulty.replace(&policy()).unwrap();
            in_sync(&mut real, &policy());
            std::fs::remove_file(marker).unwrap();
        }
    });
}

#[test]
fn failed_read_is_an_error() {
    isolated(|| {
        for (body, said) in [
            ("echo 'out of memory' >&2; exit 1", "out of memory"),
            ("REAL \"$@\" | sed '$d' | sed '/COMMIT/d'", "incomplete"),
            ("kill -9 $$", "signal: 9"),
        ] {
            backend(VARIANTS[1]).replace(&policy()).unwrap();
            let (_directory, ipv4, ipv6) = tools_with(&[("iptables-save", body)]);
            let mut faulty = IptablesBackend::with_tools(ipv4, ipv6, 1);
            let error = faulty.observe().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(faulty.replace(&policy()).is_err());
        }
    });
}

#[test]
fn mixed_variants_are_refused() {
    isolated(|| {
        let nft = format!("exec {} \"$@\"", which("iptables-nft-restore").display());
        let (_directory, ipv4, ipv6) = tools_with(&[("iptables-restore", &nft)]);
        let mut mixed = IptablesBackend::with_tools(ipv4, ipv6, 1);
        let error = mixed.replace(&policy()).unwrap_err().to_string();
        assert!(error.contains("select the same variant"), "{error}");
        assert_eq!(sh("iptables-nft-save | grep -v '^#' || true"), "");
    });
}
