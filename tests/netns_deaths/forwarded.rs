//! Connections of a container behind the host, whose NAT dies.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::*;

use crate::clients::Flow;
use crate::death::Death;
use crate::packets::*;
use crate::scene::Setup;

const QUICK: &str = "interval = \"1s\"\n";

/// The ends of flows of the container: the verdict comes after three seconds, and the reset answers the next
/// packet of the client, which repeats a packet 3.0 and 6.2 seconds after the death.
const ENDED_WITHIN: Duration = Duration::from_secs(8);

/// A socket of datagrams, connected to a server.
struct Datagrams(UdpSocket);

impl Datagrams {
    fn open(from: &Ns, to: IpAddr) -> Datagrams {
        from.in_thread(|| {
            let any: IpAddr = if to.is_ipv4() {
                [0, 0, 0, 0].into()
            } else {
                [0u16; 8].into()
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(SocketAddr::new(to, PORT)).unwrap();
            let limit = Some(Duration::from_millis(300));
            socket.set_read_timeout(limit).unwrap();
            Datagrams(socket)
        })
    }

    /// The source that the server sees.
    fn seen(&self) -> Option<IpAddr> {
        self.0.send(b"who").ok()?;
        let mut buffer = [0; 128];
        let length = self.0.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        text.trim().parse().ok()
    }
}

fn forwarded(firewall: Firewall) {
    let setup = Setup {
        nats: 2,
        spread: "order",
        firewall,
    };
    setup.build(QUICK, |lab, machine| {
        let guest = lab.container();
        let agent = machine.agent();
        agent.wait_in_force();
        let seen = || [PARTNER, PARTNER6].map(|to| guest.who(to).ok());
        let through = |nat: NatAddresses| [nat.egress_public, nat.egress6].map(Some);
        eventually("the container's flows take the first NAT", || {
            seen() == through(lab.nat1)
        });
        let flows: Vec<Flow> = [PARTNER, PARTNER6]
            .into_iter()
            .flat_map(|to| [to, to])
            .map(|to| Flow::open(&guest, to).unwrap())
            .collect();
        count_from_now(lab);
        let datagrams = [PARTNER, PARTNER6].map(|to| Datagrams::open(&guest, to));
        assert_eq!(datagrams.each_ref().map(Datagrams::seen), seen());
        Death::HalfDead.strike(lab.ns("nat1")).unwrap();
        let died = Instant::now();
        eventually("new flows take the second NAT", || {
            seen() == through(lab.nat2)
        });
        eventually("flows of the first NAT end", || {
            flows.iter().all(|flow| flow.ended(died).is_some())
        });
        let ends: Vec<_> = flows.iter().filter_map(|flow| flow.ended(died)).collect();
        println!("{firewall:?}: forwarded flows ended: {ends:?}");
        for (after, kind) in ends {
            assert_eq!(kind, ErrorKind::ConnectionReset);
            assert!(after <= ENDED_WITHIN, "{after:?}");
        }
        let log = agent.log();
        let named = log.matches("2 forwarded connections get a reset").count();
        assert_eq!(named, 2, "each family names its two: {log}");
        eventually("datagrams take the second NAT", || {
            datagrams.each_ref().map(Datagrams::seen) == through(lab.nat2)
        });
        // The second NAT has seen no packet of the flows: a server would have answered with resets.
        let leaks = lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    });
}

#[test]
fn forwarded_connections_of_a_dead_nat_are_reset() {
    isolated(|| forwarded(Firewall::Nftables));
}

#[test]
fn forwarded_connections_of_a_dead_nat_are_reset_beside_iptables() {
    isolated(|| forwarded(Firewall::Iptables));
}

/// A full table of conntrack, or no free port: new flows take the other NAT, and open ones go on.
#[test]
fn forwarded_connections_go_on_through_a_nat_that_refuses_new_ones() {
    isolated(|| {
        let setup = Setup {
            nats: 2,
            spread: "order",
            firewall: Firewall::Nftables,
        };
        setup.build(QUICK, |lab, machine| {
            let guest = lab.container();
            let agent = machine.agent();
            agent.wait_in_force();
            let flows = [PARTNER, PARTNER6].map(|to| Flow::open(&guest, to).unwrap());
            let first = [lab.nat1.egress_public, lab.nat1.egress6];
            assert_eq!(flows.each_ref().map(|flow| flow.seen), first);
            lab.ns("nat1").nft(
                "table inet full { chain forward { type filter hook forward priority 0; policy accept; \
                 ct state new drop; }; }",
            );
            let second = [lab.nat2.egress_public, lab.nat2.egress6].map(Ok);
            eventually("new flows take the second NAT", || {
                [PARTNER, PARTNER6].map(|to| guest.who(to)) == second
            });
            let since = Instant::now();
            std::thread::sleep(Duration::from_secs(3));
            for flow in &flows {
                assert_eq!(flow.ended(since), None, "{}", agent.log());
                assert!(flow.is_alive());
            }
            let log = agent.log();
            assert!(log.contains("is down: 0 open connections ended"), "{log}");
        });
    });
}
