//! The replay in each way: by passes and by agents, with kills, upgrades, restarts of nftables, and
//! other ways out.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::packets::Firewall;
use crate::site::*;
use crate::subject::Subject;
use crate::traffic::Seen;

/// Kills of passes or agents in one replay.
const KILLS: usize = 100;
/// A restart of nftables: one transaction, as the unit of Debian has it.
const RESTART: &str = "flush ruleset
    table inet filter {
      chain input { type filter hook input priority filter; tcp dport 9 drop; }
      chain forward { type filter hook forward priority filter; tcp dport 9 drop; }
    }";

/// Other numbers in the kernel, and the first ones again.
const NUMBERS: [&str; 4] = [
    "[kernel]\npin_tables = 2100\npriority = 20000\n",
    "",
    "[kernel]\nmarks.path = \"0x3000\"\nmarks.gateway = \"0x0700\"\n",
    "",
];

const PASSES: Kind = Kind {
    scene: "passes",
    pin: true,
    by_agent: false,
    more: "",
};
const AGENT: Kind = Kind {
    scene: "agent",
    by_agent: true,
    ..PASSES
};

/// Ten versions a second, a pass each.
pub fn passes(subject: Subject, pin: bool) -> Option<Seen> {
    replay(subject, Kind { pin, ..PASSES }, |site| {
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        for number in site.order(1) {
            paced(began, number);
            site.publish(number);
            let started = Instant::now();
            site.pass();
            slowest = slowest.max(started.elapsed());
        }
        let (count, took) = (site.versions.len() - 1, began.elapsed().as_secs_f64());
        format!("{count} versions in {took:.1} s, the slowest pass {slowest:.0?}")
    })
}

/// Passes that are killed at random moments, until one ends by itself.
pub fn killed_passes(subject: Subject) -> Option<Seen> {
    let scene = "killed passes";
    replay(subject, Kind { scene, ..PASSES }, |site| {
        let mut kills = 0;
        let mut took = Duration::from_millis(100);
        for number in site.order(1) {
            site.publish(number);
            let goal = (KILLS * number).div_ceil(site.versions.len() - 1);
            for _ in 0..10 {
                if kills >= goal {
                    break;
                }
                let mut command = site.subject.command(&site.machine);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let mut pass = site.machine.ns().spawn(&mut command);
                sleep(site.moment(took));
                drop(pass.kill());
                let signal = pass.wait().unwrap().signal();
                kills += usize::from(signal == Some(Signal::KILL.as_raw()));
            }
            let started = Instant::now();
            site.pass();
            took = started.elapsed();
        }
        format!("{} versions, {kills} kills", site.versions.len() - 1)
    })
}

/// Ten versions a second at the source of a running agent, which fetches once a second; there, back
/// and there again.
pub fn agent(subject: Subject) -> Option<Seen> {
    replay(subject, AGENT, |site| {
        let before = site.lab.mirror.requests().len();
        let began = Instant::now();
        let order = site.order(3);
        for (turn, number) in order.iter().enumerate() {
            paced(began, turn);
            site.publish(*number);
        }
        site.wait_in_force();
        let fetches = site.lab.mirror.requests().len() - before;
        format!("{} versions in {fetches} fetches", order.len())
    })
}

/// Every version in a fetch of its own.
pub fn agent_with_each_version(subject: Subject) -> Option<Seen> {
    let scene = "agent, each version";
    replay(subject, Kind { scene, ..AGENT }, |site| {
        for number in site.order(1) {
            let before = site.lab.mirror.requests().len();
            site.publish(number);
            lab::eventually("a fetch", || site.lab.mirror.requests().len() > before);
        }
        site.wait_in_force();
        format!("{} versions", site.versions.len() - 1)
    })
}

/// Agents that are killed at random moments and started again; each start fetches.
pub fn killed_agents(subject: Subject) -> Option<Seen> {
    let scene = "killed agents";
    replay(subject, Kind { scene, ..AGENT }, |site| {
        let before = site.lab.mirror.requests().len();
        site.kill();
        let started = Instant::now();
        site.start();
        site.wait_in_force();
        let life = 2 * started.elapsed();
        for kill in 0..KILLS {
            site.publish(1 + kill * (site.versions.len() - 1) / KILLS);
            sleep(site.moment(life));
            site.kill();
            site.start();
        }
        site.publish(site.versions.len() - 1);
        site.wait_in_force();
        let fetches = site.lab.mirror.requests().len() - before;
        format!("{KILLS} kills, {fetches} fetches")
    })
}

/// The agent is killed, and another copy of the binary goes on with other numbers in the kernel.
pub fn upgrades(subject: Subject) -> Option<Seen> {
    let scene = "upgrades";
    replay(subject, Kind { scene, ..AGENT }, |site| {
        let mut upgrades = 0;
        for chunk in site.order(1).chunks(4) {
            let began = Instant::now();
            for (turn, number) in chunk.iter().enumerate() {
                paced(began, turn);
                site.publish(*number);
            }
            site.kill();
            exchange_binary(upgrades);
            site.configure(0, NUMBERS[upgrades % NUMBERS.len()]);
            site.start();
            site.wait_in_force();
            upgrades += 1;
        }
        format!("{upgrades} upgrades")
    })
}

/// Restarts of nftables, beside an agent that protects its table or one that does not. Chains of
/// iptables go with each restart, whatever the setting: new connections wait for the repair, and the
/// agent slows repairs down that another program undoes every second. So the restarts are fewer there.
pub fn restarts(subject: Subject, protect: bool) -> Option<Seen> {
    let (rounds, every) = match subject.firewall {
        Firewall::Nftables => (3, 6),
        _ => (12, 25),
    };
    let (scene, more) = if protect {
        ("restarts, protected", "[kernel]\nprotect_table = true\n")
    } else {
        ("restarts, plain", "[kernel]\nprotect_table = false\n")
    };
    let kind = Kind {
        scene,
        more,
        ..AGENT
    };
    replay(subject, kind, |site| {
        let began = Instant::now();
        let mut restarts = 0;
        for (turn, number) in site.order(rounds).into_iter().enumerate() {
            paced(began, turn);
            site.publish(number);
            if turn % every == every - 1 {
                site.machine.ns().nft(RESTART);
                restarts += 1;
            }
        }
        site.wait_in_force();
        format!("{restarts} restarts")
    })
}

/// Other gateways of a host, other egress addresses of a NAT: the first, the second, both.
pub fn ways(subject: Subject) -> Option<Seen> {
    let scene = "ways out";
    let kind = if subject.has_agents() { AGENT } else { PASSES };
    replay(subject, Kind { scene, ..kind }, |site| {
        let began = Instant::now();
        let mut ways = [1, 0, 2, 0, 2, 1, 2, 0, 1].into_iter();
        let (mut way, mut changes) = (0, 0);
        for (turn, number) in site.order(3).into_iter().enumerate() {
            paced(began, turn);
            site.publish(number);
            if turn % 14 == 13
                && let Some(next) = ways.next()
            {
                (way, changes) = (next, changes + 1);
                println!("way {way} at {:.2?}", began.elapsed());
                site.configure(way, "");
                if let Some(agent) = &site.agent {
                    agent.signal(Signal::HUP);
                }
            }
            if site.agent.is_none() {
                site.pass();
            }
        }
        if site.agent.is_some() {
            site.wait_in_force();
        }
        let seen = site.subject.seen(site.lab, way);
        lab::eventually("new flows take the last way", || {
            site.lab.who("host1", lab::PARTNER) == Ok(seen)
        });
        format!("{changes} changes of the way out")
    })
}
