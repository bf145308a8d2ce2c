//! The nf_tables backend against a real kernel, judged by the real `nft`.

// Helpers outside of test functions are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lab::isolated;
use lab::shell::{run, sh};
use trailblazer::firewall::{
    BackendKind, Chain, FwRule, Hook, Match, ObservedFirewall, OwnedFirewall, Ruleset, Statement,
};
use trailblazer::kernel::firewall::nftables::{Nftables, Probe, probe};
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::types::{Family, Mark, Realm};

const INBOUND: Mark = Mark {
    value: 0x3000,
    mask: 0x3000,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn rule(matches: Vec<Match>, verdict: Statement) -> FwRule {
    FwRule {
        family: None,
        matches,
        verdict,
    }
}

fn only(hook: Hook, rules: Vec<FwRule>) -> Ruleset {
    Ruleset {
        chains: vec![Chain { hook, rules }],
    }
}

fn owned(backend: &mut Nftables) -> OwnedFirewall {
    match backend.observe().unwrap() {
        ObservedFirewall::Owned(owned) => owned,
        other => panic!("not ours: {other:?}"),
    }
}

fn foreign(backend: &mut Nftables) -> String {
    match backend.observe().unwrap() {
        ObservedFirewall::Foreign(reason) => reason,
        other => panic!("not foreign: {other:?}"),
    }
}

/// The rules of our table as listed by nft, without counts.
fn nft_rules() -> Vec<String> {
    let listing = run("nft", &["-s", "list", "table", "inet", "trailblazer"]);
    listing
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("counter"))
        .map(str::to_owned)
        .collect()
}

/// Each match and each statement, in our syntax, and in nft's where different: nft omits a family
/// that it can infer, inlines sets, and omits masks of bits that the statement sets anyway.
fn vocabulary() -> Vec<(Hook, FwRule, &'static str, &'static str)> {
    use Match as M;
    use Statement as V;
    let pre = Hook::Prerouting;
    let nat = Hook::PostroutingNat;
    let guard = Hook::PostroutingGuard;
    let count = Hook::PostroutingCount;
    let none = Mark {
        value: 0,
        mask: 0x3000,
    };
    let bucket = |family| FwRule {
        family: Some(family),
        matches: vec![M::SourceSlots {
            slots: vec![1],
            of: 3,
            seed: 0x5eed,
        }],
        verdict: V::Accept,
    };
    let any = |prefixes: &[&str]| prefixes.iter().map(|p| net(p)).collect::<Vec<_>>();
    vec![
        (
            pre,
            rule(
                vec![M::NotInputInterface("a23456789012345".into())],
                V::Accept,
            ),
            "iifname != \"a23456789012345\" counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::OutputInterface("eth0".into())], V::Drop),
            "oifname \"eth0\" counter drop",
            "",
        ),
        (
            guard,
            rule(vec![M::Source(net("10.0.0.0/16"))], V::Drop),
            "meta nfproto ipv4 ip saddr 10.0.0.0/16 counter drop",
            "ip saddr 10.0.0.0/16 counter drop",
        ),
        (
            guard,
            rule(vec![M::NotSource(net("10.1.2.3/32"))], V::Drop),
            "meta nfproto ipv4 ip saddr != 10.1.2.3 counter drop",
            "ip saddr != 10.1.2.3 counter drop",
        ),
        (
            guard,
            rule(vec![M::Source(net("100.64.0.0/10"))], V::Drop),
            "meta nfproto ipv4 ip saddr 100.64.0.0/10 counter drop",
            "ip saddr 100.64.0.0/10 counter drop",
        ),
        (
            guard,
            rule(vec![M::NotSource(net("169.254.0.0/17"))], V::Drop),
            "meta nfproto ipv4 ip saddr != 169.254.0.0/17 counter drop",
            "ip saddr != 169.254.0.0/17 counter drop",
        ),
        (
            guard,
            rule(vec![M::Source(net("2001:db8::/33"))], V::Drop),
            "meta nfproto ipv6 ip6 saddr 2001:db8::/33 counter drop",
            "ip6 saddr 2001:db8::/33 counter drop",
        ),
        (
            guard,
            rule(vec![M::NotSource(net("2001:db8::/56"))], V::Drop),
            "meta nfproto ipv6 ip6 saddr != 2001:db8::/56 counter drop",
            "ip6 saddr != 2001:db8::/56 counter drop",
        ),
        (
            guard,
            rule(vec![M::Source(net("2001:db8::1/128"))], V::Drop),
            "meta nfproto ipv6 ip6 saddr 2001:db8::1 counter drop",
            "ip6 saddr 2001:db8::1 counter drop",
        ),
        (
            guard,
            rule(vec![M::NotSource(net("fc00::/7"))], V::Drop),
            "meta nfproto ipv6 ip6 saddr != fc00::/7 counter drop",
            "ip6 saddr != fc00::/7 counter drop",
        ),
        (
            pre,
            rule(vec![M::DestinationIsLocal], V::Accept),
            "fib daddr type local counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::SourceNotLocal], V::Drop),
            "fib saddr type != local counter drop",
            "",
        ),
        (
            pre,
            rule(vec![M::NewFlow], V::Accept),
            "ct state new counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::NotTracked], V::Drop),
            "ct state invalid,untracked counter drop",
            "",
        ),
        (
            pre,
            rule(vec![M::FlowMark(INBOUND)], V::Accept),
            "ct mark & 0x00003000 == 0x00003000 counter accept",
            "",
        ),
        (
            pre,
            rule(
                vec![M::FlowMark(Mark {
                    value: 7,
                    mask: u32::MAX,
                })],
                V::Accept,
            ),
            "ct mark 0x00000007 counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::NextHop("10.0.0.1".parse().unwrap())], V::Accept),
            "meta nfproto ipv4 rt ip nexthop 10.0.0.1 counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::NextHop("fe80::1".parse().unwrap())], V::Accept),
            "meta nfproto ipv6 rt ip6 nexthop fe80::1 counter accept",
            "",
        ),
        (
            guard,
            rule(vec![M::Realm(Realm(83))], V::Accept),
            "meta nfproto ipv4 rt classid & 0x0000ffff == 83 counter accept",
            "meta nfproto ipv4 rt classid & 65535 == 83 counter accept",
        ),
        (
            guard,
            rule(
                vec![M::DestinationAnyOf(any(&["1.0.0.0/24", "3.0.0.0/8"]))],
                V::Accept,
            ),
            "meta nfproto ipv4 ip daddr @__set0 counter accept",
            "ip daddr { 1.0.0.0/24, 3.0.0.0/8 } counter accept",
        ),
        (
            guard,
            rule(
                vec![M::DestinationNoneOf(any(&["2600::/16", "fff0::/12"]))],
                V::Drop,
            ),
            "meta nfproto ipv6 ip6 daddr != @__set0 counter drop",
            "ip6 daddr != { 2600::/16, fff0::/12 } counter drop",
        ),
        (
            nat,
            bucket(Family::Ipv4),
            "meta nfproto ipv4 jhash ip saddr mod 3 seed 0x5eed 1 counter accept",
            "jhash ip saddr mod 3 seed 0x5eed 1 counter accept",
        ),
        (
            nat,
            bucket(Family::Ipv6),
            "meta nfproto ipv6 jhash ip6 saddr mod 3 seed 0x5eed 1 counter accept",
            "jhash ip6 saddr mod 3 seed 0x5eed 1 counter accept",
        ),
        (
            pre,
            rule(vec![], V::SetFlowMark(INBOUND)),
            "counter ct mark set ct mark & 0xffffcfff | 0x00003000",
            "counter ct mark set ct mark | 0x00003000",
        ),
        (
            pre,
            rule(
                vec![],
                V::SetFlowMark(Mark {
                    value: 0x1000,
                    mask: 0x3000,
                }),
            ),
            "counter ct mark set ct mark & 0xffffcfff | 0x00001000",
            "counter ct mark set ct mark & 0xffffdfff | 0x00001000",
        ),
        (
            pre,
            rule(
                vec![],
                V::SetFlowMark(Mark {
                    value: 9,
                    mask: u32::MAX,
                }),
            ),
            "counter ct mark set 0x00000009",
            "",
        ),
        (
            pre,
            rule(vec![M::FlowMark(INBOUND)], V::RestoreMark { mask: 0x3000 }),
            "ct mark & 0x00003000 == 0x00003000 counter meta mark set meta mark & 0xffffcfff | 0x00003000",
            "ct mark & 0x00003000 == 0x00003000 counter meta mark set meta mark | 0x00003000",
        ),
        (
            count,
            rule(vec![M::OriginalDirection], V::SetFlowMark(INBOUND)),
            "ct direction original counter ct mark set ct mark & 0xffffcfff | 0x00003000",
            "ct direction original counter ct mark set ct mark | 0x00003000",
        ),
        (
            count,
            rule(vec![M::ReplyDirection, M::PacketMark(none)], V::Accept),
            "ct direction reply meta mark & 0x00003000 == 0x00000000 counter accept",
            "",
        ),
        (
            count,
            rule(vec![M::NotNextHop("192.0.2.1".parse().unwrap())], V::Accept),
            "meta nfproto ipv4 rt ip nexthop != 192.0.2.1 counter accept",
            "",
        ),
        (
            count,
            rule(vec![M::NotNextHop("fe80::1".parse().unwrap())], V::Accept),
            "meta nfproto ipv6 rt ip6 nexthop != fe80::1 counter accept",
            "",
        ),
        (
            count,
            rule(vec![M::LinkLocalHop], V::Accept),
            "meta nfproto ipv6 rt ip6 nexthop 0xfe80 counter accept",
            "meta nfproto ipv6 rt ip6 nexthop fe80::/16 counter accept",
        ),
        (
            count,
            rule(vec![M::NotRealm(Realm(83))], V::Accept),
            "meta nfproto ipv4 rt classid & 0x0000ffff != 83 counter accept",
            "meta nfproto ipv4 rt classid & 65535 != 83 counter accept",
        ),
        (
            nat,
            rule(vec![], V::Snat("192.0.2.1".parse().unwrap())),
            "meta nfproto ipv4 counter snat ip to 192.0.2.1",
            "",
        ),
        (
            nat,
            rule(vec![], V::Snat("2001:db8::2".parse().unwrap())),
            "meta nfproto ipv6 counter snat ip6 to 2001:db8::2",
            "",
        ),
        (
            nat,
            rule(vec![], V::SnatRandomly("192.0.2.1".parse().unwrap())),
            "meta nfproto ipv4 counter snat ip to 192.0.2.1 fully-random",
            "",
        ),
        (
            nat,
            rule(vec![], V::SnatRandomly("2001:db8::2".parse().unwrap())),
            "meta nfproto ipv6 counter snat ip6 to 2001:db8::2 fully-random",
            "",
        ),
        (
            nat,
            rule(vec![M::OutputInterface("eth0".into())], V::Masquerade),
            "oifname \"eth0\" counter masquerade",
            "",
        ),
        (
            nat,
            FwRule {
                family: Some(Family::Ipv6),
                matches: vec![],
                verdict: V::Masquerade,
            },
            "meta nfproto ipv6 counter masquerade",
            "",
        ),
    ]
}

fn everything() -> Ruleset {
    let mut ruleset = Ruleset::default();
    for hook in [
        Hook::Prerouting,
        Hook::OutputReroute,
        Hook::PostroutingCount,
        Hook::PostroutingNat,
        Hook::PostroutingGuard,
    ] {
        let rules = vocabulary()
            .into_iter()
            .filter(|case| case.0 == hook)
            .map(|case| case.1);
        ruleset.chains.push(Chain {
            hook,
            rules: rules.collect(),
        });
    }
    ruleset
}

#[test]
fn every_match_and_verdict_round_trips_and_reads_the_same_in_nft() {
    isolated(|| {
        let mut backend = Nftables::new();
        for (hook, rule, ours, nft) in vocabulary() {
            let ruleset = only(hook, vec![rule]);
            backend.replace(&ruleset).unwrap();
            let rendered = backend.render(&ruleset).unwrap();
            assert_eq!(rendered[2].trim(), ours);
            assert_eq!(nft_rules(), [if nft.is_empty() { ours } else { nft }]);
            assert_eq!(owned(&mut backend).text, rendered);
        }
    });
}

#[test]
fn chains_have_their_hooks_and_the_table_its_ownership_comment() {
    isolated(|| {
        let mut backend = Nftables::new();
        assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
        assert_eq!(probe().unwrap(), Probe::Available);
        assert_eq!(sh("nft list ruleset"), "", "a probe leaves nothing behind");
        backend.replace(&everything()).unwrap();
        let listing = sh("nft list table inet trailblazer");
        for line in [
            "comment \"trailblazer: managed, do not edit\"",
            "type filter hook prerouting priority mangle; policy accept;",
            "type route hook output priority mangle; policy accept;",
            "type nat hook postrouting priority srcnat - 5; policy accept;",
            "type filter hook postrouting priority 150; policy accept;",
        ] {
            assert!(listing.contains(line), "{line} is not in\n{listing}");
        }
        let text = owned(&mut backend).text;
        assert_eq!(text, backend.render(&everything()).unwrap());
        assert_eq!(
            text[0],
            "table inet trailblazer comment \"trailblazer: managed, do not edit\""
        );
        assert!(text.contains(
            &"  chain guard type filter hook postrouting priority 150 policy accept".to_owned()
        ));
        // nft reads its own listing back into an equal table.
        let json = sh("nft -j list table inet trailblazer");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    });
}

#[test]
fn replacing_is_stable_and_removing_leaves_nothing() {
    isolated(|| {
        let mut backend = Nftables::new();
        backend.remove().unwrap();
        backend.replace(&everything()).unwrap();
        let first = owned(&mut backend);
        backend.replace(&everything()).unwrap();
        assert_eq!(owned(&mut backend), first);
        assert!(first.snapshot.0.len() > 1000);
        backend.remove().unwrap();
        backend.remove().unwrap();
        assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
        assert_eq!(sh("nft list ruleset"), "");
        backend.replace(&Ruleset::default()).unwrap();
        assert_eq!(
            owned(&mut backend).text,
            backend.render(&Ruleset::default()).unwrap()
        );
    });
}

#[test]
fn counter_values_are_no_drift() {
    isolated(|| {
        let mut backend = Nftables::new();
        let ruleset = only(
            Hook::PostroutingGuard,
            vec![rule(vec![], Statement::Accept)],
        );
        backend.replace(&ruleset).unwrap();
        let before = owned(&mut backend);
        std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"counted", "127.0.0.1:9")
            .unwrap();
        let listing = sh("nft list table inet trailblazer");
        assert!(!listing.contains("counter packets 0 bytes 0"), "{listing}");
        assert_eq!(owned(&mut backend), before);
    });
}

#[test]
fn every_foreign_change_is_detected_and_undone() {
    isolated(|| {
        let mut backend = Nftables::new();
        backend.replace(&everything()).unwrap();
        let wanted = owned(&mut backend);
        let handle = || {
            let listing = sh("nft -a list chain inet trailblazer guard");
            let line = listing
                .lines()
                .find(|line| line.contains("oifname"))
                .unwrap()
                .to_owned();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let ours = "inet trailblazer";
        let edits: Vec<String> = vec![
            format!("delete rule {ours} guard handle {}", handle()),
            format!("add rule {ours} guard accept"),
            format!("insert rule {ours} guard counter accept"),
            format!("add rule {ours} guard tcp dport 22 accept"),
            format!("add rule {ours} guard limit rate 10/second accept"),
            format!("add rule {ours} guard ip saddr 10.0.0.0/8 log prefix \"x\""),
            format!("add rule {ours} guard meta mark set 1"),
            format!("flush chain {ours} guard"),
            format!("flush table {ours}"),
            format!("add chain {ours} mine"),
            format!("add chain {ours} mine {{ type filter hook input priority 7; policy drop; }}"),
            format!("chain {ours} guard {{ policy drop; }}"),
            format!("add set {ours} mine {{ type inet_service; elements = {{ 22 }}; }}"),
            format!("add map {ours} mine {{ type ipv4_addr : ipv4_addr; }}"),
            format!("add counter {ours} mine"),
            format!("add table {ours} {{ flags dormant; }}"),
        ];
        for edit in edits {
            // The one edit with a rule's handle finds the rule under a new handle.
            let edit = match edit.split_once("handle ") {
                Some((head, _)) => format!("{head}handle {}", handle()),
                None => edit,
            };
            run("nft", &[&edit]);
            let edited = owned(&mut backend);
            assert_ne!(edited.text, wanted.text, "unseen: nft {edit}");
            backend.replace(&everything()).unwrap();
            assert_eq!(owned(&mut backend), wanted, "after: nft {edit}");
            // The edited state can be restored, except for objects that we never create.
            backend.restore(&edited.snapshot).unwrap();
            let again = owned(&mut backend);
            if edit.contains("counter inet") {
                assert_eq!(again, wanted);
            } else {
                assert_eq!(again, edited, "put back after: nft {edit}");
            }
            backend.replace(&everything()).unwrap();
        }
    });
}

#[test]
fn restore_brings_back_the_whole_table() {
    isolated(|| {
        let mut backend = Nftables::new();
        backend.replace(&everything()).unwrap();
        let before = owned(&mut backend);
        let listed = sh("nft -s list ruleset");
        let other = only(
            Hook::Prerouting,
            vec![rule(vec![Match::NewFlow], Statement::SetFlowMark(INBOUND))],
        );
        backend.replace(&other).unwrap();
        backend.restore(&before.snapshot).unwrap();
        assert_eq!(owned(&mut backend), before);
        assert_eq!(sh("nft -s list ruleset"), listed);
        // Nothing was there: nothing is put back.
        backend.restore(&Default::default()).unwrap();
        assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
        let nonsense = trailblazer::firewall::SavedRules(vec![1; 40]);
        assert!(backend.restore(&nonsense).is_err());
    });
}

#[test]
fn foreign_tables_stay_unchanged() {
    isolated(|| {
        let mut backend = Nftables::new();
        for table in ["ip trailblazer", "ip6 trailblazer", "inet filter", "ip nat"] {
            run(
                "nft",
                &[&format!(
                    "table {table} {{ chain c {{ type filter hook postrouting priority 0; counter accept; }}\n }}"
                )],
            );
        }
        assert_eq!(backend.observe().unwrap(), ObservedFirewall::Absent);
        let others = sh("nft list ruleset");
        backend.replace(&everything()).unwrap();
        assert_eq!(
            owned(&mut backend).text,
            backend.render(&everything()).unwrap()
        );
        backend.replace(&everything()).unwrap();
        backend.remove().unwrap();
        assert_eq!(sh("nft list ruleset"), others);

        for comment in ["", "comment \"hand made\";"] {
            run(
                "nft",
                &[&format!(
                    "table inet trailblazer {{ {comment} chain x {{ counter; }}\n }}"
                )],
            );
            let before = sh("nft list ruleset");
            let reason = foreign(&mut backend);
            assert!(reason.contains("belongs to another program"), "{reason}");
            for refused in [
                backend.replace(&everything()),
                backend.remove(),
                backend.restore(&Default::default()),
            ] {
                let message = refused.unwrap_err().to_string();
                assert!(message.contains("left unchanged"), "{message}");
            }
            assert_eq!(sh("nft list ruleset"), before);
            sh("nft delete table inet trailblazer");
        }
    });
}

#[test]
fn five_thousand_prefixes_of_each_family_round_trip() {
    isolated(|| {
        let v4 = (0..5000u32)
            .map(|i| IpNet::V4(Ipv4Net::new((0x1400_0000 + i * 512).into(), 24).unwrap()));
        let v6 = (0..5000u128)
            .map(|i| IpNet::V6(Ipv6Net::new(((0x2600_0000 + i * 2) << 96).into(), 32).unwrap()));
        let mut backend = Nftables::new();
        for prefixes in [v4.collect::<Vec<_>>(), v6.collect()] {
            let ruleset = only(
                Hook::PostroutingNat,
                vec![rule(
                    vec![Match::DestinationAnyOf(prefixes)],
                    Statement::Accept,
                )],
            );
            backend.replace(&ruleset).unwrap();
            backend.replace(&ruleset).unwrap();
            let observed = owned(&mut backend);
            assert_eq!(observed.text.len(), 5004);
            assert_eq!(observed.text, backend.render(&ruleset).unwrap());
            backend.restore(&observed.snapshot).unwrap();
            assert_eq!(owned(&mut backend), observed);
        }
    });
}

#[test]
fn adjacent_prefixes_and_address_space_edges_round_trip() {
    isolated(|| {
        let mut backend = Nftables::new();
        let listed = |prefixes: &[&str], backend: &mut Nftables| {
            let prefixes = prefixes.iter().map(|p| net(p)).collect();
            let ruleset = only(
                Hook::PostroutingGuard,
                vec![rule(
                    vec![Match::DestinationAnyOf(prefixes)],
                    Statement::Drop,
                )],
            );
            backend.replace(&ruleset).unwrap();
            assert_eq!(owned(backend).text, backend.render(&ruleset).unwrap());
            nft_rules()[0].clone()
        };
        assert_eq!(
            listed(
                &[
                    "0.0.0.0/8",
                    "10.0.0.0/24",
                    "10.0.1.0/24",
                    "10.0.2.0/24",
                    "255.255.255.255/32"
                ],
                &mut backend
            ),
            "ip daddr { 0.0.0.0/8, 10.0.0.0-10.0.2.255, 255.255.255.255 } counter drop"
        );
        assert_eq!(
            listed(&["240.0.0.0/4"], &mut backend),
            "ip daddr { 240.0.0.0/4 } counter drop"
        );
        assert_eq!(
            listed(&["0.0.0.0/0"], &mut backend),
            "ip daddr { 0.0.0.0/0 } counter drop"
        );
        assert_eq!(
            listed(&["::/8", "ff00::/8"], &mut backend),
            "ip6 daddr { ::/8, ff00::/8 } counter drop"
        );
    });
}

/// Packet counts of the guard chain, by rule.
fn counts() -> Vec<u64> {
    let listing = sh("nft list chain inet trailblazer guard");
    let rules = listing.lines().filter(|line| line.contains("counter"));
    rules
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "packets").unwrap();
            words[at + 1].parse().unwrap()
        })
        .collect()
}

#[test]
fn matches_hold_for_exactly_their_packets() {
    isolated(|| {
        sh("ip link add v0 type veth peer name v1");
        sh("ip addr add 10.0.0.1/24 dev v0");
        sh("ip addr add 10.0.0.9/24 dev v0");
        sh("ip addr add 2001:db8::1/64 dev v0 nodad");
        sh("ip link set v0 up");
        sh("ip link set v1 up");
        sh("ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v0");
        sh("ip neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev v0");
        sh("ip route add 192.0.2.0/24 via 10.0.0.2 realm 7/83");
        sh("ip route add 198.51.100.0/24 via 10.0.0.2");
        sh("ip -6 route add 2001:db8:1::/48 via 2001:db8::2");
        let bucket = |family, bucket| FwRule {
            family: Some(family),
            matches: vec![Match::SourceSlots {
                slots: vec![bucket],
                of: 2,
                seed: 83,
            }],
            verdict: Statement::Accept,
        };
        // The kernel's own multicast goes out meanwhile: only packets to the target count.
        let seen = |rules: Vec<FwRule>, source: &str, target: &str| {
            let to: std::net::SocketAddr = target.parse().unwrap();
            let mut rules: Vec<_> = rules
                .into_iter()
                .chain([rule(vec![], Statement::Accept)])
                .collect();
            for rule in &mut rules {
                rule.matches
                    .insert(0, Match::DestinationAnyOf(vec![to.ip().into()]));
            }
            Nftables::new()
                .replace(&only(Hook::PostroutingGuard, rules))
                .unwrap();
            let socket = std::net::UdpSocket::bind(source).unwrap();
            socket.send_to(b"x", target).unwrap();
            counts()
        };
        let realm = || vec![rule(vec![Match::Realm(Realm(83))], Statement::Accept)];
        assert_eq!(seen(realm(), "10.0.0.1:0", "192.0.2.1:9"), [1, 0]);
        assert_eq!(seen(realm(), "10.0.0.1:0", "198.51.100.1:9"), [0, 1]);
        let hop = |hop: &str| {
            vec![rule(
                vec![Match::NextHop(hop.parse().unwrap())],
                Statement::Accept,
            )]
        };
        assert_eq!(seen(hop("10.0.0.2"), "10.0.0.1:0", "192.0.2.1:9"), [1, 0]);
        assert_eq!(seen(hop("10.0.0.3"), "10.0.0.1:0", "192.0.2.1:9"), [0, 1]);
        assert_eq!(
            seen(hop("2001:db8::2"), "[::]:0", "[2001:db8:1::1]:9")[0],
            1
        );
        assert_eq!(
            seen(hop("2001:db8::3"), "[::]:0", "[2001:db8:1::1]:9")[0],
            0
        );
        let buckets = |family| vec![bucket(family, 0), bucket(family, 1)];
        for (source, target, family) in [
            ("10.0.0.1:0", "192.0.2.1:9", Family::Ipv4),
            ("10.0.0.9:0", "192.0.2.1:9", Family::Ipv4),
        ] {
            let first = seen(buckets(family), source, target);
            assert_eq!(first[..2].iter().sum::<u64>(), 1, "{first:?}");
            assert_eq!(
                seen(buckets(family), source, "192.0.2.77:9"),
                first,
                "always the same"
            );
        }
        let counted = seen(
            buckets(Family::Ipv6),
            "[2001:db8::1]:0",
            "[2001:db8:1::1]:9",
        );
        assert_eq!(counted[..2].iter().sum::<u64>(), 1, "{counted:?}");
    });
}

#[test]
fn translation_to_random_ports_keeps_no_port() {
    isolated(|| {
        sh("ip addr add 2001:db8::77/128 dev lo nodad");
        let mut backend = Nftables::new();
        for (here, to) in [("127.0.0.1", "127.0.0.77"), ("::1", "2001:db8::77")] {
            let (here, to): (IpAddr, IpAddr) = (here.parse().unwrap(), to.parse().unwrap());
            let listener = TcpListener::bind((here, 0)).unwrap();
            // True if the listener sees the port of the client.
            let kept = || {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (_server, peer) = listener.accept().unwrap();
                assert_eq!(peer.ip(), to, "the flow is translated");
                peer.port() == client.local_addr().unwrap().port()
            };
            let mut translate = |verdict| {
                let rules = vec![rule(
                    vec![Match::DestinationAnyOf(vec![here.into()])],
                    verdict,
                )];
                backend.replace(&only(Hook::PostroutingNat, rules)).unwrap();
            };
            translate(Statement::Snat(to));
            assert!((0..4).all(|_| kept()), "to {to}");
            translate(Statement::SnatRandomly(to));
            assert!(!(0..4).all(|_| kept()), "to a random port of {to}");
        }
    });
}

#[test]
fn open_connection_survives_a_replacement() {
    isolated(|| {
        let mut backend = Nftables::new();
        let ruleset = only(
            Hook::PostroutingNat,
            vec![rule(
                vec![Match::DestinationAnyOf(vec![net("127.0.0.0/8")])],
                Statement::Snat("127.0.0.77".parse().unwrap()),
            )],
        );
        backend.replace(&ruleset).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(
            peer.ip().to_string(),
            "127.0.0.77",
            "the flow is translated"
        );
        let wait = Some(std::time::Duration::from_secs(5));
        client.set_read_timeout(wait).unwrap();
        server.set_read_timeout(wait).unwrap();
        for _ in 0..20 {
            backend.replace(&ruleset).unwrap();
            let mut buffer = [0; 4];
            client.write_all(b"ping").unwrap();
            server.read_exact(&mut buffer).unwrap();
            server.write_all(b"pong").unwrap();
            client.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"pong");
        }
    });
}

/// Foreign transactions came between in every attempt, and nothing else failed: no errno.
fn assert_interrupted(error: &FirewallError, deadline: Instant) {
    let interrupted = matches!(error, FirewallError::Refused { errno: None, .. });
    assert!(interrupted && Instant::now() < deadline, "{error}");
}

#[test]
fn concurrent_foreign_transactions_only_cause_retries() {
    isolated(|| {
        let mut noise = std::process::Command::new("timeout")
            .args([
                "250",
                "sh",
                "-c",
                "while :; do nft add table ip noise; nft delete table ip noise; done",
            ])
            .spawn()
            .unwrap();
        let mut backend = Nftables::new();
        let wanted = backend.render(&everything()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(200);
        for _ in 0..100 {
            // A busy machine may interrupt each attempt of one call; the caller asks again.
            while let Err(error) = backend.replace(&everything()) {
                assert_interrupted(&error, deadline);
            }
            let text = loop {
                match backend.observe() {
                    Ok(ObservedFirewall::Owned(found)) => break found.text,
                    Ok(other) => assert!(
                        matches!(other, ObservedFirewall::Unreadable(_))
                            && Instant::now() < deadline,
                        "{other:?}"
                    ),
                    Err(error) => assert_interrupted(&error, deadline),
                }
            };
            assert_eq!(text, wanted);
        }
        assert!(
            noise.try_wait().unwrap().is_none(),
            "the noise went on all the time"
        );
        noise.kill().unwrap();
        noise.wait().unwrap();
    });
}

#[test]
fn backend_works_without_the_nft_program() {
    isolated(|| {
        // This process is alone, so nothing else reads the environment; hiding nft below an empty
        // directory is a better proof than a changed PATH.
        let nft = run("sh", &["-c", "command -v nft"]);
        run("mount", &["--bind", "/dev/null", nft.trim()]);
        assert!(
            std::process::Command::new("nft")
                .arg("-v")
                .output()
                .is_err()
        );
        let mut backend = Nftables::new();
        assert_eq!(probe().unwrap(), Probe::Available);
        backend.replace(&everything()).unwrap();
        assert_eq!(
            owned(&mut backend).text,
            backend.render(&everything()).unwrap()
        );
        backend.remove().unwrap();
    });
}

#[test]
fn unprivileged_read_is_unreadable_and_not_absent() {
    isolated(|| {
        if !lab::again_without_privilege() {
            return;
        }
        let mut backend = Nftables::new();
        let observed = backend.observe().unwrap();
        assert!(
            matches!(observed, ObservedFirewall::Unreadable(_)),
            "{observed:?}"
        );
        assert!(matches!(probe().unwrap(), Probe::Unprivileged(_)));
        match backend.replace(&everything()) {
            Err(FirewallError::Refused {
                errno: Some(1),
                reason,
                ..
            }) => {
                assert!(reason.contains("not permitted"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn refusal_names_its_object_and_keeps_the_old_rules() {
    isolated(|| {
        let mut backend = Nftables::new();
        backend.replace(&everything()).unwrap();
        let before = owned(&mut backend);
        // Source translation belongs in a nat chain; the kernel refuses other chains.
        let misplaced = only(
            Hook::Prerouting,
            vec![
                rule(vec![Match::NewFlow], Statement::Accept),
                rule(
                    vec![Match::OutputInterface("eth0".into())],
                    Statement::Masquerade,
                ),
            ],
        );
        let message = backend.replace(&misplaced).unwrap_err().to_string();
        assert!(
            message.contains("add rule 2 of chain prerouting: oifname \"eth0\" counter masquerade"),
            "{message}"
        );
        assert!(message.contains("not supported"), "{message}");
        assert_eq!(owned(&mut backend), before);
    });
}

#[test]
fn inexpressible_rules_are_errors() {
    let backend = Nftables::new();
    let mixed = rule(
        vec![
            Match::Source(net("10.0.0.0/8")),
            Match::NextHop("::1".parse().unwrap()),
        ],
        Statement::Accept,
    );
    let restore = rule(
        vec![Match::NewFlow],
        Statement::RestoreMark { mask: 0x3000 },
    );
    let bucket = rule(
        vec![Match::SourceSlots {
            slots: vec![0],
            of: 2,
            seed: 1,
        }],
        Statement::Accept,
    );
    let single = FwRule {
        family: Some(Family::Ipv4),
        ..rule(
            vec![Match::SourceSlots {
                slots: vec![0],
                of: 1,
                seed: 1,
            }],
            Statement::Accept,
        )
    };
    let long = rule(
        vec![Match::NotInputInterface("sixteen-letters-".into())],
        Statement::Accept,
    );
    let stray = rule(vec![], Statement::SetFlowMark(Mark { value: 4, mask: 3 }));
    let realm = FwRule {
        family: Some(Family::Ipv6),
        ..rule(vec![Match::Realm(Realm(1))], Statement::Accept)
    };
    for rule in [mixed, restore, bucket, single, long, stray, realm] {
        let refused = backend.render(&only(Hook::Prerouting, vec![rule.clone()]));
        assert!(
            matches!(
                refused,
                Err(FirewallError::Inexpressible {
                    backend: BackendKind::Nftables,
                    ..
                })
            ),
            "{rule:?}: {refused:?}"
        );
    }
    let twice = Ruleset {
        chains: vec![
            Chain {
                hook: Hook::Prerouting,
                rules: vec![],
            },
            Chain {
                hook: Hook::Prerouting,
                rules: vec![],
            },
        ],
    };
    assert!(backend.render(&twice).is_err());
}
