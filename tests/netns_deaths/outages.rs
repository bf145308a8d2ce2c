//! Faults that are not the death of one NAT: one family, all NATs, servers, names, and a NAT that flaps.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lab::*;

use crate::clients::{Flow, Newcomers};
use crate::death::Death;
use crate::packets::*;
use crate::scene::{Setup, nat_of};
use crate::{is_long, not_run};

const QUICK: &str = "interval = \"1s\"\n";

const TWO: Setup = Setup {
    nats: 2,
    spread: "order",
    firewall: Firewall::Nftables,
};

/// The number of changes of the use of a gateway, by the log.
fn changes(agent: &Agent) -> usize {
    let log = agent.log();
    log.matches("new flows take another way").count() + log.matches("is in use again").count()
}

fn seen(lab: &Lab) -> [Option<IpAddr>; 2] {
    [PARTNER, PARTNER6].map(|to| lab.who("host1", to).ok())
}

fn through(nat: NatAddresses) -> [Option<IpAddr>; 2] {
    [nat.egress_public, nat.egress6].map(Some)
}

/// An open connection without traffic.
struct Idle(TcpStream);

impl Idle {
    fn open(from: &Ns, to: IpAddr) -> Idle {
        let to = SocketAddr::new(to, PORT);
        let stream = from.in_thread(|| TcpStream::connect_timeout(&to, PATIENCE));
        let idle = Idle(stream.unwrap());
        assert!(idle.answers());
        idle
    }

    fn answers(&self) -> bool {
        let mut line = String::new();
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = (&self.0).write_all(b"echo\n");
        asked.is_ok() && BufReader::new(&self.0).read_line(&mut line).is_ok() && line == "echo\n"
    }
}

/// The gateways of both families have the same marks.
#[test]
fn death_of_one_family_ends_no_idle_flow_of_the_other() {
    isolated(|| {
        TWO.build(QUICK, |lab, machine| {
            let agent = machine.agent();
            agent.wait_in_force();
            let host1 = lab.ns("host1");
            let [dying, living] = [PARTNER, PARTNER6].map(|to| Idle::open(host1, to));
            lab.ns("nat1").nft(
                "table ip dead { chain forward { type filter hook forward priority 0; policy drop; }; }",
            );
            eventually("new flows of IPv4 take the second NAT", || {
                seen(lab) == [Some(lab.nat2.egress_public), Some(lab.nat1.egress6)]
            });
            eventually("flows of IPv4 end", || {
                agent.log().contains("1 open connections ended")
            });
            // The second round of ends comes after 100 ms.
            thread::sleep(Duration::from_secs(1));
            assert!(!dying.answers());
            assert!(living.answers(), "{}", agent.log());
        });
    });
}

/// All NATs die: nothing leaks, nothing is ended, and the first that returns is used.
fn all_dead(nats: usize, outage: Duration, probe: &str) {
    let setup = Setup { nats, ..TWO };
    setup.build(probe, |lab, machine| {
        let agent = machine.agent();
        agent.wait_in_force();
        let [first, last] = [NATS[0], NATS[nats - 1]];
        let flows = [PARTNER, PARTNER6].map(|to| Flow::open(lab.ns("host1"), to).unwrap());
        assert!(flows.iter().all(|flow| nat_of(lab, flow.seen) == Some(first)));
        count_from_now(lab);
        for nat in &NATS[..nats] {
            Death::HalfDead.strike(lab.ns(nat)).unwrap();
        }
        let died = Instant::now();
        thread::sleep(outage);
        assert!(flows.iter().all(|flow| flow.ended(died).is_none()));
        assert_eq!(changes(&agent), 0, "{}", agent.log());
        let strangers = Newcomers::start(lab.ns("host1"), &[PARTNER, PARTNER6]);
        thread::sleep(Duration::from_millis(500));
        Death::HalfDead.heal(lab, last);
        let returned = Instant::now();
        eventually("new flows take the NAT that has returned", || {
            seen(lab) == through(lab.nat(last))
        });
        let back = returned.elapsed();
        eventually("the flows of the dead NAT end", || {
            flows.iter().all(|flow| flow.ended(died).is_some())
        });
        let attempts = strangers.stop();
        println!(
            "{nats} NATs, all dead for {outage:?}: in use {back:.1?} after the return, {} new connections of the outage came through",
            attempts.iter().filter(|attempt| attempt.seen.is_ok()).count()
        );
        // The look of the test takes up to two seconds.
        assert!(back <= Duration::from_secs(5), "{back:?}");
        let leaks = lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    });
}

#[test]
fn all_dead_and_the_last_returns_first() {
    isolated(|| all_dead(3, Duration::from_secs(8), QUICK));
}

#[test]
fn all_dead_for_a_minute_with_the_defaults() {
    if is_long() {
        isolated(|| all_dead(2, Duration::from_secs(60), ""));
    } else {
        not_run();
    }
}

/// Two seconds up, two seconds down, for a minute.
fn flapping(probe: &str) {
    TWO.build(probe, |lab, machine| {
        let agent = machine.agent();
        agent.wait_in_force();
        let strangers = Newcomers::start(lab.ns("host1"), &[PARTNER, PARTNER6]);
        for _ in 0..15 {
            Death::HalfDead.strike(lab.ns("nat1")).unwrap();
            thread::sleep(Duration::from_secs(2));
            Death::HalfDead.heal(lab, "nat1");
            thread::sleep(Duration::from_secs(2));
        }
        let attempts = strangers.stop();
        let failed = attempts.iter().filter(|it| it.seen.is_err()).count();
        let slowest = attempts.iter().map(|it| it.took).max().unwrap();
        let changes = changes(&agent);
        println!(
            "flapping, probes {probe:?}: {changes} changes of both families; {failed} of {} new connections failed, slowest {slowest:.1?}",
            attempts.len()
        );
        assert!(changes <= 4, "two of each family: {}", agent.log());
    });
}

#[test]
fn flapping_nat_causes_at_most_two_changes() {
    if is_long() {
        isolated(|| flapping(""));
    } else {
        not_run();
    }
}

#[test]
fn flapping_nat_causes_at_most_two_changes_with_quick_probes() {
    if is_long() {
        isolated(|| flapping(QUICK));
    } else {
        not_run();
    }
}

/// Packets to these servers are lost behind the NATs, for all of them.
fn lose(lab: &Lab, servers: &[SocketAddr]) {
    let rules: String = servers
        .iter()
        .map(|server| {
            let family = if server.is_ipv4() { "ip" } else { "ip6" };
            format!(
                "{family} daddr {} tcp dport {} drop;",
                server.ip(),
                server.port()
            )
        })
        .collect();
    lab.ns("vpc").nft(&format!(
        "table inet outage {{ chain forward {{ type filter hook forward priority -300; {rules} }}; }}"
    ));
}

/// The servers of the probes are lost for some seconds, for all NATs.
fn outage(servers: &[SocketAddr], doubted: bool) {
    TWO.build(QUICK, |lab, machine| {
        let agent = machine.agent();
        agent.wait_in_force();
        assert_eq!(seen(lab), through(lab.nat1));
        lose(lab, servers);
        thread::sleep(Duration::from_secs(8));
        if doubted {
            agent.wait_for("doubt", |status| {
                let mut gateways = status["gateways"].as_array().into_iter().flatten();
                gateways.any(|it| it["health"]["state"] == "suspect")
            });
        }
        lab.ns("vpc").nft("delete table inet outage");
        thread::sleep(Duration::from_secs(3));
        assert_eq!(seen(lab), through(lab.nat1));
        assert_eq!(changes(&agent), 0, "{}", agent.log());
    });
}

#[test]
fn outage_of_one_server_changes_nothing() {
    isolated(|| {
        let one = [PARTNER, PARTNER6].map(|to| SocketAddr::new(to, PORT));
        outage(&one, false);
    });
}

#[test]
fn outage_of_all_servers_changes_nothing() {
    isolated(|| {
        let lines = [PARTNER, PARTNER6, OPERATOR, OPERATOR6].map(|to| SocketAddr::new(to, PORT));
        let mirrors = [MIRROR, MIRROR6].map(|to| SocketAddr::new(to, 80));
        outage(&[&lines[..], &mirrors].concat(), true);
    });
}

/// Gives the whole lab its own list of host names; later calls change it.
fn set_hosts(text: &str) {
    let own = scratch().join("hosts");
    let bound = own.exists();
    std::fs::write(&own, text).unwrap();
    if !bound {
        let mut mount = std::process::Command::new("mount");
        let status = mount.arg("--bind").arg(&own).arg("/etc/hosts").status();
        assert!(status.unwrap().success());
    }
}

/// A name keeps its former addresses.
#[test]
fn outage_of_name_resolution_changes_nothing_and_a_death_is_still_found() {
    isolated(|| {
        let lab = Lab::with_nats(2);
        let [known, silent] = ["127.0.0.1 localhost\n", "nameserver 192.0.2.200\n"];
        set_hosts(&format!(
            "{known}{PARTNER} partner.example\n{PARTNER6} partner.example\n"
        ));
        set_resolv_conf(silent);
        let settings = |hold: u8| {
            let gateways = ["nat1", "nat2"].map(|name| lab.nat(name));
            let gateways = gateways.map(|nat| format!("\"{}\", \"{}\"", nat.private, nat.private6));
            format!(
                "[egress]\nspread = \"order\"\ngateways = [{}]\n\
                 [probe]\ninterval = \"1s\"\nhold = \"{hold}s\"\ntargets = [\"partner.example:{PORT}\"]\n",
                gateways.join(", ")
            )
        };
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(10));
        let agent = machine.agent();
        agent.wait_in_force();
        let answers = |status: &serde_json::Value| {
            let gateways = status["gateways"].as_array().into_iter().flatten();
            let probed = gateways.filter(|it| it["health"]["why"] == "answers");
            probed.count()
        };
        agent.wait_for("probes by name", |status| answers(status) == 4);

        set_hosts(known);
        // Other settings of the probes let the agent ask for the addresses again.
        machine.configure(&settings(11));
        agent.signal(rustix::process::Signal::HUP);
        thread::sleep(Duration::from_secs(12));
        assert_eq!(changes(&agent), 0, "{}", agent.log());
        assert_eq!(seen(&lab), through(lab.nat1));
        Death::HalfDead.strike(lab.ns("nat1")).unwrap();
        eventually("the death is found", || seen(&lab) == through(lab.nat2));
    });
}
