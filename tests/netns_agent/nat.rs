//! The same on a NAT instance: its rules apply to packets from the hosts, its firewall translates,
//! and its egress addresses must be present.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::packets::nat::*;
use crate::packets::*;
use crate::scene::*;
use lab::*;

/// A lab whose hosts use `nat1`, with an agent on `nat1`.
fn on_nat1(case: Case, body: impl FnOnce(&Scene)) {
    let lab = behind_nat1(case.layout);
    let mut machine = case.machine(&lab);
    machine.open_table();
    machine.administrator();
    let [bypass4, bypass6] = (case.bypass)(&lab.nat1);
    let seen = |target| match target {
        S3 => bypass4,
        S3_6 => bypass6,
        PARTNER6 => lab.nat1.egress6,
        _ => lab.nat1.egress_public,
    };
    watch_over(&lab, &machine, case.firewall, &seen, body);
}

/// The priorities of our rules in a family.
fn priorities(scene: &Scene, family: &str) -> Vec<String> {
    let listing = scene.ip(&format!("{family} -N rule show"));
    let ours = listing.lines().filter(|line| line.contains("proto 83"));
    ours.map(|line| line.split(':').next().unwrap().to_owned())
        .collect()
}

/// Runs the scripts in turn; each is repaired and reported as a change of the firewall.
fn attack(scene: &Scene, scripts: &[String]) {
    for script in scripts {
        let (story, started) = (scene.story(), Instant::now());
        scene.gap(|| drop(scene.shell(script)));
        eventually(&format!("the journal tells of `{script}`"), || {
            let new = scene.story().split_off(story.len());
            new.iter().any(|step| step.ends_with(" nat"))
        });
        // Six repairs in ten seconds are a conflict, so the pace is slower. A pass that begins
        // within a script repairs twice, so that a conflict is no fault here.
        std::thread::sleep(Duration::from_millis(2100).saturating_sub(started.elapsed()));
    }
}

#[test]
fn nat_rules_and_routes_are_repaired() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::Nftables), |scene| {
            for family in FAMILIES {
                let story = scene.story();
                let priorities = priorities(scene, family);
                assert!(priorities.len() >= 4, "{priorities:?}");
                for priority in &priorities {
                    scene.gap(|| drop(scene.ip(&format!("{family} rule del pref {priority}"))));
                }
                scene.gap(|| scene.delete_each_route(family, 1083));
                let version = family.replace('-', "v");
                let rule = |priority| format!("add rule ip{version} {priority}");
                let mut steps: Vec<String> = priorities.iter().map(rule).collect();
                let of_family = |prefix: &&&str| prefix.contains(':') == (family == "-6");
                let routes = FIRST.iter().filter(of_family);
                steps.extend(routes.map(|prefix| format!("add route {prefix} table 1083")));
                scene.told(&story, &steps);
            }
        });
    });
}

#[test]
fn nat_chains_are_repaired_nftables() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::Nftables), |scene| {
            let chains = scene
                .shell("nft list table inet trailblazer | sed -n 's/.*chain \\(.*\\) {/\\1/p'");
            let mut scripts = vec![
                // Like a reload of nftables.service: foreign tables are back at once.
                "{ echo flush ruleset; for table in natbox letin theirs; do
                     nft -s list table inet $table; done; } | nft -f -"
                    .to_owned(),
                "nft delete table inet trailblazer".to_owned(),
            ];
            let flush = |chain| format!("nft flush chain inet trailblazer {chain}");
            scripts.extend(chains.lines().map(flush));
            attack(scene, &scripts);
        });
    });
}

#[test]
fn nat_chains_are_repaired_iptables() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::Iptables), |scene| {
            let programs = ["ip6", "ip"].map(|family| scene.firewall.program(family));
            for program in &programs {
                // The built-in chains of a restored table, and the table's place at the end, are an
                // effect of the attack.
                for table in ["nat", "mangle", "filter"] {
                    scene.shell(&format!("{program}-save -t {table} | {program}-restore"));
                }
            }
            scene.foreign_from_now();
            let mut scripts = Vec::new();
            for program in &programs {
                for table in ["nat", "mangle"] {
                    scripts.push(format!(
                        "{program}-save -t {table} | grep -v TRAILBLAZER > /run/lab/theirs
                         {program} -t {table} -F; {program}-restore -n < /run/lab/theirs"
                    ));
                }
                scripts.push(format!(
                    "{program} -t nat -S POSTROUTING | grep TRAILBLAZER | sed 's/^-A/-D/' |
                         xargs {program} -t nat"
                ));
            }
            attack(scene, &scripts);
        });
    });
}

/// Conntrack translates a flow at its first packet or never. A client that keeps asking from the
/// same port is answered all the same after the repair.
fn flow_without_translation(firewall: Firewall, delete: &str) {
    on_nat1(bulk_interface(firewall), |scene| {
        let asking = scene.lab.ns("host1").in_thread(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((S3, PORT)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            socket
        });
        let ask = || {
            asking.send(b"who").unwrap();
            let mut answer = [0; 64];
            let length = asking.recv(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..length]).trim().to_owned())
        };
        scene.gap(|| {
            scene.agent.signal(Signal::STOP);
            // The forward policies would refuse the packets.
            scene.shell(&format!("ip xfrm policy flush; {delete}"));
            let untranslated = scene.lab.leaks().unmapped;
            eventually("it goes astray", || {
                ask().is_none() && scene.lab.leaks().unmapped > untranslated
            });
            scene.agent.signal(Signal::CONT);
        });
        let [bypass, _] = second(&scene.lab.nat1);
        eventually("it is answered", || ask() == Some(bypass.to_string()));
    });
}

#[test]
fn flow_opened_before_nat_is_translated_after_the_repair_nftables() {
    isolated(|| {
        flow_without_translation(Firewall::Nftables, "nft delete table inet trailblazer");
    });
}

#[test]
fn flow_opened_before_nat_is_translated_after_the_repair_iptables() {
    isolated(|| {
        // The table beside iptables would drop the first packet.
        flow_without_translation(
            Firewall::Iptables,
            "nft delete table inet trailblazer-guard; iptables -t nat -F TRAILBLAZER-POST",
        );
    });
}

/// Without its egress address the instance cannot translate; with the address back, everything is
/// as before.
#[test]
fn lost_egress_address_degrades_until_its_return() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::Nftables), |scene| {
            let nat = scene.lab.nat1;
            // Another address of the link, so that the link's default stays.
            scene
                .machine
                .ns()
                .sysctl(&[("net/ipv4/conf/pub/promote_secondaries", "1")]);
            scene.ip("addr add 198.51.100.3/29 dev pub");
            scene
                .agent
                .wait_for("in force", |status| status["state"] == "in_force");
            let ours = scene.ours();
            for (address, length) in [(nat.egress, 29), (nat.egress6, 64)] {
                scene.ip(&format!("addr del {address}/{length} dev pub"));
                let status = scene
                    .agent
                    .wait_for("it says so", |status| status["state"] == "degraded");
                let reason = status["reason"].as_str().unwrap();
                assert!(reason.contains("egress_addresses"), "{reason}");
                let listed = |status: &Value| {
                    let mut listed = status["egress_addresses"].as_array().unwrap().iter();
                    let found = listed.find(|it| it["own"] == *address.to_string());
                    found.map(|it| it["state"].as_str().unwrap().to_owned())
                };
                assert_ne!(listed(&status).as_deref(), Some("here"), "{status:#}");
                // Other objects deleted meanwhile are repaired meanwhile.
                scene.gap(|| {
                    scene.delete_each_route("-4", 1083);
                    scene.shell("nft delete table inet trailblazer");
                });
                let nodad = if address.is_ipv6() { "nodad" } else { "" };
                scene.ip(&format!("addr add {address}/{length} dev pub {nodad}"));
                scene.agent.wait_for("in force", |status| {
                    status["state"] == "in_force" && listed(status).as_deref() == Some("here")
                });
                assert_eq!(scene.ours(), ours);
            }
            scene.foreign_from_now();
        });
    });
}

/// The bulk link flaps: storage traffic takes the egress path until its routes are back, from an
/// egress address, never from another one.
#[test]
fn flapping_bulk_link_falls_back_to_the_egress_address() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::Nftables), |scene| {
            let nat = scene.lab.nat1;
            for round in 0..5 {
                scene.gap(|| {
                    scene.machine.ns().flap("bulk");
                    scene.machine.ns().ip_batch(&format!(
                        "addr replace {}/64 dev bulk nodad\n\
                         route add default via {} dev bulk proto dhcp metric 522\n\
                         route add default via {ROUTER6} dev bulk proto ra metric 522\n",
                        nat.second6, nat.second_gateway
                    ));
                });
                if round == 0 {
                    // The kernel lists its own routes of the link last from now on.
                    scene.foreign_from_now();
                }
            }
            let log = scene.agent.log();
            assert!(!log.contains("conflict"), "{log}");
        });
    });
}

/// A port of the partner without a server.
const CROWDED: u16 = 7_777;

/// Datagrams from these ports of a client to one port of a partner.
fn crowd_ports(
    scene: &Scene,
    client: &str,
    partner: IpAddr,
    ports: impl Iterator<Item = u16> + Send,
) {
    let any: IpAddr = if partner.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // The queue of a neighbour without an answer so far holds fewer datagrams.
    scene.lab.who(client, partner).unwrap();
    scene.lab.ns(client).in_thread(|| {
        // Each port is free again only at the end.
        let bind = |port| UdpSocket::bind((any, port)).unwrap();
        let sockets: Vec<UdpSocket> = ports.map(bind).collect();
        for socket in &sockets {
            socket.send_to(b"x", (partner, CROWDED)).unwrap();
        }
    });
}

fn busiest_destination_is_named(firewall: Firewall) {
    const FLOWS: usize = 300;
    on_nat1(bulk_interface(firewall), |scene| {
        let nat1 = &scene.lab.nat1;
        for (partner, egress) in [(PARTNER, nat1.egress), (PARTNER6, nat1.egress6)] {
            crowd_ports(scene, "host1", partner, std::iter::repeat_n(0, FLOWS));
            let destination = SocketAddr::new(partner, CROWDED).to_string();
            let is_named = |status: &Value| {
                let mut busiest = status["conntrack"]["busiest"].as_array()?.iter();
                busiest.find(|it| {
                    it["address"] == *egress.to_string()
                        && it["destination"] == *destination
                        && it["ports"] == FLOWS
                })?;
                Some(())
            };
            let status = scene.agent.wait_for("the crowded destination", |status| {
                is_named(status).is_some()
            });
            let table = &status["conntrack"];
            assert!(
                table["entries"].as_u64().unwrap() >= FLOWS as u64,
                "{status:#}"
            );
            assert!(table["limit"].as_u64().unwrap() > 0, "{status:#}");
            let failed = |status: &Value| status["conntrack"]["insert_failed"].as_u64();
            let before = failed(&status);
            // The translation keeps ports below 512 below 512: two clients use more than there are.
            for client in ["host1", "host2"] {
                crowd_ports(scene, client, partner, 1..400);
            }
            let more = |status: &Value| failed(status) > before;
            scene.agent.wait_for("flows without a free port", more);
        }
    });
}

#[test]
fn busiest_destination_of_a_nat_is_named_nftables() {
    isolated(|| busiest_destination_is_named(Firewall::Nftables));
}

#[test]
fn busiest_destination_of_a_nat_is_named_iptables() {
    isolated(|| busiest_destination_is_named(Firewall::Iptables));
}

/// Another program deletes the translation every 1.5 s, for 15 s.
fn translation_deleted_every_1500_ms(firewall: Firewall, delete: &str) {
    on_nat1(bulk_interface(firewall), |scene| {
        let (status, report) = scene.delete_every_1500_ms(delete, &[PARTNER], 100);
        let counts = report.of(PARTNER);
        println!("{counts:?}, {:?}", scene.lab.leaks());
        let right = scene.lab.nat1.egress_public.to_string();
        assert!(counts.get(&right).copied() > Some(100), "{counts:?}");
        // Passes repair the firewall, on a busy machine too slowly for a conflict.
        let listed = conflicts(&status);
        let withheld = |conflict: &&&Value| conflict["paused_for_s"] != 0;
        assert_eq!(listed.iter().find(withheld), None, "{status:#}");
        // A flush of iptables takes the administrator's rules too.
        scene.foreign_from_now();
        count_from_now(scene.lab);
    });
}

#[test]
fn translation_deleted_again_and_again_is_restored_at_once_nftables() {
    isolated(|| {
        translation_deleted_every_1500_ms(
            Firewall::Nftables,
            "nft delete table inet trailblazer 2>/dev/null || true",
        )
    });
}

#[test]
fn translation_deleted_again_and_again_is_restored_at_once_iptables() {
    isolated(|| {
        translation_deleted_every_1500_ms(
            Firewall::Iptables,
            "iptables-nft -t nat -F; ip6tables-nft -t nat -F",
        )
    });
}

#[test]
fn switched_off_forwarding_is_switched_on_again_at_once() {
    isolated(|| {
        let case = Case {
            settings: |nat| {
                let settings = (bulk_interface(Firewall::Nftables).settings)(nat);
                format!("{settings}[kernel]\nmanage = [\"ip_forward\"]\n")
            },
            ..bulk_interface(Firewall::Nftables)
        };
        on_nat1(case, |scene| {
            let ns = scene.machine.ns();
            for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                ns.sysctl(&[(path, "0")]);
                // Long before the next resync.
                eventually("forwarding is on", || {
                    ns.read_sysctl(path).as_deref() == Some("1")
                });
            }
        });
    });
}

/// CPU time of the ended children of a process (proc_pid_stat(5): cutime and cstime) and of the
/// process, in ticks of 10 ms.
fn ticks_with_children(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(4);
    ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn flushed_translation_is_restored_within_seconds_iptables_legacy() {
    isolated(|| {
        on_nat1(bulk_interface(Firewall::IptablesLegacy), |scene| {
            let (before, pid) = (scene.ours(), scene.agent.pid());
            let (started, spent) = (Instant::now(), ticks_with_children(pid));
            std::thread::sleep(Duration::from_secs(10));
            let spent = ticks_with_children(pid) - spent;
            println!(
                "idle: {} ms of CPU time in {:?}",
                spent * 10,
                started.elapsed()
            );
            for _ in 0..3 {
                scene.shell("iptables-legacy -w -t nat -F; ip6tables-legacy -w -t nat -F");
                let flushed = Instant::now();
                scene.back_as(&before, || scene.ours());
                // A second until the poll, and the pass: long before the next resync.
                println!("restored after {:?}", flushed.elapsed());
            }
            scene.foreign_from_now();
            std::thread::sleep(PATIENCE * 2);
            count_from_now(scene.lab);
        });
    });
}
