//! The link goes down and up, along with its addresses and the DHCP client's defaults. IPv4 routes
//! then vanish without notification. Connections may fail meanwhile; none is seen from a wrong
//! source.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::packets::*;
use crate::scene::*;
use lab::*;

/// One route of each family and table that vanishes with the link.
const ON_THE_LINK: [&str; 4] = [
    "add route 52.216.0.0/15 table 1083",
    "add route 2600:1fa0:8000::/39 table 1083",
    "add route 0.0.0.0/0 table 1084",
    "add route ::/0 table 1084",
];

/// Waits until our objects are back and neighbours answer again.
#[track_caller]
fn wait_until_back(scene: &Scene, ours: &BTreeSet<String>) {
    eventually("ours is back as it was", || scene.ours() == *ours);
    eventually("partners are reached again", || {
        let reached = |partner: &_| {
            scene.lab.who("host1", *partner) == Ok(egress_of_nat1(scene.lab, *partner))
        };
        [PARTNER, PARTNER6].iter().all(reached)
    });
    scene.forgive_storage_by_egress();
}

/// Restores the routes that the DHCP client and router advertisements would restore after the link
/// was down.
fn put_back_dhcp(scene: &Scene) {
    let [default4, _] = dhcp_routes(HOST1);
    scene.ip(&default4);
    put_back_ipv6(scene);
}

/// The router advertisements' part.
fn put_back_ipv6(scene: &Scene) {
    let [_, default6] = dhcp_routes(HOST1);
    scene.machine.ns().ip_batch(&format!(
        "addr replace {HOST1_6}/64 dev priv nodad\n{default6}\n"
    ));
}

#[test]
fn routes_return_after_a_link_was_down() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let (ours, story) = (scene.ours(), scene.story());
            scene.ip("link set priv down");
            eventually("it has looked", || scene.ours().len() < ours.len());
            scene
                .agent
                .wait_for("it says so", |status| status["state"] != "in_force");
            scene.ip("link set priv up");
            put_back_dhcp(scene);
            wait_until_back(scene, &ours);
            scene.told(&story, &ON_THE_LINK.map(str::to_owned));
        });
    });
}

/// A flapping link is no fight: routes over the link come back at once, however often.
#[test]
fn routes_return_after_ten_flaps() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let (ours, story) = (scene.ours(), scene.story());
            for _ in 0..10 {
                scene.lab.flap_host("host1");
            }
            eventually("ours is back as it was", || scene.ours() == ours);
            for _ in 0..10 {
                scene.lab.flap_host("host1");
                eventually("ours is back as it was", || scene.ours() == ours);
            }
            wait_until_back(scene, &ours);
            scene.told(&story, &ON_THE_LINK.map(str::to_owned));
            assert!(
                !scene.agent.log().contains("conflict"),
                "{}",
                scene.agent.log()
            );
        });
    });
}

#[test]
fn routes_return_after_an_address_was_removed() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let [default4, _] = dhcp_routes(HOST1);
            for wait in [false, true] {
                let (ours, story) = (scene.ours(), scene.story());
                scene.ip("addr del 10.0.1.11/24 dev priv");
                if wait {
                    scene
                        .agent
                        .wait_for("it says so", |status| status["state"] != "in_force");
                }
                scene
                    .machine
                    .ns()
                    .ip_batch(&format!("addr add {HOST1}/24 dev priv\n{default4}\n"));
                wait_until_back(scene, &ours);
                scene.told(
                    &story,
                    &[ON_THE_LINK[0].to_owned(), ON_THE_LINK[2].to_owned()],
                );
                scene.ip(&format!("addr del {HOST1_6}/64 dev priv"));
                if wait {
                    scene
                        .agent
                        .wait_for("it says so", |status| status["state"] != "in_force");
                }
                scene.ip(&format!("addr add {HOST1_6}/64 dev priv nodad"));
                wait_until_back(scene, &ours);
            }
        });
    });
}

/// The same name, another interface index: every route over the old index is rewritten.
#[test]
fn routes_return_on_a_recreated_interface() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            for number in [150, 100] {
                let (ours, story) = (scene.ours(), scene.story());
                scene.shell(&format!(
                    "ip link del priv
                     ip link add priv index {number} address {} type veth peer name host1 netns vpc",
                    mac(HOST1)
                ));
                scene.lab.ns("vpc").ip("link set host1 master priv up");
                scene
                    .machine
                    .ns()
                    .ip_batch(&format!("link set priv up\naddr add {HOST1}/24 dev priv\n"));
                put_back_dhcp(scene);
                wait_until_back(scene, &ours);
                scene.told(&story, &ON_THE_LINK.map(str::to_owned));
            }
        });
    });
}

/// A restarting DHCP client removes its default and adds it again: the bypass keeps the last known
/// gateway, and no route of ours changes.
#[test]
fn lost_default_keeps_the_last_known_bypass_gateway() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let (ours, story) = (scene.ours(), scene.story());
            let storage = scene.lab.stream("host1", &[S3, S3_6], PACE);
            let [default4, default6] = dhcp_routes(HOST1);
            for _ in 0..3 {
                scene.shell("ip route del default; ip -6 route del default");
                scene.agent.wait_for("it goes on without", |status| {
                    status["notes"]
                        .to_string()
                        .contains("the last known bypass gateway")
                });
                storage.wait_for(4);
                scene
                    .machine
                    .ns()
                    .ip_batch(&format!("{default4}\n{default6}\n"));
                scene.agent.wait_for("it has seen the new one", |status| {
                    !status["notes"]
                        .to_string()
                        .contains("the last known bypass gateway")
                });
            }
            let report = storage.stop();
            for target in [S3, S3_6] {
                report.assert_seen_only(target, &[bypass_of_host1(target)]);
            }
            assert_eq!(scene.ours(), ours);
            assert_eq!(scene.story()[story.len()..], [""; 0], "nothing was changed");
        });
    });
}

/// A better default through another router: the bypass follows, and returns.
#[test]
fn new_default_router_moves_the_bypass() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let (ours, story) = (scene.ours(), scene.story());
            scene
                .lab
                .ns("vpc")
                .ip_batch("addr add 10.0.1.2/24 dev priv\naddr add fe80::2/64 dev priv nodad\n");
            let storage = scene.lab.stream("host1", &[S3, S3_6], PACE);
            scene.machine.ns().ip_batch(
                "route add default via 10.0.1.2 dev priv proto dhcp src 10.0.1.11 metric 100\n\
                 route add default via fe80::2 dev priv proto ra metric 100\n",
            );
            // The rules that count by path may match the router too.
            let moved = |line: &String| {
                let line = line.replace("10.0.1.1 ", "10.0.1.2 ");
                line.replace("fe80::1 ", "fe80::2 ")
            };
            let there: BTreeSet<String> = ours.iter().map(moved).collect();
            eventually("the bypass goes there", || scene.ours() == there);
            storage.wait_for(4);
            scene.machine.ns().ip_batch(
                "route del default via 10.0.1.2 dev priv\nroute del default via fe80::2 dev priv\n",
            );
            eventually("and back", || scene.ours() == ours);
            let report = storage.stop();
            for target in [S3, S3_6] {
                report.assert_seen_only(target, &[bypass_of_host1(target)]);
            }
            scene.told(
                &story,
                &ON_THE_LINK[..2]
                    .iter()
                    .map(|step| step.replace("add", "replace"))
                    .collect::<Vec<_>>(),
            );
        });
    });
}

/// Without a router's announcements the host has no IPv6 address, and the IPv6 egress gateway is on
/// no link; deleted IPv4 objects are repaired meanwhile all the same.
#[test]
fn family_without_its_address_leaves_the_other_alone() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let (all, story) = (scene.ours(), scene.story());
            let ipv4 = || {
                let mut ours = scene.ours();
                ours.retain(|line| line.starts_with("-4"));
                ours
            };
            let ours = ipv4();
            scene.ip(&format!("addr del {HOST1_6}/64 dev priv"));
            let status = scene
                .agent
                .wait_for("it says so", |status| status["state"] == "degraded");
            let reason = status["reason"].as_str().unwrap();
            assert!(reason.contains("is not on-link"), "{reason}");
            for _ in 0..2 {
                let [default4, _] = dhcp_routes(HOST1);
                scene.machine.ns().flap("priv");
                scene.ip(&default4);
                eventually("IPv4 is back", || ipv4() == ours);
            }
            scene.told(
                &story,
                &[ON_THE_LINK[0].to_owned(), ON_THE_LINK[2].to_owned()],
            );
            put_back_ipv6(scene);
            wait_until_back(scene, &all);
        });
    });
}

/// Another program's interface has a name, an alias and an alternative name outside UTF-8, and a
/// policy rule selects by that name: the kernel accepts all of them, and no pass fails.
#[test]
fn odd_interface_names_of_others_end_no_pass() {
    isolated(|| {
        let setting = Setting {
            prepare: |lab| {
                let script = "name=$(printf '\\377\\3761')
                     ip link add \"$name\" type veth peer name odd9
                     ip link set dev \"$name\" alias \"$(printf 'caf\\351')\"
                     ip link property add dev \"$name\" altname \"$(printf 'long-\\377')\"
                     ip rule add pref 40000 iif \"$name\" lookup main";
                lab.ns("host1").run(&["sh", "-ec", script]);
            },
            ..Setting::default()
        };
        in_force(setting, |scene| {
            scene.shell("ip link add \"$(printf '\\3552')\" type veth peer name odd8");
            scene.gap(|| drop(scene.ip("route del 52.216.0.0/15 table 1083")));
            scene.ip("link del odd8");
            assert!(
                !scene.agent.log().contains("malformed"),
                "{}",
                scene.agent.log()
            );
        });
    });
}

/// The settings name the interface by an alternative name, which udev may set late.
#[test]
fn bypass_interface_is_found_by_its_alternative_name() {
    isolated(|| {
        const ALTNAME: &str = "enp0s31f6-the-primary";
        let setting = Setting {
            config: format!("{ONE}[bypass]\ninterface = \"{ALTNAME}\"\n"),
            prepare: |lab| {
                let host1 = lab.ns("host1");
                host1.ip(&format!("link property add dev priv altname {ALTNAME}"));
            },
            ..Setting::default()
        };
        in_force(setting, |scene| {
            let ours = scene.ours();
            scene.ip(&format!("link property del dev priv altname {ALTNAME}"));
            let status = scene.agent.wait_for("the name is missing", |status| {
                status["state"] != "in_force"
            });
            let reason = status["reason"].as_str().unwrap();
            assert!(reason.contains(ALTNAME), "{reason}");
            scene.ip(&format!("link property add dev priv altname {ALTNAME}"));
            scene
                .agent
                .wait_for("the name is back", |status| status["state"] == "in_force");
            assert_eq!(scene.ours(), ours);
        });
    });
}

/// All routes of the main table vanish, and a connected network returns alone: no link, address or
/// default changes with it.
#[test]
fn returned_connected_network_restores_the_egress_default() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let ours = scene.ours();
            for (family, connected) in [
                (
                    "-4",
                    format!("10.0.1.0/24 dev priv proto kernel scope link src {HOST1}"),
                ),
                (
                    "-6",
                    "2600:1f18:1000:1::/64 dev priv proto kernel metric 256".to_owned(),
                ),
            ] {
                let show = format!("{family} route show table 1084");
                let leaves_by_nat = || scene.ip(&show).contains("default via");
                scene.shell(&format!(
                    "ip {family} route save table main > /run/lab/main; ip {family} route flush table main"
                ));
                eventually("the egress default is gone", || !leaves_by_nat());
                // Longer than a burst of events.
                std::thread::sleep(Duration::from_secs(2));
                scene.ip(&format!("{family} route add {connected}"));
                // Long before the next resync.
                eventually("the egress default is back", leaves_by_nat);
                scene.shell(&format!("ip {family} route restore < /run/lab/main"));
                eventually("ours is back as it was", || scene.ours() == ours);
            }
            wait_until_back(scene, &ours);
            // Without a default of the main table, S3 is reached through the NAT.
            count_from_now(scene.lab);
        });
    });
}
