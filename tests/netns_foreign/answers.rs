//! NAT role: foreign rules for packets that come in by the outer interface, or go to the hosts.

use lab::*;

use crate::packets::{Firewall, Machine};
use crate::{Foreign, behind_a_nat, of_a_nat, run};

const BAD: &[Foreign] = &[
    Foreign {
        add: &[
            "ip route add blackhole default table 77",
            "ip rule add pref 1000 iif pub lookup 77",
        ],
        remove: &["ip rule del pref 1000", "ip route flush table 77"],
        partner: PARTNER,
        words: "rule 1000: from all iif pub lookup 77 refuses",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 iif pub unreachable"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000: from all iif pub unreachable refuses",
    },
    Foreign {
        add: &["ip rule add pref 1000 to 10.0.0.0/8 unreachable"],
        remove: &["ip rule del pref 1000"],
        partner: S3,
        words: "rule 1000: from all to 10.0.0.0/8 unreachable refuses",
    },
    Foreign {
        add: &[
            "ip link add elsewhere type bridge",
            "ip link set elsewhere up",
            "ip -6 route add default dev elsewhere table 77",
            "ip -6 rule add pref 1000 iif pub lookup 77",
        ],
        remove: &["ip -6 rule del pref 1000", "ip link del elsewhere"],
        partner: S3_6,
        words: "rule 1000: from all iif pub lookup 77 leads elsewhere",
    },
    Foreign {
        add: &["sysctl -qw net.ipv4.conf.pub.forwarding=0"],
        remove: &["sysctl -qw net.ipv4.conf.pub.forwarding=1"],
        partner: PARTNER,
        words: "net.ipv4.conf.pub.forwarding is off",
    },
];

const GOOD: &[Foreign] = &[
    // A table with the way back, as hosts with several interfaces have.
    Foreign {
        add: &[
            "ip route add 10.0.1.0/24 dev priv table 77",
            "ip rule add pref 1000 iif pub lookup 77",
        ],
        remove: &["ip rule del pref 1000", "ip route flush table 77"],
        partner: PARTNER,
        words: "",
    },
    Foreign {
        add: &["ip rule add pref 1000 to 10.0.1.77 unreachable"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "",
    },
];

#[test]
fn each_command_names_a_rule_that_stops_answers_with_nftables() {
    isolated(|| of_a_nat(Firewall::Nftables, BAD, GOOD));
}

#[test]
fn each_command_names_a_rule_that_stops_answers_with_iptables() {
    isolated(|| of_a_nat(Firewall::Iptables, &BAD[..2], &GOOD[..1]));
}

/// Answers meet the rules behind ours too.
#[test]
fn running_agent_names_a_rule_behind_ours() {
    let body = |lab: &Lab, machine: &Machine| {
        let agent = machine.agent();
        agent.wait_in_force();
        for (flag, partner) in [("-4", PARTNER), ("-6", PARTNER6)] {
            let promised = lab.who("host1", partner);
            assert!(promised.is_ok(), "{partner}: {promised:?}");
            let rule = format!("ip {flag} rule add pref 31000 iif pub unreachable");
            run(machine, &[&rule]);
            agent.wait_for("the rule is named", |it| {
                it["state"] == "degraded" && it["degraded"].to_string().contains("rule 31000")
            });
            assert!(lab.who("host1", partner).is_err());
            run(machine, &[&rule.replace(" add ", " del ")]);
            agent.wait_in_force();
            assert_eq!(lab.who("host1", partner), promised);
        }
    };
    isolated(|| behind_a_nat(Firewall::Nftables, body));
}
