//! Flows that conntrack forgets, servers at every port, and guests behind the host: the answers
//! leave by the path of the flow.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use lab::*;
use packets::*;

const EGRESS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// Forgets the flows of `host1`, as `conntrack -F` and the timeout of an idle flow do.
fn forget(lab: &Lab) {
    lab.ns("host1").run(&["conntrack", "-F"]);
}

fn udp(ns: &Ns, local: SocketAddr) -> UdpSocket {
    let socket = ns.in_thread(|| UdpSocket::bind(local).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn any(family: IpAddr) -> SocketAddr {
    match family {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}

fn received(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

/// A datagram flow of the host: the peer speaks first after conntrack has forgotten the flow, and
/// `meanwhile` follows. Returns the sources that the partner saw before and after.
fn own_datagrams(
    lab: &Lab,
    partner: IpAddr,
    (port, connected): (u16, bool),
    meanwhile: &mut dyn FnMut(),
) -> [SocketAddr; 2] {
    let far = udp(lab.ns("partner"), SocketAddr::new(partner, port));
    let near = udp(lab.ns("host1"), any(partner));
    let target = SocketAddr::new(partner, port);
    if connected {
        near.connect(target).unwrap();
    }
    let send = || {
        if connected {
            near.send(b"question")
        } else {
            near.send_to(b"question", target)
        }
    };
    send().unwrap();
    let (_, before) = received(&far).unwrap();
    forget(lab);
    far.send_to(b"late", before).unwrap();
    assert_eq!(received(&near).unwrap().0, b"late");
    meanwhile();
    send().unwrap();
    let (_, after) = received(&far).unwrap();
    [before, after]
}

/// A TCP connection of the host, the same way; `true` if the connection works afterwards.
fn own_connection(lab: &Lab, partner: IpAddr, meanwhile: &mut dyn FnMut()) -> bool {
    let target = SocketAddr::new(partner, 9999);
    let listener = lab
        .ns("partner")
        .in_thread(|| TcpListener::bind(target).unwrap());
    let mut near = lab
        .ns("host1")
        .in_thread(|| TcpStream::connect(target).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
    }
    forget(lab);
    let mut buffer = [0; 4];
    far.write_all(b"late").unwrap();
    let late = near.read_exact(&mut buffer).is_ok();
    meanwhile();
    late && near.write_all(b"more").is_ok() && far.read_exact(&mut buffer).is_ok()
}

fn egress(lab: &Lab, partner: IpAddr) -> IpAddr {
    if partner.is_ipv4() {
        lab.nat1.egress_public
    } else {
        lab.nat1.egress6
    }
}

fn own_flows(lab: &Lab, meanwhile: &mut dyn FnMut()) {
    for partner in [PARTNER, PARTNER6] {
        for (port, connected) in [(9999, true), (99, true), (98, false)] {
            let [before, after] = own_datagrams(lab, partner, (port, connected), meanwhile);
            assert_eq!(before.ip(), egress(lab, partner));
            assert_eq!(
                after, before,
                "{partner} port {port}, connected: {connected}"
            );
        }
        assert!(own_connection(lab, partner, meanwhile), "{partner}");
    }
}

fn forgotten(firewall: Firewall) {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    let mut machine = Machine::new(&lab, "host1", firewall, EGRESS);
    machine.changed();
    own_flows(&lab, &mut || {});
    // A pass that changes the firewall looks at the flows that are open.
    let mut exempt = 0;
    own_flows(&lab, &mut || {
        exempt += 1;
        machine.configure(&format!("{EGRESS}exempt = [\"10.99.{exempt}.0/24\"]\n"));
        machine.changed();
    });
    // Servers, with their flows forgotten too.
    for (public, operator) in [(HOST1_PUBLIC, OPERATOR), (HOST1_6, OPERATOR6)] {
        let own = if public.is_ipv4() { HOST1 } else { HOST1_6 };
        let wildcard = any(public).ip();
        for local in [
            SocketAddr::new(own, 5000),
            SocketAddr::new(wildcard, 5001),
            SocketAddr::new(wildcard, 51_820),
        ] {
            let server = udp(lab.ns("host1"), local);
            let client = udp(lab.ns("outside"), SocketAddr::new(operator, 0));
            for _ in 0..2 {
                client
                    .send_to(b"x", SocketAddr::new(public, local.port()))
                    .unwrap();
                let (_, from) = received(&server).unwrap();
                assert_eq!(from.ip(), operator);
                server.send_to(b"y", from).unwrap();
                let (_, from) = received(&client).unwrap_or_else(|| panic!("no answer of {local}"));
                assert_eq!(from.ip(), public, "{local}");
                forget(&lab);
            }
        }
        let flow = lab.long_flow("outside", public);
        for _ in 0..10 {
            forget(&lab);
            std::thread::sleep(Duration::from_millis(15));
        }
        flow.assert_alive();
    }
}

#[test]
fn forgotten_flows_keep_their_path_nftables() {
    isolated(|| forgotten(Firewall::Nftables));
}

#[test]
fn forgotten_flows_keep_their_path_iptables() {
    isolated(|| forgotten(Firewall::Iptables));
}

#[test]
fn forgotten_flows_keep_their_path_iptables_legacy() {
    isolated(|| forgotten(Firewall::IptablesLegacy));
}

/// A guest with routed addresses: clients outside reach it, and its own connections take the NAT.
fn guest(firewall: Firewall) {
    const GUEST: [&str; 2] = ["198.51.100.200", "2600:1f18:1000:77::2"];
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    let host1 = lab.ns("host1");
    shell::sh("ip netns add guest");
    let inside = Ns::open("guest");
    host1.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ]);
    host1.run(&[
        "ip", "link", "add", "g0", "type", "veth", "peer", "name", "eth0", "netns", "guest",
    ]);
    host1.ip_batch(
        "addr add 10.0.77.1/24 dev g0\naddr add 2600:1f18:1000:77::1/64 dev g0 nodad\nlink set g0 up\n\
         route add 198.51.100.200/32 dev g0\n",
    );
    inside.ip_batch(
        "addr add 198.51.100.200/32 dev eth0\naddr add 2600:1f18:1000:77::2/64 dev eth0 nodad\n\
         link set eth0 up\nlink set lo up\nroute add 10.0.77.1/32 dev eth0\n\
         route add default via 10.0.77.1\nroute add default via 2600:1f18:1000:77::1\n",
    );
    lab.ns("vpc").ip_batch(&format!(
        "route add 198.51.100.200/32 via {HOST1}\nroute add 2600:1f18:1000:77::/64 via {HOST1_6}\n"
    ));
    let addresses = GUEST.map(|text| text.parse::<IpAddr>().unwrap());
    let _server = Server::start(&inside, PORT, &addresses);
    let outside = lab.ns("outside");
    let reached = || {
        addresses.map(|guest| {
            (
                outside.who(guest),
                outside.who_udp(SocketAddr::new(guest, PORT)),
            )
        })
    };
    let expected = [OPERATOR, OPERATOR6].map(|operator| (Ok(operator), Ok(operator)));
    assert_eq!(reached(), expected, "without Trailblazer");
    let open = addresses.map(|guest| lab.long_flow("outside", guest));
    let machine = Machine::new(&lab, "host1", firewall, EGRESS);
    machine.changed();
    assert_eq!(reached(), expected);
    machine.in_sync();
    drop(open);
}

#[test]
fn guests_answer_clients_outside_nftables() {
    isolated(|| guest(Firewall::Nftables));
}

#[test]
fn guests_answer_clients_outside_iptables() {
    isolated(|| guest(Firewall::Iptables));
}

/// The kernel chooses the source of a wildcard server's answer by the egress route: a client of
/// another interface gets the wrong address, and `check` says so before.
#[test]
fn check_names_wildcard_servers_beside_an_egress_interface() {
    isolated(|| {
        let lab = Lab::new();
        let host1 = lab.ns("host1");
        host1.run(&[
            "ip", "link", "add", "in0", "type", "veth", "peer", "name", "in1",
        ]);
        host1.ip_batch(
            "link set in1 up\naddr add 10.0.9.11/24 dev in0\nlink set in0 up\n\
             addr add 2600:1f18:1000:9::11/64 dev in0 nodad\n",
        );
        let _servers = [
            "0.0.0.0:5353",
            "[::]:5354",
            "10.0.9.11:5355",
            "0.0.0.0:40000",
        ]
        .map(|local| udp(host1, local.parse().unwrap()));
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, EGRESS);
        assert!(!machine.run(&["check"]).stdout.contains("5353"));
        machine.configure("[egress]\ngateways = [\"10.0.9.10\", \"2600:1f18:1000:9::10\"]\n");
        let check = machine.run(&["check"]).stdout;
        for line in [
            "ipv4: the UDP servers at port 5353 listen at all addresses",
            "ipv6: the UDP servers at port 5354 listen at all addresses",
            "the address of in0, the egress interface",
        ] {
            assert!(check.contains(line), "{check}\nlacks {line}");
        }
    });
}
