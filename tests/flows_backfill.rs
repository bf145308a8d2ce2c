//! Connections opened from outside keep their path when our rules are added.

// Helpers outside of test functions are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lab::isolated;
use lab::shell::{run, sh, try_run};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use trailblazer::firewall::Ports;
use trailblazer::firewall::{Chain, FwRule, Hook, Match, Ruleset, Statement};
use trailblazer::kernel::firewall::FirewallBackend;
use trailblazer::kernel::firewall::nftables::Nftables;
use trailblazer::kernel::flows::{Backfilled, FlowError, backfill_inbound};
use trailblazer::types::{Family, Mark};

const INBOUND: Mark = Mark {
    value: 0x3000,
    mask: 0x3000,
};
/// The client's address, beyond the host's default gateway.
const CLIENT: [&str; 2] = ["198.51.100.9", "2001:db8:c::9"];
const HOST: [&str; 2] = ["10.0.0.1", "2001:db8:a::1"];
const PATIENCE: Duration = Duration::from_secs(2);

fn index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// The calling namespace is the host. `client` is the default gateway and the outside; `sink` is
/// the gateway of the egress table, and answers nothing.
fn lab() {
    // During duplicate address detection a link-local address answers no neighbour for a second.
    sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    for (name, net, host_if) in [("client", "a", "h0"), ("sink", "b", "h1")] {
        let v4 = if name == "client" { "10.0.0" } else { "10.0.1" };
        sh(&format!("ip netns add {name}"));
        sh(&format!(
            "ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0"
        ));
        sh(&format!(
            "ip link add {host_if} type veth peer name p0 netns {name}"
        ));
        sh(&format!("ip addr add {v4}.1/24 dev {host_if}"));
        sh(&format!(
            "ip addr add 2001:db8:{net}::1/64 dev {host_if} nodad"
        ));
        sh(&format!("ip link set {host_if} up"));
        sh(&format!("ip -n {name} link set lo up"));
        sh(&format!("ip -n {name} addr add {v4}.2/24 dev p0"));
        sh(&format!(
            "ip -n {name} addr add 2001:db8:{net}::2/64 dev p0 nodad"
        ));
        sh(&format!("ip -n {name} link set p0 up"));
    }
    sh("ip -n client addr add 198.51.100.9/32 dev lo");
    sh("ip -n client addr add 2001:db8:c::9/128 dev lo nodad");
    sh("ip route add default via 10.0.0.2");
    sh("ip -6 route add default via 2001:db8:a::2");
    sh("ip route add default via 10.0.1.2 table 1084");
    sh("ip -6 route add default via 2001:db8:b::2 table 1084");
    for interface in ["all", "h0", "h1"] {
        sh(&format!("sysctl -qw net.ipv4.conf.{interface}.rp_filter=0"));
    }
}

fn steer() {
    for family in ["-4", "-6"] {
        sh(&format!("ip {family} rule add pref 30099 nop"));
        sh(&format!(
            "ip {family} rule add pref 30000 fwmark 0x3000/0x3000 goto 30099"
        ));
        sh(&format!(
            "ip {family} rule add pref 30001 lookup main suppress_prefixlength 0"
        ));
        sh(&format!("ip {family} rule add pref 30003 lookup 1084"));
    }
}

fn unsteer() {
    for family in ["-4", "-6"] {
        for priority in [30000, 30001, 30003, 30099] {
            sh(&format!("ip {family} rule del pref {priority}"));
        }
    }
}

/// The host role's firewall policy.
fn policy() -> Ruleset {
    let rule = |matches, verdict| FwRule {
        family: None,
        matches,
        verdict,
    };
    let restore = rule(
        vec![Match::FlowMark(INBOUND)],
        Statement::RestoreMark { mask: INBOUND.mask },
    );
    let mark = rule(
        vec![
            Match::NotInputInterface("lo".into()),
            Match::NewFlow,
            Match::DestinationIsLocal,
        ],
        Statement::SetFlowMark(INBOUND),
    );
    Ruleset {
        chains: vec![
            Chain {
                hook: Hook::Prerouting,
                rules: vec![mark, restore.clone()],
            },
            Chain {
                hook: Hook::OutputReroute,
                rules: vec![restore],
            },
        ],
    }
}

/// A connection's two ends, opened from outside.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    _listener: TcpListener,
}

fn connect(listen: SocketAddr, target: SocketAddr, source: IpAddr) -> Connection {
    let listener = TcpListener::bind(listen).unwrap();
    let target = SocketAddr::new(target.ip(), listener.local_addr().unwrap().port());
    let client = std::thread::spawn(move || {
        let namespace = std::fs::File::open("/run/netns/client").unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // The route's preferred source makes the connection "from outside": see `lab`.
        run(
            "ip",
            &[
                "route",
                "replace",
                "10.0.0.1/32",
                "dev",
                "p0",
                "src",
                CLIENT[0],
            ],
        );
        run(
            "ip",
            &[
                "-6",
                "route",
                "replace",
                "2001:db8:a::1/128",
                "dev",
                "p0",
                "src",
                CLIENT[1],
            ],
        );
        TcpStream::connect_timeout(&target, PATIENCE).unwrap()
    })
    .join()
    .unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_canonical(), source);
    let mut connection = Connection {
        client,
        server,
        _listener: listener,
    };
    connection.client.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(connection.client_hears_the_host(), "it works without us");
    connection
}

fn opened(family: Family) -> Connection {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let host = SocketAddr::new(address(HOST[index(family)]), 0);
    connect(host, host, address(CLIENT[index(family)]))
}

impl Connection {
    /// The host sends first: a fresh conntrack takes the sender for the client.
    fn client_hears_the_host(&mut self) -> bool {
        self.server.write_all(b"host").unwrap();
        let mut buffer = [0; 4];
        self.client.read_exact(&mut buffer).is_ok()
    }

    fn host_hears_the_client(&mut self) -> bool {
        self.client.write_all(b"peer").unwrap();
        let mut buffer = [0; 4];
        self.server.read_exact(&mut buffer).is_ok()
    }
}

fn own() -> Vec<IpAddr> {
    [
        "10.0.0.1",
        "10.0.1.1",
        "127.0.0.1",
        "2001:db8:a::1",
        "2001:db8:b::1",
        "::1",
    ]
    .map(|text| text.parse().unwrap())
    .to_vec()
}

fn counts(updated: u32, inserted: u32, skipped: u32) -> Backfilled {
    Backfilled {
        updated,
        inserted,
        skipped,
        sockets_unread: None,
    }
}

#[test]
fn open_connection_breaks_without_backfill() {
    isolated(|| {
        lab();
        let mut connections = Family::ALL.map(opened);
        Nftables::new().replace(&policy()).unwrap();
        steer();
        for connection in &mut connections {
            assert!(
                !connection.client_hears_the_host(),
                "the lab can't show the damage"
            );
        }
    });
}

#[test]
fn open_connection_survives_with_backfill() {
    isolated(|| {
        lab();
        let mut connections = Family::ALL.map(opened);
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(0, 2, 0)
        );
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(0, 0, 2),
            "the second time"
        );
        Nftables::new().replace(&policy()).unwrap();
        steer();
        for connection in &mut connections {
            assert!(connection.client_hears_the_host());
            assert!(connection.host_hears_the_client());
            assert!(connection.client_hears_the_host());
        }
        // New inbound connections work too, and connections from the host take the egress table.
        for family in Family::ALL {
            let mut connection = opened(family);
            assert!(connection.host_hears_the_client());
        }
        for (client, next_hop) in CLIENT.iter().zip(["10.0.1.2", "2001:db8:b::2"]) {
            let route = sh(&format!("ip route get {client}"));
            assert!(route.contains(next_hop), "{route}");
        }
        unsteer();
        Nftables::new().remove().unwrap();
        for connection in &mut connections {
            assert!(connection.client_hears_the_host(), "and without us again");
        }
    });
}

#[test]
fn known_flows_are_marked_and_keep_their_other_bits() {
    isolated(|| {
        lab();
        // Foreign rules had switched conntrack on earlier, with marks of their own.
        run(
            "nft",
            &[
                "table inet theirs { chain c { type filter hook prerouting priority 0\n ct state new ct mark set 0x40\n }\n }",
            ],
        );
        let mut connections = Family::ALL.map(opened);
        // A flow opened by the host keeps its mark.
        std::net::UdpSocket::bind("10.0.0.1:0")
            .unwrap()
            .send_to(b"x", "198.51.100.9:9")
            .unwrap();
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(2, 0, 0)
        );
        let listed = sh("conntrack -L -p tcp");
        assert_eq!(listed.matches("mark=12352").count(), 2, "0x3040: {listed}");
        assert!(
            !sh("conntrack -L -p udp").contains("mark=12"),
            "the host's own flow"
        );
        Nftables::new().replace(&policy()).unwrap();
        steer();
        for connection in &mut connections {
            assert!(connection.client_hears_the_host());
            assert!(connection.host_hears_the_client());
        }
    });
}

#[test]
fn entry_with_reversed_direction_is_marked_too() {
    isolated(|| {
        lab();
        let mut connection = opened(Family::Ipv4);
        run(
            "nft",
            &[
                "table inet theirs { chain c { type filter hook output priority 0\n ct state new accept\n }\n }",
            ],
        );
        // Conntrack begins in the middle, with a packet of the host's.
        assert!(connection.client_hears_the_host());
        let listed = sh("conntrack -L -p tcp");
        assert!(listed.contains("src=10.0.0.1 dst=198.51.100.9"), "{listed}");
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(1, 0, 0)
        );
        Nftables::new().replace(&policy()).unwrap();
        steer();
        assert!(connection.client_hears_the_host());
    });
}

#[test]
fn ipv4_connection_at_an_ipv6_socket_survives() {
    isolated(|| {
        lab();
        let mut connection = connect(
            "[::]:0".parse().unwrap(),
            "10.0.0.1:0".parse().unwrap(),
            CLIENT[0].parse().unwrap(),
        );
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(0, 1, 0)
        );
        let listed = sh("conntrack -L -p tcp -f ipv4");
        assert!(listed.contains("ESTABLISHED"), "{listed}");
        assert!(listed.contains("src=198.51.100.9 dst=10.0.0.1"), "{listed}");
        assert!(listed.contains("[ASSURED]"), "{listed}");
        Nftables::new().replace(&policy()).unwrap();
        steer();
        assert!(connection.client_hears_the_host());
    });
}

#[test]
fn thousands_of_flows_are_marked_quickly() {
    isolated(|| {
        sh("ip link add v0 type veth peer name v1");
        sh("ip addr add 10.0.0.1/24 dev v0");
        let restore: String = (0..5000u32)
            .map(|i| {
                let (source, port) = (0xc633_6401 + i % 200, 1024 + i);
                let source = std::net::Ipv4Addr::from(source);
                format!("-A -t 600 -u ASSURED -s {source} -d 10.0.0.1 -r 10.0.0.1 -q {source} -p tcp --sport {port} --dport 443 --reply-port-src 443 --reply-port-dst {port} --state ESTABLISHED\n")
            })
            .collect();
        std::fs::write("/run/flows", restore).unwrap();
        sh("conntrack -R /run/flows");
        let begun = Instant::now();
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(5000, 0, 0)
        );
        let took = begun.elapsed();
        eprintln!("5000 flows marked in {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(
            backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)).unwrap(),
            counts(0, 0, 0),
            "the kernel's filter leaves marked flows out"
        );
    });
}

#[test]
fn backfill_without_privilege_is_refused() {
    isolated(|| {
        // Conntrack must not be empty: without entries there would be nothing to refuse.
        let flow =
            "-I -p tcp -s 10.9.0.1 -d 10.9.0.2 --sport 1 --dport 2 --state ESTABLISHED -t 60";
        let stored = try_run("conntrack", &flow.split(' ').collect::<Vec<_>>());
        if !lab::again_without_privilege() {
            assert!(stored.status.success(), "{stored:?}");
            return;
        }
        match backfill_inbound(INBOUND, &own(), Some(Ports::LOCAL)) {
            Err(FlowError::Failed { source, .. }) => assert_eq!(source.errno(), Some(1)),
            other => panic!("{other:?}"),
        }
    });
}
