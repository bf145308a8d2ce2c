//! Nobody is locked out: clients of every network come in, and the services of the network answer, in
//! each state of the product. A wall of drops shows that each check can fail.

use std::net::{IpAddr, SocketAddr};

use crate::machines::{Backend, Phase, Role, lab_of};
use crate::packets::*;
use crate::probes::*;
use crate::scene::{DELETE_RULES, Scene};
use lab::*;

fn resolves(lab: &Lab, server: IpAddr, port: u16) -> Result<(), String> {
    let asked = lab.ns("host1").who_udp(SocketAddr::new(server, port));
    same(asked, Ok(own_of_host1(server))).map_err(|error| format!("{server}: {error}"))
}

fn link(lab: &Lab) -> Link<'_> {
    Link {
        machine: lab.ns("host1"),
        name: PRIVATE_LINK,
        router: lab.ns("vpc"),
        far: PRIVATE_LINK,
        gateway: ROUTER,
    }
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
        all([IMDS, IMDS6], |to| metadata(lab.ns("host1"), to))
    }),
    ("NTP at 169.254.169.123", |lab| resolves(lab, NTP, NTP_PORT)),
    ("DHCP, unicast and broadcast", |lab| dhcp(&link(lab))),
    ("DHCPv6", |lab| dhcpv6(&link(lab))),
    ("router solicitation", |lab| solicitation(&link(lab))),
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

const LOOPBACK: Check = (LOOPBACK_NAME, |lab| {
    let host1 = lab.ns("host1");
    all(["127.0.0.1", "::1"], |to| {
        let to: IpAddr = to.parse().map_err(|error| format!("{error}"))?;
        same(host1.who(to), Ok(to))
    })?;
    all([HOST1, HOST1_6], |to| same(host1.who(to), Ok(to)))
});

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
    ("no document", |scene| scene.lose_document()),
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
    let _servers = surroundings(&lab, "host1", [HOST1, HOST1_6]);
    let checks = [CHECKS, &[LOOPBACK]].concat();
    let mut faults = Vec::new();
    let mut state = |name: &str, failed: Vec<String>| {
        println!(
            "lockout | {backend:?} | {name} | {} of {} fail",
            failed.len(),
            checks.len()
        );
        faults.extend(failed.into_iter().map(|it| format!("{name}: {it}")));
    };
    state("without the product", failed(&lab, "host1", &checks, TRIES));
    for (name, enter) in STATES {
        enter(&mut scene);
        state(name, failed(&lab, "host1", &checks, TRIES));
    }
    // A drain with flows left.
    scene.converge();
    let flows = [PARTNER, PARTNER6].map(|to| lab.long_flow("host1", to));
    scene.machine.run(&["flush", "--drain"]).ok();
    let rules = scene.shell("ip rule; ip -6 rule");
    assert!(rules.contains("30014"), "flows are left: {rules}");
    state(
        "drain with flows left",
        failed(&lab, "host1", &checks, TRIES),
    );
    for flow in flows {
        flow.assert_alive();
    }
    scene.take_away();
    state("after flush", failed(&lab, "host1", &checks, TRIES));
    faults.extend(unseen(&lab, "host1", &checks));
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
