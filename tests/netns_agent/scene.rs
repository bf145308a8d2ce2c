//! A host with an agent in force, streams of new connections, and the judgement in the end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::packets::*;
use lab::*;

/// One NAT instance, both families.
pub const ONE: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// A conflict over a bypass route ends a minute after the last pause.
const PEACE: Duration = Duration::from_secs(100);

/// The targets of the traffic streams.
const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];

/// Both families in `ip` commands.
pub const FAMILIES: [&str; 2] = ["-4", "-6"];

/// How a scene begins.
pub struct Setting {
    pub firewall: Firewall,
    /// The NAT instances, and further settings.
    pub config: String,
    /// Prefixes in the document beside [`FIRST`].
    pub prefixes: Vec<String>,
    /// True if the administrator has rules, routes and chains in every table.
    pub administrator: bool,
    /// True if the NAT drops packets of unknown flows: flows change their path in a gap.
    pub guarded: bool,
    /// Prepares the lab before the agent starts.
    pub prepare: fn(&Lab),
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            firewall: Firewall::Nftables,
            config: ONE.to_owned(),
            prefixes: Vec::new(),
            administrator: true,
            guarded: true,
            prepare: |_lab| {},
        }
    }
}

/// A scene: lab, host, agent and streams.
pub struct Scene<'a> {
    pub firewall: Firewall,
    pub lab: &'a Lab,
    pub machine: &'a Machine<'a>,
    pub agent: &'a Agent,
    seen: &'a dyn Fn(IpAddr) -> IpAddr,
    foreign: RefCell<Snapshot>,
}

/// The address of `host1` on the bypass path, as seen from outside.
pub fn bypass_of_host1(other: IpAddr) -> IpAddr {
    if other.is_ipv4() {
        HOST1_PUBLIC
    } else {
        HOST1_6
    }
}

/// The address of `nat1` that partners see.
pub fn egress_of_nat1(lab: &Lab, other: IpAddr) -> IpAddr {
    if other.is_ipv4() {
        lab.nat1.egress_public
    } else {
        lab.nat1.egress6
    }
}

/// A lab, a host with an agent in force, and streams of new connections with a verdict at the end:
/// after `body`, everything is in force again, foreign objects are unchanged, and no packet took a
/// wrong path outside a [`Scene::gap`].
pub fn in_force(setting: Setting, body: impl FnOnce(&Scene)) {
    let lab = Lab::new();
    if setting.guarded {
        lab.guarded_nat("nat1");
    } else {
        lab.plain_nat("nat1");
    }
    (setting.prepare)(&lab);
    let mut machine = Machine::new(&lab, "host1", setting.firewall, &setting.config);
    machine.open_table();
    if !setting.prefixes.is_empty() {
        let prefixes = setting.prefixes.iter().map(String::as_str);
        machine.publish(&prefixes.chain(FIRST.iter().copied()).collect::<Vec<_>>());
    }
    if setting.administrator {
        machine.administrator();
    }
    let seen = |target| {
        if [S3, S3_6].contains(&target) {
            bypass_of_host1(target)
        } else {
            egress_of_nat1(&lab, target)
        }
    };
    watch_over(&lab, &machine, setting.firewall, &seen, body);
}

/// The same with any machine on the path of `host1`; `seen` gives the expected source address.
pub fn watch_over(
    lab: &Lab,
    machine: &Machine,
    firewall: Firewall,
    seen: &dyn Fn(IpAddr) -> IpAddr,
    body: impl FnOnce(&Scene),
) {
    let agent = machine.agent();
    agent.wait_in_force();
    let scene = Scene {
        firewall,
        lab,
        machine,
        agent: &agent,
        seen,
        foreign: RefCell::new(machine.ns().foreign_snapshot()),
    };
    count_from_now(lab);
    let stream = lab.stream("host1", &TARGETS, PACE);
    stream.wait_for(8);
    body(&scene);
    scene.in_force_again();
    stream.wait_for(8);
    let report = stream.stop();
    for target in TARGETS {
        let counts = report.of(target);
        assert!(counts.contains_key(&seen(target).to_string()), "{counts:?}");
    }
    assert_no_leaks(lab);
    let foreign = scene.foreign.borrow();
    foreign.assert_same(&machine.ns().foreign_snapshot());
}

impl Scene<'_> {
    /// Runs one `ip` command on the host.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        self.machine.ns().ip(words)
    }

    /// Runs a shell script on the host; the first failing command ends the script.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.machine.ns().run(&["sh", "-ec", script])
    }

    /// Everything is in force again, without anybody's help: the agent says so, and a pass of
    /// another process finds nothing to do.
    #[track_caller]
    pub fn in_force_again(&self) {
        self.agent
            .wait_for_within(PEACE, "in force again", |status| {
                status["state"] == "in_force" && conflicts(status).is_empty()
            });
        eventually("nothing is left to do", || {
            self.machine.run(&["reconcile", "--dry-run"]).code == Some(0)
        });
        self.machine.in_sync();
        for target in TARGETS {
            assert_eq!(self.lab.who("host1", target), Ok((self.seen)(target)));
        }
    }

    /// Takes the present foreign objects as the expected ones, after a change by the test.
    pub fn foreign_from_now(&self) {
        *self.foreign.borrow_mut() = self.machine.ns().foreign_snapshot();
    }

    /// Deletes each route of a table once.
    #[track_caller]
    pub fn delete_each_route(&self, family: &str, table: u32) {
        self.shell(&delete_each(family, table));
    }

    /// Deletes an object that routes packets, and waits for the full repair.
    ///
    /// Between the two the kernel follows the remaining tables: a new packet may take the main
    /// table's default. The agent closes the gap within a millisecond on an idle machine, and only
    /// in the gap does a test accept a wrong path.
    #[track_caller]
    pub fn gap(&self, take: impl FnOnce()) {
        self.gap_in(|| self.ours(), take);
    }

    /// The same, where only a part of ours can come back.
    #[track_caller]
    pub fn gap_in(&self, ours: impl Fn() -> BTreeSet<String>, take: impl FnOnce()) {
        assert_no_leaks(self.lab);
        let before = ours();
        take();
        self.back_as(&before, ours);
        let leaks = self.lab.leaks();
        if leaks != Leaks::default() {
            println!("in the gap: {leaks:?}");
            // Connections opened in the gap end after the client's patience, twice.
            std::thread::sleep(PATIENCE * 2);
            count_from_now(self.lab);
        }
    }

    /// A repair closes the egress path first. Until the bypass routes follow, storage is reached
    /// through the NAT, which costs money and shows no wrong address.
    #[track_caller]
    pub fn forgive_storage_by_egress(&self) {
        let leaks = self.lab.leaks();
        let storage_only = Leaks {
            s3_egress4: leaks.s3_egress4,
            s3_egress6: leaks.s3_egress6,
            ..Leaks::default()
        };
        assert_eq!(leaks, storage_only);
        if leaks != Leaks::default() {
            // Connections opened meanwhile end after the client's patience, twice.
            std::thread::sleep(PATIENCE * 2);
            assert_eq!(self.lab.partner.refused(), BTreeSet::new());
            count_from_now(self.lab);
        }
    }

    /// Waits until our objects are as before; a failure names the missing objects and the agent's
    /// status.
    #[track_caller]
    pub fn back_as(&self, before: &BTreeSet<String>, ours: impl Fn() -> BTreeSet<String>) {
        wait_until(
            SOON,
            Duration::from_millis(5),
            || (ours() == *before).then_some(()),
            || {
                let now = ours();
                format!(
                    "ours as it was; missing {:#?}, too many {:#?}; the main table has:\n{}{}\nthe agent says {:#?}\nits log:\n{}",
                    before.difference(&now).collect::<Vec<_>>(),
                    now.difference(before).collect::<Vec<_>>(),
                    self.ip("-4 route show"),
                    self.ip("-6 route show"),
                    self.agent.status(),
                    self.agent.log()
                )
            },
        );
    }

    /// Another program deletes objects of ours every 1.5 s, ten times. After the last deletion the
    /// objects return. Returns the status during the fight, and the connections to the targets.
    #[track_caller]
    pub fn delete_every_1500_ms(
        &self,
        delete: &str,
        targets: &[IpAddr],
        per_second: u32,
    ) -> (Value, StreamReport) {
        let before = self.ours();
        let stream = self.lab.stream("host1", targets, per_second);
        stream.wait_for(20);
        for _ in 0..10 {
            self.shell(delete);
            std::thread::sleep(Duration::from_millis(1500));
        }
        // Under load the pace above may be no conflict yet.
        let mut status = self.agent.status().unwrap();
        for _ in 0..30 {
            if !conflicts(&status).is_empty() && status["state"] == "degraded" {
                break;
            }
            self.shell(delete);
            std::thread::sleep(Duration::from_millis(300));
            status = self.agent.status().unwrap();
        }
        self.shell(delete);
        self.back_as(&before, || self.ours());
        let report = stream.stop();
        // Connections opened in the gaps end after the client's patience, twice.
        std::thread::sleep(PATIENCE * 2);
        (status, report)
    }

    /// Our routes, rules, nexthops and firewall rules, a line each.
    pub fn ours(&self) -> BTreeSet<String> {
        let mut lines = self.our_firewall();
        for family in FAMILIES {
            for words in [
                "rule show",
                "route show table 1083",
                "route show table 1084",
            ] {
                // A table without routes isn't there, says the kernel.
                let listing = self.machine.ns().exec(
                    &format!("ip {family} -N {words}")
                        .split(' ')
                        .collect::<Vec<_>>(),
                );
                let ours = listing
                    .stdout
                    .lines()
                    .filter(|line| line.contains("proto 83"));
                lines.extend(ours.map(|line| format!("{family} {}", line.trim())));
            }
        }
        let nexthops = self.ip("-N nexthop show");
        let ours = nexthops.lines().filter(|line| line.contains("proto 83"));
        lines.extend(ours.map(|line| format!("nexthop {}", line.trim())));
        lines
    }

    /// Our firewall lines, each with its position.
    fn our_firewall(&self) -> BTreeSet<String> {
        let ns = self.machine.ns();
        let listings = match self.firewall {
            Firewall::Nftables => {
                vec![ns.exec(&["nft", "-s", "-t", "list", "table", "inet", "trailblazer"])]
            }
            _ => ["ip", "ip6"]
                .map(|family| ns.exec(&[format!("{}-save", self.firewall.program(family))]))
                .into(),
        };
        let mut lines = BTreeSet::new();
        for listing in listings {
            let ours = listing.stdout.lines().filter(|line| {
                self.firewall == Firewall::Nftables || line.contains("TRAILBLAZER-")
            });
            // The counters of a chain follow its name.
            let ours = ours.map(|line| line.split(" [").next().unwrap_or_default());
            lines.extend(
                ours.enumerate()
                    .map(|(place, line)| format!("{} {place} {}", listing.command, line.trim())),
            );
        }
        lines
    }

    /// Every step in the journal, in words: `add route 3.5.0.0/19 table 1083`, `add rule ipv4
    /// 30020`, `add nat`, `replace nexthop 108400`.
    pub fn story(&self) -> Vec<String> {
        let history = self
            .machine
            .run(&["history", "-n", "1000", "-o", "json"])
            .ok()
            .json();
        let passes = history["passes"].as_array().unwrap().iter();
        let steps = passes.flat_map(|pass| pass["steps"].as_array().unwrap());
        steps.map(step_in_words).collect()
    }

    /// Waits until the journal holds these steps after `before` (of [`Scene::story`]).
    #[track_caller]
    pub fn told(&self, before: &[String], steps: &[String]) {
        let new = || self.story().split_off(before.len());
        wait_until(
            SOON,
            Duration::from_millis(20),
            || {
                let new = new();
                steps.iter().all(|step| new.contains(step)).then_some(())
            },
            || format!("the journal tells of {steps:?}, but of {:?}", new()),
        );
    }
}

/// A script that deletes each route of a table once.
pub fn delete_each(family: &str, table: u32) -> String {
    format!(
        "ip {family} route show table {table} | sed 's/ linkdown//; s/.*/route del & table {table}/' |
             ip {family} -force -batch - 2>/dev/null || :"
    )
}

fn step_in_words(step: &Value) -> String {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let what = match text("object") {
        "route" => format!("route {} table {}", text("dst"), step["table"]),
        "rule" => format!("rule {} {}", text("family"), step["priority"]),
        "nexthop" => format!("nexthop {}", step["id"]),
        other => other.to_owned(),
    };
    format!("{} {what}", text("action"))
}

/// The fights in the status.
pub fn conflicts(status: &Value) -> Vec<&Value> {
    let conflicts = status["drift"]["conflicts"].as_array();
    conflicts.into_iter().flatten().collect()
}

/// How many objects of a kind were put back.
pub fn mended(status: &Value, kind: &str) -> u64 {
    status["drift"]["mended"][kind].as_u64().unwrap_or(0)
}
