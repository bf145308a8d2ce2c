//! Nobody is locked out: clients of every network come in, and the services of the network answer, in
//! each state of the product. A wall of drops shows that each check can fail.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::machines::{Backend, Phase, Role, lab_of};
use crate::packets::*;
use crate::scene::{DELETE_RULES, Scene};
use lab::*;

/// Amazon's time service.
const NTP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 123));
const NTP_PORT: u16 = 123;
/// Networks of the peer beside 10.0.0.0/8: shared space, and the rest of RFC 1918 (VPNs).
const FAR: [IpAddr; 3] = [
    IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 10)),
    IpAddr::V4(std::net::Ipv4Addr::new(172, 31, 5, 5)),
    IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 9, 9)),
];
const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 20, 0, 2));
/// Bytes that fill packets of the usual size.
const BULK: usize = 60_000;
/// A router's link with less than the usual size: the sender learns of it by an ICMP error.
const NARROW: u32 = 1300;
/// A busy machine loses packets too.
const TRIES: usize = 4;

type Check = (&'static str, fn(&Lab) -> Result<(), String>);

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found:?} instead of {expected:?}"))
    }
}

fn all<T>(
    of: impl IntoIterator<Item = T>,
    check: impl Fn(T) -> Result<(), String>,
) -> Result<(), String> {
    of.into_iter().try_for_each(check)
}

fn answers(lab: &Lab, from: &str, to: IpAddr, seen: IpAddr) -> Result<(), String> {
    same(lab.who(from, to), Ok(seen)).map_err(|error| format!("{from} to {to}: {error}"))
}

fn resolves(lab: &Lab, server: IpAddr, port: u16) -> Result<(), String> {
    let asked = lab.ns("host1").who_udp(SocketAddr::new(server, port));
    same(asked, Ok(own_of_host1(server))).map_err(|error| format!("{server}: {error}"))
}

/// A datagram to a port without a server: the sender learns it by an ICMP error.
fn refused(lab: &Lab, from: &str, to: IpAddr) -> Result<(), String> {
    let asked = lab.ns(from).who_udp(SocketAddr::new(to, 9));
    same(asked, Err(ErrorKind::ConnectionRefused))
        .map_err(|error| format!("{from} to {to}: {error}"))
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn on_link(socket: &UdpSocket, link: &str) -> io::Result<()> {
    SockRef::from(socket).bind_device(Some(link.as_bytes()))
}

/// The client's packets to the server, and the server's answer to the client's address.
fn dhcp(lab: &Lab) -> Result<(), String> {
    let bind = |port: u16| {
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        on_link(&socket, PRIVATE_LINK)?;
        Ok(socket)
    };
    let server = lab.ns("vpc").in_thread(|| bind(67)).map_err(text)?;
    let client = lab.ns("host1").in_thread(|| bind(68)).map_err(text)?;
    for to in [ROUTER, IpAddr::from([255; 4])] {
        client.send_to(b"dhcp", (to, 67)).map_err(text)?;
        let mut buffer = [0; 8];
        let (length, from) = server.recv_from(&mut buffer).map_err(text)?;
        same(length, 4)?;
        server.send_to(b"lease", from).map_err(text)?;
        same(client.recv(&mut buffer).map_err(text)?, 5)?;
    }
    Ok(())
}

/// The client's packet to all servers of the link, and the answer to its link-local address.
fn dhcpv6(lab: &Lab) -> Result<(), String> {
    let group: Ipv6Addr = "ff02::1:2".parse().map_err(|error| format!("{error}"))?;
    let bind = |port: u16| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        on_link(&socket, PRIVATE_LINK)?;
        Ok(socket)
    };
    let server = lab.ns("vpc").in_thread(|| bind(547)).map_err(text)?;
    let link = lab.ns("vpc").ip_json(&format!("link show {PRIVATE_LINK}"));
    let index = link[0]["ifindex"].as_u64().ok_or("no index")?;
    let index = u32::try_from(index).map_err(|error| error.to_string())?;
    server.join_multicast_v6(&group, index).map_err(text)?;
    let client = lab.ns("host1").in_thread(|| bind(546)).map_err(text)?;
    client.send_to(b"dhcp", (group, 547)).map_err(text)?;
    let mut buffer = [0; 8];
    let (_, from) = server.recv_from(&mut buffer).map_err(text)?;
    server.send_to(b"lease", from).map_err(text)?;
    same(client.recv(&mut buffer).map_err(text)?, 5)
}

/// A router solicitation arrives at the routers of the link (RFC 4861).
fn solicitation(lab: &Lab) -> Result<(), String> {
    const SOLICITATION: u8 = 133;
    let open = || {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(PRIVATE_LINK.as_bytes()))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.set_multicast_hops_v6(255)?;
        Ok(socket)
    };
    let mut router = lab.ns("vpc").in_thread(open).map_err(text)?;
    let host = lab.ns("host1").in_thread(open).map_err(text)?;
    let routers: Ipv6Addr = "ff02::2".parse().map_err(|error| format!("{error}"))?;
    let to: SockAddr = SocketAddr::from((routers, 0)).into();
    host.send_to(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &to)
        .map_err(text)?;
    let started = Instant::now();
    let mut buffer = [0; 128];
    while started.elapsed() < PATIENCE {
        if io::Read::read(&mut router, &mut buffer).is_ok() && buffer[0] == SOLICITATION {
            return Ok(());
        }
    }
    Err("no solicitation".to_owned())
}

fn whole(lab: &Lab, from: &str, to: IpAddr, up: usize, down: usize) -> Result<(), String> {
    let moved = lab.ns(from).transfer(to, up, down);
    same(moved, Ok(())).map_err(|error| format!("{from} to {to}: {error}"))
}

fn metadata(lab: &Lab, endpoint: IpAddr) -> Result<(), String> {
    let to = SocketAddr::new(endpoint, 80);
    let connected = lab
        .ns("host1")
        .in_thread(|| std::net::TcpStream::connect_timeout(&to, PATIENCE));
    connected.map(drop).map_err(text)
}

const CHECKS: &[Check] = &[
    ("TCP from outside to the public address, IPv4", |lab| {
        answers(lab, "outside", HOST1_PUBLIC, OPERATOR)
    }),
    ("TCP from outside, IPv6", |lab| {
        answers(lab, "outside", HOST1_6, OPERATOR6)
    }),
    ("TCP from the same subnet", |lab| {
        answers(lab, "host2", HOST1, HOST2)?;
        answers(lab, "host2", HOST1_6, HOST2_6)
    }),
    ("TCP from a peered network", |lab| {
        answers(lab, "peer", HOST1, PEER)?;
        answers(lab, "peer", HOST1_6, PEER6)
    }),
    ("UDP from outside", |lab| {
        all(
            [(HOST1_PUBLIC, OPERATOR), (HOST1_6, OPERATOR6)],
            |(to, seen)| {
                let asked = lab.ns("outside").who_udp(SocketAddr::new(to, PORT));
                same(asked, Ok(seen)).map_err(|error| format!("{to}: {error}"))
            },
        )
    }),
    ("TCP to the same subnet", |lab| {
        answers(lab, "host1", HOST2, HOST1)?;
        answers(lab, "host1", HOST2_6, HOST1_6)
    }),
    ("TCP to private networks: 10/8, fc00::/7", |lab| {
        answers(lab, "host1", PEER, HOST1)?;
        answers(lab, "host1", PEER6, HOST1_6)
    }),
    ("TCP to 100.64/10, 172.16/12, 192.168/16", |lab| {
        all(FAR, |to| answers(lab, "host1", to, HOST1))
    }),
    ("DNS at 169.254.169.253, 10.0.0.2, fd00:ec2::253", |lab| {
        all([RESOLVER, RESOLVER_IN_VPC, RESOLVER6], |to| {
            resolves(lab, to, DNS_PORT)
        })
    }),
    ("metadata at 169.254.169.254, fd00:ec2::254", |lab| {
        all([IMDS, IMDS6], |to| metadata(lab, to))
    }),
    ("NTP at 169.254.169.123", |lab| resolves(lab, NTP, NTP_PORT)),
    ("DHCP, unicast and broadcast", dhcp),
    ("DHCPv6", dhcpv6),
    ("router solicitation", solicitation),
    ("ICMP errors of the host", |lab| {
        refused(lab, "outside", HOST1_6)?;
        all(["peer", "host2"], |from| {
            refused(lab, from, HOST1)?;
            refused(lab, from, HOST1_6)
        })
    }),
    ("ICMP errors to the host", |lab| {
        all([PEER, PEER6, HOST2, HOST2_6], |to| {
            refused(lab, "host1", to)
        })
    }),
    ("path MTU: too big, to the host", |lab| {
        all([HOST1, HOST1_6], |to| whole(lab, "peer", to, 0, BULK))?;
        whole(lab, "outside", HOST1_6, 0, BULK)
    }),
    (
        "path MTU: too big, from the host to a peer of its guest",
        |lab| whole(lab, "peer", GUEST, BULK, 0),
    ),
];

const LOOPBACK: Check = ("loopback", |lab| {
    let host1 = lab.ns("host1");
    all(["127.0.0.1", "::1"], |to| {
        let to: IpAddr = to.parse().map_err(|error| format!("{error}"))?;
        same(host1.who(to), Ok(to))
    })?;
    all([HOST1, HOST1_6], |to| same(host1.who(to), Ok(to)))
});

/// Runs all checks at once; the failed ones with their reason. The neighbours are unknown at first.
fn failed(lab: &Lab, tries: usize) -> Vec<String> {
    lab.ns("host1").ip("neigh flush all");
    let run = |(name, check): &Check| {
        let mut last = String::new();
        for _ in 0..tries {
            match check(lab) {
                Ok(()) => return None,
                Err(error) => last = format!("{name}: {error}"),
            }
        }
        Some(last)
    };
    std::thread::scope(|scope| {
        let checks = CHECKS.iter().chain([&LOOPBACK]);
        let running: Vec<_> = checks
            .map(|check| scope.spawn(move || run(check)))
            .collect();
        let ended = running.into_iter().map(|it| it.join().unwrap());
        ended.flatten().collect()
    })
}

/// More networks and services than the lab has. Returns the servers.
fn surroundings(lab: &Lab) -> [Server; 2] {
    let vpc = lab.ns("vpc");
    vpc.ip(&format!("addr add {NTP}/32 dev lo"));
    for far in FAR {
        lab.ns("peer").ip(&format!("addr add {far}/32 dev lo"));
        vpc.ip(&format!("route add {far} via {PEER}"));
    }
    vpc.ip_batch(&format!(
        "link set peer mtu {NARROW}\nlink set outside mtu {NARROW}\nroute add 172.20.0.0/24 via {HOST1}\n"
    ));
    lab.ns("host1").ip(&format!("link set c0 mtu {NARROW}"));
    let guest = Server::start(&Ns::open("guest"), PORT, &[]);
    [Server::start(vpc, NTP_PORT, &[NTP]), guest]
}

const WALL: &str = "
    table inet wall {
      chain out { type filter hook output priority 300; oifname priv drop; }
      chain through { type filter hook forward priority 300; oifname priv drop; }
    }";

const SILENT: &str = "
    table inet silent {
      chain c { type filter hook prerouting priority -500; iifname priv drop; }
    }";

type State = (&'static str, fn(&mut Scene));

/// Each state, with its name.
const STATES: &[State] = &[
    ("boot guard alone", |scene| {
        scene.enter(Phase::Boot);
        scene.pause();
        scene
            .lab
            .ns("host1")
            .ip(&format!("route replace {GUEST} dev c0"));
    }),
    ("no document", |scene| {
        scene.take_away();
        std::fs::remove_file(scene.document()).unwrap();
        let (done, report) = scene.pass();
        assert!(!done, "{report}");
        scene.machine.publish(FIRST);
    }),
    ("in force without an agent", |scene| scene.converge()),
    ("gateway dead", |scene| scene.lab.ns("nat1").nft(SILENT)),
    ("guard alone, rules flushed", |scene| {
        scene.lab.ns("nat1").nft("delete table inet silent");
        scene.shell(DELETE_RULES);
    }),
    ("agent", |scene| {
        let agent = scene.machine.agent();
        agent.wait_in_force();
        scene.agent = Some(agent);
    }),
    ("agent dead", |scene| {
        scene.agent.take().unwrap().kill();
    }),
    ("agent dead, rules flushed", |scene| {
        scene.shell(DELETE_RULES);
    }),
    ("protected table, agent dead, rules flushed", |scene| {
        scene.protect();
        let agent = scene.machine.agent();
        agent.wait_in_force();
        agent.kill();
        scene.shell(DELETE_RULES);
    }),
    ("conntrack flushed", |scene| {
        scene.converge();
        scene.forget_flows();
    }),
];

fn matrix(backend: Backend) {
    let lab = lab_of(Role::Host);
    let mut scene = Scene::new(&lab, Role::Host, backend);
    let _servers = surroundings(&lab);
    let mut faults = Vec::new();
    let mut state = |name: &str, failed: Vec<String>| {
        println!(
            "lockout | {backend:?} | {name} | {} of {} fail",
            failed.len(),
            CHECKS.len() + 1
        );
        faults.extend(failed.into_iter().map(|it| format!("{name}: {it}")));
    };
    state("without the product", failed(&lab, TRIES));
    for (name, enter) in STATES {
        enter(&mut scene);
        state(name, failed(&lab, TRIES));
    }
    // A drain with flows left.
    scene.converge();
    let flows = [PARTNER, PARTNER6].map(|to| lab.long_flow("host1", to));
    scene.machine.run(&["flush", "--drain"]).ok();
    let rules = scene.shell("ip rule; ip -6 rule");
    assert!(rules.contains("30014"), "flows are left: {rules}");
    state("drain with flows left", failed(&lab, TRIES));
    for flow in flows {
        flow.assert_alive();
    }
    scene.take_away();
    state("after flush", failed(&lab, TRIES));
    // Each check can fail.
    lab.ns("host1").nft(WALL);
    let walled = failed(&lab, 1);
    for (name, _) in CHECKS {
        if !walled.iter().any(|it| it.starts_with(name)) {
            faults.push(format!("a wall of drops does not show: {name}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nobody_is_locked_out_nftables() {
    isolated(|| matrix(Backend::Nftables));
}

#[test]
fn nobody_is_locked_out_iptables() {
    isolated(|| matrix(Backend::Iptables));
}

#[test]
fn nobody_is_locked_out_iptables_legacy() {
    isolated(|| matrix(Backend::Legacy));
}
