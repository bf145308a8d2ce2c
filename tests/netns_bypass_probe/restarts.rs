//! Restarts and reloads of the agent beside a dead bypass path.

use std::time::Duration;

use crate::host::{scene, settings};
use crate::packets::*;
use crate::scene::*;
use lab::*;

/// A host whose storage traffic takes the egress path.
fn diverted(lab: &Lab) -> Scene<'_> {
    let scene = scene(lab, Firewall::Nftables, "");
    scene.wait_probed();
    break_bypass(lab, &[HOST1, HOST1_6]);
    scene.wait_for(scene.egress);
    eventually("the verdict is stored", || {
        let stored = std::fs::read_to_string(scratch().join("host1/state/diverted.json"));
        stored.is_ok_and(|text| text.contains("ipv4") && text.contains("ipv6"))
    });
    scene
}

#[test]
fn restart_beside_a_dead_bypass_leads_no_storage_there() {
    isolated(|| {
        let lab = Lab::new();
        let before = diverted(&lab);
        let flows = [S3, S3_6].map(|to| lab.long_flow("host1", to));
        // The log goes on across restarts.
        let told = before.agent.log().len();
        before.agent.kill();
        let agent = before.machine.agent();
        agent.wait_for("the first pass", |status| status["state"] == "degraded");
        let scene = Scene { agent, ..before };
        for _ in 0..20 {
            assert_eq!(
                scene.storage(),
                scene.egress.map(Some),
                "{}",
                scene.agent.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let log = scene.agent.log().split_off(told);
        assert!(!log.contains("new flows take another way"), "{log}");
        scene.heal();
        scene.wait_for(scene.bypass);
        scene.agent.wait_in_force();
        for flow in flows {
            flow.assert_alive();
        }
    });
}

/// The kernel knows nothing of the verdict, as after a reboot.
#[test]
fn former_verdict_says_nothing_about_a_new_installation() {
    isolated(|| {
        let lab = Lab::new();
        let before = diverted(&lab);
        before.agent.kill();
        before.machine.run(&["flush"]).ok();
        lab.ns("vpc").nft("delete table inet broken");
        let agent = before.machine.agent();
        agent.wait_in_force();
        let scene = Scene { agent, ..before };
        assert_eq!(
            scene.storage(),
            scene.bypass.map(Some),
            "{}",
            scene.agent.log()
        );
    });
}

#[test]
fn reload_without_probes_leads_storage_back() {
    isolated(|| {
        let lab = Lab::new();
        let mut scene = diverted(&lab);
        scene.machine.configure(&settings("enabled = false\n"));
        scene.agent.signal(rustix::process::Signal::HUP);
        scene.agent.wait_in_force();
        assert_eq!(scene.storage(), [None, None]);
        scene.heal();
        scene.wait_for(scene.bypass);
    });
}
