//! The agent: documents, drift, faults of EC2, status, metrics, the end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use cloud::{Fault, Way, Wrong};

use crate::world::*;

#[test]
fn agent_installs_follows_documents_and_mends_edits_of_the_console() {
    let scene = Scene::new("");
    let mut agent = Agent::start(&scene);
    let status = scene.wait_for_state(&agent, "in_force");
    assert_eq!(status["role"], "vpc", "{status}");
    assert_eq!(status["vpc"]["region"], REGION);
    assert_eq!(status["vpc"]["lists"][0]["entries"], 2);
    assert_eq!(status["vpc"]["lists"][0]["sync_token"], TOKEN);
    assert_eq!(status["vpc"]["tables"][0]["routes"][0]["target"], IGW);
    assert_eq!(status["document"]["sync_token"], TOKEN);
    assert!(status["in_force_since"].is_i64(), "{status}");
    let way = scene.cloud.target_of(TABLE, "52.217.1.1".parse().unwrap());
    assert_eq!(way, Way::Target(IGW.to_owned()));
    assert!(eventually(|| agent.notifications("READY=1") == 1));
    assert!(eventually(|| agent.notifications("WATCHDOG=1") > 1));
    assert!(agent.notifications("STATUS=in force: 3 entries, 2 routes in 1 table,") > 0);
    assert!(netlink_sockets(agent.pid()).is_empty());
    // A pass without a change leaves no line.
    let passes = scene.status()["pass_totals"]["duration"]["count"]
        .as_u64()
        .unwrap();
    assert!(eventually(|| {
        let now = scene.status()["pass_totals"]["duration"]["count"].as_u64();
        now > Some(passes + 1)
    }));
    assert_eq!(history(&scene).len(), 1, "{:?}", history(&scene));
    scene.publish(
        TOKEN + 60,
        &["52.216.0.0/15", "3.5.0.0/19", "2600:1fa0::/40"],
    );
    assert!(eventually(
        || scene.ipv4() == ["3.5.0.0/19", "52.216.0.0/15"]
    ));
    // After the last reading of the pass.
    let taken = |status: &serde_json::Value| status["document"]["sync_token"] == TOKEN + 60;
    assert!(eventually(|| taken(&scene.status())), "{}", scene.status());
    let before = scene.wait_for_state(&agent, "in_force");
    let list = scene.list("ipv4").unwrap();
    let lost = "3.5.0.0/19".parse().unwrap();
    scene.cloud.edit_list(&list, &[], &[lost]);
    let restored = eventually(|| scene.ipv4() == ["3.5.0.0/19", "52.216.0.0/15"]);
    assert!(restored, "{}\n{}", scene.status(), agent.log());
    // After the last reading of the pass.
    let mended = |object: &str| {
        let came = eventually(|| scene.status()["drift"]["mended"][object] == 1);
        assert!(came, "{object}: {}", scene.status());
    };
    mended("entries");
    let to_list = |(destination, _): &(String, String)| *destination == list;
    let routed = || scene.cloud.routes(TABLE).iter().any(to_list);
    scene.cloud.drop_route(TABLE, &list);
    assert!(eventually(routed), "{}", scene.status());
    mended("route");
    let after = scene.wait_for_state(&agent, "in_force");
    assert!(after["in_force_since"].as_i64() >= before["in_force_since"].as_i64());
    let page = text(&scene.run(&["history"]));
    for line in [
        format!("drift, repaired: ipv4: another program has changed prefix list {list}"),
        format!("drift, repaired: ipv4: another program has deleted the route of {TABLE}"),
    ] {
        assert!(page.contains(&line), "{line}: {page}");
    }
    let passes = history(&scene);
    let verdicts = passes.iter().filter_map(|pass| pass["verdicts"].as_array());
    let verdicts = verdicts.flatten().filter(|it| it["guard"] == "drift");
    let drift: Vec<_> = verdicts.collect();
    assert_eq!(drift.len(), 2, "{passes:#?}");
    assert_eq!(drift[0]["drift"]["list"], *list, "{drift:#?}");
    assert_eq!(drift[0]["drift"]["removed"][0], "3.5.0.0/19");
    assert_eq!(drift[1]["drift"]["table"], TABLE, "{drift:#?}");
    assert_eq!(drift[1]["drift"]["target"], serde_json::Value::Null);
    assert!(drift.iter().all(|it| it["repaired"] == true), "{drift:#?}");
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0), "{}", agent.log());
    assert!(routed());
    assert!(!scene.path("run/control.sock").exists());
    assert!(agent.notifications("STOPPING=1") == 1);
    assert_eq!(scene.cloud.violations(), Vec::<String>::new());
    agent.log();
}

#[test]
fn metrics_health_kick_and_a_second_agent() {
    let scene = Scene::new("");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let (code, metrics) = scene.get("/metrics");
    refuse_secrets(&metrics);
    let list = scene.list("ipv4").unwrap();
    for line in [
        "trailblazer_in_force 1".to_owned(),
        format!("trailblazer_vpc_list_entries{{family=\"ipv4\",list=\"{list}\"}} 2"),
        format!("trailblazer_vpc_table_routes{{table=\"{TABLE}\",family=\"ipv6\"}} 1"),
        "trailblazer_vpc_holds 0".to_owned(),
        "trailblazer_routes{family=\"ipv4\"} 1".to_owned(),
        "trailblazer_build_info{version=\"0.1.0\",role=\"vpc\",firewall=\"\"} 1".to_owned(),
        format!("trailblazer_document_sync_token {TOKEN}"),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
    let changes = scene.cloud.writes();
    let counted = format!("trailblazer_vpc_requests_total{{kind=\"changes\"}} {changes}");
    assert!(metrics.contains(&counted), "{counted}: {metrics}");
    assert_eq!((code, scene.get("/healthz").0), (200, 200));
    assert_eq!(scene.get("/readyz"), (200, "in force\n".to_owned()));
    let kicked = scene.run(&["kick", "--wait"]);
    assert!(kicked.status.success(), "{}", text(&kicked));
    assert!(text(&kicked).contains("in sync"), "{}", text(&kicked));
    let page = text(&scene.run(&["status"]));
    for part in [
        "IN FORCE",
        "region us-east-1",
        &list,
        TABLE,
        "to igw-",
        "throttled",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("bypass table"), "{page}");
    let second = scene.run(&["agent"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).contains("another agent"), "{}", text(&second));
    let drained = scene.run(&["drain", "10.0.0.1"]);
    assert_ne!(drained.status.code(), Some(0), "{}", text(&drained));
}

#[test]
fn agent_outlives_throttling_and_errors_of_ec2() {
    let scene = Scene::new("deadline = \"2s\"\n");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let routes = scene.cloud.routes(TABLE);
    scene.cloud.throttle(usize::MAX);
    let status = scene.wait_for_state(&agent, "degraded");
    assert!(
        status["reason"]
            .as_str()
            .unwrap()
            .contains("RequestLimitExceeded")
    );
    let page = text(&scene.run(&["status"]));
    assert!(page.contains("failing"), "{page}");
    assert!(status["vpc"]["failing_since"].is_i64(), "{status}");
    assert!(status["vpc"]["failures"].as_u64() > Some(0), "{status}");
    assert_eq!(scene.get("/readyz").0, 503);
    assert_eq!(scene.get("/healthz").0, 200);
    assert!(status["vpc"]["requests"]["throttled"].as_u64() > Some(0));
    scene.cloud.throttle(0);
    for _ in 0..3 {
        scene.cloud.fail_next(Fault::before(Wrong::Html(502)));
    }
    scene.wait_for_state(&agent, "in_force");
    assert_eq!(scene.cloud.routes(TABLE), routes);
    assert_eq!(scene.get("/readyz").0, 200);
}

#[test]
fn single_routes_are_counted_and_restored() {
    let scene = Scene::new("mode = \"routes\"\n");
    let agent = Agent::start(&scene);
    let status = scene.wait_for_state(&agent, "in_force");
    assert_eq!(status["vpc"]["tables"][0]["routes"][0]["routes"], 2);
    assert_eq!(status["routes"]["ipv4"], 2, "{status}");
    let prefix = "54.231.0.0/16";
    let routed = || scene.cloud.routes(TABLE).iter().any(|it| it.0 == prefix);
    assert!(routed());
    scene.cloud.drop_route(TABLE, prefix);
    assert!(eventually(routed), "{}", agent.log());
    scene.wait_for_state(&agent, "in_force");
}

/// Entries of another program stay, and no colour says that everything is well.
#[test]
fn held_drift_is_not_in_force() {
    let scene = Scene::new("drift = \"hold\"\n");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let list = scene.list("ipv4").unwrap();
    let lost = "54.231.0.0/16".parse().unwrap();
    scene.cloud.edit_list(&list, &[], &[lost]);
    let status = scene.wait_for_state(&agent, "degraded");
    assert!(
        status["reason"].as_str().unwrap().contains("drift"),
        "{status}"
    );
    assert_eq!(status["vpc"]["holds"].as_array().unwrap().len(), 1);
    assert_eq!(scene.ipv4(), ["52.216.0.0/15"]);
    assert_eq!(scene.get("/readyz").0, 503);
    scene.cloud.edit_list(&list, &[lost], &[]);
    scene.wait_for_state(&agent, "in_force");
}

/// A pass that waits for EC2 delays neither the end nor the status.
#[test]
fn agent_ends_within_two_seconds_while_ec2_is_silent() {
    let scene = Scene::new("");
    let mut agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let calls = scene.cloud.next_call();
    for call in calls..calls + 50 {
        scene.cloud.fail(call, Fault::before(Wrong::Hangs));
    }
    assert!(eventually(|| scene.cloud.next_call() > calls));
    assert_eq!(scene.status()["agent"], "running");
    let start = Instant::now();
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0), "{}", agent.log());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn flush_pauses_the_agent_and_a_kick_restores_everything() {
    let scene = Scene::new("");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let flushed = scene.run(&["flush"]);
    assert!(flushed.status.success(), "{}", text(&flushed));
    assert_eq!(scene.list("ipv4"), None);
    assert_eq!(scene.status()["state"], "paused");
    assert_eq!(scene.list("ipv4"), None);
    assert!(scene.run(&["kick"]).status.success());
    scene.wait_for_state(&agent, "in_force");
    assert_eq!(scene.ipv4(), ["52.216.0.0/15", "54.231.0.0/16"]);
}

#[test]
fn status_without_an_agent_is_a_dry_run() {
    let scene = Scene::new("");
    assert!(scene.run(&["reconcile"]).status.success());
    let writes = scene.cloud.writes();
    let page = scene.run(&["status"]);
    assert_eq!(page.status.code(), Some(1));
    for part in ["NOT RUNNING", "Dry run against EC2", "In sync", "reconcile"] {
        assert!(text(&page).contains(part), "{part}: {}", text(&page));
    }
    let list = scene.list("ipv4").unwrap();
    scene.cloud.drop_route(TABLE, &list);
    let status = scene.status();
    assert_eq!(status["agent"], "not_running");
    assert_eq!(status["in_sync"], false, "{status}");
    assert_eq!(status["dry_run"]["steps"][0]["object"], "route", "{status}");
    assert_eq!(scene.cloud.writes(), writes);
}

/// The passes of the journal.
fn history(scene: &Scene) -> Vec<serde_json::Value> {
    let output = scene.run(&["history", "-o", "json"]);
    let history: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    history["passes"].as_array().unwrap().clone()
}

/// The netlink sockets among the files of a process.
fn netlink_sockets(pid: u32) -> Vec<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let table = std::fs::read_to_string(process.join("net/netlink")).unwrap();
    let inodes: BTreeSet<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert!(!inodes.is_empty(), "the kernel has sockets of its own");
    let files = match std::fs::read_dir(process.join("fd")) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            // A process without core dumps shows its files to root alone.
            eprintln!("NOT TESTED without root: the agent opens no netlink socket");
            return Vec::new();
        }
        Err(error) => panic!("{error}"),
    };
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let links = links.map(|link| link.to_string_lossy().into_owned());
    let sockets = links.filter(|link| {
        let inode = link.strip_prefix("socket:[");
        inode.is_some_and(|it| inodes.contains(it.trim_end_matches(']')))
    });
    sockets.collect()
}

/// The region is the one of the tables, and not of this machine.
#[test]
fn ranges_are_those_of_the_region_of_the_tables() {
    let scene = Scene::new("");
    assert!(scene.run(&["reconcile"]).status.success());
    let ranges = scene.run(&["ranges"]);
    let printed = String::from_utf8_lossy(&ranges.stdout).into_owned();
    assert!(ranges.status.success(), "{}", text(&ranges));
    for prefix in scene.ipv4() {
        assert!(printed.contains(&prefix), "{prefix}: {printed}");
    }
}
