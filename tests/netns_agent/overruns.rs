//! More changes than the agent's notification buffer holds: the kernel drops some, and reports only
//! the loss.

use serde_json::Value;

use crate::scene::*;
use lab::*;

/// Every second prefix of a size, so that nothing aggregates.
fn many(count: usize) -> Vec<String> {
    let ipv4 = (0..count).map(|i| format!("13.{}.{}.0/24", i / 128, i % 128 * 2));
    let ipv6 = (0..count / 4).map(|i| format!("2600:1fc0:{:x}::/48", i * 2));
    ipv4.chain(ipv6).collect()
}

fn setting() -> Setting {
    Setting {
        config: format!("{ONE}[agent]\nevent_buffer = \"4KiB\"\n"),
        prefixes: many(2000),
        ..Setting::default()
    }
}

fn overruns(status: &Value) -> u64 {
    status["drift"]["overruns"].as_u64().unwrap()
}

#[test]
fn large_flush_overruns_the_socket_and_is_repaired() {
    isolated(|| {
        in_force(setting(), |scene| {
            let story = scene.story();
            scene.gap(|| {
                scene.shell("ip route flush table 1083; ip -6 route flush table 1083");
            });
            let status = scene
                .agent
                .wait_for("an overrun", |status| overruns(status) > 0);
            println!("{:#}", status["drift"]);
            assert!(conflicts(&status).is_empty(), "{status:#}");
            assert!(mended(&status, "route") >= 2500, "{status:#}");
            // The journal lists the first steps of a pass and counts the rest.
            eventually("the journal tells", || {
                let history = scene.machine.run(&["history", "-o", "json"]).ok().json();
                let passes = history["passes"].as_array().unwrap();
                let steps = passes.iter().filter(|pass| pass["cause"] != "document");
                let steps = steps.map(|pass| pass["steps_total"].as_u64().unwrap());
                steps.sum::<u64>() >= 2500 && scene.story().len() > story.len()
            });
        });
    });
}

/// Thousands of foreign changes in our tables, and deletions of our objects among them.
#[test]
fn storm_of_foreign_changes_hides_no_deletion() {
    isolated(|| {
        in_force(setting(), |scene| {
            let story = scene.story();
            let each = |verb: &str, numbers: std::ops::Range<u32>| {
                let line = |i| {
                    format!(
                        "route {verb} blackhole 100.100.{}.{}/32 table 1083 proto 186\n",
                        i / 256,
                        i % 256
                    )
                };
                numbers.map(line).collect::<String>()
            };
            let batch = [
                each("add", 0..3000),
                "route del 52.216.0.0/15 table 1083\nroute del throw 10.0.0.0/8 table 1084\n"
                    .into(),
                each("del", 0..3000),
                "rule del pref 30030\nroute del 2600:1fa0:8000::/39 table 1083\n".into(),
                each("add", 0..3000),
                each("del", 0..3000),
            ]
            .concat();
            for _ in 0..3 {
                scene.gap(|| scene.machine.ns().ip_batch(&batch));
            }
            let status = scene
                .agent
                .wait_for("an overrun", |status| overruns(status) > 0);
            println!("{:#} {:#}", status["drift"], status["passes"]);
            assert!(conflicts(&status).is_empty(), "{status:#}");
            let steps = [
                "add route 52.216.0.0/15 table 1083",
                "add route 10.0.0.0/8 table 1084",
                "add rule ipv4 30030",
                "add route 2600:1fa0:8000::/39 table 1083",
            ];
            scene.told(&story, &steps.map(str::to_owned));
        });
    });
}
