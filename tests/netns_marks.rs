//! Mark bits shared with other programs of the host: real packets, and the words of `check`.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::net::IpAddr;

use lab::*;
use packets::*;

const EGRESS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// A container of `host1` behind a published port, with the rules that Podman's netavark writes:
/// packets with the bit 0x2000 are masqueraded.
fn published_port(lab: &Lab) -> Server {
    let host1 = lab.ns("host1");
    shell::sh("ip netns add box");
    let container = Ns::open("box");
    host1.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ]);
    container.sysctl(&[("net/ipv6/conf/default/accept_dad", "0")]);
    host1.run(&[
        "ip", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", "box",
    ]);
    host1.ip_batch(
        "addr add 172.20.0.1/24 dev c0\naddr add fd20::1/64 dev c0 nodad\nlink set c0 up\n",
    );
    container.ip_batch(
        "addr add 172.20.0.2/24 dev eth0\naddr add fd20::2/64 dev eth0 nodad\nlink set eth0 up\nlink set lo up\n\
         route add default via 172.20.0.1\nroute add default via fd20::1\n",
    );
    host1.nft(&format!(
        "table inet netavark {{
           chain pre {{
             type nat hook prerouting priority dstnat;
             fib daddr type local tcp dport {PORT} dnat ip to 172.20.0.2
             fib daddr type local tcp dport {PORT} dnat ip6 to fd20::2
           }}
           chain post {{
             type nat hook postrouting priority srcnat;
             meta mark & 0x2000 == 0x2000 masquerade
           }}
         }}"
    ));
    Server::start(&container, PORT, &[])
}

fn seen_by_the_container(lab: &Lab) -> [Result<IpAddr, std::io::ErrorKind>; 2] {
    [HOST1_PUBLIC, HOST1_6].map(|public| lab.ns("outside").who(public))
}

fn published(firewall: Firewall) {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    let _server = published_port(&lab);
    let right = [Ok(OPERATOR), Ok(OPERATOR6)];
    // The kernel completes IPv6 addresses of new links in a queue of all namespaces.
    eventually("the container answers without Trailblazer", || {
        seen_by_the_container(&lab) == right
    });
    let mut machine = Machine::new(&lab, "host1", firewall, EGRESS);
    machine.changed();
    assert_eq!(seen_by_the_container(&lab), right);
    let check = machine.run(&["check"]).stdout;
    assert!(
        check.contains("no foreign rule reads or writes the bits"),
        "{check}"
    );
    // The same with a bit that netavark reads: the container sees the host itself.
    machine.configure(&format!("{EGRESS}[kernel]\nmarks.path = \"0x6000\"\n"));
    machine.changed();
    let wrong = ["172.20.0.1", "fd20::1"].map(|own| Ok(own.parse().unwrap()));
    assert_eq!(seen_by_the_container(&lab), wrong);
    let check = machine.run(&["check"]).stdout;
    assert!(
        check.contains(
            "table inet netavark, chain post compares the packet mark 0x2000/0x2000, which has the \
             bits 0x2000 of [kernel] marks.path"
        ),
        "{check}"
    );
}

#[test]
fn containers_behind_published_ports_see_their_clients_nftables() {
    isolated(|| published(Firewall::Nftables));
}

#[test]
fn containers_behind_published_ports_see_their_clients_iptables() {
    isolated(|| published(Firewall::Iptables));
}

#[test]
fn check_names_each_foreign_rule_with_bits_of_ours() {
    isolated(|| {
        let lab = Lab::new();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, EGRESS);
        let host1 = machine.ns();
        host1.ip("rule add pref 20000 fwmark 0x10/0xf0 lookup 100");
        host1.ip("-6 rule add pref 20001 fwmark 0x3 lookup 100");
        host1.ip("rule add pref 20002 fwmark 0x40/0x40 lookup 100");
        host1.nft(
            "table ip theirs {
               chain pre {
                 type filter hook prerouting priority 0;
                 tcp dport 9 meta mark set mark | 0x10
                 tcp dport 9 meta mark set 0x7
                 tcp dport 9 ct mark set mark
                 ct mark & 0x20 == 0x20 accept
                 meta mark set mark and 0xffff00ff
               }
             }",
        );
        for words in [
            "iptables-nft -w -t mangle -A OUTPUT -m mark --mark 0x18/0x18 -j ACCEPT",
            "ip6tables-nft -w -t mangle -A OUTPUT -j CONNMARK --restore-mark",
            "iptables-legacy -w -t mangle -A INPUT -m connmark --mark 0x20/0x20 -j MARK --set-xmark 0x40/0x40",
            "ip6tables-legacy -w -t mangle -A INPUT -j CONNMARK --set-xmark 0x10/0x10",
        ] {
            host1.run(&words.split(' ').collect::<Vec<_>>());
        }
        let check = machine.run(&["check"]).stdout;
        for line in [
            "ipv4 policy rule 20000 compares the packet mark 0x10/0xf0",
            "ipv6 policy rule 20001 compares the packet mark 0x3/0xffffffff",
            "table ip theirs, chain pre writes the packet mark 0x10/0x10",
            "table ip theirs, chain pre writes the packet mark 0x7/0xffffffff",
            "table ip theirs, chain pre writes the flow mark 0xffffffff/0xffffffff",
            "table ip theirs, chain pre compares the flow mark 0x20/0x20",
            "table ip mangle, chain OUTPUT compares the packet mark 0x18/0x18",
            "table ip6 mangle, chain OUTPUT writes the packet mark 0xffffffff/0xffffffff",
            "iptables-legacy table mangle, chain INPUT compares the flow mark 0x20/0x20",
            "ip6tables-legacy table mangle, chain INPUT writes the flow mark 0x10/0x10",
        ] {
            assert!(check.contains(line), "{check}\nlacks {line}");
        }
        for foreign in ["20002", "0x40", "0xff00"] {
            let named = check
                .lines()
                .any(|line| line.contains("marks  ") && line.contains(foreign));
            assert!(!named, "{check}");
        }
    });
}
