//! An agent whose disk fails: the status says so, additions go in, and withdrawals wait.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;

use ipnet::IpNet;

use crate::world::*;

const BOTH: [&str; 3] = ["52.216.0.0/15", "54.231.0.0/16", "2600:1fa0::/40"];
const NEXT: [&str; 3] = ["52.216.0.0/15", "3.5.0.0/19", "2600:1fa0::/40"];

/// The IPv4 prefixes that lead to the internet gateway.
fn led(scene: &Scene) -> BTreeSet<String> {
    let routes = scene.cloud.routes(TABLE).into_iter();
    let to_target = routes.filter(|(_, target)| target == IGW);
    to_target
        .flat_map(|(to, _)| match to.parse::<IpNet>() {
            Ok(prefix) => BTreeSet::from([prefix]),
            Err(_) => scene.cloud.prefixes(&to),
        })
        .map(|prefix| prefix.to_string())
        .collect()
}

fn ipv4(prefixes: &[&str]) -> BTreeSet<String> {
    let ipv4 = prefixes.iter().filter(|it| it.contains('.'));
    ipv4.map(|it| (*it).to_owned()).collect()
}

#[test]
fn agent_on_a_full_disk_is_degraded_and_withdraws_nothing() {
    lab::isolated(|| {
        for mode in ["", "mode = \"routes\"\n"] {
            let scene = Scene::new(mode);
            let state = scene.path("state");
            std::fs::create_dir(&state).unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
                .arg(&state)
                .status();
            assert!(mounted.unwrap().success());
            let agent = Agent::start(&scene);
            scene.wait_for_state(&agent, "in_force");
            let mut filler = std::fs::File::create(state.join("filler")).unwrap();
            while filler.write_all(&[0; 512]).is_ok() {}
            drop(filler);
            scene.publish(TOKEN + 60, &NEXT);
            let status = scene.wait_for_state(&agent, "degraded");
            let reason = status["reason"].as_str().unwrap();
            for part in [
                "No space left on device",
                "free space there",
                "only withdrawals of prefixes wait",
            ] {
                assert!(reason.contains(part), "{part}: {status}");
            }
            let mut all = ipv4(&BOTH);
            all.extend(ipv4(&NEXT));
            assert!(eventually(|| led(&scene) == all), "{}", agent.log());
            let page = scene.run(&["status"]);
            assert_eq!(page.status.code(), Some(1));
            assert!(text(&page).contains("DEGRADED"), "{}", text(&page));
            // A single pass beside the agent says and does the same.
            let output = scene.run(&["reconcile"]);
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            assert!(text(&output).contains("only withdrawals of prefixes wait"));
            assert_eq!(led(&scene), all);
            std::fs::remove_file(state.join("filler")).unwrap();
            let restored = eventually(|| led(&scene) == ipv4(&NEXT));
            assert!(restored, "{}\n{}", scene.status(), agent.log());
            scene.wait_for_state(&agent, "in_force");
            assert_eq!(scene.cloud.violations(), Vec::<String>::new());
        }
    });
}

#[test]
fn agent_whose_state_dir_is_removed_loses_nothing_and_makes_a_new_one() {
    for mode in ["", "mode = \"routes\"\n"] {
        let scene = Scene::new(mode);
        let agent = Agent::start(&scene);
        scene.wait_for_state(&agent, "in_force");
        let (lists, writes) = (led(&scene), scene.cloud.writes());
        // At once: the agent may write at any moment.
        std::fs::rename(scene.path("state"), scene.path("gone")).unwrap();
        let good = scene.path("state/last-known-good");
        assert!(eventually(|| good.exists()), "{}", agent.log());
        scene.wait_for_state(&agent, "in_force");
        assert_eq!((led(&scene), scene.cloud.writes()), (lists, writes));
    }
}
