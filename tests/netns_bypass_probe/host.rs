//! The host role.

use std::time::Duration;

use crate::packets::*;
use crate::scene::*;
use lab::*;

pub fn settings(probe: &str) -> String {
    format!(
        "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n{}{probe}",
        targets()
    )
}

/// A host with one gateway of each family.
pub fn scene<'a>(lab: &'a Lab, firewall: Firewall, probe: &str) -> Scene<'a> {
    lab.guarded_nat("nat1");
    let machine = Machine::new(lab, "host1", firewall, &settings(probe));
    let agent = machine.agent();
    agent.wait_in_force();
    Scene {
        lab,
        machine,
        agent,
        bypass: [HOST1_PUBLIC, HOST1_6],
        egress: [lab.nat1.egress_public, lab.nat1.egress6],
    }
}

#[test]
fn host_with_nftables() {
    isolated(|| {
        let lab = Lab::new();
        scene(&lab, Firewall::Nftables, "").survives(&[HOST1, HOST1_6]);
    });
}

#[test]
fn host_with_iptables() {
    isolated(|| {
        let lab = Lab::new();
        scene(&lab, Firewall::Iptables, "").survives(&[HOST1, HOST1_6]);
    });
}

/// Without probes, as before them, storage is dead.
#[test]
fn host_without_probes_of_the_bypass() {
    isolated(|| {
        let lab = Lab::new();
        lab.guarded_nat("nat1");
        let settings = settings("").replace("bypass_targets = [", "bypass_targets = []\n# [");
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings);
        let agent = machine.agent();
        agent.wait_in_force();
        let scene = Scene {
            lab: &lab,
            machine,
            agent,
            bypass: [HOST1_PUBLIC, HOST1_6],
            egress: [lab.nat1.egress_public, lab.nat1.egress6],
        };
        scene.wait_for(scene.bypass);
        break_bypass(&lab, &[HOST1, HOST1_6]);
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(scene.storage(), [None, None]);
    });
}

/// Storage falls silent for everybody: that is no fault of the bypass path.
#[test]
fn outage_of_storage_changes_nothing() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, "");
        scene.wait_probed();
        let partner = lab.long_flow("host1", PARTNER);
        lab.ns("s3").nft(
            "table inet silent { chain input { type filter hook input priority -300; policy accept; tcp dport 443 drop; }; }",
        );
        eventually("the outage is seen", || {
            scene.state().as_deref() == Some("suspect")
        });
        scene.assert_calm(Duration::from_secs(6));
        lab.ns("s3").nft("delete table inet silent");
        scene.wait_for(scene.bypass);
        eventually("the path is well", || {
            scene.state().as_deref() == Some("up")
        });
        scene.assert_calm(Duration::from_secs(1));
        partner.assert_alive();
    });
}

/// Two seconds up and two seconds down: storage stays on the egress path, however often it seems well.
#[test]
fn flapping_bypass_changes_at_most_twice() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, "");
        scene.wait_probed();
        let partner = lab.long_flow("host1", PARTNER);
        for _ in 0..6 {
            break_bypass(&lab, &[HOST1, HOST1_6]);
            std::thread::sleep(Duration::from_secs(2));
            scene.heal();
            std::thread::sleep(Duration::from_secs(2));
        }
        scene.wait_for(scene.bypass);
        let log = scene.agent.log();
        for text in [
            "ipv4 bypass path is down: ",
            "ipv4 bypass path is in use again",
        ] {
            let lines = log.lines().filter(|line| line.contains(text));
            // The end of the flows is a line too.
            let changes = lines.filter(|line| !line.contains("ended")).count();
            assert!(changes <= 1, "{changes} times {text}:\n{log}");
        }
        partner.assert_alive();
    });
}
