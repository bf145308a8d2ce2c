//! Faults of credentials, region, clock and answers: the message and the exit code of `reconcile`.

use cloud::{Fault, Identity, Wrong};

use crate::world::*;

/// Runs `reconcile`, which must fail with these parts in its message and without a change.
#[track_caller]
fn fails(scene: &Scene, command: &mut std::process::Command, parts: &[&str]) {
    let output = finish(command);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(scene.cloud.writes(), 0, "{text}");
}

#[test]
fn no_credentials() {
    let scene = Scene::new("");
    let mut command = scene.command(&["reconcile"]);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("HOME", scene.directory.path());
    fails(
        &scene,
        &mut command,
        &["DescribeRouteTables", "credentials"],
    );
}

#[test]
fn wrong_secret() {
    let scene = Scene::new("");
    let mut command = scene.command(&["reconcile"]);
    command.env("AWS_SECRET_ACCESS_KEY", "another");
    fails(
        &scene,
        &mut command,
        &["DescribeRouteTables", "SignatureDoesNotMatch"],
    );
}

#[test]
fn expired_credentials_and_a_region_that_is_off() {
    for (identity, parts) in [
        (Identity::Expired, ["expired", "RequestExpired"]),
        (Identity::OtherRegion, ["region", "OptInRequired"]),
        (Identity::Unknown, ["credentials", "AuthFailure"]),
    ] {
        let scene = Scene::new("");
        scene
            .cloud
            .configure(|settings| settings.identity = identity);
        fails(&scene, &mut scene.command(&["reconcile"]), &parts);
    }
}

#[test]
fn region_of_no_variable() {
    let scene = Scene::new("region = \"auto\"\n");
    let text = std::fs::read_to_string(scene.path("c.toml")).unwrap();
    let text = text.replacen(&format!("region = \"{REGION}\"\n"), "", 1);
    std::fs::write(scene.path("c.toml"), text).unwrap();
    let parts = ["the region is unknown", "AWS_REGION"];
    fails(&scene, &mut scene.command(&["reconcile"]), &parts);
    let mut command = scene.command(&["reconcile"]);
    command.env("AWS_REGION", "no/region");
    fails(&scene, &mut command, &["no name of a region"]);
}

#[test]
fn clock_off_by_twenty_minutes() {
    for ahead in [1200, -1200] {
        let scene = Scene::with_clock(ahead);
        let parts = ["DescribeRouteTables", "clock"];
        fails(&scene, &mut scene.command(&["reconcile"]), &parts);
    }
}

#[test]
fn answers_that_are_no_answers() {
    for (wrong, part) in [
        (Wrong::Html(200), "<html>"),
        (Wrong::Truncated, "the body breaks off"),
        (Wrong::Empty(200), "empty"),
        (Wrong::Html(503), "503"),
    ] {
        let scene = Scene::new("deadline = \"1s\"\n");
        for call in 0..100 {
            scene.cloud.fail(call, Fault::before(wrong.clone()));
        }
        let parts = ["DescribeRouteTables", part];
        fails(&scene, &mut scene.command(&["reconcile"]), &parts);
    }
}

#[test]
fn missing_table_and_missing_permission() {
    let scene = Scene::new("");
    scene.write_config("rtb-0bbbbbbbbbbbbbbb9", "");
    let parts = ["rtb-0bbbbbbbbbbbbbbb9"];
    fails(&scene, &mut scene.command(&["reconcile"]), &parts);
    let scene = Scene::new("");
    let denied = "DescribeRouteTables".to_owned();
    scene
        .cloud
        .configure(|settings| settings.denied.extend([denied]));
    let parts = ["ec2:DescribeRouteTables", "\"Effect\": \"Allow\""];
    fails(&scene, &mut scene.command(&["reconcile"]), &parts);
}
