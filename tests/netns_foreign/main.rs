//! Foreign rules, routes and firewall chains against the promise: packets at the partner show the
//! fault without Trailblazer's verdict, and every command gives the same verdict.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod answers;
mod marks;

#[path = "../packets/mod.rs"]
mod packets;

use std::io::ErrorKind;
use std::net::IpAddr;

use lab::*;
use packets::nat::*;
use packets::*;

/// A foreign object.
struct Foreign {
    /// Command lines on the machine.
    add: &'static [&'static str],
    remove: &'static [&'static str],
    /// The partner that notices.
    partner: IpAddr,
    /// Words of the verdict.
    words: &'static str,
}

const HOST: &[Foreign] = &[
    Foreign {
        add: &["ip rule add pref 1000 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 lookup main"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip rule add pref 30021 lookup main"],
        remove: &["ip rule del pref 30021"],
        partner: PARTNER,
        words: "rule 30021",
    },
    Foreign {
        add: &["ip rule add pref 1000 to 93.184.216.0/24 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    // A single partner.
    Foreign {
        add: &["ip rule add pref 1000 to 93.184.216.34 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 to 2606:2800:220:1::34 lookup main"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip rule add pref 1000 ipproto tcp lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    // A program without an address of its own: the kernel routes the connection again by the address
    // that it chose.
    Foreign {
        add: &[
            "ip route add default via 10.0.1.1 table 200",
            "ip rule add pref 1000 from 10.0.1.11 lookup 200",
        ],
        remove: &["ip rule del pref 1000", "ip route flush table 200"],
        partner: PARTNER,
        words: "rule 1000",
    },
    // Every source port of a client.
    Foreign {
        add: &["ip rule add pref 1000 ipproto tcp sport 1024-65000 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    // The first rule skips the default that the second takes.
    Foreign {
        add: &[
            "ip route add default via 10.0.1.1 table 200",
            "ip rule add pref 1000 lookup 200 suppress_prefixlength 0",
            "ip rule add pref 1001 lookup 200",
        ],
        remove: &[
            "ip rule del pref 1000",
            "ip rule del pref 1001",
            "ip route flush table 200",
        ],
        partner: PARTNER,
        words: "rule 1001",
    },
    Foreign {
        add: &["ip -6 rule add pref 1000 unreachable"],
        remove: &["ip -6 rule del pref 1000"],
        partner: PARTNER6,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip route add 64.0.0.0/2 via 10.0.1.1"],
        remove: &["ip route del 64.0.0.0/2 via 10.0.1.1"],
        partner: PARTNER,
        words: "64.0.0.0/2",
    },
    Foreign {
        add: &["ip -6 route add 2000::/4 via 2600:1f18:1000:1::1"],
        remove: &["ip -6 route del 2000::/4"],
        partner: PARTNER6,
        words: "2000::/4",
    },
    Foreign {
        add: &["ip route add 0.0.0.0/1 via 10.0.1.1 table 1084"],
        remove: &["ip route del 0.0.0.0/1 table 1084"],
        partner: PARTNER,
        words: "0.0.0.0/1",
    },
    Foreign {
        add: &["ip route add throw 64.0.0.0/2 table 1084"],
        remove: &["ip route del throw 64.0.0.0/2 table 1084"],
        partner: PARTNER,
        words: "throw 64.0.0.0/2",
    },
    Foreign {
        add: &["ip route add unreachable 64.0.0.0/2 table 1084"],
        remove: &["ip route del unreachable 64.0.0.0/2 table 1084"],
        partner: PARTNER,
        words: "unreachable 64.0.0.0/2",
    },
    Foreign {
        add: &["ip -6 route add 2000::/4 via 2600:1f18:1000:1::1 table 1084"],
        remove: &["ip -6 route del 2000::/4 table 1084"],
        partner: PARTNER6,
        words: "2000::/4",
    },
    Foreign {
        add: &["ip route add blackhole 52.216.0.0/15"],
        remove: &["ip route del blackhole 52.216.0.0/15"],
        partner: S3,
        words: "blackhole 52.216.0.0/15",
    },
    Foreign {
        add: &["ip route add prohibit 52.216.0.0/14"],
        remove: &["ip route del prohibit 52.216.0.0/14"],
        partner: S3,
        words: "prohibit 52.216.0.0/14",
    },
    Foreign {
        add: &["ip -6 route add unreachable 2600:1fa0:8000::/39"],
        remove: &["ip -6 route del unreachable 2600:1fa0:8000::/39"],
        partner: S3_6,
        words: "unreachable 2600:1fa0:8000::/39",
    },
];

/// Filters of the host's own packets.
const OUTPUT: &[Foreign] = &[
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw o { type filter hook output priority 0 ; policy drop ; }",
            "nft add rule inet fw o oifname lo accept",
            "nft add rule inet fw o meta l4proto { icmp , icmpv6 } accept",
            "nft add rule inet fw o tcp dport 22 accept",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER6,
        words: "table inet fw, chain o: policy drop stops packets of this host to partners by priv",
    },
    Foreign {
        add: &["iptables-nft -A OUTPUT -d 52.216.0.0/15 -j REJECT"],
        remove: &["iptables-nft -F OUTPUT"],
        partner: S3,
        words: "chain OUTPUT: reject",
    },
    Foreign {
        add: &["iptables-legacy -w -A OUTPUT -p tcp -m tcp --dport 443 -j DROP"],
        remove: &["iptables-legacy -w -F OUTPUT"],
        partner: PARTNER,
        words: "iptables-legacy table filter, chain OUTPUT: drop stops packets of this host",
    },
    Foreign {
        add: &["ip6tables-legacy -w -t mangle -A POSTROUTING -o priv -p tcp -j DROP"],
        remove: &["ip6tables-legacy -w -t mangle -F POSTROUTING"],
        partner: S3_6,
        words: "ip6tables-legacy table mangle, chain POSTROUTING: drop stops packets of this host to storage",
    },
    // Transparent proxies, with exceptions for themselves and for neighbours.
    Foreign {
        add: &[
            "nft add table ip proxy",
            "nft add chain ip proxy o { type nat hook output priority -100 ; }",
            "nft add rule ip proxy o meta skuid 1337 return",
            "nft add rule ip proxy o fib daddr type local return",
            "nft add rule ip proxy o ip daddr { 10.0.0.0/8 , 127.0.0.0/8 , 169.254.0.0/16 } return",
            "nft add rule ip proxy o tcp dport { 80 , 443 } redirect to :3128",
        ],
        remove: &["nft delete table ip proxy"],
        partner: PARTNER,
        words: "table ip proxy, chain o: dnat gives packets of this host to partners another destination",
    },
    Foreign {
        add: &[
            "ip6tables-nft -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j RETURN",
            "ip6tables-nft -t nat -A OUTPUT -m mark --mark 0xff -j RETURN",
            "ip6tables-nft -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 3128",
        ],
        remove: &["ip6tables-nft -t nat -F OUTPUT"],
        partner: PARTNER6,
        words: "table ip6 nat, chain OUTPUT: dnat gives packets of this host to partners another destination",
    },
    Foreign {
        add: &[
            "iptables-legacy -w -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j RETURN",
            "iptables-legacy -w -t nat -A OUTPUT ! -d 10.0.0.0/8 -p tcp -m mark ! --mark 0xff -j REDIRECT --to-ports 3128",
        ],
        remove: &["iptables-legacy -w -t nat -F OUTPUT"],
        partner: S3,
        words: "table nat, chain OUTPUT: dnat gives packets of this host to storage another destination",
    },
    // The answers.
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw i { type filter hook input priority 0 ; policy drop ; }",
            "nft add rule inet fw i iif lo accept",
            "nft add rule inet fw i meta l4proto { icmp , icmpv6 } accept",
            "nft add rule inet fw i tcp dport 22 accept",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER,
        words: "table inet fw, chain i: policy drop stops answers of partners to this host by priv",
    },
    Foreign {
        add: &[
            "ip6tables-legacy -w -A INPUT -p ipv6-icmp -j ACCEPT",
            "ip6tables-legacy -w -P INPUT DROP",
        ],
        remove: &[
            "ip6tables-legacy -w -P INPUT ACCEPT",
            "ip6tables-legacy -w -F INPUT",
        ],
        partner: S3_6,
        words: "ip6tables-legacy table filter, chain INPUT: policy drop stops answers of storage to this host by priv",
    },
    Foreign {
        add: &["iptables-nft -t raw -A PREROUTING -s 52.216.0.0/15 -j DROP"],
        remove: &["iptables-nft -t raw -F PREROUTING"],
        partner: S3,
        words: "table ip raw, chain PREROUTING: drop stops answers of 52.216.0.0/15 to this host by priv",
    },
];

const GOOD_OUTPUT: &[Foreign] = &[
    // Other users, other ports, other interfaces.
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw o { type filter hook output priority 0 ; }",
            "nft add rule inet fw o meta skuid 12345 drop",
            "nft add rule inet fw o tcp dport 25 drop",
            "nft add rule inet fw o oifname eth7 drop",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER,
        words: "",
    },
    // Some destinations alone, on purpose.
    Foreign {
        add: &[
            "nft add table ip fw",
            "nft add chain ip fw o { type filter hook output priority 0 ; policy drop ; }",
            "nft add rule ip fw o oifname lo accept",
            "nft add rule ip fw o ct state established accept",
            "nft add rule ip fw o ip daddr { 93.184.216.0/24 , 52.216.0.0/15 } accept",
        ],
        remove: &["nft delete table ip fw"],
        partner: PARTNER,
        words: "perhaps stops some packets of this host to partners by priv",
    },
    // As Docker writes them.
    Foreign {
        add: &[
            "iptables-nft -t nat -N DOCKER",
            "iptables-nft -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
            "iptables-nft -t nat -A DOCKER -p tcp -j DNAT --to-destination 172.17.0.2:80",
            "iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP",
        ],
        remove: &[
            "iptables-nft -t nat -F",
            "iptables-nft -t nat -X",
            "iptables-nft -t raw -F",
        ],
        partner: PARTNER,
        words: "",
    },
    // As nftables.conf, firewalld and ufw write them.
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw i { type filter hook input priority 0 ; policy drop ; }",
            "nft add rule inet fw i iif lo accept",
            "nft add rule inet fw i ct state vmap { established : accept , related : accept , invalid : drop }",
            "nft add rule inet fw i meta l4proto { icmp , icmpv6 } accept",
            "nft add rule inet fw i tcp dport 22 accept",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER6,
        words: "",
    },
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw p { type filter hook prerouting priority -140 ; }",
            "nft add rule inet fw p meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
            "nft add chain inet fw i { type filter hook input priority 10 ; }",
            "nft add rule inet fw i ct state { established , related } accept",
            "nft add rule inet fw i ct status dnat accept",
            "nft add rule inet fw i iifname lo accept",
            "nft add rule inet fw i meta l4proto icmpv6 accept",
            "nft add rule inet fw i reject with icmpx admin-prohibited",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER,
        words: "",
    },
    Foreign {
        add: &[
            "iptables-legacy -w -N ufw-before-input",
            "iptables-legacy -w -A INPUT -j ufw-before-input",
            "iptables-legacy -w -A ufw-before-input -i lo -j ACCEPT",
            "iptables-legacy -w -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-legacy -w -A ufw-before-input -m conntrack --ctstate INVALID -j DROP",
            "iptables-legacy -w -P INPUT DROP",
        ],
        remove: &[
            "iptables-legacy -w -P INPUT ACCEPT",
            "iptables-legacy -w -F",
            "iptables-legacy -w -X",
        ],
        partner: PARTNER,
        words: "",
    },
];

const NAT: &[Foreign] = &[
    Foreign {
        add: &["iptables-nft -P FORWARD DROP"],
        remove: &["iptables-nft -P FORWARD ACCEPT"],
        partner: PARTNER,
        words: "chain FORWARD: policy drop",
    },
    Foreign {
        add: &["ip6tables-nft -P FORWARD DROP"],
        remove: &["ip6tables-nft -P FORWARD ACCEPT"],
        partner: PARTNER6,
        words: "chain FORWARD: policy drop",
    },
    Foreign {
        add: &["iptables-legacy -w -P FORWARD DROP"],
        remove: &["iptables-legacy -w -P FORWARD ACCEPT"],
        partner: PARTNER,
        words: "iptables-legacy table filter, chain FORWARD: policy drop",
    },
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw f { type filter hook forward priority 10 ; policy drop ; }",
            "nft add rule inet fw f ct state established,related accept",
            "nft add rule inet fw f tcp dport 22 accept",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER6,
        words: "table inet fw, chain f: policy drop",
    },
    // As firewalld writes them.
    Foreign {
        add: &[
            "nft add table inet firewalld",
            "nft add chain inet firewalld f { type filter hook forward priority 10 ; }",
            "nft add rule inet firewalld f ct state established,related accept",
            "nft add rule inet firewalld f ct status dnat accept",
            "nft add rule inet firewalld f reject with icmpx admin-prohibited",
        ],
        remove: &["nft delete table inet firewalld"],
        partner: PARTNER6,
        words: "table inet firewalld, chain f: reject stops",
    },
    Foreign {
        add: &[
            "iptables-nft -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
            "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
            "iptables-nft -A FORWARD -j REJECT",
        ],
        remove: &["iptables-nft -F FORWARD"],
        partner: PARTNER,
        words: "chain FORWARD: reject stops",
    },
    // Keys that join several fields: a map of verdicts, and a set.
    Foreign {
        add: &[
            "nft add table ip fw",
            "nft add map ip fw m { type ifname . ipv4_addr : verdict ; flags interval ; }",
            "nft add element ip fw m { priv . 10.0.0.0/16 : drop }",
            "nft add chain ip fw f { type filter hook forward priority 10 ; }",
            "nft add rule ip fw f ct state established,related accept",
            "nft add rule ip fw f iifname . ip saddr vmap @m",
        ],
        remove: &["nft delete table ip fw"],
        partner: PARTNER,
        words: "table ip fw, chain f: drop",
    },
    Foreign {
        add: &[
            "nft add table ip6 fw",
            "nft add set ip6 fw s { type inet_proto . inet_service . ifname ; }",
            "nft add element ip6 fw s { tcp . 443 . pub , udp . 53 . pub }",
            "nft add chain ip6 fw f { type filter hook forward priority 10 ; }",
            "nft add rule ip6 fw f meta l4proto . th dport . oifname @s drop",
        ],
        remove: &["nft delete table ip6 fw"],
        partner: PARTNER6,
        words: "table ip6 fw, chain f: drop",
    },
    Foreign {
        add: &["iptables-nft -t raw -A PREROUTING -s 10.0.0.0/8 -j DROP"],
        remove: &["iptables-nft -t raw -F"],
        partner: PARTNER,
        words: "table ip raw, chain PREROUTING: drop",
    },
    Foreign {
        add: &["iptables-legacy -w -t raw -A PREROUTING -s 10.0.0.0/8 -j CT --notrack"],
        remove: &["iptables-legacy -w -t raw -F"],
        partner: PARTNER,
        words: "chain PREROUTING: notrack",
    },
    Foreign {
        add: &[
            "nft add table ip fw",
            "nft add chain ip fw f { type nat hook postrouting priority 50 ; }",
            "nft add rule ip fw f ip saddr 10.0.0.0/8 snat to 198.51.100.77",
        ],
        remove: &["nft delete table ip fw"],
        partner: PARTNER,
        words: "table ip fw, chain f, rule 1: snat",
    },
    // A transparent proxy, whose own connections have another address.
    Foreign {
        add: &[
            "nft add table ip proxy",
            "nft add chain ip proxy p { type nat hook prerouting priority -100 ; }",
            "nft add rule ip proxy p iifname priv tcp dport 443 redirect to :3128",
        ],
        remove: &["nft delete table ip proxy"],
        partner: PARTNER,
        words: "table ip proxy, chain p: dnat",
    },
    Foreign {
        add: &[
            "ip6tables-legacy -w -t nat -A PREROUTING -i priv -p tcp --dport 443 -j REDIRECT --to-ports 3128",
        ],
        remove: &["ip6tables-legacy -w -t nat -F PREROUTING"],
        partner: PARTNER6,
        words: "table nat, chain PREROUTING: dnat",
    },
    Foreign {
        add: &["ip rule add pref 1000 from 10.0.0.0/16 unreachable"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    Foreign {
        add: &["sysctl -qw net.ipv4.ip_forward=0"],
        remove: &["sysctl -qw net.ipv4.ip_forward=1"],
        partner: PARTNER,
        words: "is off",
    },
    Foreign {
        add: &["sysctl -qw net.ipv4.conf.priv.forwarding=0"],
        remove: &["sysctl -qw net.ipv4.conf.priv.forwarding=1"],
        partner: PARTNER,
        words: "net.ipv4.conf.priv.forwarding is off",
    },
    Foreign {
        add: &["ip route add blackhole 52.216.0.0/15"],
        remove: &["ip route del blackhole 52.216.0.0/15"],
        partner: S3,
        words: "blackhole 52.216.0.0/15",
    },
];

/// Foreign state that stays green: a stateful firewall, rules for other packets.
const GOOD_HOST: &[Foreign] = &[
    Foreign {
        add: &["ip route add 198.18.5.0/24 via 10.0.1.1 table 1084"],
        remove: &["ip route del 198.18.5.0/24 table 1084"],
        partner: PARTNER,
        words: "198.18.5.0/24",
    },
    Foreign {
        add: &["ip route add blackhole 52.216.99.0/24"],
        remove: &["ip route del blackhole 52.216.99.0/24"],
        partner: S3,
        words: "blackhole 52.216.99.0/24",
    },
    Foreign {
        add: &["ip rule add pref 1000 fwmark 0x400000/0x400000 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip rule add pref 1000 from 192.0.2.77 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
    Foreign {
        add: &["ip rule add pref 1000 ipproto tcp dport 22 lookup main"],
        remove: &["ip rule del pref 1000"],
        partner: PARTNER,
        words: "rule 1000",
    },
];

const GOOD_NAT: &[Foreign] = &[
    // Keys for other packets, and one for all packets without another key.
    Foreign {
        add: &[
            "nft add table ip fw",
            "nft add map ip fw m { type ipv4_addr . inet_service : verdict ; }",
            "nft add element ip fw m { 10.0.1.11 . 22 : drop , * : accept }",
            "nft add chain ip fw f { type filter hook forward priority 10 ; policy drop ; }",
            "nft add rule ip fw f ct state established,related accept",
            "nft add rule ip fw f ip saddr . tcp dport vmap @m",
        ],
        remove: &["nft delete table ip fw"],
        partner: PARTNER,
        words: "",
    },
    Foreign {
        add: &[
            "nft add table inet fw",
            "nft add chain inet fw f { type filter hook forward priority 10 ; policy drop ; }",
            "nft add rule inet fw f ct state established,related accept",
            "nft add rule inet fw f ip saddr 10.0.0.0/16 tcp dport { 80, 443 } accept",
            "nft add rule inet fw f meta nfproto ipv6 ct state new accept",
        ],
        remove: &["nft delete table inet fw"],
        partner: PARTNER,
        words: "",
    },
    Foreign {
        add: &[
            "iptables-nft -P FORWARD DROP",
            "iptables-nft -N DOCKER-USER",
            "iptables-nft -A FORWARD -j DOCKER-USER",
            "iptables-nft -A DOCKER-USER -s 10.0.0.0/16 -j ACCEPT",
            "iptables-nft -A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-nft -A DOCKER-USER -j RETURN",
        ],
        remove: &[
            "iptables-nft -P FORWARD ACCEPT",
            "iptables-nft -F",
            "iptables-nft -X",
        ],
        partner: PARTNER,
        words: "",
    },
];

fn run(machine: &Machine<'_>, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        machine.ns().run(&words);
    }
}

/// The output of each command, with its exit code.
fn verdicts(machine: &Machine<'_>, partner: IpAddr) -> Vec<(&'static str, Option<i32>, String)> {
    let address = partner.to_string();
    let commands: [(&str, Vec<&str>); 4] = [
        ("reconcile", vec!["reconcile"]),
        ("explain", vec!["explain", &address]),
        ("check", vec!["check"]),
        ("status", vec!["status"]),
    ];
    let run = |(name, words): (&'static str, Vec<&str>)| {
        let output = machine.run(&words);
        (name, output.code, output.stdout.clone())
    };
    commands.into_iter().map(run).collect()
}

fn matrix(lab: &Lab, machine: &Machine<'_>, bad: &[Foreign], good: &[Foreign]) {
    let seen = |partner| lab.who("host1", partner);
    for foreign in bad {
        let promised: Result<IpAddr, ErrorKind> = seen(foreign.partner);
        assert!(promised.is_ok(), "{}: {promised:?}", foreign.words);
        run(machine, foreign.add);
        let now = seen(foreign.partner);
        assert_ne!(now, promised, "{:?} does no harm", foreign.add);
        for (name, code, text) in verdicts(machine, foreign.partner) {
            let what = format!("{name} after {:?}: {text}", foreign.add);
            assert_eq!(code, Some(1), "{what}");
            assert!(text.contains(foreign.words), "{what}");
        }
        run(machine, foreign.remove);
        machine.reconcile();
        assert_eq!(seen(foreign.partner), promised, "{:?}", foreign.remove);
    }
    for foreign in good {
        let promised = seen(foreign.partner);
        run(machine, foreign.add);
        assert_eq!(seen(foreign.partner), promised, "{:?}", foreign.add);
        for (name, code, text) in verdicts(machine, foreign.partner) {
            let what = format!("{name} after {:?}: {text}", foreign.add);
            let wanted = i32::from(name == "status");
            assert_eq!(code, Some(wanted), "{what}");
            assert!(!text.contains("DEGRADED"), "{what}");
            if name == "reconcile" {
                assert!(text.contains(foreign.words), "{what}");
            }
        }
        run(machine, foreign.remove);
    }
}

/// The settings of a host with a gateway of each family.
const GATEWAYS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

fn of_a_host(bad: &[Foreign], good: &[Foreign]) {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    let machine = Machine::new(&lab, "host1", Firewall::Nftables, GATEWAYS);
    machine.changed();
    matrix(&lab, &machine, bad, good);
}

#[test]
fn each_command_names_the_foreign_object_that_defeats_a_host() {
    isolated(|| of_a_host(HOST, GOOD_HOST));
}

#[test]
fn each_command_names_the_filter_that_stops_a_hosts_own_packets() {
    isolated(|| of_a_host(OUTPUT, GOOD_OUTPUT));
}

/// `host1` behind a NAT instance, before the first pass.
fn behind_a_nat(firewall: Firewall, body: impl FnOnce(&Lab, &Machine)) {
    let case = one_gateway(NatLayout::TwoInterfaces, firewall);
    let lab = Lab::with(case.layout);
    let machine = case.machine(&lab);
    lab.default_via("host1", "nat1");
    body(&lab, &machine);
}

fn of_a_nat(firewall: Firewall, bad: &[Foreign], good: &[Foreign]) {
    behind_a_nat(firewall, |lab, machine| {
        machine.changed();
        matrix(lab, machine, bad, good);
    });
}

#[test]
fn each_command_names_the_foreign_object_that_defeats_a_nat_with_nftables() {
    isolated(|| of_a_nat(Firewall::Nftables, NAT, GOOD_NAT));
}

#[test]
fn each_command_names_the_foreign_object_that_defeats_a_nat_with_iptables() {
    isolated(|| of_a_nat(Firewall::Iptables, NAT, GOOD_NAT));
}

/// A sysctl that the marks rely on turns harmful: connections from outside are dropped.
#[test]
fn reverse_path_check_that_drops_inbound_connections_is_named() {
    isolated(|| {
        let lab = Lab::new();
        let host1 = lab.ns("host1");
        host1.sysctl(&[("net/ipv4/tcp_fwmark_accept", "1")]);
        let settings = "[egress]\nclose = [\"ipv4\"]\n";
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, settings);
        machine.changed();
        let inbound = || lab.who("outside", HOST1_PUBLIC);
        assert!(inbound().is_ok(), "{:?}", inbound());
        host1.sysctl(&[
            ("net/ipv4/conf/all/rp_filter", "2"),
            ("net/ipv4/conf/all/src_valid_mark", "0"),
        ]);
        assert!(inbound().is_err(), "the check drops nothing");
        for (name, code, text) in verdicts(&machine, PARTNER) {
            // The address of `explain` is one that the host sends to.
            if name != "explain" {
                assert_eq!(code, Some(1), "{name}: {text}");
                assert!(text.contains("rp_filter = 2"), "{name}: {text}");
            }
        }
        host1.sysctl(&[("net/ipv4/conf/all/src_valid_mark", "1")]);
        assert!(inbound().is_ok());
        machine.in_sync();
    });
}

/// The share of storage that an administrator's route refuses.
#[test]
fn share_of_refused_prefixes_is_named() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let settings = "[egress]\ngateways = [\"10.0.1.10\"]\n";
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, settings);
        machine.changed();
        for route in ["blackhole 52.216.0.0/15", "prohibit 52.216.0.0/14"] {
            machine.ns().ip(&format!("route add {route}"));
            assert!(lab.who("host1", S3).is_err());
            let output = machine.run(&["reconcile", "-o", "json"]).expect_code(1);
            let degraded = output.json()["degraded"].to_string();
            let share = format!("{route} of table main refuses packets to 1 of 4 selected");
            assert!(degraded.contains(&share), "{degraded}");
            machine.ns().ip(&format!("route del {route}"));
            machine.in_sync();
        }
    });
}

/// Narrow foreign routes of our tables: the promise holds for all other addresses.
const NARROW: [&str; 4] = [
    "-4 route add 93.184.217.0/24 via 10.0.1.1 table 1084 proto 99",
    "-6 route add 2001:db8:5::/48 via 2600:1f18:1000:1::1 table 1084",
    "-4 route add 198.18.6.0/24 via 10.0.1.1 table 1083",
    "-6 route add unreachable 2001:db8:6::/48 table 1083 proto 99",
];

/// Nobody runs a pass by hand: the agent sees each change by itself.
#[test]
fn running_agent_names_narrow_routes_and_filters_of_a_host() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, GATEWAYS);
        let agent = machine.agent();
        agent.wait_in_force();
        for route in NARROW {
            machine.ns().ip(route);
            let dst = route.split(' ').find(|word| word.contains('/')).unwrap();
            let words = |text: &str| text.contains(dst) && text.contains("takes precedence");
            let named = |status: &serde_json::Value| {
                let notes = status["notes"].as_array().unwrap();
                notes.iter().any(|note| words(note.as_str().unwrap()))
            };
            agent.wait_for(route, |it| named(it) && it["state"] == "in_force");
            for command in [&["reconcile", "--dry-run"][..], &["check"]] {
                let output = machine.run(command).expect_code(0);
                assert!(output.stdout.lines().any(words), "{command:?}: {output:?}");
            }
            let host = dst.split('/').next().unwrap();
            let output = machine.run(&["explain", host]);
            assert!(output.stdout.contains(dst), "{output:?}");
            machine.ns().ip(&route.replace(" add ", " del "));
            agent.wait_for("the note goes", |status| !named(status));
        }
        for foreign in OUTPUT.iter().step_by(2) {
            run(&machine, foreign.add);
            let status = agent.wait_for(foreign.words, |it| it["state"] == "degraded");
            let degraded = status["degraded"].to_string();
            assert!(degraded.contains(foreign.words), "{degraded}");
            assert!(lab.who("host1", foreign.partner).is_err());
            run(&machine, foreign.remove);
            agent.wait_in_force();
        }
    });
}

/// The same on a NAT: a drop policy, a translation before ours, a transparent proxy. Each packet that
/// reaches the partner meanwhile has the egress address.
#[test]
fn running_agent_names_foreign_chains_of_a_nat() {
    let body = |lab: &Lab, machine: &Machine| {
        let agent = machine.agent();
        agent.wait_in_force();
        let words = [
            "iptables-legacy table filter, chain FORWARD: policy drop",
            "table inet fw, chain f: policy drop",
            "table ip fw, chain f, rule 1: snat",
            "table ip proxy, chain p: dnat",
        ];
        for foreign in NAT.iter().filter(|it| words.contains(&it.words)) {
            let promised = lab.who("host1", foreign.partner);
            assert!(promised.is_ok(), "{}: {promised:?}", foreign.words);
            count_from_now(lab);
            run(machine, foreign.add);
            let is_named = |it: &serde_json::Value| {
                it["state"] == "degraded" && it["degraded"].to_string().contains(foreign.words)
            };
            agent.wait_for(foreign.words, is_named);
            assert!(lab.who("host1", foreign.partner).is_err());
            assert_no_leaks(lab);
            run(machine, foreign.remove);
            // The drops of untranslated packets are reported for a minute.
            agent.wait_for("the verdict goes", |it| !is_named(it));
            assert_eq!(lab.who("host1", foreign.partner), promised);
        }
    };
    isolated(|| behind_a_nat(Firewall::Nftables, body));
}

/// A foreign default in the egress table, in the place of ours or with a better metric.
#[test]
fn foreign_default_of_the_egress_table_takes_no_partner() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, GATEWAYS);
        machine.changed();
        let seen = || [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner));
        let promised = seen();
        assert!(promised.iter().all(Result::is_ok), "{promised:?}");
        let host1 = lab.ns("host1");
        host1.ip("-4 route replace default via 10.0.1.1 table 1084");
        host1.ip("-6 route add default via 2600:1f18:1000:1::1 metric 1 table 1084");
        for (now, promised) in seen().iter().zip(&promised) {
            assert_ne!(now, promised, "the lab cannot show the fault");
        }
        for _ in 0..2 {
            let report = machine.run(&["reconcile"]).expect_code(1);
            assert_eq!(seen(), promised, "{}", report.stdout);
        }
        let text = machine.run(&["explain", &PARTNER6.to_string()]).stdout;
        assert!(text.contains("the kernel agrees"), "{text}");
        host1.ip("-4 route del default via 10.0.1.1 table 1084");
        host1.ip("-6 route del default metric 1 table 1084");
        assert_eq!(seen(), promised, "the halves remain until a pass");
        machine.changed();
        assert_eq!(seen(), promised);
        let routes = host1.run(&["ip", "route", "show", "table", "1084"]);
        assert!(!routes.contains("/1 "), "{routes}");
        machine.in_sync();
    });
}
