//! Two gateways on two links, and one link loses its carrier.

use crate::packets::*;
use crate::probe::{Probe, Sources};
use crate::scene::*;
use lab::*;

/// The second link of `host1`, to `nat2` alone.
const LINK: &str = "priv2";

/// Both gateways.
const SETTINGS: &str = "[egress]\nspread = \"flow\"\ngateways = [\"10.0.1.10\", \"10.0.9.10\", \
    \"2600:1f18:1000:1::10\", \"2600:1f18:1000:9::10\"]\n";

/// A lab with the second link.
fn lab_with_two_links() -> Lab {
    let lab = lab_of(Kind::Host);
    let (host1, nat2) = (lab.ns("host1"), lab.ns("nat2"));
    host1.ip(&format!(
        "link add {LINK} index 300 type veth peer name {LINK} index 301 netns nat2"
    ));
    nat2.ip_batch(&format!(
        "link set {LINK} up\n\
         addr add 10.0.9.10/24 dev {LINK}\n\
         addr add 2600:1f18:1000:9::10/64 dev {LINK} nodad\n"
    ));
    host1.ip_batch(&format!(
        "link set {LINK} up\n\
         addr add 10.0.9.11/24 dev {LINK}\n\
         addr add 2600:1f18:1000:9::11/64 dev {LINK} nodad\n"
    ));
    // The kernel may choose the source before the gateway: each NAT translates both networks, and
    // drops errors about flows of the other one.
    let nat = lab.nat("nat2");
    for (name, nat) in [("nat1", &lab.nat1), ("nat2", &nat)] {
        lab.ns(name).nft(&format!(
            "table inet both {{
               chain forward {{ type filter hook forward priority filter; ct state invalid drop; }}
               chain post {{
                 type nat hook postrouting priority srcnat + 1;
                 oifname {PUBLIC_LINK} ip saddr {{ {HOST1}, 10.0.9.11 }} snat ip to {}
                 oifname {PUBLIC_LINK} ip6 saddr {{ {HOST1_6}, 2600:1f18:1000:9::11 }} snat ip6 to {}
               }}
             }}",
            nat.egress, nat.egress6
        ));
    }
    lab.set_egress(&[
        lab.nat1.egress_public,
        lab.nat1.egress6,
        nat.egress_public,
        nat.egress6,
    ]);
    lab
}

fn carrier(lab: &Lab, state: &str) {
    lab.ns("nat2").ip(&format!("link set {LINK} {state}"));
    if state == "up" {
        lab.ns("nat2").ip(&format!(
            "addr replace 2600:1f18:1000:9::10/64 dev {LINK} nodad"
        ));
    }
}

/// Partners see one of the NATs, through the gateway left.
fn lost_carrier(boots: bool) {
    let lab = lab_with_two_links();
    let mut scene = Scene::new(&lab, Kind::Host, Firewall::Nftables);
    scene.machine.configure(SETTINGS);
    let second = lab.nat("nat2");
    scene.sources = Sources {
        more: [second.egress_public, second.egress6],
        ..scene.sources
    };
    if boots {
        carrier(&lab, "down");
        scene.network_down();
    }
    // A gateway for each flow.
    scene.ns().sysctl(&[
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
    ]);
    let agent = scene.machine.agent();
    let default = |family: &str| {
        let words = format!("ip {family} route show table 1084 default 2>/dev/null || :");
        scene.shell(&words)
    };
    let probe;
    if boots {
        probe = scene.probe();
        eventually("the egress path is closed", || {
            default("-4").contains("unreachable")
        });
        scene.network_up();
    } else {
        agent.wait_in_force();
        probe = scene.probe();
        both_arrive(&probe, "before");
        carrier(&lab, "down");
    }
    // The gateway left takes everything.
    eventually("the default leaves by one link", || {
        let route = default("-4");
        !route.contains(LINK) && route.contains("10.0.1.10")
    });
    probe.arrives("without a carrier", [true; 2], [true; 2]);
    probe.window();
    probe.assert_no_leak("without a carrier");
    carrier(&lab, "up");
    eventually("the default leaves by both links", || {
        (default("-4") + &default("-6")).matches(LINK).count() == 2
    });
    both_arrive(&probe, "with the carrier");
    probe.assert_no_leak("with the carrier");
    agent.wait_in_force();
}

/// Packets arrive through each gateway.
#[track_caller]
fn both_arrive(probe: &Probe, when: &str) {
    probe.arrives(when, [true; 2], [true; 2]);
    let more = probe.sources.more;
    eventually(when, || {
        let seen = probe.at_partner();
        more.iter().all(|address| seen.contains(address))
    });
}

#[test]
fn lost_carrier_of_one_gateway_leaves_the_other_on_a_running_host() {
    isolated(|| lost_carrier(false));
}

#[test]
fn lost_carrier_of_one_gateway_leaves_the_other_at_boot() {
    isolated(|| lost_carrier(true));
}
