//! Host role: the chain `closed` drops packets for the public internet that are on
//! neither path, whatever other programs do to the rules and routes. Most scenes have one-shot passes
//! alone: no agent repairs a fault. Each fault shows the leak without the rules of the chain too.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blocked;
mod faults;
mod log;
#[path = "../packets/mod.rs"]
mod packets;
mod passing;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use lab::*;
use packets::*;
use socket2::{SockAddr, SockRef, Socket, Type};

/// A gateway in each family.
const BOTH: &str =
    "[egress]\nenforce = true\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];
/// Datagrams of bound sockets to each target during a fault.
const DATAGRAMS: usize = 40;
/// Connections of the stream during a fault; a dropped one ends after `PATIENCE`.
const CONNECTIONS: usize = 60;

/// The source address that each of `TARGETS` sees; `None` without a way out.
type Sources = [Option<IpAddr>; 4];

/// Storage by the bypass path, partners by the egress path.
fn right(Lab { nat1, .. }: &Lab) -> Sources {
    [HOST1_PUBLIC, HOST1_6, nat1.egress_public, nat1.egress6].map(Some)
}

fn storage_alone([storage4, storage6, ..]: Sources) -> Sources {
    [storage4, storage6, None, None]
}

/// Runs a shell script on `host1`; the first failing command ends the script.
#[track_caller]
fn shell(lab: &Lab, script: &str) {
    lab.ns("host1").run(&["sh", "-ec", script]);
}

/// Deletes the rules in our range of priorities.
const DELETE_RULES: &str = r"
    for f in -4 -6; do
        ip $f rule | sed -n 's/^\(300[0-9][0-9]\):.*/rule del pref \1/p' | ip $f -batch -
    done";

/// Empties table 1084. The flush of ip(8) spares IPv6's `unreachable`.
const FLUSH_EGRESS: &str = "
    for f in -4 -6; do ip $f route flush table 1084; done
    ip -6 route del unreachable default metric 4294967295 table 1084";

const FLUSH_BYPASS: &str = "for f in -4 -6; do ip $f route flush table 1083; done";

/// No gateway is usable. A look-up with a device skips IPv6's `unreachable`, which hangs on `lo`, and
/// continues to the main table's default. IPv4's `unreachable` ends the look-up; the kernel then
/// assumes an on-link destination, and packets leave if the router answers ARP for the partner.
const LEAVE_UNREACHABLE: &str = "
    ip route del default via 10.0.1.10 table 1084
    ip -6 route del default via 2600:1f18:1000:1::10 table 1084";

/// The main table before our rules sends everything by our device, storage too.
const LOOK_UP_MAIN_FIRST: &str = "for f in -4 -6; do ip $f rule add pref 1000 lookup main; done";

/// Takes the rules of the chain away, so that a scene can show its fault.
fn open(lab: &Lab, firewall: Firewall) {
    let table = match firewall {
        Firewall::Nftables => "trailblazer",
        Firewall::Iptables | Firewall::IptablesLegacy => "trailblazer-guard",
    };
    let chain = format!("chain inet {table} closed");
    lab.ns("host1").nft(&format!("add {chain}; flush {chain}"));
}

fn at(target: IpAddr) -> SockAddr {
    SocketAddr::new(target, PORT).into()
}

/// A socket bound to the device.
fn bound(target: IpAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(at(target).domain(), kind, None)?;
    socket.bind_device(Some(PRIVATE_LINK.as_bytes()))?;
    Ok(socket)
}

/// As `Ns::who`, with a socket bound to the device.
fn who_bound(ns: &Ns, target: IpAddr) -> Result<IpAddr, ErrorKind> {
    let asked = ns.in_thread(|| -> std::io::Result<String> {
        let socket = bound(target, Type::STREAM)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect_timeout(&at(target), PATIENCE)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"who\n")?;
        let answer = BufReader::new(stream).lines().next();
        Ok(answer.transpose()?.unwrap_or_default())
    });
    let line = asked.map_err(|error| error.kind())?;
    line.trim().parse().map_err(|_| ErrorKind::InvalidData)
}

/// Sends from bound sockets until the stream has made enough connections too.
#[track_caller]
fn send(lab: &Lab, stream: &Stream) {
    lab.ns("host1").in_thread(|| {
        for target in TARGETS.repeat(DATAGRAMS) {
            // The kernel refuses a datagram without a way out.
            let _refused =
                bound(target, Type::DGRAM).and_then(|socket| socket.send_to(b"who", &at(target)));
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    stream.wait_for(CONNECTIONS);
}

/// Clients with and without a device are seen from these sources.
#[track_caller]
fn assert_seen(lab: &Lab, expected: Sources) {
    let host1 = lab.ns("host1");
    for with_device in [false, true] {
        let ask = if with_device { who_bound } else { Ns::who };
        // All at once: a dropped connection takes its time.
        let seen = std::thread::scope(|scope| {
            TARGETS
                .map(|target| scope.spawn(move || ask(host1, target).ok()))
                .map(|client| client.join().unwrap())
        });
        assert_eq!(seen, expected, "with device: {with_device}");
    }
}

/// Clients of every network come in, and the services of the VPC answer.
#[track_caller]
fn assert_not_locked_out(lab: &Lab) {
    lab.ns("host1").ip("neigh flush all");
    assert_private_networks(lab);
    // A datagram to a port without a server is answered with an ICMP error. The lab's edge translates
    // no address inside of ICMP errors, so that IPv4 from outside is absent.
    let refused = Err(ErrorKind::ConnectionRefused);
    for (public, operator) in [(HOST1_PUBLIC, OPERATOR), (HOST1_6, OPERATOR6)] {
        let (outside, at) = (lab.ns("outside"), |port| SocketAddr::new(public, port));
        assert_eq!(outside.who(public), Ok(operator), "TCP to {public}");
        assert_eq!(outside.who_udp(at(PORT)), Ok(operator), "UDP to {public}");
        assert_eq!(outside.who_at(at(9)), refused, "{public}");
        if public.is_ipv6() {
            assert_eq!(outside.who_udp(at(9)), refused, "{public}");
        }
    }
    for from in ["peer", "host2"] {
        for to in [HOST1, HOST1_6] {
            assert!(lab.who(from, to).is_ok(), "{from} to {to}");
            let datagram = lab.ns(from).who_udp(SocketAddr::new(to, 9));
            assert_eq!(datagram, refused, "{from} to {to}");
        }
    }
    let bind = |port: u16| UdpSocket::bind(("0.0.0.0", port)).unwrap();
    let server = lab.ns("vpc").in_thread(|| bind(67));
    server.set_read_timeout(Some(SOON)).unwrap();
    let client = lab.ns("host1").in_thread(|| bind(68));
    client.set_broadcast(true).unwrap();
    let device = Some(PRIVATE_LINK.as_bytes());
    SockRef::from(&client).bind_device(device).unwrap();
    for to in [ROUTER, IpAddr::from([255; 4])] {
        client.send_to(b"dhcp", (to, 67)).unwrap();
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 4, "DHCP to {to}");
    }
}

#[track_caller]
fn assert_right(lab: &Lab) {
    count_from_now(lab);
    assert_seen(lab, right(lab));
    assert_not_locked_out(lab);
    assert_no_leaks(lab);
}

/// Packets to partners with a wrong address, IPv4 and IPv6.
fn wrong(lab: &Lab) -> [u64; 2] {
    let leaks = lab.leaks();
    println!("{leaks:?}");
    [leaks.partner4, leaks.partner6]
}

/// A NAT, and a router that answers ARP for partners.
fn lab_with_nat() -> Lab {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    lab.ns("vpc").sysctl(&[
        (&format!("net/ipv4/conf/{PRIVATE_LINK}/proxy_arp"), "1"),
        (&format!("net/ipv4/neigh/{PRIVATE_LINK}/proxy_delay"), "0"),
    ]);
    lab
}
