//! Traffic by path: the counts outlive the rules that counted.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lab::isolated;
use lab::shell::sh;
use trailblazer::firewall::{
    Chain, Direction, FwRule, Hook, Match, ObservedFirewall, OwnedFirewall, Path, PathTraffic,
    Ruleset, Statement, Traffic, WayTraffic,
};
use trailblazer::kernel::firewall::FirewallBackend;
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::nftables::{Nftables, WaysCounters};
use trailblazer::types::{Family, Mark, PathMask, Slot};

const MASK: PathMask = PathMask(0x3000);

/// Packets and payload bytes of [`send`].
const PACKETS: u64 = 10;
const PAYLOAD: u64 = 1000;

/// A policy that counts traffic to this host as bypass traffic, or for one port as egress traffic;
/// `further` rules without effect surround the counting rules.
fn policy(mask: PathMask, further: usize) -> Ruleset {
    let mut leaving = Vec::new();
    let mut answers = Vec::new();
    for family in Family::ALL {
        let rule = |matches, verdict| FwRule {
            family: Some(family),
            matches,
            verdict,
        };
        let untold = Match::FlowMark(Mark {
            value: 0,
            mask: mask.0,
        });
        for number in 0..further {
            let nowhere = Match::OutputInterface(format!("none{number}"));
            leaving.push(rule(vec![nowhere], Statement::Accept));
            answers.push(rule(vec![Match::NewFlow], Statement::Accept));
        }
        let path = |path| match path {
            Path::Bypass => mask.bypass(),
            Path::Egress => mask.egress(),
        };
        let told = match family {
            Family::Ipv4 => Path::Bypass,
            Family::Ipv6 => Path::Egress,
        };
        leaving.push(rule(
            vec![Match::OriginalDirection, untold],
            Statement::SetFlowMark(path(told)),
        ));
        for counted in Path::ALL {
            let of = |way| vec![way, Match::FlowMark(path(counted))];
            let verdict = Statement::Count(counted);
            leaving.push(rule(of(Match::OriginalDirection), verdict.clone()));
            answers.push(rule(of(Match::ReplyDirection), verdict));
        }
    }
    Ruleset {
        chains: vec![
            Chain {
                hook: Hook::Prerouting,
                rules: answers,
            },
            Chain {
                hook: Hook::PostroutingCount,
                rules: leaving,
            },
        ],
    }
}

/// Sends to a socket that never answers, so that the counts are exact.
fn send() {
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse().unwrap();
        let silent = UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
        let sender = UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
        for _ in 0..PACKETS {
            let payload = vec![0; PAYLOAD as usize];
            let target = silent.local_addr().unwrap();
            sender.send_to(&payload, target).unwrap();
        }
    }
}

/// The counts of [`send`]: IPv4 and IPv6 headers have 20 and 40 bytes, the UDP header has 8.
fn sent(times: u64) -> PathTraffic {
    let traffic = |header| Traffic {
        packets: times * PACKETS,
        bytes: times * PACKETS * (PAYLOAD + header + 8),
    };
    let mut sum = PathTraffic::default();
    sum.bypass.ipv4 = traffic(20);
    sum.egress.ipv6 = traffic(40);
    sum
}

fn owned(backend: &mut dyn FirewallBackend) -> OwnedFirewall {
    match backend.observe().unwrap() {
        ObservedFirewall::Owned(owned) => owned,
        other => panic!("not owned: {other:?}"),
    }
}

/// `strangers` are commands that change our chains.
fn counts_outlive_rules(backend: &mut dyn FirewallBackend, strangers: &[&str]) {
    assert_eq!(backend.traffic().unwrap(), None);
    let ours = policy(MASK, 0);
    backend.replace(&ours).unwrap();
    assert_eq!(backend.traffic().unwrap(), Some(PathTraffic::default()));
    send();
    assert_eq!(backend.traffic().unwrap(), Some(sent(1)));
    let early = owned(backend);
    assert_eq!(early.text, backend.render(&ours).unwrap(), "no drift");
    send();
    assert_eq!(owned(backend).text, early.text, "no drift");

    // The same again, another policy, and back.
    backend.replace(&ours).unwrap();
    assert_eq!(backend.traffic().unwrap(), Some(sent(2)));
    let other = policy(MASK, 2);
    backend.replace(&other).unwrap();
    assert_eq!(owned(backend).text, backend.render(&other).unwrap());
    assert_eq!(backend.traffic().unwrap(), Some(sent(2)));
    send();
    // A rollback puts the rules back, not the numbers.
    backend.restore(&early.snapshot).unwrap();
    assert_eq!(owned(backend).text, early.text);
    assert_eq!(backend.traffic().unwrap(), Some(sent(3)));

    for (index, stranger) in strangers.iter().enumerate() {
        sh(stranger);
        assert_ne!(owned(backend).text, early.text, "unseen: {stranger}");
        backend.replace(&ours).unwrap();
        assert_eq!(owned(backend).text, early.text, "after {stranger}");
        let expected = sent(3 + index as u64);
        assert_eq!(backend.traffic().unwrap(), Some(expected), "{stranger}");
        send();
    }

    // A policy without counting rules reports no traffic rather than zero.
    let mut mute = ours;
    for chain in &mut mute.chains {
        chain
            .rules
            .retain(|rule| !matches!(rule.verdict, Statement::Count(_)));
    }
    backend.replace(&mute).unwrap();
    assert_eq!(backend.traffic().unwrap(), None);
    backend.remove().unwrap();
    assert_eq!(backend.traffic().unwrap(), None);
}

#[test]
fn counters_survive_rule_changes_nftables() {
    isolated(|| {
        let mut backend = Nftables::new();
        counts_outlive_rules(
            &mut backend,
            &[
                "nft add rule inet trailblazer count accept",
                "nft insert rule inet trailblazer prerouting counter",
                "nft add chain inet trailblazer mine",
                "nft add counter inet trailblazer mine",
                "nft flush chain inet trailblazer count",
            ],
        );
        // The table is gone: the reading falls back to the last known values.
        backend.replace(&policy(MASK, 0)).unwrap();
        send();
        let before = owned(&mut backend);
        sh("nft delete table inet trailblazer");
        backend.restore(&before.snapshot).unwrap();
        assert_eq!(backend.traffic().unwrap(), Some(sent(1)));
        let listed = sh("nft list counters table inet trailblazer");
        let bytes = sent(1).bypass.ipv4.bytes;
        assert!(
            listed.contains(&format!("packets {PACKETS} bytes {bytes}")),
            "{listed}"
        );
        // A rule of ours is missing or replaced.
        for edit in [
            "nft flush table inet trailblazer && nft delete counter inet trailblazer egress-ipv4",
            "nft flush table inet trailblazer && nft delete counter inet trailblazer egress-ipv4 && \
             nft add quota inet trailblazer egress-ipv4 { over 1 mbytes }",
        ] {
            sh(&edit.replace('{', "\\{").replace('}', "\\}"));
            assert_ne!(owned(&mut backend).text, before.text);
            backend.replace(&policy(MASK, 0)).unwrap();
            assert_eq!(owned(&mut backend).text, before.text);
            assert_eq!(backend.traffic().unwrap(), Some(sent(1)));
        }
    });
}

fn iptables(variant: (&'static str, &'static str)) {
    let mut backend = IptablesBackend::with_tools(variant.0, variant.1, 1);
    let (v4, v6) = variant;
    let strangers = [
        format!(
            "{v4} -t mangle -A TRAILBLAZER-COUNT -j ACCEPT; {v6} -t mangle -A TRAILBLAZER-COUNT -j ACCEPT"
        ),
        format!(
            "{v4} -t mangle -I TRAILBLAZER-PRE 2 -j ACCEPT; {v6} -t mangle -I TRAILBLAZER-PRE 2 -j ACCEPT"
        ),
        format!("{v4} -t mangle -D TRAILBLAZER-COUNT 1; {v6} -t mangle -D TRAILBLAZER-COUNT 1"),
        format!("{v4} -t mangle -D TRAILBLAZER-COUNT 2; {v6} -t mangle -D TRAILBLAZER-COUNT 2"),
        format!("{v4} -t mangle -D POSTROUTING 1; {v6} -t mangle -D POSTROUTING 1"),
        // Counting rules that have counted nothing here.
        format!("{v4} -t mangle -D TRAILBLAZER-PRE 3; {v6} -t mangle -D TRAILBLAZER-PRE 2"),
    ];
    let strangers: Vec<&str> = strangers.iter().map(String::as_str).collect();
    counts_outlive_rules(&mut backend, &strangers);

    // Other marks change every counting rule; each new rule receives the old rule's numbers.
    // ip6tables of the nft variant loses the numbers (1.8.9).
    let forgets = v6 == "ip6tables-nft";
    backend.replace(&policy(MASK, 0)).unwrap();
    send();
    let before = owned(&mut backend);
    backend.replace(&policy(PathMask(0x300), 0)).unwrap();
    let after = backend.traffic().unwrap().unwrap();
    assert_eq!(after.bypass, sent(1).bypass);
    assert!(forgets || after == sent(1), "{after:?}");
    // Everything is gone: the reading falls back to the last known values.
    backend.remove().unwrap();
    backend.restore(&before.snapshot).unwrap();
    let after = backend.traffic().unwrap().unwrap();
    assert_eq!(after.bypass, sent(1).bypass);
    assert!(forgets || after == sent(1), "{after:?}");
}

#[test]
fn counters_survive_rule_changes_iptables() {
    isolated(|| {
        iptables(("iptables-nft", "ip6tables-nft"));
    });
}

#[test]
fn counters_survive_rule_changes_iptables_legacy() {
    isolated(|| {
        iptables(("iptables-legacy", "ip6tables-legacy"));
    });
}

/// A policy that counts IPv4 for the way of a slot and IPv6 for the egress path.
fn by_way(slot: Slot) -> Ruleset {
    let counts = [
        (Family::Ipv4, Statement::CountWay(slot, Direction::Out)),
        (Family::Ipv6, Statement::Count(Path::Egress)),
    ];
    let rules = counts.map(|(family, verdict)| FwRule {
        family: Some(family),
        matches: Vec::new(),
        verdict,
    });
    Ruleset {
        chains: vec![Chain {
            hook: Hook::PostroutingCount,
            rules: rules.into(),
        }],
    }
}

#[test]
fn ways_are_counted_by_direction_and_a_way_that_leaves_keeps_the_sum_of_its_path() {
    isolated(|| {
        let mut backend = Nftables::new();
        let mut counters = WaysCounters::default();
        assert_eq!(counters.read().unwrap(), [].into());
        let expected = |times| {
            let mut sum = sent(times);
            sum.egress.ipv4 = std::mem::take(&mut sum.bypass.ipv4);
            Some(sum)
        };
        let ways = |slot, times| {
            let out = sent(times).bypass.ipv4;
            let way = WayTraffic {
                out,
                ..WayTraffic::default()
            };
            [((Family::Ipv4, slot), way)].into()
        };
        for slot in [2, 3] {
            let policy = by_way(slot);
            backend.replace(&policy).unwrap();
            let text = owned(&mut backend).text;
            assert_eq!(text, backend.render(&policy).unwrap(), "no drift");
            let done = u64::from(slot) - 2;
            assert_eq!(counters.read().unwrap(), ways(slot, 0), "a new way");
            assert_eq!(backend.traffic().unwrap(), expected(done));
            send();
            assert_eq!(counters.read().unwrap(), ways(slot, 1));
            backend.replace(&policy).unwrap();
            assert_eq!(counters.read().unwrap(), ways(slot, 1), "the same way");
            assert_eq!(backend.traffic().unwrap(), expected(done + 1));
        }
        let listing = sh("nft list table inet trailblazer");
        assert!(listing.contains("counter name \"egress-3-out-ipv4\" accept"));
    });
}
