//! The vpc role against moto, which verifies signatures and policies. `packaging/dev/vpc-tools.sh`
//! installs moto; without moto the tests say so and check nothing.
//!
//! moto is no oracle for prefix lists: it has neither paging, versions, quotas nor dry runs. The double
//! in `tests/cloud` has.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use world::*;

const TOKEN: u64 = 1_700_000_000;

/// Runs a command that must succeed with these words in its output.
#[track_caller]
fn succeeds(moto: &Moto, command: &[&str], word: &str) {
    let output = moto.run(command);
    let said = text(&output);
    assert!(output.status.success() && said.contains(word), "{said}");
}

/// The life of one list, each command with its own policy file: a first pass with more entries than one
/// call takes, a pass in sync, a change, and the removal.
#[test]
fn list_lives_with_the_policies_of_its_commands() {
    let Some(mut moto) = Moto::start() else {
        return;
    };
    moto.anew("prefix-list");
    moto.publish(TOKEN, 120);
    moto.allow(&policy(&actions("install")));
    succeeds(&moto, &["reconcile"], "Changed and verified");
    let lists = moto.look()["lists"].clone();
    let (list, entries) = lists.as_object().unwrap().iter().next().unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 120);
    assert_eq!(moto.routes(), [list.as_str()]);
    moto.allow(&policy(&actions("reconcile")));
    succeeds(&moto, &["reconcile"], "In sync");
    moto.publish(TOKEN + 60, 90);
    succeeds(&moto, &["reconcile"], "Changed and verified");
    let after = moto.look()["lists"][list].clone();
    assert_eq!(after.as_array().unwrap().len(), 90);
    moto.allow(&policy(&actions("read")));
    succeeds(&moto, &["reconcile", "--dry-run"], "In sync");
    moto.allow(&policy(&actions("flush")));
    succeeds(&moto, &["flush"], "");
    assert_eq!(moto.look()["lists"], serde_json::json!({}));
    assert_eq!(moto.routes(), [""; 0]);
}

#[test]
fn single_routes_live_with_their_policy() {
    let Some(mut moto) = Moto::start() else {
        return;
    };
    moto.anew("routes");
    moto.publish(TOKEN, 6);
    moto.allow(&policy(&actions("routes")));
    succeeds(&moto, &["reconcile"], "Changed and verified");
    assert_eq!(moto.routes().len(), 6);
    succeeds(&moto, &["reconcile"], "In sync");
    moto.publish(TOKEN + 60, 4);
    succeeds(&moto, &["reconcile"], "Changed and verified");
    assert_eq!(moto.routes().len(), 4);
    succeeds(&moto, &["flush"], "");
    assert_eq!(moto.routes(), [""; 0]);
}

/// A command without one of its actions names the action, and the statement that grants it.
#[track_caller]
fn fails_without(moto: &mut Moto, file: &str, lacks: &str, command: &[&str]) {
    let mut granted = actions(file);
    let before = granted.len();
    granted.retain(|action| action != lacks);
    assert_eq!(granted.len() + 1, before, "{file} has {lacks}");
    moto.allow(&policy(&granted));
    let output = moto.run(command);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{lacks}: {said}");
    for part in [
        format!("the permission {lacks} is missing"),
        format!(r#"{{"Effect": "Allow", "Action": "{lacks}", "Resource": "#),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
}

const READS: [&str; 3] = [
    "ec2:DescribeRouteTables",
    "ec2:DescribeManagedPrefixLists",
    "ec2:GetManagedPrefixListEntries",
];

#[test]
fn each_missing_action_of_a_list_is_named() {
    let Some(mut moto) = Moto::start() else {
        return;
    };
    // Before the installation: each call of the first pass, in the order of the calls.
    moto.anew("prefix-list");
    moto.publish(TOKEN, 120);
    for action in [
        "DescribeRouteTables",
        "DescribeManagedPrefixLists",
        "CreateManagedPrefixList",
    ] {
        fails_without(
            &mut moto,
            "install",
            &format!("ec2:{action}"),
            &["reconcile"],
        );
    }
    assert_eq!(moto.look()["lists"], serde_json::json!({}));
    fails_without(
        &mut moto,
        "install",
        "ec2:ModifyManagedPrefixList",
        &["reconcile"],
    );
    fails_without(&mut moto, "install", "ec2:CreateRoute", &["reconcile"]);
    moto.allow(&policy(&actions("install")));
    succeeds(&moto, &["reconcile"], "Changed and verified");
    // In force: reads alone.
    for action in READS {
        fails_without(&mut moto, "read", action, &["reconcile", "--dry-run"]);
        fails_without(&mut moto, "reconcile", action, &["reconcile"]);
        fails_without(&mut moto, "flush", action, &["flush"]);
    }
    // Each change: the mark of the document comes before the entries.
    moto.publish(TOKEN + 60, 90);
    fails_without(&mut moto, "reconcile", "ec2:CreateTags", &["reconcile"]);
    fails_without(
        &mut moto,
        "reconcile",
        "ec2:ModifyManagedPrefixList",
        &["reconcile"],
    );
    moto.allow(&policy(&actions("reconcile")));
    succeeds(&moto, &["reconcile"], "Changed and verified");
    for action in ["ec2:DeleteRoute", "ec2:DeleteManagedPrefixList"] {
        fails_without(&mut moto, "flush", action, &["flush"]);
    }
    moto.allow(&policy(&actions("flush")));
    succeeds(&moto, &["flush"], "");
}

#[test]
fn each_missing_action_of_single_routes_is_named() {
    let Some(mut moto) = Moto::start() else {
        return;
    };
    moto.anew("routes");
    moto.publish(TOKEN, 6);
    for action in ["DescribeRouteTables", "CreateTags", "CreateRoute"] {
        fails_without(
            &mut moto,
            "routes",
            &format!("ec2:{action}"),
            &["reconcile"],
        );
        assert_eq!(moto.routes(), [""; 0], "{action}");
    }
    moto.allow(&policy(&actions("routes")));
    succeeds(&moto, &["reconcile"], "Changed and verified");
    moto.publish(TOKEN + 60, 4);
    fails_without(&mut moto, "routes", "ec2:DeleteRoute", &["reconcile"]);
    assert_eq!(moto.routes().len(), 6);
    fails_without(&mut moto, "routes", "ec2:DeleteRoute", &["flush"]);
}

/// moto computes each signature again: without the right secret nothing works.
#[test]
fn wrong_secret_is_refused() {
    let Some(mut moto) = Moto::start() else {
        return;
    };
    moto.anew("prefix-list");
    moto.publish(TOKEN, 6);
    moto.allow(&policy(&actions("install")));
    let output = moto.run_with_secret("another", &["reconcile"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["AuthFailure", "check the access key and its secret"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(moto.look()["lists"], serde_json::json!({}));
    succeeds(&moto, &["reconcile"], "Changed and verified");
}
