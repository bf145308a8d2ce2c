//! Several NATs, one of which dies: new flows take another one, flows that stand still end at once, and
//! flows on living NATs go on. Each death is another one: no address, no link, no forwarding.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../packets/mod.rs"]
mod packets;
mod silence;

use std::ops::Deref;

use lab::*;
use packets::two_nats::{QUICK, TwoNats};
use packets::*;

struct Scene<'a> {
    host: TwoNats<'a>,
    agent: Agent,
}

impl<'a> Deref for Scene<'a> {
    type Target = TwoNats<'a>;

    fn deref(&self) -> &TwoNats<'a> {
        &self.host
    }
}

/// A host with an agent and both NATs in force.
fn started<'a>(lab: &'a Lab, firewall: Firewall, probe: &str) -> Scene<'a> {
    let host = TwoNats::new(lab, firewall, probe);
    let agent = host.agent();
    Scene { host, agent }
}

fn scene<'a>(lab: &'a Lab, probe: &str) -> Scene<'a> {
    let scene = started(lab, Firewall::Nftables, probe);
    assert_eq!(scene.seen(), scene.nat1());
    scene
}

impl Scene<'_> {
    /// The state of a gateway by its probes.
    fn state(&self, gateway: &str) -> Option<String> {
        let status = self.agent.status()?;
        let mut gateways = status["gateways"].as_array()?.iter();
        let found = gateways.find(|it| it["address"] == gateway && it["path"] == "egress")?;
        Some(found["health"]["state"].as_str()?.to_owned())
    }

    /// A NAT dies; new flows and those that stood still get the other one; it returns.
    fn survives(&self, die: impl Fn(&Ns), live: impl Fn(&Ns)) {
        let nat1 = self.lab.ns("nat1");
        let stuck: Vec<LongFlow> = [PARTNER, PARTNER6]
            .map(|to| self.lab.long_flow("host1", to))
            .into();
        count_from_now(self.lab);
        die(nat1);
        eventually("new flows take the second NAT", || {
            self.seen() == self.nat2()
        });
        eventually("flows of the first NAT end", || {
            stuck.iter().all(LongFlow::has_ended)
        });
        let living: Vec<LongFlow> = [PARTNER, PARTNER6]
            .map(|to| self.lab.long_flow("host1", to))
            .into();
        assert_eq!(self.state("10.0.1.10").as_deref(), Some("down"));
        assert_eq!(self.state("10.0.1.20").as_deref(), Some("up"));
        // A pass beside the agent leads nobody back.
        assert_eq!(self.machine.reconcile()["outcome"], "in_sync");
        assert_eq!(self.seen(), self.nat2());

        live(nat1);
        eventually("new flows take the first NAT again", || {
            self.seen() == self.nat1()
        });
        for flow in living {
            flow.assert_alive();
        }
        let leaks = self.lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    }
}

#[test]
fn silent_nat() {
    isolated(|| {
        let lab = Lab::new();
        // Answers address resolution, as the fabric of EC2 does for a dead instance.
        scene(&lab, QUICK).survives(
            |nat| {
                nat.nft("table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; chain input { type filter hook input priority -300; policy drop; meta l4proto icmpv6 accept; }; }");
            },
            |nat| nat.nft("delete table inet dead"),
        );
    });
}

#[test]
fn nat_without_a_link() {
    isolated(|| {
        let lab = Lab::new();
        scene(&lab, QUICK).survives(
            |nat| nat.ip(&format!("link set {PRIVATE_LINK} down")).clear(),
            |nat| {
                nat.ip_batch(&format!(
                    "link set {PRIVATE_LINK} up\n\
                     addr replace 2600:1f18:1000:1::10/64 dev {PRIVATE_LINK} nodad\n"
                ));
            },
        );
    });
}

/// A full table of conntrack, or no free port: new flows take the other NAT, and open ones go on.
#[test]
fn nat_that_refuses_new_flows_keeps_the_open_ones() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, QUICK);
        let open = [PARTNER, PARTNER6].map(|to| lab.long_flow("host1", to));
        lab.ns("nat1").nft(
            "table inet full { chain forward { type filter hook forward priority 0; policy accept; \
             ct state new drop; }; }",
        );
        // A connection that waits for its partner begins anew.
        let (seen, took) = silence::patient(&lab, PARTNER);
        println!("a connection that the first NAT refused waited {took:?}");
        assert_eq!(seen, scene.nat2()[0]);
        eventually("new flows take the second NAT", || {
            scene.seen() == scene.nat2()
        });
        for flow in open {
            flow.assert_alive();
        }
    });
}

/// Without probes, as before them, nobody notices.
#[test]
fn silent_nat_without_probes() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, "enabled = false\n");
        scene.lab.ns("nat1").nft("table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }");
        std::thread::sleep(std::time::Duration::from_secs(6));
        assert_eq!(scene.seen(), [None, None]);
    });
}

/// The servers of the probes fall silent for everybody: that is no outage of a NAT.
#[test]
fn outage_of_all_servers_changes_nothing() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, QUICK);
        let before = scene.agent.status().unwrap()["passes"].clone();
        for nat in ["nat1", "nat2"] {
            lab.ns(nat).nft("table inet dead { chain forward { type filter hook forward priority -300; policy accept; tcp dport 443 drop; }; }");
        }
        eventually("the outage is seen", || {
            scene.state("10.0.1.10").as_deref() == Some("suspect")
        });
        std::thread::sleep(std::time::Duration::from_secs(6));
        for nat in ["nat1", "nat2"] {
            lab.ns(nat).nft("delete table inet dead");
        }
        eventually("all is well", || scene.seen() == scene.nat1());
        assert_eq!(scene.agent.status().unwrap()["passes"], before);
    });
}
