//! Flows that outlive an address of their translation, packet by packet.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::*;
use packets::nat::*;
use packets::*;

/// A UDP flow of `host1` that never idles long: one socket, one entry in conntrack.
struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    fn open(lab: &Lab, target: IpAddr) -> Datagrams {
        let any = if target.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = lab.ns("host1").in_thread(|| UdpSocket::bind(any).unwrap());
        socket.connect(SocketAddr::new(target, PORT)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        Datagrams { socket }
    }

    /// The source that the server sees; `None` for a lost answer.
    fn seen(&self) -> Option<IpAddr> {
        let mut buffer = [0; 128];
        self.socket.send(b"who").ok()?;
        let length = self.socket.recv(&mut buffer).ok()?;
        std::str::from_utf8(&buffer[..length])
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

/// Two further addresses on the outer interface of `nat1`.
fn further(number: u8) -> [IpAddr; 2] {
    [
        format!("198.51.100.{number}").parse().unwrap(),
        format!("2600:1f18:1000:a1::{number}").parse().unwrap(),
    ]
}

fn settings(egress: [IpAddr; 2], bypass: [IpAddr; 2]) -> String {
    format!(
        "{SOURCES}egress_addresses = [\"{}\", \"{}\"]\nbypass = [\"{}\", \"{}\"]\n",
        egress[0], egress[1], bypass[0], bypass[1]
    )
}

fn remove(lab: &Lab, addresses: [IpAddr; 2]) {
    // Else the kernel removes the other addresses of the network too.
    lab.ns("nat1")
        .sysctl(&[("net/ipv4/conf/all/promote_secondaries", "1")]);
    lab.ns("nat1").ip_batch(&format!(
        "addr del {}/29 dev pub\naddr del {}/64 dev pub\n",
        addresses[0], addresses[1]
    ));
}

/// The flows of the private hosts that are translated to these addresses.
fn listed(lab: &Lab, addresses: [IpAddr; 2]) -> usize {
    let nat1 = lab.ns("nat1");
    let list = |family: &str| nat1.run(&["conntrack", "-L", "-f", family]);
    let entries = list("ipv4") + &list("ipv6");
    let to = addresses.map(|address| format!("dst={address} "));
    let of_hosts =
        |line: &&str| line.contains(" src=10.0.1.1") || line.contains(" src=2600:1f18:1000:1::1");
    entries
        .lines()
        .filter(of_hosts)
        .filter(|line| to.iter().any(|to| line.contains(to)))
        .count()
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Agent,
    OneShots,
}

fn replaced(firewall: Firewall, by: By) {
    let lab = behind_nat1(NatLayout::TwoInterfaces);
    let (egress, bypass) = ([lab.nat1.egress, lab.nat1.egress6], second(&lab.nat1));
    let (new_egress, new_bypass) = (further(4), further(3));
    for [v4, v6] in [new_egress, new_bypass] {
        lab.ns("nat1").ip_batch(&format!(
            "addr add {v4}/29 dev pub\naddr add {v6}/64 dev pub nodad\n"
        ));
    }
    lab.set_egress(&[egress, new_egress].concat());
    let mut machine = Machine::new(&lab, "nat1", firewall, &settings(egress, bypass));
    let agent = (by == By::Agent).then(|| machine.agent());
    match &agent {
        Some(agent) => drop(agent.wait_in_force()),
        None => drop(machine.changed()),
    }
    let step = |machine: &mut Machine, text: &str| {
        machine.configure(text);
        match &agent {
            Some(agent) => agent.signal(rustix::process::Signal::HUP),
            None => drop(machine.changed()),
        }
    };
    let partners = [PARTNER, PARTNER6].map(|target| Datagrams::open(&lab, target));
    let storage = [S3, S3_6].map(|target| Datagrams::open(&lab, target));
    let all_seen = |flows: &[Datagrams; 2]| [flows[0].seen(), flows[1].seen()];
    assert_eq!(all_seen(&partners), egress.map(Some));
    assert_eq!(all_seen(&storage), bypass.map(Some));
    let to_partner = [PARTNER, PARTNER6].map(|target| lab.long_flow("host1", target));
    let to_storage = [S3, S3_6].map(|target| lab.long_flow("host1", target));
    let neighbour = lab.long_flow("host2", PEER);

    // The egress address goes first, then (one-shot) Trailblazer looks.
    step(&mut machine, &settings(new_egress, bypass));
    eventually("new flows have the new address", || {
        lab.who("host2", PARTNER) == Ok(new_egress[0])
    });
    assert_eq!(
        all_seen(&partners),
        egress.map(Some),
        "the old address still answers"
    );
    remove(&lab, egress);
    if by == By::OneShots {
        machine.in_sync();
    }
    eventually("the flows have the new address", || {
        all_seen(&partners) == new_egress.map(Some)
    });
    assert_eq!(listed(&lab, egress), 0);
    for flow in to_partner {
        assert!(
            flow.stop().broken.is_some(),
            "a TCP connection cannot change its address"
        );
    }
    assert_eq!(all_seen(&storage), bypass.map(Some));

    // The bypass address, with settings and address changed before Trailblazer looks.
    let to_partner = [PARTNER, PARTNER6].map(|target| lab.long_flow("host1", target));
    match by {
        By::OneShots => {
            remove(&lab, bypass);
            step(&mut machine, &settings(new_egress, new_bypass));
        }
        By::Agent => {
            step(&mut machine, &settings(new_egress, new_bypass));
            eventually("new flows have the new address", || {
                lab.who("host2", S3) == Ok(new_bypass[0])
            });
            remove(&lab, bypass);
        }
    }
    eventually("the flows have the new address", || {
        all_seen(&storage) == new_bypass.map(Some)
    });
    assert_eq!(listed(&lab, bypass), 0);
    for flow in to_storage {
        assert!(flow.stop().broken.is_some());
    }
    assert_eq!(all_seen(&partners), new_egress.map(Some));
    for flow in to_partner {
        flow.assert_alive();
    }
    neighbour.assert_alive();
    if let Some(agent) = agent {
        agent.stop();
    }
}

#[test]
fn flows_leave_a_replaced_address_one_shot_nftables() {
    isolated(|| replaced(Firewall::Nftables, By::OneShots));
}

#[test]
fn flows_leave_a_replaced_address_one_shot_iptables() {
    isolated(|| replaced(Firewall::Iptables, By::OneShots));
}

#[test]
fn flows_leave_a_replaced_address_agent_nftables() {
    isolated(|| replaced(Firewall::Nftables, By::Agent));
}

#[test]
fn flows_leave_a_replaced_address_agent_iptables() {
    isolated(|| replaced(Firewall::Iptables, By::Agent));
}

/// Without us: the flow keeps the address that is gone.
#[test]
fn without_a_pass_flows_keep_a_dead_address() {
    isolated(|| {
        let lab = behind_nat1(NatLayout::TwoInterfaces);
        let (egress, bypass) = ([lab.nat1.egress, lab.nat1.egress6], second(&lab.nat1));
        let machine = Machine::new(&lab, "nat1", Firewall::Nftables, &settings(egress, bypass));
        machine.changed();
        let flow = Datagrams::open(&lab, PARTNER);
        assert_eq!(flow.seen(), Some(egress[0]));
        remove(&lab, egress);
        // The router asks again for the owner of the address.
        lab.ns("vpc").ip("neigh flush dev nat1-pub");
        for _ in 0..5 {
            assert_eq!(flow.seen(), None);
        }
        assert_ne!(listed(&lab, egress), 0);
    });
}
