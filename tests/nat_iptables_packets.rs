//! The iptables backend with real packets: a client, a router with the rules (the calling
//! namespaces), and a server that reports the source address to each client. Both variants, both
//! families.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::isolated;
use lab::shell::sh;
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use trailblazer::firewall::{Chain, FwRule, Hook, Match, Ruleset, Statement};
use trailblazer::kernel::firewall::FirewallBackend;
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::types::{Family, Mark};

const VARIANTS: [(&str, &str); 2] = [
    ("iptables-nft", "ip6tables-nft"),
    ("iptables-legacy", "ip6tables-legacy"),
];

const PORT: u16 = 7;

/// The client's timeout for a connection, and again for an answer: a SYN lost during the look-up of
/// a neighbour is repeated after one second, and again after two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients: 10.1.0.2 to 10.1.0.33 and 2001:db8:1::2 to ::21.
const CLIENTS: u8 = 32;

/// Servers: 192.0.2.1 to .4 and 2001:db8:2::1 to ::4. The router is .20 in that network, with .11
/// to .13 as further addresses.
fn server(family: Family, n: u8) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(192, 0, 2, n).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n.into()).into(),
    }
}

fn client(family: Family, n: u8) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 1, 0, n + 2).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n) + 2).into(),
    }
}

fn build() {
    sh("ip netns add client; ip netns add server; \
        ip link add c0 type veth peer name eth0 netns client; \
        ip link add s0 type veth peer name eth0 netns server; \
        ip addr add 10.1.0.1/24 dev c0; ip addr add 2001:db8:1::1/64 dev c0 nodad; \
        ip addr add 192.0.2.20/24 dev s0; ip addr add 2001:db8:2::14/64 dev s0 nodad; \
        for n in 11 12 13; do ip addr add 192.0.2.$n/32 dev s0; done; \
        for n in b c d; do ip addr add 2001:db8:2::$n/128 dev s0 nodad preferred_lft 0; done; \
        ip link set c0 up; ip link set s0 up; \
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let mut inside = String::new();
    for n in 0..CLIENTS {
        inside.push_str(&format!(
            "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad; ",
            client(Family::Ipv4, n),
            client(Family::Ipv6, n)
        ));
    }
    sh(&format!(
        "ip netns exec client sh -ec 'ip link set eth0 up; {inside} \
         ip route add default via 10.1.0.1; ip route add default via 2001:db8:1::1'"
    ));
    // Without routes to the clients a server's replies would be lost, and untranslated sources
    // invisible.
    sh(
        "ip netns exec server sh -ec 'ip link set eth0 up; ip link set lo up; \
        for n in 1 2 3 4; do ip addr add 192.0.2.$n/24 dev eth0; \
        ip addr add 2001:db8:2::$n/64 dev eth0 nodad; done; \
        ip route add 10.1.0.0/24 via 192.0.2.20; ip route add 2001:db8:1::/64 via 2001:db8:2::14'",
    );
    inside_of("server", || {
        for address in ["0.0.0.0:7", "[::]:7"] {
            let listener = listen(address.parse().unwrap());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    thread::spawn(move || {
                        let peer = stream.peer_addr().unwrap().ip();
                        let mut byte = [0];
                        // Answers one line for each byte, until the client closes.
                        while stream.read_exact(&mut byte).is_ok() {
                            let _ = stream.write_all(format!("{peer}\n").as_bytes());
                        }
                    });
                }
            });
        }
    });
    // A fresh IPv6 link answers only after duplicate address detection (one to two seconds).
    let begun = Instant::now();
    for family in Family::ALL {
        while seen(client(family, 0), server(family, 1)).is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{family}: no way to the server"
            );
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket: OwnedFd = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    }
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 128).unwrap();
    socket.into()
}

/// Runs `work` in a thread inside the namespace `name`; threads started by `work` stay inside.
fn inside_of<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    let thread = thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Connects from a client's own address; returns the source seen by the server, `None` without an
/// answer.
fn seen(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    inside_of("client", move || {
        let mut stream = connect(from, to)?;
        ask(&mut stream)
    })
}

fn connect(from: IpAddr, to: IpAddr) -> Option<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from, 0)).unwrap();
    // Without an answer connect ends when the send timeout does: after two lost packets.
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(PATIENCE),
    )
    .unwrap();
    rustix::net::connect(&socket, &SocketAddr::new(to, PORT)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

fn ask(stream: &mut TcpStream) -> Option<IpAddr> {
    stream.write_all(b"?").ok()?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).ok().map(|()| byte[0])? != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).ok()?.parse().ok()
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

fn host(address: IpAddr) -> IpNet {
    address.into()
}

fn for_all(mut test: impl FnMut(&mut IptablesBackend, &'static str, Family)) {
    build();
    for (ipv4, ipv6) in VARIANTS {
        let mut backend = IptablesBackend::with_tools(ipv4, ipv6, 1);
        for (family, tool) in [(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)] {
            let bare = seen(client(family, 0), server(family, 1));
            assert_eq!(bare, Some(client(family, 0)), "before: untranslated");
            test(&mut backend, tool, family);
            backend.remove().unwrap();
        }
    }
}

#[test]
fn snat_masquerade_and_accept_act_on_packets() {
    isolated(|| {
        for_all(|backend, tool, family| {
            let out = Match::OutputInterface("s0".into());
            let ruleset = Ruleset {
                chains: vec![chain(
                    Hook::PostroutingNat,
                    vec![
                        rule(
                            &[
                                out.clone(),
                                Match::DestinationAnyOf(vec![host(server(family, 1))]),
                            ],
                            Statement::Accept,
                        ),
                        rule(
                            &[
                                out.clone(),
                                Match::DestinationAnyOf(vec![
                                    host(server(family, 2)),
                                    host(server(family, 4)),
                                ]),
                                Match::NotSource(host(client(family, 5))),
                                Match::NotSource(host(client(family, 6))),
                            ],
                            Statement::Masquerade,
                        ),
                        rule(
                            &[
                                Match::OutputInterface("s0".into()),
                                Match::NotInputInterface("s0".into()),
                            ],
                            Statement::Snat(server(family, 11)),
                        ),
                    ],
                )],
            };
            // A foreign translation behind ours: our "accept" ends the hook's other translation,
            // since the first one wins.
            sh(&format!(
                "{tool} -t nat -A POSTROUTING -o s0 -j SNAT --to-source {}",
                server(family, 13)
            ));
            backend.replace(&ruleset).unwrap();
            let main = server(family, 20);
            let peer = |from, to| seen(client(family, from), server(family, to));
            assert_eq!(peer(0, 1), Some(client(family, 0)), "accept: left alone");
            assert_eq!(peer(0, 2), Some(main), "masquerade");
            assert_eq!(peer(0, 4), Some(main), "masquerade, second prefix");
            assert_eq!(peer(5, 2), Some(server(family, 11)), "excluded source");
            assert_eq!(peer(6, 4), Some(server(family, 11)), "excluded source");
            assert_eq!(peer(0, 3), Some(server(family, 11)), "snat");
            // An open connection outlives the exchange of all rules.
            let (from, to) = (client(family, 0), server(family, 3));
            let mut open = inside_of("client", move || connect(from, to)).unwrap();
            assert_eq!(ask(&mut open), Some(server(family, 11)));
            let mut changed = ruleset.clone();
            changed.chains[0].rules.remove(0);
            backend.replace(&changed).unwrap();
            assert_eq!(ask(&mut open), Some(server(family, 11)));
            assert_eq!(peer(0, 1), Some(server(family, 11)), "now translated");
            sh(&format!("{tool} -t nat -F POSTROUTING"));
        });
    });
}

/// The ports that the server sees of some connections, each with the client's own.
fn ports(from: IpAddr, to: IpAddr) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    for _ in 0..4 {
        let mut stream = inside_of("client", move || connect(from, to)).unwrap();
        assert!(ask(&mut stream).is_some());
        let own = stream.local_addr().unwrap().port();
        let table = sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
        let begin = format!("src={from} dst={to} sport={own} ");
        let line = table.lines().find(|line| line.contains(&begin)).unwrap();
        let (_, seen) = line.rsplit_once("dport=").unwrap();
        let digits: String = seen.chars().take_while(char::is_ascii_digit).collect();
        found.push((own, digits.parse().unwrap()));
    }
    found
}

#[test]
fn translation_to_random_ports_keeps_no_port() {
    isolated(|| {
        for_all(|backend, tool, family| {
            let (from, to) = (client(family, 0), server(family, 1));
            let mut translate = |verdict| {
                let rules = vec![rule(&[Match::OutputInterface("s0".into())], verdict)];
                let chains = vec![chain(Hook::PostroutingNat, rules)];
                backend.replace(&Ruleset { chains }).unwrap();
                ports(from, to)
            };
            let kept = |(own, seen): &(u16, u16)| own == seen;
            let found = translate(Statement::Snat(server(family, 11)));
            assert!(found.iter().all(kept), "{tool}: {found:?}");
            let found = translate(Statement::SnatRandomly(server(family, 11)));
            assert!(!found.iter().all(kept), "{tool}: {found:?}");
        });
    });
}

#[test]
fn source_buckets_are_complete_and_stable() {
    isolated(|| {
        let mut by_variant: BTreeMap<Family, Vec<Vec<Option<IpAddr>>>> = BTreeMap::new();
        for_all(|backend, _, family| {
            let share = |bucket: u32| {
                rule(
                    &[
                        Match::OutputInterface("s0".into()),
                        Match::SourceSlots {
                            slots: vec![bucket],
                            of: 3,
                            seed: 0x7472_6169,
                        },
                    ],
                    Statement::Snat(server(family, 11 + u8::try_from(bucket).unwrap())),
                )
            };
            let ruleset = Ruleset {
                chains: vec![chain(Hook::PostroutingNat, (0..3).map(share).collect())],
            };
            let all = |to: u8| -> Vec<Option<IpAddr>> {
                (0..CLIENTS)
                    .map(|n| seen(client(family, n), server(family, to)))
                    .collect()
            };
            backend.replace(&ruleset).unwrap();
            let first = all(1);
            let used: BTreeSet<IpAddr> = first.iter().map(|seen| seen.unwrap()).collect();
            let wanted: BTreeSet<IpAddr> = (11..14).map(|n| server(family, n)).collect();
            assert_eq!(used, wanted, "each address is used, and nothing else");
            assert_eq!(all(2), first, "the same whatever the destination");
            backend.remove().unwrap();
            backend.replace(&ruleset).unwrap();
            assert_eq!(all(1), first, "the same after a reload");
            by_variant.entry(family).or_default().push(first);
        });
        for shares in by_variant.values() {
            assert_eq!(shares[0], shares[1], "the same with both variants");
        }
    });
}

#[test]
fn marks_reach_translation_from_prerouting() {
    isolated(|| {
        for_all(|backend, tool, family| {
            let path = Mark {
                value: 0x1000,
                mask: 0x3000,
            };
            let bypass = vec![host(server(family, 1)), host(server(family, 2))];
            let ruleset = Ruleset {
                chains: vec![
                    chain(
                        Hook::Prerouting,
                        vec![
                            rule(
                                &[
                                    Match::NotInputInterface("s0".into()),
                                    Match::DestinationNoneOf(bypass),
                                ],
                                Statement::Accept,
                            ),
                            rule(
                                &[
                                    Match::NotInputInterface("s0".into()),
                                    Match::NewFlow,
                                    Match::Source(host(client(family, 0))),
                                ],
                                Statement::SetFlowMark(path),
                            ),
                            rule(
                                &[Match::FlowMark(path)],
                                Statement::RestoreMark { mask: 0x3000 },
                            ),
                        ],
                    ),
                    chain(
                        Hook::PostroutingNat,
                        vec![
                            rule(
                                &[Match::FlowMark(path)],
                                Statement::Snat(server(family, 12)),
                            ),
                            rule(
                                &[Match::OutputInterface("s0".into())],
                                Statement::Snat(server(family, 13)),
                            ),
                        ],
                    ),
                ],
            };
            // A foreign mark in other bits of flow and packet must survive; the counting rule
            // behind ours sees both marks together.
            sh(&format!(
                "{tool} -t mangle -A PREROUTING -j MARK --set-xmark 0x80/0x80; \
                 {tool} -t raw -A PREROUTING -j MARK --set-xmark 0x4/0x4; \
                 {tool} -t mangle -A POSTROUTING -o s0 -m mark --mark 0x1084/0xffffffff"
            ));
            backend.replace(&ruleset).unwrap();
            let peer = |from, to| seen(client(family, from), server(family, to));
            assert_eq!(peer(0, 1), Some(server(family, 12)), "marked");
            assert_eq!(
                peer(0, 2),
                Some(server(family, 12)),
                "marked, second prefix"
            );
            assert_eq!(
                peer(0, 3),
                Some(server(family, 13)),
                "accept skipped the mark"
            );
            assert_eq!(
                peer(1, 1),
                Some(server(family, 13)),
                "another source isn't marked"
            );
            let counted = sh(&format!("{tool} -t mangle -S POSTROUTING -v"));
            assert!(
                counted.contains("0x1084") && !counted.contains("-c 0 0 "),
                "the packet carries our mark and theirs: {counted}"
            );
            sh(&format!(
                "{tool} -t mangle -F PREROUTING; {tool} -t mangle -F POSTROUTING; {tool} -t raw -F"
            ));
        });
    });
}

#[test]
fn guard_chain_drops_untracked_packets_and_spares_foreign_filters() {
    isolated(|| {
        for_all(|backend, tool, family| {
            let ruleset = Ruleset {
                chains: vec![chain(
                    Hook::PostroutingGuard,
                    vec![
                        rule(
                            &[Match::DestinationAnyOf(vec![host(server(family, 1))])],
                            Statement::Accept,
                        ),
                        // Neighbour discovery of the router is untracked too.
                        rule(
                            &[
                                Match::SourceNotLocal,
                                Match::OutputInterface("s0".into()),
                                Match::NotTracked,
                            ],
                            Statement::Drop,
                        ),
                    ],
                )],
            };
            let peer = |from, to| seen(client(family, from), server(family, to));
            // Not tracked, so not translated: the private source would leave.
            sh(&format!(
                "{tool} -t raw -A PREROUTING -s {} -j CT --notrack",
                client(family, 3)
            ));
            assert_eq!(peer(3, 2), Some(client(family, 3)));
            backend.replace(&ruleset).unwrap();
            assert_eq!(peer(3, 2), None, "dropped");
            sh(&format!("{tool} -I FORWARD -j ACCEPT"));
            assert_eq!(peer(3, 2), None, "dropped behind a foreign ACCEPT");
            sh(&format!("{tool} -D FORWARD -j ACCEPT"));
            assert_eq!(peer(3, 1), Some(client(family, 3)), "accepted before");
            assert_eq!(peer(0, 2), Some(client(family, 0)), "tracked flows pass");
            // Our accept isn't the administrator's.
            sh(&format!(
                "{tool} -A FORWARD -s {} -j DROP",
                client(family, 4)
            ));
            assert_eq!(peer(4, 1), None, "the administrator's filter still drops");
            sh(&format!("{tool} -t raw -F; {tool} -F FORWARD"));
        });
    });
}

/// Programs that hand each table to the real one by itself, and run `probe` after each.
fn table_by_table(tool: &str, probe: &str) -> (tempfile::TempDir, &'static str) {
    let directory = tempfile::tempdir().unwrap();
    for part in ["", "-save", "-restore"] {
        let real = format!("/usr/sbin/{tool}{part}");
        let script = if part == "-restore" {
            format!(
                "#!/bin/bash\ncase \"$*\" in *--version*) exec {real} \"$@\";; esac\npart=\n\
                 while IFS= read -r line; do\n  part+=\"$line\"$'\\n'\n  [[ $line == '*'* ]] && table=${{line#?}}\n  [ \"$line\" = COMMIT ] || continue\n  \
                 {real} \"$@\" <<<\"$part\" || exit 1\n  part=\n  {probe}\ndone\n"
            )
        } else {
            format!("#!/bin/sh\nexec {real} \"$@\"\n")
        };
        let file = directory.path().join(format!("{tool}{part}"));
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = directory.path().join(tool).to_str().unwrap().to_owned();
    (directory, Box::leak(path.into_boxed_str()))
}

/// Earlier versions have the guard in filter FORWARD, where a foreign ACCEPT hides it. The upgrade
/// changes two tables, and a packet after each change finds one of the two guards.
#[test]
fn upgrade_moves_the_guard_without_a_gap() {
    isolated(|| {
        let ruleset = Ruleset {
            chains: vec![chain(
                Hook::PostroutingGuard,
                vec![rule(
                    &[
                        Match::SourceNotLocal,
                        Match::OutputInterface("s0".into()),
                        Match::NotTracked,
                    ],
                    Statement::Drop,
                )],
            )],
        };
        let arrived = || -> u64 {
            let text = sh("ip netns exec server nft -j reset counter inet watch got");
            let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
            let mut objects = listed["nftables"].as_array().unwrap().iter();
            objects
                .find_map(|object| object["counter"]["packets"].as_u64())
                .unwrap()
        };
        for_all(|_, tool, family| {
            let probe = format!(
                "ip netns exec client bash -c 'echo > /dev/udp/{}/9'",
                server(family, 2)
            );
            let send = || sh(&probe);
            sh(&format!(
                "ip netns exec server nft 'table inet watch {{ counter got {{ }}; chain c {{ \
                 type filter hook prerouting priority -300; udp dport 9 counter name got; }}; }}'; \
                 {tool} -t raw -A PREROUTING -p udp --dport 9 -j CT --notrack"
            ));
            send();
            assert!(arrived() > 0, "without a guard the packet leaves");
            sh(&format!(
                "{tool}-restore --noflush <<'END'\n*filter\n:TRAILBLAZER-GUARD - [0:0]\n\
                 -A TRAILBLAZER-GUARD -m comment --comment \"trailblazer: managed, do not edit\"\n\
                 -A TRAILBLAZER-GUARD -o s0 -m conntrack --ctstate INVALID,UNTRACKED -j DROP\n\
                 -A FORWARD -m comment --comment trailblazer -j TRAILBLAZER-GUARD\nCOMMIT\nEND\n"
            ));
            send();
            assert_eq!(arrived(), 0, "the earlier guard drops");
            sh(&format!("{tool} -I FORWARD -j ACCEPT"));
            send();
            assert!(arrived() > 0, "a foreign ACCEPT hides the earlier guard");
            sh(&format!("{tool} -D FORWARD -j ACCEPT"));
            arrived();

            let log = "/run/tables";
            let (_directory, stepwise) =
                table_by_table(tool, &format!("{probe}; echo $table >> {log}"));
            let ip6 = VARIANTS.iter().find(|(ipv4, _)| *ipv4 == tool);
            let ip6 = ip6.map_or("", |(_, ipv6)| *ipv6);
            let mut upgraded = match family {
                Family::Ipv4 => IptablesBackend::with_tools(stepwise, ip6, 1),
                Family::Ipv6 if tool.ends_with("legacy") => {
                    IptablesBackend::with_tools("iptables-legacy", stepwise, 1)
                }
                Family::Ipv6 => IptablesBackend::with_tools("iptables-nft", stepwise, 1),
            };
            upgraded.replace(&ruleset).unwrap();
            let tables = std::fs::read_to_string(log).unwrap();
            assert_eq!(tables, "mangle\nfilter\n", "a packet after each table");
            assert_eq!(arrived(), 0, "no gap");
            let filter = sh(&format!("{tool} -t filter -S"));
            assert!(!filter.contains("TRAILBLAZER"), "{filter}");
            sh(&format!("{tool} -I FORWARD -j ACCEPT"));
            send();
            assert_eq!(arrived(), 0, "no foreign ACCEPT hides the guard");
            sh(&format!(
                "{tool} -F FORWARD; {tool} -t raw -F; ip netns exec server nft delete table inet watch"
            ));
            upgraded.remove().unwrap();
            std::fs::remove_file(log).unwrap();
        });
    });
}
