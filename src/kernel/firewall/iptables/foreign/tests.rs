use super::*;
use crate::judge::chain::{FlowPlace, Packet};
use crate::judge::fate::{Fate, StoppingChain};
use crate::judge::marks::{Bits, Marks, Zone};
use crate::types::IfIndex;

fn packet(opens: bool) -> Packet {
    let opening = Packet::opening(
        (IfIndex(2), "priv".to_owned()),
        (IfIndex(3), "pub".to_owned()),
        "10.0.1.11".parse().unwrap(),
        "203.0.113.1".parse().unwrap(),
    );
    if opens {
        opening
    } else {
        Packet {
            place: FlowPlace::Answer,
            ..opening
        }
    }
}

fn chain(text: &str, base: (&str, ChainPlace)) -> BaseChain {
    let (chains, policies) = parse(text, Family::Ipv4);
    BaseChain {
        table: "iptables-legacy table filter".to_owned(),
        name: base.0.to_owned(),
        place: base.1,
        families: vec![Family::Ipv4],
        priority: 0,
        age: None,
        devices: Vec::new(),
        reroutes: false,
        drops: policies.get(base.0).is_some_and(|policy| policy == "DROP"),
        chains,
    }
}

fn fate(text: &str, base: (&str, ChainPlace), opens: bool) -> Fate {
    chain(text, base).fate(&packet(opens))
}

fn stopped(chain: &str, verdict: &'static str) -> Fate {
    Fate::Stopped(StoppingChain {
        table: "iptables-legacy table filter".to_owned(),
        chain: chain.to_owned(),
        rule: None,
        verdict,
    })
}

const FORWARD: (&str, ChainPlace) = ("FORWARD", ChainPlace::Forward);

#[test]
fn docker_stops_packets_of_hosts_by_its_policy() {
    let docker = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n\
        -A FORWARD -j DOCKER-USER\n\
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -o docker0 -j DOCKER\n\
        -A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
        -A DOCKER-USER -j RETURN\n";
    assert_eq!(
        fate(docker, FORWARD, true),
        stopped("FORWARD", "policy drop")
    );
    let allowed = docker.replace(
        "-A DOCKER-USER -j RETURN\n",
        "-A DOCKER-USER -i priv -o pub -j ACCEPT\n",
    );
    assert_eq!(fate(&allowed, FORWARD, true), Fate::Passes);
}

#[test]
fn ufw_rules_of_the_administrator_let_packets_pass() {
    let ufw = "-P FORWARD DROP\n-N ufw-before-forward\n-N ufw-user-forward\n\
        -A FORWARD -j ufw-before-forward\n\
        -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT\n\
        -A ufw-before-forward -j ufw-user-forward\n";
    assert_eq!(fate(ufw, FORWARD, true), stopped("FORWARD", "policy drop"));
    assert_eq!(fate(ufw, FORWARD, false), Fate::Passes);
    let allowed = format!("{ufw}-A ufw-user-forward -s 10.0.0.0/16 -o pub -j ACCEPT\n");
    assert_eq!(fate(&allowed, FORWARD, true), Fate::Passes);
    let other = format!("{ufw}-A ufw-user-forward -s 10.9.0.0/16 -o p+ -j ACCEPT\n");
    assert_eq!(
        fate(&other, FORWARD, true),
        stopped("FORWARD", "policy drop")
    );
}

#[test]
fn an_unknown_condition_of_an_acceptance_leaves_a_doubt() {
    let text = "-P FORWARD DROP\n-A FORWARD -m set --match-set hosts src -j ACCEPT\n";
    assert!(matches!(fate(text, FORWARD, true), Fate::MayStop(_)));
    // A rule against some addresses says nothing about ordinary ones.
    let text = "-P FORWARD ACCEPT\n-A FORWARD -m set --match-set bad src -j DROP\n";
    assert_eq!(fate(text, FORWARD, true), Fate::Passes);
}

#[test]
fn rejections_in_called_chains_name_the_chain() {
    let text = "-P FORWARD ACCEPT\n-N late\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\n\
        -A FORWARD -j late\n-A late -j REJECT --reject-with icmp-port-unreachable\n";
    assert_eq!(fate(text, FORWARD, true), stopped("late", "reject"));
    assert_eq!(fate(text, FORWARD, false), Fate::Passes);
}

#[test]
fn translation_before_our_chain_is_found_and_behind_it_is_not() {
    const POST: (&str, ChainPlace) = ("POSTROUTING", ChainPlace::Translation);
    let before = "-P POSTROUTING ACCEPT\n-N TRAILBLAZER-POST\n\
        -A POSTROUTING -o pub -j SNAT --to-source 198.51.100.7\n\
        -A POSTROUTING -j TRAILBLAZER-POST\n";
    assert!(matches!(
        fate(before, POST, true),
        Fate::Translated(NewSource::Address(to), _) if to.to_string() == "198.51.100.7"
    ));
    let behind = "-P POSTROUTING ACCEPT\n-N TRAILBLAZER-POST\n\
        -A POSTROUTING -j TRAILBLAZER-POST\n\
        -A POSTROUTING -o pub -j MASQUERADE\n";
    assert_eq!(fate(behind, POST, true), Fate::Passes);
    let docker =
        "-P POSTROUTING ACCEPT\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n";
    assert_eq!(fate(docker, POST, true), Fate::Passes);
    let masquerade = "-P POSTROUTING ACCEPT\n-A POSTROUTING -o lo -j ACCEPT\n\
        -A POSTROUTING -o pub -j MASQUERADE\n";
    let Fate::Translated(NewSource::OfInterface, culprit) = fate(masquerade, POST, true) else {
        panic!("{:?}", fate(masquerade, POST, true));
    };
    let text = "iptables-legacy table filter, chain POSTROUTING, rule 2: masquerade";
    assert_eq!(culprit.to_string(), text);
}

#[test]
fn translation_with_an_unknown_condition_leaves_a_doubt() {
    const POST: (&str, ChainPlace) = ("POSTROUTING", ChainPlace::Translation);
    let with = |words: &str| {
        let text = format!("-P POSTROUTING ACCEPT\n-A POSTROUTING {words} -j MASQUERADE\n");
        fate(&text, POST, true)
    };
    let set = with("-m set --match-set clients src");
    assert!(matches!(set, Fate::MayTranslate(..)), "{set:?}");
    assert_eq!(with("-m mark --mark 0x40000/0xff0000"), Fate::Passes);
    let unmarked = with("-m mark ! --mark 0x40000/0xff0000");
    assert!(matches!(unmarked, Fate::Translated(..)), "{unmarked:?}");
    assert_eq!(with("-m connmark --mark 0x1"), Fate::Passes);
    let unmarked = with("-m connmark ! --mark 0x1");
    assert!(matches!(unmarked, Fate::Translated(..)), "{unmarked:?}");
}

#[test]
fn ports_of_ordinary_connections_decide() {
    let ssh = "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
        -A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT\n";
    assert_eq!(fate(ssh, FORWARD, true), stopped("FORWARD", "policy drop"));
    for ports in [
        "-m tcp --dport 443",
        "-m multiport --dports 80,443",
        "-m tcp --dport 400:",
    ] {
        let web = ssh.replace("-m tcp --dport 22", ports);
        assert_eq!(fate(&web, FORWARD, true), Fate::Passes, "{ports}");
    }
    let without = "-P FORWARD ACCEPT\n-A FORWARD -p tcp -m tcp ! --dport 22 -j DROP\n";
    assert_eq!(fate(without, FORWARD, true), stopped("FORWARD", "drop"));
    assert_eq!(fate(without, FORWARD, false), Fate::Passes);
}

#[test]
fn rules_that_keep_packets_from_conntrack_are_found() {
    const RAW: (&str, ChainPlace) = ("PREROUTING", ChainPlace::Prerouting);
    for target in ["CT --notrack", "NOTRACK"] {
        let text = format!("-P PREROUTING ACCEPT\n-A PREROUTING -i priv -j {target}\n");
        assert!(
            matches!(fate(&text, RAW, true), Fate::Untracked(_)),
            "{target}"
        );
        let other = text.replace("-i priv", "-p udp");
        assert_eq!(fate(&other, RAW, true), Fate::Passes);
    }
}

#[test]
fn packets_for_a_program_leave_a_doubt() {
    let text = "-P FORWARD DROP\n-A FORWARD -j NFQUEUE --queue-num 0\n";
    assert!(matches!(fate(text, FORWARD, true), Fate::MayStop(_)));
}

#[test]
fn acceptances_of_translated_destinations_are_no_doubt() {
    for accept in [
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
    ] {
        let text = format!("-P FORWARD ACCEPT\n{accept}\n-A FORWARD -j DROP\n");
        let opening = fate(&text, FORWARD, true);
        assert_eq!(opening, stopped("FORWARD", "drop"), "{accept}");
    }
    let seen = "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstatus SEEN_REPLY -j ACCEPT\n";
    assert_eq!(fate(seen, FORWARD, false), Fate::Passes);
}

#[test]
fn own_packets_of_any_user_meet_a_proxy_and_those_of_the_proxy_do_not_count() {
    const OUTPUT: (&str, ChainPlace) = ("OUTPUT", ChainPlace::OutputDiversion);
    let own = |text: &str| {
        let (chains, _) = parse(text, Family::Ipv4);
        let chain = BaseChain {
            table: "iptables-legacy table nat".to_owned(),
            name: OUTPUT.0.to_owned(),
            place: OUTPUT.1,
            families: vec![Family::Ipv4],
            priority: -100,
            age: None,
            devices: Vec::new(),
            reroutes: false,
            drops: false,
            chains,
        };
        chain.fate(&Packet {
            input: (IfIndex(0), String::new()),
            ..packet(true)
        })
    };
    let divert = "-A OUTPUT -p tcp -j REDIRECT --to-ports 3128\n";
    let is_diverted = |text: &str| matches!(own(text), Fate::Diverted(_));
    for exception in [
        "-A OUTPUT -m owner --uid-owner 1337 -j RETURN\n",
        "-A OUTPUT -m owner --uid-owner 0 -j ACCEPT\n",
        "-A OUTPUT -m addrtype --dst-type LOCAL,BROADCAST -j RETURN\n",
    ] {
        assert!(is_diverted(&format!("{exception}{divert}")), "{exception}");
    }
    for single in [
        "-A OUTPUT -m owner --uid-owner 1337 -j REDIRECT --to-ports 3128\n",
        "-A OUTPUT -m addrtype --dst-type LOCAL -j DNAT --to-destination 172.17.0.2\n",
        "-A OUTPUT -m addrtype ! --dst-type UNICAST -j DNAT --to-destination 172.17.0.2\n",
        "-A OUTPUT -m set --match-set some dst -j REDIRECT --to-ports 3128\n",
        "-A OUTPUT -m owner --uid-owner 1000-2000 -j REDIRECT --to-ports 3128\n",
    ] {
        assert_eq!(own(single), Fate::Passes, "{single}");
    }
    // A set outside our knowledge may hold the destination.
    for perhaps in ["RETURN", "ACCEPT"] {
        let text = format!("-A OUTPUT -m set --match-set home dst -j {perhaps}\n{divert}");
        assert!(matches!(own(&text), Fate::MayDivert(_)), "{text}");
    }
}

/// The marks of the packet and of the flow behind rules of the table mangle.
fn marks(rules: &str) -> Marks {
    let text = format!("-P PREROUTING ACCEPT\n{rules}");
    let mangle = chain(&text, ("PREROUTING", ChainPlace::Prerouting));
    mangle.passage(&packet(true)).marks
}

#[test]
fn written_marks_are_followed() {
    const SAVE: &str =
        "-A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n";
    let set = "-A PREROUTING -i priv -j MARK --set-xmark 0x77/0xffffffff\n";
    let found = marks(&format!("{set}{SAVE}"));
    assert_eq!(
        (found.of_packet(), found.of_flow()),
        (Bits::whole(0x77), Bits::whole(0x77))
    );
    let other = marks(&set.replace("priv", "pub"));
    assert_eq!(other, Marks::none(0));
    let flow = "-A PREROUTING -j CONNMARK --set-xmark 0x5/0xff\n-A PREROUTING -m connmark --mark 0x5 -j MARK --set-xmark 0x10/0xf0\n";
    let found = marks(flow);
    assert_eq!(
        (found.of_packet(), found.of_flow()),
        (Bits::whole(0x10), Bits::whole(0x5))
    );
    let perhaps = marks(&set.replace("-i priv", "-m statistic --mode nth --every 2 --packet 0"));
    assert_eq!(perhaps.possible().len(), 2);
    let masked = "-A PREROUTING -j CONNMARK --set-xmark 0xabcd/0xffffffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff\n";
    assert_eq!(marks(masked).of_packet(), Bits::whole(0xcd));
}

#[test]
fn marks_behind_an_acceptance_are_not_written() {
    let set = "-A PREROUTING -i priv -j MARK --set-xmark 0x77/0xffffffff\n";
    let accepted = format!("-A PREROUTING -i priv -j ACCEPT\n{set}");
    assert_eq!(marks(&accepted), Marks::none(0));
    let perhaps = format!("-A PREROUTING -m set --match-set x src -j ACCEPT\n{set}");
    assert_eq!(marks(&perhaps).possible().len(), 2);
}

#[test]
fn conntrack_zones_are_read() {
    for (option, zone) in [
        ("--zone 5", Zone::new(5, true, true)),
        ("--zone-orig 5", Zone::new(5, true, false)),
        ("--zone-reply 5", Zone::new(5, false, true)),
    ] {
        let text = format!("-P PREROUTING ACCEPT\n-A PREROUTING -i priv -j CT {option}\n");
        let raw = chain(&text, ("PREROUTING", ChainPlace::Prerouting));
        let found = raw.passage(&packet(true)).zone.unwrap().0;
        assert_eq!(found, Some(zone), "{option}");
    }
}
