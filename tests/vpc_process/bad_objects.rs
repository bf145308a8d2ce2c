//! Objects of the account that are not as they should be, and other writers: the message and the exit code
//! of `reconcile`, and nothing lost.

use cloud::{Family, Fault, NewList, Owner, Way, Wrong};

use crate::world::*;

/// Runs `reconcile`, which must end with this code and these parts in its output.
#[track_caller]
fn ends(scene: &Scene, code: i32, parts: &[&str]) {
    let output = scene.run(&["reconcile"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(scene.cloud.violations(), Vec::<String>::new(), "{text}");
}

fn way(scene: &Scene, address: &str) -> Way {
    scene.cloud.target_of(TABLE, address.parse().unwrap())
}

fn to(target: &str) -> Way {
    Way::Target(target.to_owned())
}

#[test]
fn lists_of_others_in_the_place_of_ours() {
    let foreign = "198.51.100.0/24".parse().unwrap();
    for (owner, words) in [
        (
            Owner::Other("999999999999".to_owned()),
            "belongs to account 999999999999",
        ),
        (
            Owner::Resolver,
            "is written by an IPAM prefix list resolver",
        ),
        (Owner::Caller, "has no tag trailblazer:owner"),
    ] {
        let scene = Scene::new("");
        let id = "pl-0bbbbbbbbbbbbbbb1";
        scene.cloud.add_list(&NewList {
            id,
            name: "trailblazer-s3-ipv4",
            family: Family::Ipv4,
            owner,
            max_entries: 10,
            prefixes: vec![foreign],
        });
        ends(&scene, 1, &[id, words, "conflict"]);
        assert_eq!(
            scene.cloud.prefixes(id).into_iter().collect::<Vec<_>>(),
            [foreign]
        );
        // The other family is in force.
        assert_eq!(way(&scene, "2600:1fa0:1::1"), to(EIGW));
    }
}

#[test]
fn table_over_its_quota() {
    let scene = Scene::new("quota = 2\n");
    ends(
        &scene,
        3,
        &[
            TABLE,
            "no room for the list",
            "above the quota of 2",
            "Service Quotas",
        ],
    );
    assert_ne!(way(&scene, "52.217.1.1"), to(IGW));
    assert_eq!(way(&scene, "2600:1fa0:1::1"), to(EIGW));
    scene.configure("");
    ends(&scene, 0, &["Changed and verified"]);
    assert_eq!(way(&scene, "52.217.1.1"), to(IGW));
}

/// A table outside of the settings leads our list too, and has no room for a larger one.
#[test]
fn list_over_its_maximum_in_a_full_table_of_somebody_else() {
    let scene = Scene::new("headroom = \"0%\"\n");
    ends(&scene, 0, &[]);
    let (other, ours) = ("rtb-0aaaaaaaaaaaaaaa2", scene.list("ipv4").unwrap());
    scene.cloud.add_table(other, "vpc-0aaaaaaaaaaaaaaa1");
    scene.cloud.set_route(other, &ours, IGW);
    for n in 0..498 {
        let prefix = format!("60.{}.{}.0/24", n / 256, n % 256);
        scene.cloud.set_route(other, &prefix, IGW);
    }
    scene.publish(
        TOKEN + 60,
        &[
            "52.216.0.0/15",
            "54.231.0.0/16",
            "3.5.0.0/19",
            "2600:1fa0::/40",
        ],
    );
    ends(
        &scene,
        1,
        &[&ours, other, "EC2 has not carried out the change"],
    );
    assert_eq!(scene.ipv4(), ["52.216.0.0/15", "54.231.0.0/16"]);
    assert_eq!(way(&scene, "54.231.1.1"), to(IGW));
    scene.cloud.drop_route(other, &ours);
    ends(&scene, 0, &[]);
    assert_eq!(scene.ipv4().len(), 3);
}

#[test]
fn missing_and_detached_target() {
    let scene = Scene::new("");
    scene.cloud.remove_target(IGW);
    ends(&scene, 1, &[IGW, "CreateRoute"]);
    assert_eq!(way(&scene, "2600:1fa0:1::1"), to(EIGW));
    let scene = Scene::new("");
    ends(&scene, 0, &[]);
    scene.cloud.detach(IGW);
    ends(&scene, 1, &[TABLE, IGW, "gone or detached", "Degraded"]);
    assert_eq!(scene.ipv4().len(), 2);
}

#[test]
fn document_older_than_that_of_another_writer() {
    let scene = Scene::new("");
    scene.publish(
        TOKEN + 60,
        &["52.216.0.0/15", "54.231.0.0/16", "2600:1fa0::/40"],
    );
    ends(&scene, 0, &[]);
    let writes = scene.cloud.writes();
    // A second writer with a stale mirror.
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    scene.publish(TOKEN, &["52.216.0.0/15", "3.5.0.0/19", "2600:1fa0::/40"]);
    ends(
        &scene,
        3,
        &["stale mirror", "newer than", "nothing is changed"],
    );
    assert_eq!(scene.cloud.writes(), writes);
    assert_eq!(scene.ipv4(), ["52.216.0.0/15", "54.231.0.0/16"]);
}

/// Two processes with state dirs of their own start at the same moment.
#[test]
fn two_writers_at_once() {
    let scene = Scene::new("");
    let (first, second) = std::thread::scope(|scope| {
        let second = scene.path("second");
        let scene = &scene;
        let second = scope
            .spawn(move || finish(scene.command(&["reconcile"]).arg("--state-dir").arg(second)));
        (scene.run(&["reconcile"]), second.join().unwrap())
    });
    for output in [&first, &second] {
        let text = text(output);
        let is_good = output.status.success() || text.contains("another writer");
        assert!(is_good, "{text}");
    }
    // At most one spare list is left, which the next pass removes.
    ends(&scene, 0, &[]);
    ends(&scene, 0, &["In sync"]);
    assert_eq!(scene.ipv4(), ["52.216.0.0/15", "54.231.0.0/16"]);
    assert_eq!(way(&scene, "52.217.1.1"), to(IGW));
}

/// EC2 takes the change, and the connection ends before the answer: the pass reads before anything else.
#[test]
fn change_whose_answer_is_lost() {
    for wrong in [Wrong::Dropped, Wrong::Half, Wrong::Html(504)] {
        let scene = Scene::new("");
        ends(&scene, 0, &[]);
        scene.publish(
            TOKEN + 60,
            &["52.216.0.0/15", "3.5.0.0/19", "2600:1fa0::/40"],
        );
        let lost = wrong.clone();
        scene.cloud.before_call(move |cloud, index, request| {
            if request.action == "ModifyManagedPrefixList" {
                cloud.fail(index, Fault::after(lost.clone()));
            }
        });
        ends(&scene, 0, &[]);
        scene.cloud.before_call(|_, _, _| {});
        assert_eq!(scene.ipv4(), ["3.5.0.0/19", "52.216.0.0/15"], "{wrong:?}");
        let calls = scene.cloud.calls().into_iter();
        let changes = calls.filter(|it| it.action == "ModifyManagedPrefixList");
        assert_eq!(
            changes.count(),
            1,
            "{wrong:?}: no change is sent blindly again"
        );
    }
}

#[test]
fn entry_edited_by_hand() {
    for (drift, code, words) in [
        ("mend", 0, "drift"),
        ("hold", 3, "leaves the list as it is"),
    ] {
        let scene = Scene::new(&format!("drift = \"{drift}\"\n"));
        ends(&scene, 0, &[]);
        let list = scene.list("ipv4").unwrap();
        let lost = "54.231.0.0/16".parse().unwrap();
        scene.cloud.edit_list(&list, &[], &[lost]);
        let edit = "another program has changed";
        ends(&scene, code, &[edit, &list, "-54.231.0.0/16", words]);
        assert_eq!(scene.cloud.prefixes(&list).contains(&lost), code == 0);
        // The same again: a hold lasts, a repair is whole.
        let output = scene.run(&["reconcile"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let history = text(&scene.run(&["history"]));
        let fate = if code == 0 { "repaired" } else { "held" };
        assert!(
            history.contains(&format!("drift, {fate}: ipv4:")),
            "{history}"
        );
    }
}

/// A key of another region, or of another partition.
#[test]
fn region_of_another_partition() {
    let scene = Scene::new("");
    let text = std::fs::read_to_string(scene.path("c.toml")).unwrap();
    let text = text.replace("region = \"us-east-1\"", "region = \"cn-north-1\"");
    std::fs::write(scene.path("c.toml"), text).unwrap();
    ends(
        &scene,
        1,
        &["DescribeRouteTables", "SignatureDoesNotMatch", "region"],
    );
    assert_eq!(scene.cloud.writes(), 0);
}

/// Credentials of a program: the agent names their end, loses nothing, and takes new ones by itself.
#[test]
fn expired_credentials_are_named_and_new_ones_are_taken() {
    let scene = Scene::new("");
    let keys = |expiration: &str| {
        let text = format!(
            "{{\"Version\": 1, \"AccessKeyId\": \"{ACCESS}\", \"SecretAccessKey\": \"{SECRET}\", \
             \"SessionToken\": \"{SESSION}\", \"Expiration\": \"{expiration}\"}}"
        );
        std::fs::write(scene.path("new-keys"), text).unwrap();
        std::fs::rename(scene.path("new-keys"), scene.path("keys.json")).unwrap();
    };
    let profile = format!(
        "[default]\ncredential_process = cat {}\n",
        scene.path("keys.json").display()
    );
    std::fs::write(scene.path("profile"), profile).unwrap();
    keys("2001-01-01T00:00:00Z");
    let agent = Agent::start_with(&scene, |command| {
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env_remove("AWS_SESSION_TOKEN")
            .env("AWS_CONFIG_FILE", scene.path("profile"))
            .env("AWS_SHARED_CREDENTIALS_FILE", scene.path("none"));
    });
    assert!(
        eventually(|| agent.log().contains("expired")),
        "{}",
        agent.log()
    );
    let status = scene.status();
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("the credentials of credential_process have expired"),
        "{status}"
    );
    assert!(status["vpc"]["failing_since"].is_i64(), "{status}");
    assert_eq!(scene.cloud.writes(), 0);
    keys("2999-01-01T00:00:00Z");
    let status = scene.wait_for_state(&agent, "in_force");
    assert!(status["vpc"]["failing_since"].is_null(), "{status}");
    assert_eq!(status["vpc"]["failures"], 0);
}
