//! Each fault in each scene.

use std::time::Instant;

use serde_json::Value;

use crate::faults::{self, ROWS, Row};
use crate::files;
use crate::packets::Firewall;
use crate::scene::*;
use lab::*;

/// Only the rows of this name, for work on a row.
const ONLY: &str = "TRAILBLAZER_ROW";

/// The rows that concern a role and a firewall.
pub fn rows(kind: Kind, firewall: Firewall) -> impl Iterator<Item = &'static Row> {
    let all = ROWS.iter().chain(files::ROWS);
    let only = std::env::var(ONLY).unwrap_or_default();
    all.filter(move |row| row.kinds.contains(&kind) && row.name.contains(&only))
        .filter(move |row| row.firewalls.contains(&firewall))
}

/// Sampling begins before the first pass, and the first pass comes before the network. The fault is
/// there from the start; its late part comes with the network, before the default routes.
fn boot(kind: Kind, firewall: Firewall) {
    let lab = lab_of(kind);
    let mut scene = Scene::new(&lab, kind, firewall);
    let start = Instant::now();
    for row in rows(kind, firewall) {
        for agent in [false, true] {
            let name = format!("{} at boot, agent {agent}", row.name);
            println!("{:.1} s: {name}", start.elapsed().as_secs_f64());
            scene.network_down();
            row.configure(&mut scene);
            (row.early)(&scene);
            let probe = scene.probe();
            let agent = agent.then(|| scene.machine.agent());
            match &agent {
                Some(agent) => drop(agent.wait_for("a pass", |status| {
                    status["passes"]
                        .as_array()
                        .is_some_and(|passes| !passes.is_empty())
                })),
                None => drop(scene.pass()),
            }
            scene.links_up();
            scene.dhcp();
            probe.window();
            scene.advertise();
            (row.late)(&scene);
            probe.window();
            match &agent {
                Some(agent) => {
                    agent.wait_for(&name, |status| row.is_named(status));
                }
                None => {
                    let (code, report) = scene.pass();
                    row.assert_named(&name, code, &report);
                }
            }
            let storage = if row.keeps_document || agent.is_none() {
                row.storage
            } else {
                [false; 2]
            };
            probe.arrives(&name, storage, row.partner);
            probe.window();
            row.mended(&mut scene);
            match &agent {
                Some(agent) => {
                    agent.signal(rustix::process::Signal::HUP);
                    agent.wait_in_force();
                }
                None => scene.converges(&name),
            }
            probe.arrives(&name, [true; 2], [true; 2]);
            drop(agent);
            drop(probe);
            scene.clean();
        }
    }
}

/// The fault comes to a machine in force.
fn running(kind: Kind, firewall: Firewall) {
    let lab = lab_of(kind);
    let mut scene = Scene::new(&lab, kind, firewall);
    let start = Instant::now();
    for row in rows(kind, firewall).filter(|row| row.running) {
        let name = format!("{} on a running agent", row.name);
        println!("{:.1} s: {name}", start.elapsed().as_secs_f64());
        let mut agent = scene.machine.agent();
        agent.wait_in_force();
        let probe = scene.probe();
        probe.arrives(&name, [true; 2], [true; 2]);
        (row.early)(&scene);
        (row.late)(&scene);
        if row.configure(&mut scene) {
            // A reload would refuse a faulty config.
            drop(agent);
            agent = scene.machine.agent();
        }
        // A fault outside the kernel's notifications shows at the next pass.
        scene.machine.run(&["kick"]);
        agent.wait_for(&name, |status| row.is_named(status));
        probe.window();
        probe.arrives(&name, row.storage, row.partner);
        row.mended(&mut scene);
        agent.signal(rustix::process::Signal::HUP);
        agent.wait_in_force();
        probe.arrives(&name, [true; 2], [true; 2]);
        drop(agent);
        drop(probe);
        scene.clean();
    }
}

impl Row {
    /// Writes the config; true if the config differs from the usual one.
    fn configure(&self, scene: &mut Scene) -> bool {
        let settings = (self.settings)(scene);
        scene.machine.configure(&settings);
        settings != scene.settings()
    }

    fn mended(&self, scene: &mut Scene) {
        (self.mend)(scene);
        let settings = faults::usual(scene);
        scene.machine.configure(&settings);
    }

    /// True for a status that names the fault, or that is in force where the fault is harmless.
    fn is_named(&self, status: &Value) -> bool {
        let names = named(status);
        if self.names.is_empty() {
            status["state"] == "in_force" && names.is_empty()
        } else {
            status["state"] == "degraded"
                && self
                    .names
                    .iter()
                    .any(|name| names.contains(&(*name).to_owned()))
        }
    }

    #[track_caller]
    fn assert_named(&self, name: &str, code: Option<i32>, report: &Value) {
        let names = named(report);
        if self.names.is_empty() {
            assert!(code == Some(0) && names.is_empty(), "{name}: {report:#}");
        } else {
            let one = self
                .names
                .iter()
                .any(|name| names.contains(&(*name).to_owned()));
            assert!(code == Some(1) && one, "{name}: {code:?} {report:#}");
        }
    }
}

#[test]
fn faults_at_the_boot_of_a_host_nftables() {
    isolated(|| boot(Kind::Host, Firewall::Nftables));
}

#[test]
fn faults_at_the_boot_of_a_nat_nftables() {
    isolated(|| boot(Kind::Nat, Firewall::Nftables));
}

#[test]
fn faults_on_a_running_host_nftables() {
    isolated(|| running(Kind::Host, Firewall::Nftables));
}

#[test]
fn faults_on_a_running_nat_nftables() {
    isolated(|| running(Kind::Nat, Firewall::Nftables));
}

#[test]
fn faults_at_the_boot_of_a_host_iptables() {
    isolated(|| boot(Kind::Host, Firewall::Iptables));
}

#[test]
fn faults_at_the_boot_of_a_nat_iptables() {
    isolated(|| boot(Kind::Nat, Firewall::Iptables));
}

#[test]
fn faults_at_the_boot_of_a_nat_iptables_legacy() {
    isolated(|| boot(Kind::Nat, Firewall::IptablesLegacy));
}

#[test]
fn faults_at_the_boot_of_a_host_iptables_legacy() {
    isolated(|| boot(Kind::Host, Firewall::IptablesLegacy));
}

#[test]
fn faults_on_a_running_host_iptables() {
    isolated(|| running(Kind::Host, Firewall::Iptables));
}

#[test]
fn faults_on_a_running_host_iptables_legacy() {
    isolated(|| running(Kind::Host, Firewall::IptablesLegacy));
}

#[test]
fn faults_on_a_running_nat_iptables() {
    isolated(|| running(Kind::Nat, Firewall::Iptables));
}

#[test]
fn faults_on_a_running_nat_iptables_legacy() {
    isolated(|| running(Kind::Nat, Firewall::IptablesLegacy));
}
