//! Another program flushes the firewall, or changes single rules of ours. On a host these rules
//! mark flows opened from outside, whose answers would otherwise leave through the NAT.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::packets::*;
use crate::scene::*;
use lab::*;

fn setting(firewall: Firewall, agent: &str) -> Setting {
    Setting {
        firewall,
        config: format!("{ONE}[agent]\n{agent}"),
        ..Setting::default()
    }
}

/// A connection from outside without unsolicited packets: a packet of a [`LongFlow`] in the gap
/// would end the connection.
struct Idle(TcpStream);

impl Idle {
    /// Opens the connection and asks once, with the patience of the client's kernel.
    fn open(lab: &Lab, to: IpAddr) -> Idle {
        let connect = || {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            Ok(stream)
        };
        let opened: std::io::Result<TcpStream> = lab.ns("outside").in_thread(connect);
        let idle = Idle(opened.unwrap_or_else(|error| panic!("outside to {to}: {error}")));
        idle.assert_alive();
        idle
    }

    #[track_caller]
    fn assert_alive(&self) {
        let mut line = String::new();
        let asked = (&self.0).write_all(b"there?\n");
        let answer = asked.and_then(|()| BufReader::new(&self.0).read_line(&mut line));
        assert!(answer.is_ok() && line == "there?\n", "{answer:?}, {line:?}");
    }
}

#[track_caller]
fn assert_reachable_from_outside(lab: &Lab) {
    for (public, operator) in [(HOST1_PUBLIC, OPERATOR), (HOST1_6, OPERATOR6)] {
        assert_eq!(lab.who("outside", public), Ok(operator), "to {public}");
    }
}

/// Runs one attack after the other; each is repaired, logged, and attributed to the program.
/// Connections from outside stay open, and new ones succeed as before.
fn attack(scene: &Scene, program: &str, scripts: &[&str]) {
    let open = [HOST1_PUBLIC, HOST1_6].map(|public| Idle::open(scene.lab, public));
    for script in scripts {
        let (story, started) = (scene.story(), Instant::now());
        scene.gap(|| drop(scene.shell(script)));
        eventually(&format!("the journal tells of `{script}`"), || {
            scene.story().len() > story.len()
        });
        let new = scene.story().split_off(story.len());
        assert!(new.iter().all(|step| step.ends_with(" nat")), "{new:?}");
        for flow in &open {
            flow.assert_alive();
        }
        assert_reachable_from_outside(scene.lab);
        // Six repairs in ten seconds are a conflict, so the pace is slower. A pass or a poll that
        // begins within a script repairs twice, so that a conflict is no fault here.
        let pace = if program.is_empty() { 4000 } else { 2100 };
        std::thread::sleep(Duration::from_millis(pace).saturating_sub(started.elapsed()));
    }
    // The journal names a pass at its begin, the status counts at its end.
    scene.agent.wait_for("all of it counted", |status| {
        mended(status, "nat") >= scripts.len() as u64
    });
    let named = format!("{program} changed the firewall");
    let log = scene.agent.log();
    assert!(program.is_empty() || log.contains(&named), "{log}");
}

#[test]
fn flushed_ruleset_and_deleted_table_are_restored() {
    isolated(|| {
        in_force(setting(Firewall::Nftables, ""), |scene| {
            let scripts = [
                // Like a reload of nftables.service: foreign tables are back at once.
                "{ echo flush ruleset; nft -s list table inet theirs; } | nft -f -",
                "nft delete table inet trailblazer",
                "nft flush table inet trailblazer",
            ];
            attack(scene, "nft", &scripts);
        });
    });
}

#[test]
fn single_rule_changes_in_our_table_are_undone() {
    isolated(|| {
        in_force(setting(Firewall::Nftables, ""), |scene| {
            let scripts = [
                "nft insert rule inet trailblazer prerouting tcp dport 9 counter drop",
                "nft add chain inet trailblazer theirs",
                "handle=$(nft -a list chain inet trailblazer prerouting |
                     sed -n 's/.*ct mark set.*# handle //p' | head -1)
                 nft delete rule inet trailblazer prerouting handle $handle",
                "nft flush chain inet trailblazer prerouting",
            ];
            attack(scene, "nft", &scripts);
        });
    });
}

/// Attacks on the iptables backend; `$P` is the program. Like a firewall script, each attack
/// restores foreign rules.
const ATTACKS: [&str; 5] = [
    "$P-save -t mangle | grep -v TRAILBLAZER > /run/lab/theirs
     $P -w -t mangle -F; $P-restore -w -n < /run/lab/theirs",
    "$P -w -t mangle -S PREROUTING | grep TRAILBLAZER | sed 's/^-A/-D/' | xargs $P -w -t mangle",
    // netfilter-persistent: restores the whole table without our chains.
    "$P-save -t mangle | grep -v TRAILBLAZER > /run/lab/theirs; $P-restore -w < /run/lab/theirs",
    "$P -w -t mangle -F $($P -w -t mangle -S | sed -n 's/^-N \\(TRAILBLAZER-.*\\)/\\1/p' | head -1)",
    "$P -w -t mangle -S PREROUTING | grep TRAILBLAZER | xargs $P -w -t mangle",
];

fn attack_iptables(scene: &Scene, blamed: bool) {
    let [ip, ip6] = ["ip", "ip6"].map(|family| scene.firewall.program(family));
    // The variant on nf_tables creates built-in chains on demand, and a restored table at the end
    // of the list: an effect of the attack. IPv4's table is the last.
    for program in [&ip6, &ip] {
        scene.shell(&format!("{program}-save -t mangle | {program}-restore -w"));
    }
    scene.foreign_from_now();
    for (program, attacks) in [(ip, &ATTACKS[..]), (ip6, &ATTACKS[..2])] {
        let scripts: Vec<String> = attacks
            .iter()
            .map(|script| script.replace("$P", &program))
            .collect();
        let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
        attack(scene, if blamed { &program } else { "" }, &scripts);
    }
}

#[test]
fn flushed_chains_and_deleted_jumps_are_restored_iptables() {
    isolated(|| {
        in_force(setting(Firewall::Iptables, ""), |scene| {
            attack_iptables(scene, true);
        });
    });
}

/// The kernel doesn't announce changes of iptables-legacy: the agent polls the rules.
#[test]
fn flushed_chains_and_deleted_jumps_are_restored_iptables_legacy() {
    isolated(|| {
        in_force(setting(Firewall::IptablesLegacy, ""), |scene| {
            attack_iptables(scene, false);
        });
    });
}

/// A connection opened while the rules are missing has its flow marked after the repair.
#[test]
fn connection_opened_without_our_rules_survives_the_repair() {
    isolated(|| {
        // The astray answer is seen behind the NAT.
        let plain = Setting {
            guarded: false,
            ..setting(Firewall::Nftables, "")
        };
        in_force(plain, |scene| {
            for script in [
                "nft flush chain inet trailblazer prerouting",
                "nft delete table inet trailblazer",
            ] {
                scene.gap(|| {
                    scene.agent.signal(Signal::STOP);
                    scene.shell(script);
                    let lab = scene.lab;
                    let astray = lab.leaks().unmapped;
                    std::thread::scope(|scope| {
                        let opening = scope.spawn(|| Idle::open(lab, HOST1_PUBLIC));
                        eventually("its answer goes astray", || lab.leaks().unmapped > astray);
                        scene.agent.signal(Signal::CONT);
                        opening.join().unwrap().assert_alive();
                    });
                });
            }
        });
    });
}
