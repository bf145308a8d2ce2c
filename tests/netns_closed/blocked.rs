//! The list of dropped packets: `trailblazer blocked`, the sets and the log rule behind the list.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use socket2::Protocol;

use crate::packets::*;
use crate::*;
use lab::*;

/// Packets of each kind to each partner.
const PACKETS: u64 = 3;
/// More destinations than a list has places.
const DESTINATIONS: u32 = 2000;
const PLACES: u64 = 1024;

/// A host with the chain `closed`, and nothing that leads packets to a path.
pub fn closed_host(lab: &Lab) -> Machine<'_> {
    let machine = Machine::new(lab, "host1", Firewall::Nftables, BOTH);
    machine.changed();
    shell(lab, DELETE_RULES);
    machine
}

/// An echo request without data; the checksum is wrong for IPv4, and nobody looks at it.
fn echo(target: IpAddr) -> std::io::Result<usize> {
    let (protocol, kind) = match target {
        IpAddr::V4(_) => (Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Protocol::ICMPV6, 128),
    };
    let to = SockAddr::from(SocketAddr::new(target, 0));
    let socket = Socket::new(to.domain(), Type::RAW, Some(protocol))?;
    socket.bind_device(Some(PRIVATE_LINK.as_bytes()))?;
    socket.send_to(&[kind, 0, 0, 0, 0, 1, 0, 1], &to)
}

/// Sends TCP, UDP and ICMP to both partners. No packet leaves.
pub fn send_each_kind(lab: &Lab) {
    lab.ns("host1").in_thread(|| {
        for target in [PARTNER, PARTNER6] {
            for _ in 0..PACKETS {
                let tcp = bound(target, Type::STREAM).unwrap();
                let at_once = Duration::from_millis(50);
                assert!(tcp.connect_timeout(&at(target), at_once).is_err());
                let udp = bound(target, Type::DGRAM).unwrap();
                assert!(udp.send_to(b"who", &at(target)).is_err());
                assert!(echo(target).is_err());
            }
        }
    });
}

/// Runs `blocked` with JSON and the exit code 0.
#[track_caller]
pub fn listed(machine: &Machine) -> Value {
    machine.run(&["blocked", "--all", "-o", "json"]).ok().json()
}

/// Protocol, destination, port and packets of each entry, sorted.
pub fn entries(list: &Value) -> Vec<(String, String, Option<u64>, u64)> {
    let entry = |entry: &Value| {
        assert_eq!(entry["reason"], "closed", "{entry}");
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        let number = |key: &str| entry[key].as_u64();
        (
            text("protocol"),
            text("destination"),
            number("port"),
            number("packets").unwrap(),
        )
    };
    let mut entries: Vec<_> = list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect();
    entries.sort();
    entries
}

pub fn expected(times: u64) -> Vec<(String, String, Option<u64>, u64)> {
    let port = Some(u64::from(PORT));
    let mut entries: Vec<_> = [(PARTNER, "icmp"), (PARTNER6, "icmpv6")]
        .into_iter()
        .flat_map(|(to, icmp)| {
            [("tcp", port), ("udp", port), (icmp, None)]
                .map(|(name, port)| (name.to_owned(), to.to_string(), port, times * PACKETS))
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn dropped_packets_are_listed_by_protocol_and_destination() {
    isolated(|| {
        let lab = lab_with_nat();
        let mut machine = closed_host(&lab);
        let empty = machine.run(&["blocked"]).ok().stdout;
        assert_eq!(empty, "no packet was dropped in the last hour\n");
        count_from_now(&lab);
        send_each_kind(&lab);
        assert_no_leaks(&lab);
        let first = listed(&machine);
        assert_eq!(entries(&first), expected(1), "{first:#}");
        for entry in first["entries"].as_array().unwrap() {
            let own = own_of_host1(entry["destination"].as_str().unwrap().parse().unwrap());
            assert_eq!(entry["source"], own.to_string());
            let now = now_in_seconds();
            for key in ["first_at", "last_at"] {
                let at = entry[key].as_i64().unwrap();
                assert!((now - 60..=now).contains(&at), "{key}: {entry}");
            }
        }
        let text = machine.run(&["blocked", "-n", "2"]).ok().stdout;
        for words in ["SOURCE", "and 4 more: --all", "closed, since the counters"] {
            assert!(text.contains(words), "{text}");
        }

        // The elements are no drift. Another policy takes them over, and counts go on.
        machine.changed();
        machine.in_sync();
        assert_eq!(entries(&listed(&machine)), expected(1));
        machine.configure(&format!("{BOTH}exempt = [\"203.0.113.99\"]\n"));
        machine.changed();
        machine.in_sync();
        shell(&lab, DELETE_RULES);
        send_each_kind(&lab);
        let second = listed(&machine);
        assert_eq!(entries(&second), expected(2), "{second:#}");
        let since = |list: &Value| list["entries"][0]["first_at"].as_i64().unwrap();
        assert!((since(&second) - since(&first)).abs() <= 1, "{second:#}");
        machine.flush();
        assert_eq!(machine.run(&["blocked"]).code, Some(1));
    });
}

fn now_in_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

/// Each list is bounded, and packets without a place are dropped.
#[test]
fn full_list_drops_the_packets_of_further_destinations() {
    isolated(|| {
        let lab = lab_with_nat();
        let machine = closed_host(&lab);
        count_from_now(&lab);
        lab.ns("host1").in_thread(|| {
            let v4 = bound(PARTNER, Type::DGRAM).unwrap();
            let v6 = bound(PARTNER6, Type::DGRAM).unwrap();
            for number in 0..DESTINATIONS {
                let to4 = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(9, 9, 0, 0)) + number);
                let net6 = u128::from(Ipv6Addr::new(0x2a00, 9, 0, 0, 0, 0, 0, 0));
                let to6 = Ipv6Addr::from_bits(net6 + u128::from(number));
                assert!(v4.send_to(b"x", &at(to4.into())).is_err(), "{to4}");
                assert!(v6.send_to(b"x", &at(to6.into())).is_err(), "{to6}");
            }
        });
        assert_no_leaks(&lab);
        let list = listed(&machine);
        assert_eq!(list["entries_total"], 2 * PLACES);
        let full = serde_json::json!([
            {"reason": "closed", "family": "ipv4"},
            {"reason": "closed", "family": "ipv6"},
        ]);
        assert_eq!(list["full"], full);
        let dropped = &list["dropped"]["closed"];
        for family in ["ipv4", "ipv6"] {
            assert_eq!(dropped[family]["packets"], DESTINATIONS, "{dropped}");
        }
        let text = machine.run(&["blocked"]).ok().stdout;
        assert!(text.contains("the list of closed ipv6 is full"), "{text}");
        assert!(text.contains("and 2028 more: --all"), "{text}");
        // A full list is no drift, and a new policy takes it over.
        machine.changed();
        machine.in_sync();
        assert_eq!(listed(&machine)["entries_total"], 2 * PLACES);
    });
}

/// The trace of nftables names each rule whose expressions have all held: the log rule for five packets at
/// once, and for five more in a second. The kernel writes no log for namespaces like these.
#[test]
fn log_of_dropped_packets_has_a_bounded_rate() {
    isolated(|| {
        const DATAGRAMS: usize = 100;
        let lab = lab_with_nat();
        let _machine = closed_host(&lab);
        let host1 = lab.ns("host1");
        host1.nft(
            "table inet watch {
               chain out {
                 type filter hook output priority 0; udp dport 443 meta nftrace set 1
               }
             }",
        );
        let path = scratch().join("trace");
        let file = std::fs::File::create(&path).unwrap();
        let mut trace = host1.in_thread(|| {
            let mut command = std::process::Command::new("stdbuf");
            command
                .args(["-oL", "nft", "monitor", "trace"])
                .stdout(file);
            command.spawn().unwrap()
        });
        let traced = |words: &str| {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| line.contains(words));
            lines.count()
        };
        let send = || {
            host1.in_thread(|| {
                let socket = bound(PARTNER, Type::DGRAM).unwrap();
                assert!(socket.send_to(b"who", &at(PARTNER)).is_err());
            });
        };
        eventually("the trace begins", || {
            send();
            traced("verdict drop") > 0
        });
        let before = traced("verdict drop");
        // The rate recovers from the first datagrams.
        std::thread::sleep(Duration::from_secs(1));
        let logged =
            "rule limit rate 5/second log prefix \"trailblazer drops (closed): \" flags skuid";
        let logged_before = traced(logged);
        let started = std::time::Instant::now();
        for _ in 0..DATAGRAMS {
            send();
        }
        let took = started.elapsed().as_secs_f64();
        eventually("every drop is traced", || {
            traced("verdict drop") >= before + DATAGRAMS
        });
        let lines = traced(logged) - logged_before;
        let most = 5.0 * took + 6.0;
        assert!(
            (4..=most as usize).contains(&lines),
            "{lines} lines in {took} s"
        );
        trace.kill().unwrap();
        trace.wait().unwrap();
    });
}

/// The program that reads the firewall reads our sets too, and a saved ruleset loads again.
#[test]
fn saved_ruleset_with_a_list_loads_again() {
    isolated(|| {
        let lab = lab_with_nat();
        let machine = closed_host(&lab);
        send_each_kind(&lab);
        let host1 = lab.ns("host1");
        let saved = host1.run(&["nft", "list", "ruleset"]);
        println!("{saved}");
        host1.nft(&format!("flush ruleset\n{saved}"));
        assert_eq!(entries(&listed(&machine)), expected(1));
        machine.changed();
        machine.in_sync();
    });
}

#[test]
fn command_says_why_it_has_no_list() {
    isolated(|| {
        let lab = lab_with_nat();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, BOTH);
        let why = |machine: &Machine, words: &str| {
            let output = machine.run(&["blocked"]);
            assert_eq!(output.code, Some(1), "{output:?}");
            assert!(output.stderr.contains(words), "{output:?}");
            let list = machine.run(&["blocked", "-o", "json"]).json();
            assert!(list["error"].as_str().unwrap().contains(words), "{list}");
            assert_eq!(list["entries_total"], 0);
        };
        why(
            &machine,
            "no nf_tables table of Trailblazer is in the kernel",
        );
        machine.configure(&BOTH.replace("enforce = true", "enforce = false"));
        machine.changed();
        why(
            &machine,
            "no rule of Trailblazer in the kernel drops packets",
        );
        machine.configure(BOTH);
        machine.changed();
        machine.run(&["blocked"]).ok();
        let words = [
            env!("CARGO_BIN_EXE_trailblazer"),
            "blocked",
            "-c",
            machine.config(),
        ];
        let unprivileged = lab.ns("host1").exec_unprivileged(&words);
        assert_eq!(unprivileged.code, Some(1), "{unprivileged:?}");
        assert!(
            unprivileged.stderr.contains("CAP_NET_ADMIN"),
            "{unprivileged:?}"
        );
    });
}
