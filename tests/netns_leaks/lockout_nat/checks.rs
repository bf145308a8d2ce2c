//! The services of a NAT instance, and the private networks that pass it.

use std::net::{IpAddr, SocketAddr};

use crate::probes::*;
use lab::*;

pub const SSH_PORT: u16 = 22;
/// The guest of the instance, IPv6.
const GUEST6: &str = "fd20::2";

fn guest_addresses() -> [IpAddr; 2] {
    [GUEST, GUEST6.parse().unwrap()]
}

/// The addresses of the instance at this moment.
fn own(lab: &Lab) -> Vec<IpAddr> {
    let links = lab.ns("nat1").ip_json("addr show");
    let infos = links.as_array().into_iter().flatten();
    let infos = infos.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    let addresses = infos.filter_map(|info| info["local"].as_str());
    addresses.map(|text| text.parse().unwrap()).collect()
}

/// The addresses for clients outside that the instance has at this moment, at least one a family.
fn public(lab: &Lab) -> Result<Vec<IpAddr>, String> {
    let nat = &lab.nat1;
    let own = own(lab);
    let all = [
        (nat.egress, nat.egress_public),
        (nat.second, nat.second_public),
        (nat.egress6, nat.egress6),
        (nat.second6, nat.second6),
    ];
    let present = all.iter().filter(|(address, _)| own.contains(address));
    let public: Vec<IpAddr> = present.map(|(_, public)| *public).collect();
    let has = |four: bool| public.iter().any(|it| it.is_ipv4() == four);
    if has(true) && has(false) {
        Ok(public)
    } else {
        Err(format!("too few addresses: {public:?}"))
    }
}

fn links(lab: &Lab) -> Vec<Link<'_>> {
    let link = |name, far, gateway| Link {
        machine: lab.ns("nat1"),
        name,
        router: lab.ns("vpc"),
        far,
        gateway,
    };
    let nat = &lab.nat1;
    let mut links = vec![link(PRIVATE_LINK, PRIVATE_LINK, ROUTER)];
    if lab.layout != NatLayout::OneInterface {
        links.push(link(PUBLIC_LINK, "nat1-pub", nat.gateway));
    }
    if lab.layout == NatLayout::BulkInterface {
        links.push(link(BULK_LINK, "nat1-bulk", nat.second_gateway));
    }
    links
}

/// The operator's address in the same family.
fn operator(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { OPERATOR } else { OPERATOR6 }
}

fn logs_in(lab: &Lab, from: &str, to: IpAddr, seen: IpAddr) -> Result<(), String> {
    let asked = lab.ns(from).who_at(SocketAddr::new(to, SSH_PORT));
    same(asked, Ok(seen)).map_err(|error| format!("{from} to {to}: {error}"))
}

/// An answer for one of the instance's own addresses: the kernel chooses which one.
fn reaches(lab: &Lab, to: IpAddr) -> Result<(), String> {
    match lab.who("nat1", to) {
        Ok(seen) if own(lab).contains(&seen) => Ok(()),
        other => Err(format!("nat1 to {to}: {other:?}")),
    }
}

fn resolves(lab: &Lab, server: IpAddr, port: u16) -> Result<(), String> {
    match lab.ns("nat1").who_udp(SocketAddr::new(server, port)) {
        Ok(seen) if own(lab).contains(&seen) => Ok(()),
        other => Err(format!("{server}: {other:?}")),
    }
}

/// Each peer and the guest ask each other, and see each other's own address.
fn guest_and(lab: &Lab, name: &str, addresses: [IpAddr; 2]) -> Result<(), String> {
    all(
        addresses.into_iter().zip(guest_addresses()),
        |(it, guest)| {
            answers(lab, name, guest, it)?;
            answers(lab, "guest", it, guest)
        },
    )
}

pub const CHECKS: &[Check] = &[
    ("TCP from outside to the public addresses", |lab| {
        all(public(lab)?, |to| logs_in(lab, "outside", to, operator(to)))
    }),
    ("UDP from outside", |lab| {
        all(public(lab)?, |to| {
            let asked = lab.ns("outside").who_udp(SocketAddr::new(to, SSH_PORT));
            same(asked, Ok(operator(to))).map_err(|error| format!("{to}: {error}"))
        })
    }),
    ("TCP from the same subnet", |lab| {
        all(
            [("host1", HOST1, HOST1_6), ("host2", HOST2, HOST2_6)],
            |it| {
                let (from, four, six) = it;
                logs_in(lab, from, lab.nat1.private, four)?;
                logs_in(lab, from, lab.nat1.private6, six)
            },
        )
    }),
    ("TCP from a peered network", |lab| {
        logs_in(lab, "peer", lab.nat1.private, PEER)?;
        logs_in(lab, "peer", lab.nat1.private6, PEER6)
    }),
    ("TCP to the same subnet", |lab| {
        all([HOST1, HOST1_6, HOST2, HOST2_6], |to| reaches(lab, to))
    }),
    ("TCP to private networks", |lab| {
        all([PEER, PEER6], |to| reaches(lab, to))?;
        all(FAR, |to| reaches(lab, to))
    }),
    ("DNS at 169.254.169.253, 10.0.0.2, fd00:ec2::253", |lab| {
        all([RESOLVER, RESOLVER_IN_VPC, RESOLVER6], |to| {
            resolves(lab, to, DNS_PORT)
        })
    }),
    ("metadata at 169.254.169.254, fd00:ec2::254", |lab| {
        all([IMDS, IMDS6], |to| metadata(lab.ns("nat1"), to))
    }),
    ("NTP at 169.254.169.123", |lab| resolves(lab, NTP, NTP_PORT)),
    ("DHCP, unicast and broadcast", |lab| {
        all(&links(lab), |link| {
            dhcp(link).map_err(|error| format!("{}: {error}", link.name))
        })
    }),
    ("DHCPv6", |lab| {
        all(&links(lab), |link| {
            dhcpv6(link).map_err(|error| format!("{}: {error}", link.name))
        })
    }),
    ("router solicitation", |lab| {
        all(&links(lab), |link| {
            solicitation(link).map_err(|error| format!("{}: {error}", link.name))
        })
    }),
    ("ICMP errors of the instance", |lab| {
        all(["host1", "host2", "peer"], |from| {
            refused(lab, from, lab.nat1.private)?;
            refused(lab, from, lab.nat1.private6)
        })?;
        // The edge of the lab translates no quoted packet, so an error to a translated address is lost.
        let translated = lab.nat1.egress != lab.nat1.egress_public;
        let asked = public(lab)?.into_iter();
        all(asked.filter(|to| !(translated && to.is_ipv4())), |to| {
            refused(lab, "outside", to)
        })
    }),
    ("ICMP errors to the instance", |lab| {
        all([PEER, PEER6, HOST1, HOST1_6, HOST2, HOST2_6], |to| {
            refused(lab, "nat1", to)
        })
    }),
    ("ICMP errors through the instance", |lab| {
        all(guest_addresses(), |to| refused(lab, "peer", to))?;
        all([PEER, PEER6, HOST1, HOST1_6], |to| {
            refused(lab, "guest", to)
        })
    }),
    ("path MTU: too big, to the instance", |lab| {
        // The port of the second address is no host's (packets/nat.rs).
        let nat = &lab.nat1;
        all([nat.private, nat.private6], |to| {
            whole(lab, "peer", to, 0, BULK)
        })?;
        all([nat.second_public, nat.second6], |to| {
            whole(lab, "outside", to, 0, BULK)
        })
    }),
    ("path MTU: too big, from the instance", |lab| {
        all(guest_addresses(), |to| {
            whole(lab, "peer", to, BULK, 0)?;
            whole(lab, "host1", to, BULK, 0)
        })
    }),
    ("path MTU: too big, through the instance", |lab| {
        all([PEER, PEER6], |to| whole(lab, "guest", to, BULK, 0))
    }),
    (
        "private networks of clients: 100.64/10, 172.16/12, 192.168/16",
        |lab| all(FAR, |to| answers(lab, "host1", to, HOST1)),
    ),
    ("private networks behind the instance", |lab| {
        guest_and(lab, "host1", [HOST1, HOST1_6])?;
        guest_and(lab, "peer", [PEER, PEER6])
    }),
];

pub const LOOPBACK: Check = (LOOPBACK_NAME, |lab| {
    let own = own(lab);
    let link_local = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local());
    all(own.iter().filter(|it| !link_local(it)), |to| {
        let asked = lab.ns("nat1").who_at(SocketAddr::new(*to, SSH_PORT));
        let known = asked.is_ok_and(|seen| own.contains(&seen));
        if known {
            Ok(())
        } else {
            Err(format!("{to}: {asked:?}"))
        }
    })
});
