//! Probes of the lock-out matrix: each asks one service, or sends packets in one direction.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use lab::*;

/// Amazon's time service.
pub const NTP: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 123));
pub const NTP_PORT: u16 = 123;
/// Networks of the peer beside 10.0.0.0/8: shared space, and the rest of RFC 1918 (VPNs).
pub const FAR: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 64, 0, 10)),
    IpAddr::V4(Ipv4Addr::new(172, 31, 5, 5)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 9, 9)),
];
pub const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 20, 0, 2));
/// Bytes that fill packets of the usual size.
pub const BULK: usize = 60_000;
/// A router's link with less than the usual size: the sender learns of it by an ICMP error.
const NARROW: u32 = 1300;
/// A busy machine loses packets too.
pub const TRIES: usize = 4;

/// The check that no wall disturbs.
pub const LOOPBACK_NAME: &str = "loopback";

pub type Check = (&'static str, fn(&Lab) -> Result<(), String>);

/// A link of the machine, and the router's end.
pub struct Link<'a> {
    pub machine: &'a Ns,
    pub name: &'static str,
    pub router: &'a Ns,
    pub far: &'static str,
    /// The router's address on the link.
    pub gateway: IpAddr,
}

pub fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found:?} instead of {expected:?}"))
    }
}

pub fn all<T>(
    of: impl IntoIterator<Item = T>,
    check: impl Fn(T) -> Result<(), String>,
) -> Result<(), String> {
    of.into_iter().try_for_each(check)
}

/// A namespace of the lab, or the guest.
fn ns(lab: &Lab, name: &str) -> Ns {
    if name == "guest" {
        Ns::open(name)
    } else {
        lab.ns(name).clone()
    }
}

pub fn answers(lab: &Lab, from: &str, to: IpAddr, seen: IpAddr) -> Result<(), String> {
    same(ns(lab, from).who(to), Ok(seen)).map_err(|error| format!("{from} to {to}: {error}"))
}

/// A datagram to a port without a server: the sender learns it by an ICMP error.
pub fn refused(lab: &Lab, from: &str, to: IpAddr) -> Result<(), String> {
    let asked = ns(lab, from).who_udp(SocketAddr::new(to, 9));
    same(asked, Err(ErrorKind::ConnectionRefused))
        .map_err(|error| format!("{from} to {to}: {error}"))
}

fn text(error: io::Error) -> String {
    error.to_string()
}

/// A datagram socket of the link. The link comes before the port, so that sockets of two links don't
/// compete for the port.
fn on_link(link: &str, address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.bind_device(Some(link.as_bytes()))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The client's packets to the server, and the server's answer to the client's address.
pub fn dhcp(link: &Link) -> Result<(), String> {
    let bind = |port: u16, name: &str| {
        let socket = on_link(name, Ipv4Addr::UNSPECIFIED.into(), port)?;
        socket.set_broadcast(true)?;
        Ok(socket)
    };
    let server = link.router.in_thread(|| bind(67, link.far)).map_err(text)?;
    let client = link
        .machine
        .in_thread(|| bind(68, link.name))
        .map_err(text)?;
    for to in [link.gateway, IpAddr::from([255; 4])] {
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
pub fn dhcpv6(link: &Link) -> Result<(), String> {
    let group: Ipv6Addr = "ff02::1:2".parse().map_err(|error| format!("{error}"))?;
    let bind = |port: u16, name: &str| on_link(name, Ipv6Addr::UNSPECIFIED.into(), port);
    let server = link
        .router
        .in_thread(|| bind(547, link.far))
        .map_err(text)?;
    let shown = link.router.ip_json(&format!("link show {}", link.far));
    let index = shown[0]["ifindex"].as_u64().ok_or("no index")?;
    let index = u32::try_from(index).map_err(|error| error.to_string())?;
    server.join_multicast_v6(&group, index).map_err(text)?;
    let client = link
        .machine
        .in_thread(|| bind(546, link.name))
        .map_err(text)?;
    client.send_to(b"dhcp", (group, 547)).map_err(text)?;
    let mut buffer = [0; 8];
    let (_, from) = server.recv_from(&mut buffer).map_err(text)?;
    server.send_to(b"lease", from).map_err(text)?;
    same(client.recv(&mut buffer).map_err(text)?, 5)
}

/// A router solicitation arrives at the routers of the link (RFC 4861).
pub fn solicitation(link: &Link) -> Result<(), String> {
    const SOLICITATION: u8 = 133;
    let open = |name: &str| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.set_multicast_hops_v6(255)?;
        Ok(socket)
    };
    let mut router = link.router.in_thread(|| open(link.far)).map_err(text)?;
    let host = link.machine.in_thread(|| open(link.name)).map_err(text)?;
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

pub fn whole(lab: &Lab, from: &str, to: IpAddr, up: usize, down: usize) -> Result<(), String> {
    let moved = ns(lab, from).transfer(to, up, down);
    same(moved, Ok(())).map_err(|error| format!("{from} to {to}: {error}"))
}

pub fn metadata(ns: &Ns, endpoint: IpAddr) -> Result<(), String> {
    let to = SocketAddr::new(endpoint, 80);
    let connected = ns.in_thread(|| TcpStream::connect_timeout(&to, PATIENCE));
    connected.map(drop).map_err(text)
}

/// Forgets the sizes of packets that routers have named.
pub fn forget_paths(ns: &Ns) {
    ns.ip("route flush cache");
    ns.ip("-6 route flush cache");
}

/// Runs all checks at once; the failed ones with their reason. Neighbours and path MTUs are unknown at
/// first.
pub fn failed(lab: &Lab, machine: &str, checks: &[Check], tries: usize) -> Vec<String> {
    for name in [machine, "vpc", "host2"] {
        lab.ns(name).ip("neigh flush all");
    }
    let guest = Ns::open("guest");
    let senders = ["host1", "peer", "outside", machine].map(|name| lab.ns(name));
    senders.into_iter().chain([&guest]).for_each(forget_paths);
    let run = |(name, check): &Check| {
        let mut last = String::new();
        for _ in 0..tries {
            match check(lab) {
                Ok(()) => return None,
                Err(error) => last = format!("{name}: {error}"),
            }
            // A child process holds the sockets of its parent from fork to exec.
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(last)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = checks
            .iter()
            .map(|check| scope.spawn(move || run(check)))
            .collect();
        let ended = running.into_iter().map(|it| it.join().unwrap());
        ended.flatten().collect()
    })
}

/// More networks and services than the lab has; a guest of the machine behind a narrow link.
/// Returns the servers.
pub fn surroundings(lab: &Lab, machine: &str, addresses: [IpAddr; 2]) -> [Server; 2] {
    let [own, own6] = addresses;
    let vpc = lab.ns("vpc");
    vpc.ip(&format!("addr add {NTP}/32 dev lo"));
    for far in FAR {
        lab.ns("peer").ip(&format!("addr add {far}/32 dev lo"));
        vpc.ip(&format!("route add {far} via {PEER}"));
    }
    vpc.ip_batch(&format!(
        "link set peer mtu {NARROW}\nlink set outside mtu {NARROW}\nroute add 172.20.0.0/24 via {own}\nroute add fd20::/64 via {own6} dev priv\n"
    ));
    lab.ns(machine).ip(&format!("link set c0 mtu {NARROW}"));
    let guest = Server::start(&Ns::open("guest"), PORT, &[]);
    [Server::start(vpc, NTP_PORT, &[NTP]), guest]
}

/// Drops every packet of the machine.
const WALL: &str = r#"
    table inet wall {
      chain out { type filter hook output priority 300; oifname != "lo" drop; }
      chain through { type filter hook forward priority 300; drop; }
    }"#;

/// Drops ICMP errors in every direction.
const SILENCE: &str = "
    table inet wall {
      chain any {
        icmp type destination-unreachable drop
        icmpv6 type { destination-unreachable, packet-too-big } drop
      }
      chain in { type filter hook input priority 300; jump any; }
      chain out { type filter hook output priority 300; jump any; }
      chain through { type filter hook forward priority 300; jump any; }
    }";

/// Shows that each check can fail; the last one is loopback. Returns the checks that cannot.
pub fn unseen(lab: &Lab, machine: &str, checks: &[Check]) -> Vec<String> {
    let ns = lab.ns(machine);
    let of_errors = |name: &str| name.starts_with("ICMP errors") || name.starts_with("path MTU");
    let mut unseen = Vec::new();
    let mut behind = |wall: &str, fails: &dyn Fn(&str) -> bool| {
        ns.nft(wall);
        let failed = failed(lab, machine, checks, 1);
        ns.nft("delete table inet wall");
        for (name, _) in checks {
            let has_failed = failed.iter().any(|it| it.starts_with(name));
            if has_failed != fails(name) {
                unseen.push(format!(
                    "{name}: fails is {has_failed} behind {wall}: {failed:?}"
                ));
            }
        }
    };
    behind(WALL, &|name| name != LOOPBACK_NAME);
    behind(SILENCE, &of_errors);
    unseen
}
