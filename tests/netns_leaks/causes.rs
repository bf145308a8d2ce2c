//! The causes of leaks: faults of the network, of the product, and of other programs.

use std::time::{Duration, Instant};

use crate::machines::{Backend, Phase, Role, network};
use crate::scene::{DELETE_RULES, Scene};
use lab::*;

/// Ten faults in this time.
const WITHIN: Duration = Duration::from_secs(3);
const TIMES: u32 = 10;
const FLAPS: usize = 5;
const KILLS: u64 = 6;

/// A fault of other programs, as a shell script.
type Fault = fn(Backend) -> String;

pub struct Cause {
    fault: Option<Fault>,
    pub name: &'static str,
    /// False for the whole matrix alone.
    pub quick: bool,
    /// While the cause acts, a NAT has no firewall or no egress interface, and knows the clients of
    /// `[nat] sources` alone.
    pub sources_alone: bool,
    /// True for the scenes that can have the cause.
    pub applies: fn(Role, Backend, Phase) -> bool,
    /// Before the first counted packet.
    pub before: fn(&mut Scene, Phase),
    act: fn(&mut Scene, Phase),
    /// The fault comes ten times.
    repeats: bool,
    /// The end of a foreign fault.
    pub undo: fn(&mut Scene),
}

const fn cause(name: &'static str, act: fn(&mut Scene, Phase)) -> Cause {
    Cause {
        name,
        quick: false,
        sources_alone: false,
        applies: |_, _, _| true,
        before: |_, _| {},
        act,
        undo: |_| {},
        fault: None,
        repeats: false,
    }
}

const fn once(name: &'static str, fault: Fault) -> Cause {
    Cause {
        fault: Some(fault),
        ..cause(name, |_, _| {})
    }
}

const fn ten_times(name: &'static str, fault: Fault) -> Cause {
    Cause {
        repeats: true,
        ..once(name, fault)
    }
}

impl Cause {
    pub fn happen(&self, scene: &mut Scene, phase: Phase) {
        match self.fault {
            Some(fault) if self.repeats => repeated(scene, phase, &fault(scene.backend)),
            Some(fault) => {
                scene.shell(&fault(scene.backend));
                scene.window();
            }
            None => (self.act)(scene, phase),
        }
    }
}

/// Empties table 1084. The flush of ip(8) spares IPv6's `unreachable`.
const FLUSH_EGRESS: &str = "
    for f in -4 -6; do ip $f route flush table 1084 2>/dev/null || true; done
    ip -6 route del unreachable default metric 4294967295 table 1084 2>/dev/null || true";

const FLUSH_BYPASS: &str =
    "for f in -4 -6; do ip $f route flush table 1083 2>/dev/null || true; done";

pub const FLUSH_NFT: &str = "nft flush ruleset";
pub const FLUSH_IPTABLES: &str = "iptables -F of all tables";
pub const LINK_FLAPS: &str = "link flaps 5x, defaults back at once";
pub const BULK_ALONE: &str = "bulk link back, egress link lost";

const LOOK_UP_MAIN: &str = "for f in -4 -6; do ip $f rule add pref 1000 lookup main; done";

pub fn flush_iptables(backend: Backend) -> String {
    let variant = match backend {
        Backend::Legacy => "-legacy",
        _ => "",
    };
    format!(
        "for f in ip ip6; do for t in nat mangle filter raw; do
             ${{f}}tables{variant} -w -t $t -F 2>/dev/null || true; done; done"
    )
}

/// The same fault ten times: in three seconds beside an agent, with a pass after each without one.
fn repeated(scene: &Scene, phase: Phase, fault: &str) {
    let started = Instant::now();
    for number in 1..=TIMES {
        scene.shell(fault);
        match phase {
            Phase::OneShot | Phase::Open => {
                scene.window();
                scene.pass();
            }
            Phase::Running | Phase::Boot | Phase::Dead | Phase::Absent => {
                let due = WITHIN * number / TIMES;
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
    }
}

/// Without anybody who repairs, the second of equal faults changes nothing.
fn is_repaired(_: Role, _: Backend, phase: Phase) -> bool {
    matches!(phase, Phase::OneShot | Phase::Running)
}

fn has_tables(_: Role, _: Backend, phase: Phase) -> bool {
    phase != Phase::Boot
}

fn of_iptables(_: Role, backend: Backend, _: Phase) -> bool {
    backend != Backend::Nftables
}

/// Every address and default is back at once.
fn comes_back(scene: &Scene) {
    scene.ns().ip_batch(&network(scene.lab, scene.role));
}

fn flaps(scene: &mut Scene, _: Phase) {
    for _ in 0..FLAPS {
        for (link, _) in scene.role.links() {
            scene.ns().ip(&format!("link set {link} down"));
        }
        comes_back(scene);
        scene.window();
    }
}

/// A pass sees no link of the bypass path; then the link comes back, and the egress link goes.
fn bulk_alone(scene: &mut Scene, phase: Phase) {
    scene.ns().ip(&format!("link set {BULK_LINK} down"));
    if matches!(phase, Phase::OneShot | Phase::Open) {
        scene.pass();
    }
    scene.window();
    scene.ns().ip_batch(&network(scene.lab, scene.role));
    scene.ns().ip("link set pub down");
    scene.window();
}

fn unplug(scene: &mut Scene, _: Phase) {
    for (_, far) in scene.role.links() {
        scene.lab.ns("vpc").ip(&format!("link set {far} down"));
    }
    scene.window();
}

fn plug(scene: &mut Scene) {
    let nat = &scene.lab.nat1;
    for (link, far) in scene.role.links() {
        scene.lab.ns("vpc").ip(&format!("link set {far} up"));
        let neighbour = match (scene.role, *link) {
            (Role::Host | Role::NatOne, _) | (Role::HostTwo, "priv") => continue,
            (Role::HostTwo, _) => "2600:1f18:1000:22::/64".to_owned(),
            (_, BULK_LINK) => subnet(nat.second6),
            _ => subnet(nat.egress6),
        };
        scene.lab.ns("vpc").ip_batch(&format!(
            "addr replace {ROUTER6}/64 dev {far} nodad\nroute replace {neighbour} dev {far}\n"
        ));
    }
    comes_back(scene);
}

fn subnet(address: std::net::IpAddr) -> String {
    let net = ipnet::IpNet::new(address, 64).unwrap();
    net.trunc().to_string()
}

const SILENT: &str = "
    table inet silent {
      chain c { type filter hook prerouting priority -500; iifname priv drop; }
    }";

fn kills(scene: &mut Scene, phase: Phase) {
    if phase != Phase::Running {
        return scene.window();
    }
    for number in 0..KILLS {
        if let Some(agent) = scene.agent.take() {
            agent.kill();
        }
        if number == KILLS / 2 {
            // The next agent has everything to put in.
            scene.shell(FLUSH_BYPASS);
        }
        scene.agent = Some(scene.machine.agent());
        // The pass of the next agent is under way.
        std::thread::sleep(Duration::from_millis(35 * number));
    }
}

/// The document in force, an empty memory, and no product.
fn without_document(scene: &mut Scene, phase: Phase) {
    scene.take_away();
    std::fs::remove_file(scene.document()).unwrap();
    match phase {
        Phase::Running => {
            scene.agent = Some(scene.machine.agent());
            eventually("the rules are there", || {
                let rules = ["-4", "-6"].map(|family| scene.shell(&format!("ip {family} rule")));
                let first = if scene.role.is_host() { "30030" } else { "" };
                rules.iter().all(|rules| rules.contains(first))
            });
            let agent = scene.agent.as_ref().expect("an agent runs");
            agent.wait_for("the first pass", |status| {
                status["passes"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
            });
        }
        Phase::Absent => {}
        _ => drop(scene.pass()),
    }
}

/// Prefixes enter and leave the selection.
fn documents(scene: &mut Scene, phase: Phase) {
    for prefixes in [
        &["3.5.0.0/19", "2600:1ff8:8000::/40"][..],
        crate::packets::FIRST,
        &["52.216.0.0/15", "2600:1fa0:8000::/39"],
        crate::packets::FIRST,
    ] {
        scene.machine.publish(prefixes);
        match phase {
            Phase::Running => drop(scene.machine.run(&["kick", "--wait"])),
            Phase::Absent => {}
            _ => drop(scene.pass()),
        }
        scene.window();
    }
}

pub const CAUSES: &[Cause] = &[
    Cause {
        quick: true,
        ..cause("none: sockets, fragments, strays", |scene, _| {
            scene.window()
        })
    },
    Cause {
        applies: |_, _, phase| matches!(phase, Phase::OneShot | Phase::Running | Phase::Absent),
        before: without_document,
        undo: |scene| scene.machine.publish(crate::packets::FIRST),
        ..cause("before the first document", |scene, _| scene.window())
    },
    Cause {
        applies: |role, _, _| role.is_host(),
        undo: |scene| scene.lab.ns("nat1").nft("delete table inet silent"),
        ..cause("NAT dead, silent", |scene, _| {
            scene.lab.ns("nat1").nft(SILENT);
            scene.window();
        })
    },
    Cause {
        applies: |role, _, _| role.is_host(),
        undo: |scene| drop(scene.lab.ns("vpc").ip("link set nat1 up")),
        ..cause("NAT dead, link", |scene, _| {
            scene.lab.ns("vpc").ip("link set nat1 down");
            scene.window();
        })
    },
    Cause {
        sources_alone: true,
        undo: plug,
        ..cause("carrier lost and back", unplug)
    },
    Cause {
        quick: true,
        sources_alone: true,
        ..cause(LINK_FLAPS, flaps)
    },
    Cause {
        applies: |role, _, phase| role == Role::NatBulk && phase != Phase::Boot,
        sources_alone: true,
        undo: |scene| comes_back(scene),
        ..cause(BULK_ALONE, bulk_alone)
    },
    Cause {
        quick: true,
        applies: |_, _, phase| phase == Phase::Running,
        ..cause("agent killed 6x in its passes", kills)
    },
    Cause {
        applies: is_repaired,
        ..cause("document changes 4x", documents)
    },
    Cause {
        quick: true,
        ..once("rules flushed", |_| DELETE_RULES.to_owned())
    },
    Cause {
        applies: is_repaired,
        ..ten_times("rules flushed 10x", |_| DELETE_RULES.to_owned())
    },
    Cause {
        quick: true,
        applies: has_tables,
        ..once("table 1084 flushed", |_| FLUSH_EGRESS.to_owned())
    },
    Cause {
        applies: is_repaired,
        ..ten_times("table 1084 flushed 10x", |_| FLUSH_EGRESS.to_owned())
    },
    Cause {
        applies: has_tables,
        ..once("table 1083 flushed", |_| FLUSH_BYPASS.to_owned())
    },
    Cause {
        applies: is_repaired,
        ..ten_times("table 1083 flushed 10x", |_| FLUSH_BYPASS.to_owned())
    },
    Cause {
        quick: true,
        sources_alone: true,
        undo: |scene| scene.masquerade(),
        ..once(FLUSH_NFT, |_| FLUSH_NFT.to_owned())
    },
    Cause {
        sources_alone: true,
        applies: is_repaired,
        undo: |scene| scene.masquerade(),
        ..ten_times("nft flush ruleset 10x", |_| FLUSH_NFT.to_owned())
    },
    Cause {
        applies: of_iptables,
        ..once(FLUSH_IPTABLES, flush_iptables)
    },
    Cause {
        applies: |role, backend, phase| {
            of_iptables(role, backend, phase) && is_repaired(role, backend, phase)
        },
        ..ten_times("iptables -F of all tables 10x", flush_iptables)
    },
    cause("conntrack -F", |scene, _| {
        scene.forget_flows();
        scene.window();
    }),
    Cause {
        quick: true,
        undo: |scene| {
            scene.shell("for f in -4 -6; do ip $f rule del pref 1000; done");
        },
        ..once("foreign rule before ours", |_| LOOK_UP_MAIN.to_owned())
    },
];
