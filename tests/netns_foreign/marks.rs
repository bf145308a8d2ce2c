//! Foreign chains that write marks or zones, and rules for some of the ordinary packets alone: for
//! datagrams, for users, for a network of clients.

use std::net::SocketAddr;

use super::*;

const HOST: &[Foreign] = &[
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 lookup main",
            "nft add table ip m",
            "nft add chain ip m o { type route hook output priority mangle ; }",
            "nft add rule ip m o tcp dport 443 meta mark set mark or 0x100000",
        ],
        remove: &["ip rule del pref 1000", "nft delete table ip m"],
        partner: PARTNER,
        words: "rule 1000: from all fwmark 0x100000/0x100000 lookup main takes packets to partners before ours, for the mark 0x100000 of table ip m, chain o, rule 1",
    },
    // A mark saved in the flow, for later packets.
    Foreign {
        add: &[
            "ip -6 rule add pref 1000 fwmark 0x200000/0xf00000 unreachable",
            "ip6tables-nft -t mangle -A OUTPUT -j CONNMARK --restore-mark",
            "ip6tables-nft -t mangle -A OUTPUT -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x200000/0xf00000",
        ],
        remove: &["ip -6 rule del pref 1000", "ip6tables-nft -t mangle -F"],
        partner: PARTNER6,
        words: "for the mark 0x200000 of table ip6 mangle, chain OUTPUT, rule 1",
    },
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000 lookup main",
            "iptables-legacy -w -t mangle -A OUTPUT -o priv -j MARK --set-mark 0x100000",
        ],
        remove: &["ip rule del pref 1000", "iptables-legacy -w -t mangle -F"],
        partner: PARTNER,
        words: "for the mark 0x100000 of iptables-legacy table mangle, chain OUTPUT, rule 1",
    },
    // A realm and a group of interfaces are no conditions.
    Foreign {
        add: &["ip rule add pref 1000 lookup main realms 5"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000: from all lookup main realms 5 takes packets to partners",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 lookup main suppress_ifgroup 7"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000: from all lookup main suppress_ifgroup 7 takes packets to partners",
    },
    // Most services belong to root.
    Foreign {
        add: &["ip -6 rule add pref 1000 uidrange 0-0 unreachable"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000: from all uidrange 0-0 unreachable",
    },
    Foreign {
        add: &["ip rule add pref 1000 uidrange 0-0 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000: from all uidrange 0-0 lookup main takes packets to partners",
    },
];

const GOOD_HOST: &[Foreign] = &[
    // Without a route type, no chain of the hook output routes a packet again.
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 lookup main",
            "nft add table inet m",
            "nft add chain inet m o { type filter hook output priority mangle ; }",
            "nft add rule inet m o meta mark set 0x100000",
        ],
        remove: &["ip rule del pref 1000", "nft delete table inet m"],
        partner: PARTNER,
        words: "",
    },
    // Other ports.
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 lookup main",
            "iptables-nft -t mangle -A OUTPUT -p tcp --dport 25 -j MARK --set-mark 0x100000",
        ],
        remove: &["ip rule del pref 1000", "iptables-nft -t mangle -F"],
        partner: PARTNER,
        words: "",
    },
    // A set outside our knowledge decides.
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 lookup main",
            "iptables-nft -t mangle -A OUTPUT -m string --algo bm --string never-in-a-packet -j MARK --set-mark 0x100000",
        ],
        remove: &["ip rule del pref 1000", "iptables-nft -t mangle -F"],
        partner: PARTNER,
        words: "perhaps foreign rule 1000",
    },
];

const NAT: &[Foreign] = &[
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 unreachable",
            "nft add table inet m",
            "nft add chain inet m p { type filter hook prerouting priority mangle ; }",
            "nft add rule inet m p iifname priv meta mark set 0x100000 ct mark set mark",
        ],
        remove: &["ip rule del pref 1000", "nft delete table inet m"],
        partner: PARTNER,
        words: "for the mark 0x100000 of table inet m, chain p, rule 1",
    },
    Foreign {
        add: &[
            "ip -6 rule add pref 1000 fwmark 0x100000/0x100000 unreachable",
            "ip6tables-nft -t mangle -A PREROUTING -i priv -j CONNMARK --restore-mark",
            "ip6tables-nft -t mangle -A PREROUTING -i priv -m connmark --mark 0/0x100000 -j CONNMARK --set-xmark 0x100000/0x100000",
        ],
        remove: &["ip -6 rule del pref 1000", "ip6tables-nft -t mangle -F"],
        partner: PARTNER6,
        words: "for the mark 0x100000 of table ip6 mangle, chain PREROUTING, rule 1",
    },
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000 unreachable",
            "iptables-legacy -w -t mangle -A PREROUTING -s 10.0.0.0/8 -j MARK --set-mark 0x100000",
        ],
        remove: &["ip rule del pref 1000", "iptables-legacy -w -t mangle -F"],
        partner: S3,
        words: "for the mark 0x100000 of iptables-legacy table mangle, chain PREROUTING, rule 1",
    },
    // Answers still have the egress address there.
    Foreign {
        add: &[
            "nft add table ip fw",
            "nft add chain ip fw p { type filter hook prerouting priority mangle ; }",
            "nft add rule ip fw p iifname pub ip daddr 198.51.100.5 drop",
        ],
        remove: &["nft delete table ip fw"],
        partner: PARTNER,
        words: "table ip fw, chain p: drop stops answers from pub to priv",
    },
    Foreign {
        add: &[
            "nft add table inet z",
            "nft add chain inet z p { type filter hook prerouting priority raw ; }",
            "nft add rule inet z p iifname priv ct zone set 7",
        ],
        remove: &["nft delete table inet z"],
        partner: PARTNER6,
        words: "table inet z, chain p: ct zone separates packets from priv and their answers from pub (zones 7 and 0)",
    },
    Foreign {
        add: &["iptables-nft -t raw -A PREROUTING -i pub -j CT --zone 9"],
        remove: &["iptables-nft -t raw -F"],
        partner: PARTNER,
        words: "ct zone separates packets from priv and their answers from pub (zones 0 and 9)",
    },
    Foreign {
        add: &["ip rule add pref 1000 iif priv lookup main realms 5"],
        remove: &["ip rule del pref 1000"],
        partner: S3,
        words: "lookup main realms 5 takes packets to selected prefixes",
    },
    // A network of clients, inside the sources.
    Foreign {
        add: &["ip rule add pref 1000 from 10.0.1.0/24 unreachable"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000: from 10.0.1.0/24",
    },
];

/// The mark that packets of the sources carry during the routing decision.
const OUR_MARK: &[Foreign] = &[
    Foreign {
        add: &["ip rule add pref 1000 fwmark 0x20/0x20 unreachable"],
        remove: &["ip rule del pref 1000"],
        partner: S3,
        words: "since packets of [nat] sources carry the mark 0x20 of [kernel] marks.path",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 fwmark 0x20/0xff unreachable"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "set [kernel] marks.path to bits that no foreign rule compares",
    },
];

/// The mark of flows from outside.
const INBOUND_MARK: &[Foreign] = &[Foreign {
    add: &["ip rule add pref 1000 fwmark 0x10/0x30 unreachable"],
    remove: &["ip rule del pref 1000"],
    partner: PARTNER,
    words: "",
}];

const GOOD_NAT: &[Foreign] = &[
    // The same zone in both directions, for original packets alone, and marks without a rule.
    Foreign {
        add: &[
            "iptables-nft -t raw -A PREROUTING -i priv -j CT --zone-orig 9",
            "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark",
            "iptables-nft -t mangle -A PREROUTING -i priv -j MARK --set-mark 0x400000",
            "iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark --nfmask 0xf00000 --ctmask 0xf00000",
        ],
        remove: &["iptables-nft -t raw -F", "iptables-nft -t mangle -F"],
        partner: PARTNER,
        words: "",
    },
    // A map outside our knowledge names other clients.
    Foreign {
        add: &[
            "ip rule add pref 1000 fwmark 0x100000/0x100000 unreachable",
            "nft add table ip m",
            "nft add chain ip m p { type filter hook prerouting priority mangle ; }",
            "nft add rule ip m p meta mark set ip saddr map { 10.0.1.77 : 0x100000 }",
        ],
        remove: &["ip rule del pref 1000", "nft delete table ip m"],
        partner: PARTNER,
        words: "perhaps foreign rule 1000",
    },
    // Packets pass by the mark of their flow.
    Foreign {
        add: &[
            "iptables-nft -P FORWARD DROP",
            "iptables-nft -A FORWARD -m mark --mark 0x400000/0x400000 -j ACCEPT",
            "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xf00000 --ctmask 0xf00000",
            "iptables-nft -t mangle -A PREROUTING -i priv -j MARK --set-xmark 0x400000/0xf00000",
            "iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark --nfmask 0xf00000 --ctmask 0xf00000",
        ],
        remove: &[
            "iptables-nft -P FORWARD ACCEPT",
            "iptables-nft -F FORWARD",
            "iptables-nft -t mangle -F",
        ],
        partner: PARTNER,
        words: "",
    },
    Foreign {
        add: &[
            "ip rule add pref 1000 from 10.0.1.77 unreachable",
            "ip rule add pref 1001 iif priv ipproto udp dport 53 unreachable",
        ],
        remove: &["ip rule del pref 1000", "ip rule del pref 1001"],
        partner: PARTNER,
        words: "rule 1000: from 10.0.1.77",
    },
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw f { type filter hook forward priority 10 ; }",
            "nft add rule inet fw f meta l4proto udp drop",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER,
        words: "table inet fw, chain f: drop stops UDP packets from priv to pub; TCP passes",
    },
];

#[test]
fn each_command_names_marks_and_rules_for_some_packets_of_a_host() {
    isolated(|| of_a_host(HOST, GOOD_HOST));
}

#[test]
fn each_command_names_marks_and_zones_of_a_nat() {
    isolated(|| of_a_nat(Firewall::Nftables, NAT, GOOD_NAT));
}

#[test]
fn each_command_names_a_rule_for_the_mark_of_the_sources_packets_with_nftables() {
    isolated(|| of_a_nat(Firewall::Nftables, OUR_MARK, INBOUND_MARK));
}

#[test]
fn each_command_names_a_rule_for_the_mark_of_the_sources_packets_with_iptables() {
    isolated(|| of_a_nat(Firewall::Iptables, OUR_MARK, INBOUND_MARK));
}

/// TCP keeps its path.
#[test]
fn each_command_names_a_rule_for_datagrams_alone() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, GATEWAYS);
        machine.changed();
        for (flag, partner) in [("-4", PARTNER), ("-6", PARTNER6)] {
            let datagram = || lab.ns("host1").who_udp(SocketAddr::new(partner, PORT));
            let (promised, of_tcp) = (datagram(), lab.who("host1", partner));
            assert!(promised.is_ok(), "{promised:?}");
            let rule = format!("{flag} rule add pref 1000 ipproto udp lookup main");
            machine.ns().ip(&rule);
            assert_ne!(datagram(), promised, "{rule} does no harm");
            assert_eq!(lab.who("host1", partner), of_tcp);
            for (name, code, text) in verdicts(&machine, partner) {
                assert_eq!(code, Some(1), "{name}: {text}");
                assert!(text.contains("ipproto udp"), "{name}: {text}");
            }
            machine.ns().ip(&rule.replace(" add ", " del "));
            machine.in_sync();
            assert_eq!(datagram(), promised);
        }
    });
}
