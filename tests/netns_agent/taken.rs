//! Somebody takes away routes and rules of ours.

use crate::packets::FIRST;
use crate::scene::*;
use lab::*;

/// Our rules of a family (`place` in src/desired).
const RULES: [u32; 5] = [30000, 30010, 30020, 30030, 30099];
/// One destination of each family outside the egress table (`special` in src/desired).
const THROWN: [&str; 2] = ["10.0.0.0/8", "fc00::/7"];

fn added_rule(family: &str, priority: u32) -> String {
    format!("add rule ip{} {priority}", family.replace('-', "v"))
}

#[test]
fn flushed_tables_are_restored() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            for table in [1083, 1084] {
                for family in FAMILIES {
                    let story = scene.story();
                    scene.gap(|| scene.delete_each_route(family, table));
                    let gone = match table {
                        1083 => FIRST,
                        _ => &["0.0.0.0/0", THROWN[0], "::/0", THROWN[1]],
                    };
                    let of_family = |prefix: &&&str| prefix.contains(':') == (family == "-6");
                    let steps: Vec<String> = gone
                        .iter()
                        .filter(of_family)
                        .map(|prefix| format!("add route {prefix} table {table}"))
                        .collect();
                    scene.told(&story, &steps);
                }
            }
            let status = scene
                .agent
                .wait_for("counted", |status| mended(status, "route") >= 16);
            assert!(conflicts(&status).is_empty(), "{status:#}");
        });
    });
}

#[test]
fn each_deleted_rule_is_restored() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let story = scene.story();
            let mut steps = Vec::new();
            for family in FAMILIES {
                for priority in RULES {
                    scene.gap(|| drop(scene.ip(&format!("{family} rule del pref {priority}"))));
                    steps.push(added_rule(family, priority));
                }
            }
            scene.told(&story, &steps);
            let status = scene
                .agent
                .wait_for("counted", |status| mended(status, "rule") >= 10);
            assert!(conflicts(&status).is_empty(), "{status:#}");
        });
    });
}

#[test]
fn several_deleted_rules_and_routes_are_restored_at_once() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let story = scene.story();
            scene.gap(|| {
                scene.machine.ns().ip_batch(
                    "rule del pref 30020\nrule del pref 30030\nrule del pref 30000\n\
                     route del 52.216.0.0/15 table 1083\n\
                     route del default via 10.0.1.10 table 1084\n\
                     route del 2600:1fa0:8000::/39 table 1083\n",
                );
                scene.shell("ip -6 rule del pref 30010; ip -6 rule del pref 30030");
            });
            let steps = [
                added_rule("-4", 30000),
                added_rule("-4", 30020),
                added_rule("-4", 30030),
                added_rule("-6", 30010),
                added_rule("-6", 30030),
                "add route 52.216.0.0/15 table 1083".to_owned(),
                "add route 2600:1fa0:8000::/39 table 1083".to_owned(),
                "add route 0.0.0.0/0 table 1084".to_owned(),
            ];
            scene.told(&story, &steps);
        });
    });
}

/// `ip rule flush` removes every rule except the local table's; the foreign rules are added back by
/// the caller, as an operator would have to.
#[test]
fn all_rules_are_restored_after_a_rule_flush() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            let story = scene.story();
            scene.gap(|| {
                scene.shell(
                    "ip rule flush
                     ip rule add pref 32766 lookup main proto kernel
                     ip rule add pref 32767 lookup default proto kernel
                     ip rule add pref 12000 from 10.0.1.99 lookup 77
                     ip -6 rule flush
                     ip -6 rule add pref 32766 lookup main proto kernel
                     ip -6 rule add pref 12000 from 2600:1f18:1000:1::99 lookup 77",
                );
            });
            let steps: Vec<String> = FAMILIES
                .iter()
                .flat_map(|family| RULES.map(|priority| added_rule(family, priority)))
                .collect();
            scene.told(&story, &steps);
        });
    });
}

/// A flush while the table is being put back, again and again.
#[test]
fn five_complete_flushes_in_a_row_are_repaired() {
    isolated(|| {
        in_force(Setting::default(), |scene| {
            scene.gap(|| {
                for _ in 0..5 {
                    let mut lines = String::new();
                    for family in FAMILIES {
                        for table in [1083, 1084] {
                            // `ip route flush` lists and deletes until a listing is empty, and so
                            // competes with the repairs.
                            lines.push_str(&format!("{}\n", delete_each(family, table)));
                        }
                        for priority in RULES {
                            lines.push_str(&format!("ip {family} rule del pref {priority} || :\n"));
                        }
                    }
                    scene.shell(&lines);
                }
            });
        });
    });
}
