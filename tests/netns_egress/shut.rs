//! The boot before the first pass: `trailblazer shut` runs before any device or address exists, and
//! no packet leaves with a wrong address once the network comes, with or without an agent.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::packets::*;
use crate::scene::*;
use lab::*;
use socket2::SockRef;

const ROLES: [(Kind, &str); 2] = [(Kind::Host, "host1"), (Kind::Nat, "nat1")];

impl Scene<'_> {
    fn devices(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Host => &[PRIVATE_LINK],
            Kind::Nat => &[BULK_LINK, PUBLIC_LINK],
        }
    }

    fn name(&self) -> &'static str {
        let found = ROLES.iter().find(|(kind, _)| *kind == self.kind);
        found.expect("both roles are there").1
    }

    /// As before udev: the devices don't exist.
    fn without_devices(&self) {
        self.network_down();
        for device in self.devices() {
            self.ns().ip(&format!("link set {device} netns peer"));
        }
    }

    fn devices_come(&self) {
        for device in self.devices() {
            let peer = self.lab.ns("peer");
            peer.ip(&format!("link set {device} netns {}", self.name()));
        }
    }

    fn network_comes(&self) {
        self.devices_come();
        self.network_up();
    }

    #[track_caller]
    fn shut(&self) {
        let output = self.machine.run(&["shut"]).ok();
        println!("{}", output.stdout);
    }
}

/// The packets of a boot: without devices, with devices and no pass, after the first pass.
fn boot(kind: Kind, firewall: Firewall, with_the_unit: bool) -> Vec<String> {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, firewall);
    scene.without_devices();
    if with_the_unit {
        scene.shut();
        // The unit may run again.
        let again = scene.machine.run(&["shut", "-o", "json"]).ok().json();
        assert_eq!(again["outcome"], "in_sync", "{again:#}");
    }
    let probe = scene.probe();
    probe.window();
    scene.network_comes();
    if !with_the_unit {
        eventually("packets leave", || !probe.wrong().is_empty());
        return probe.wrong();
    }
    probe.window();
    // No packet at all reaches a partner, with any address.
    assert_eq!(probe.at_partner().len(), 0, "{:?}", probe.at_partner());
    probe.assert_no_leak("shut");
    let agent = scene.machine.agent();
    agent.wait_in_force();
    probe.arrives("after the first pass", [true; 2], [true; 2]);
    probe.window();
    // Nothing of the shut state is left, and storage never went through the NAT.
    let rules = scene.shell("ip rule; ip -6 rule");
    assert!(!rules.contains("iif lo"), "{rules}");
    let wrong = probe.wrong();
    drop(probe);
    drop(agent);
    wrong
}

macro_rules! boots {
    ($($name:ident, $kind:ident, $firewall:ident;)*) => { $(
        #[test]
        fn $name() {
            isolated(|| {
                let wrong = boot(Kind::$kind, Firewall::$firewall, true);
                assert!(wrong.is_empty(), "{wrong:?}");
            });
        }
    )* };
}

boots! {
    shut_host_lets_nothing_out_before_the_agent, Host, Nftables;
    shut_host_lets_nothing_out_before_the_agent_iptables, Host, Iptables;
    shut_host_lets_nothing_out_before_the_agent_iptables_legacy, Host, IptablesLegacy;
    shut_nat_lets_nothing_out_before_the_agent, Nat, Nftables;
    shut_nat_lets_nothing_out_before_the_agent_iptables, Nat, Iptables;
    shut_nat_lets_nothing_out_before_the_agent_iptables_legacy, Nat, IptablesLegacy;
}

#[test]
fn boot_of_a_host_without_the_unit_lets_packets_out() {
    isolated(|| assert!(!boot(Kind::Host, Firewall::Nftables, false).is_empty()));
}

#[test]
fn boot_of_a_nat_without_the_unit_lets_packets_out() {
    isolated(|| assert!(!boot(Kind::Nat, Firewall::Nftables, false).is_empty()));
}

/// A host whose egress is shut, with its network.
fn shut_host(lab: &Lab) -> Scene<'_> {
    let scene = Scene::new(lab, Kind::Host, Firewall::Nftables);
    scene.without_devices();
    scene.shut();
    scene.network_comes();
    scene
}

/// Clients of every network come in, and the services of the VPC answer.
#[track_caller]
fn assert_not_locked_out(scene: &Scene, row: &str) {
    let lab = scene.lab;
    for (from, to, seen) in [
        ("outside", HOST1_PUBLIC, OPERATOR),
        ("outside", HOST1_6, OPERATOR6),
        ("host2", HOST1, HOST2),
        ("host2", HOST1_6, HOST2_6),
        ("peer", HOST1, PEER),
        ("peer", HOST1_6, PEER6),
        ("host1", HOST2, HOST1),
        ("host1", HOST2_6, HOST1_6),
        ("host1", PEER, HOST1),
    ] {
        eventually(&format!("{row}: {from} to {to}"), || {
            lab.who(from, to) == Ok(seen)
        });
    }
    let host1 = lab.ns("host1");
    for resolver in [RESOLVER, RESOLVER_IN_VPC, RESOLVER6] {
        eventually(&format!("{row}: {resolver}"), || {
            let asked = host1.who_udp(SocketAddr::new(resolver, DNS_PORT));
            asked.is_ok()
        });
    }
    let metadata = host1.in_thread(|| std::net::TcpStream::connect((IMDS, 80)).map(drop));
    assert!(metadata.is_ok(), "{row}: {metadata:?}");
}

/// The client's renewal to the router, from the client's address, and its broadcast by the link.
#[track_caller]
fn assert_dhcp_leaves(lab: &Lab, row: &str) {
    let server = lab
        .ns("vpc")
        .in_thread(|| UdpSocket::bind("0.0.0.0:67").unwrap());
    server.set_read_timeout(Some(SOON)).unwrap();
    for (to, what) in [(ROUTER, "renewal"), (IpAddr::from([255; 4]), "broadcast")] {
        let sent = lab.ns("host1").in_thread(|| {
            let client = UdpSocket::bind("0.0.0.0:68")?;
            client.set_broadcast(true)?;
            SockRef::from(&client).bind_device(Some(PRIVATE_LINK.as_bytes()))?;
            client.send_to(what.as_bytes(), (to, 67))
        });
        assert!(sent.is_ok(), "{row}: {what}: {sent:?}");
        let mut buffer = [0; 32];
        let length = server.recv(&mut buffer).expect(row);
        assert_eq!(&buffer[..length], what.as_bytes(), "{row}");
    }
}

/// A datagram to a port without a server: the answer is an ICMP error. (The lab's edge translates no
/// address inside of ICMP errors, so that outside is IPv6 alone.)
#[track_caller]
fn assert_icmp_errors_arrive(lab: &Lab, row: &str) {
    for (from, to) in [
        ("outside", HOST1_6),
        ("peer", HOST1),
        ("host2", HOST1),
        ("host2", HOST1_6),
    ] {
        eventually(&format!("{row}: an error from {to} to {from}"), || {
            let refused = lab.ns(from).who_udp(SocketAddr::new(to, 9));
            refused == Err(std::io::ErrorKind::ConnectionRefused)
        });
    }
}

/// The network is there before the unit: after a stop of the agent and a flush, or in a late call.
fn shut_with_a_gateway_in_reach(firewall: Firewall) {
    let lab = lab_of(Kind::Host);
    let scene = Scene::new(&lab, Kind::Host, firewall);
    scene.shut();
    for (partner, seen) in [
        (PARTNER, lab.nat1.egress_public),
        (PARTNER6, lab.nat1.egress6),
    ] {
        assert_eq!(lab.who("host1", partner), Ok(seen), "{firewall:?}");
    }
}

#[test]
fn shut_host_reaches_partners_by_a_gateway_in_reach_nftables() {
    isolated(|| shut_with_a_gateway_in_reach(Firewall::Nftables));
}

#[test]
fn shut_host_reaches_partners_by_a_gateway_in_reach_iptables() {
    isolated(|| shut_with_a_gateway_in_reach(Firewall::Iptables));
}

#[test]
fn shut_host_is_not_locked_out() {
    isolated(|| {
        let lab = lab_of(Kind::Host);
        let scene = shut_host(&lab);
        for filter in ["0", "1", "2"] {
            let path = format!("net/ipv4/conf/{PRIVATE_LINK}/rp_filter");
            scene.ns().sysctl(&[(&path, filter)]);
            let row = format!("rp_filter {filter}");
            assert_not_locked_out(&scene, &row);
            assert_dhcp_leaves(&lab, &row);
            assert_icmp_errors_arrive(&lab, &row);
        }
        // Neighbours are found again.
        scene.ns().ip("neigh flush all");
        assert_not_locked_out(&scene, "new neighbours");
        // A flush of the firewall locks nobody out, and opens nothing for sockets without a source.
        let probe = scene.probe();
        scene.shell("nft flush ruleset");
        assert_not_locked_out(&scene, "without firewall");
        probe.window();
        probe.assert_no_leak("without firewall");
        drop(probe);
        // The flush takes everything away, without an agent.
        let removed = scene.machine.run(&["flush", "-o", "json"]).ok().json();
        assert_eq!(removed["outcome"], "changed", "{removed:#}");
        eventually("open", || lab.who("host1", S3) == Ok(HOST1_PUBLIC));
    });
}

/// Sends to the partner from each kind of socket with a fixed source or interface.
fn send_from_bound_sockets(lab: &Lab) {
    for (own, target) in [(HOST1, PARTNER), (HOST1_6, PARTNER6)] {
        let host1 = lab.ns("host1");
        let connected = host1.who_from(own, target);
        assert!(connected.is_err(), "{connected:?}");
        for by_device in [false, true] {
            let _refused = host1.in_thread(|| {
                let source = if by_device && own.is_ipv4() {
                    IpAddr::from([0; 4])
                } else {
                    own
                };
                let socket = UdpSocket::bind((source, 0))?;
                if by_device {
                    SockRef::from(&socket).bind_device(Some(PRIVATE_LINK.as_bytes()))?;
                }
                socket.send_to(b"who", (target, PORT))
            });
        }
    }
}

#[test]
fn shut_host_lets_no_bound_socket_out() {
    isolated(|| {
        let lab = lab_of(Kind::Host);
        let scene = shut_host(&lab);
        count_from_now(&lab);
        send_from_bound_sockets(&lab);
        assert_eq!(lab.leaks(), Leaks::default());
        // The same sockets without the rules: the scene can see them.
        scene.machine.run(&["flush"]).ok();
        eventually("packets leave", || {
            let _answers = lab.ns("host1").who_from(HOST1, PARTNER);
            lab.leaks() != Leaks::default()
        });
    });
}

/// A broken file stops every pass, so its readable part shuts the egress.
#[test]
fn broken_settings_shut_the_host() {
    isolated(|| {
        let lab = lab_of(Kind::Host);
        let mut scene = Scene::new(&lab, Kind::Host, Firewall::Nftables);
        let good = scene.settings();
        scene.machine.configure(&format!(
            "{good}[agent]
nonsense = 1
"
        ));
        scene.without_devices();
        let shut = scene.machine.run(&["shut"]).expect_code(64);
        assert!(shut.stderr.contains("nonsense"), "{shut}");
        scene.network_comes();
        let probe = scene.probe();
        probe.window();
        assert_eq!(probe.at_partner().len(), 0, "{:?}", probe.at_partner());
        probe.assert_no_leak("broken settings");
        let status = scene.machine.run(&["status"]);
        assert!(status.stdout.contains("the egress is shut"), "{status}");
        // A corrected file, and the first pass.
        scene.machine.configure(&good);
        scene.converges("corrected");
        probe.arrives("corrected", [true; 2], [true; 2]);
    });
}

/// Storage takes its own path from the first packet that leaves.
#[test]
fn first_pass_sends_no_storage_connection_through_the_nat() {
    isolated(|| {
        let lab = lab_of(Kind::Host);
        let scene = shut_host(&lab);
        let stream = lab.stream("host1", &[S3, S3_6], PACE);
        stream.wait_for(5);
        scene.converges("first pass");
        stream.wait_for(40);
        eventually("storage by its own path", || {
            lab.s3.peers() == [HOST1_PUBLIC, HOST1_6].into()
        });
        drop(stream.stop());
        assert_eq!(lab.leaks(), Leaks::default());
        assert_eq!(lab.s3.peers(), [HOST1_PUBLIC, HOST1_6].into());
    });
}

#[test]
fn settings_without_an_egress_path_shut_nothing() {
    isolated(|| {
        let lab = lab_of(Kind::Host);
        let mut scene = Scene::new(&lab, Kind::Host, Firewall::Nftables);
        scene.without_devices();
        for settings in [
            "",
            "[egress]\ngateways = [\"10.0.1.10\"]\nwhen_down = \"bypass\"\n",
        ] {
            scene.machine.configure(settings);
            let before = scene.ns().snapshot();
            let shut = scene.machine.run(&["shut"]).ok();
            assert!(shut.stdout.contains("nothing to shut"), "{shut}");
            before.assert_same(&scene.ns().snapshot());
        }
    });
}
