//! The metadata service: permission to ask, a region that changes, and commands beside an agent.

use std::process::Command;

use serde_json::Value;

use crate::host::*;
use crate::packets::FIRST;
use lab::*;

/// `trailblazer` on a machine whose `/sys` has these files and nothing else.
fn on_machine(host: &Host, sys: &[(&str, &str)], words: &[&str]) -> Output {
    let mut script = String::from("mount -t tmpfs tmpfs /sys && cd /sys");
    for (file, text) in sys {
        let (directory, _) = file.rsplit_once('/').unwrap();
        script.push_str(&format!(
            " && mkdir -p {directory} && echo '{text}' >{file}"
        ));
    }
    script.push_str(" && exec \"$@\"");
    let config = host.config();
    let ours = trailblazer_command(&[words, &["-c", &config]].concat());
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(ours.get_program())
        .args(ours.get_args())
        .env("NO_COLOR", "1")
        .env_remove(IMDS_ENDPOINT);
    host.ns.exec_command(&mut command)
}

/// Somebody on the link answers at the service's address with a VPC and a region of their choice.
#[test]
fn metadata_service_is_asked_on_ec2_or_by_a_setting_alone() {
    const ASSET_TAG: (&str, &str) = ("class/dmi/id/board_asset_tag", "i-0123456789abcdef0");
    isolated(|| {
        let mut host = Host::new();
        host.set("select.regions", "[\"auto\"]");
        let other = [("class/dmi/id/sys_vendor", "QEMU")];
        for sys in [&[][..], &other] {
            let refused = on_machine(&host, sys, &["reconcile", "--dry-run"]).expect_code(1);
            assert!(refused.stderr.contains("no mark of an EC2"), "{refused}");
        }
        host.set("select.regions", "[\"us-east-1\"]");
        host.set("vpc.cidrs", "[\"auto\"]");
        let pass = on_machine(&host, &other, &["reconcile", "--dry-run"]).expect_code(2);
        let notes = pass.stdout.matches("no mark of an EC2").count();
        assert_eq!(notes, 1, "{pass}");
        assert_eq!(host.imds.requests().len(), 0, "somebody was asked");

        host.set("select.regions", "[\"auto\"]");
        host.set("vpc.cidrs", "[\"10.0.0.0/16\"]");
        for mark in [
            ASSET_TAG,
            ("class/dmi/id/sys_vendor", "Amazon EC2"),
            ("hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef"),
        ] {
            let asked = host.imds.requests().len();
            on_machine(&host, &[mark], &["reconcile", "--dry-run"]).expect_code(2);
            assert!(host.imds.requests().len() > asked, "{mark:?}");
        }

        host.set("vpc.metadata", "\"on\"");
        on_machine(&host, &[], &["reconcile", "--dry-run"]).expect_code(2);
        host.set("vpc.metadata", "\"off\"");
        let asked = host.imds.requests().len();
        let off = on_machine(&host, &[ASSET_TAG], &["reconcile", "--dry-run"]).expect_code(1);
        assert!(off.stderr.contains("metadata = \"off\""), "{off}");
        assert_eq!(host.imds.requests().len(), asked);
    });
}

/// The agent outside of EC2: no question, and one note.
#[test]
fn agent_outside_ec2_asks_nobody() {
    isolated(|| {
        let mut host = Host::new();
        host.set("vpc.cidrs", "[\"auto\"]");
        let agent = host.start_with(|command| {
            command.env_remove(IMDS_ENDPOINT);
        });
        // No command yet: `status` without an agent asks by the lab's variable.
        eventually("in force", || host.has(FIRST));
        assert_eq!(host.imds.requests().len(), 0);
        let status = agent.wait_for("two fetches", |status| {
            status["state"] == "in_force" && fetches(status, &["changed", "unchanged"]) > 1
        });
        let notes = status["notes"].to_string();
        assert_eq!(notes.matches("no mark of an EC2").count(), 1, "{notes}");
        let log = agent.log();
        assert_eq!(log.matches("no mark of an EC2").count(), 1, "{log}");
    });
}

const HELD: &str = "hold region-changed";

fn is_held(status: &Value) -> bool {
    status["degraded"].to_string().contains(HELD)
}

#[test]
fn region_that_changes_under_a_running_instance_is_held() {
    isolated(|| {
        let mut host = Host::new();
        host.set("select.regions", "[\"auto\"]");
        let agent = host.in_force();
        let before = host.bypass();
        host.imds.set("host", "placement/region", "eu-west-1");
        let status = agent.wait_for("a held region", |status| {
            status["state"] == "degraded" && is_held(status)
        });
        let reason = status["degraded"].to_string();
        assert!(reason.contains("eu-west-1"), "{reason}");
        assert_eq!(host.bypass(), before, "the old region stays in force");

        // A drift pass asks nobody, and knows all the same.
        host.ns.ip(&format!("route del {BIG} table 1083"));
        eventually("repaired", || host.bypass() == before);
        assert!(is_held(&agent.status().unwrap()));
        let first = host.run(&["status"]).expect_code(1).stdout;
        let first = first.lines().next().unwrap();
        assert!(
            first.contains("DEGRADED") && first.contains(HELD),
            "{first}"
        );

        // A one-shot pass and a dry run say the same.
        let dry = host.run(&["reconcile", "--dry-run"]).expect_code(1);
        assert!(dry.stdout.contains(HELD), "{dry}");
        let pass = host.run(&["reconcile"]).expect_code(1);
        assert!(pass.stdout.contains(HELD), "{pass}");
        assert_eq!(host.bypass(), before);
        let accept = |region: &str| host.run(&["reconcile", "--accept-region", region]);
        let refused = [
            ("us-west-2", 1, "did you mean `--accept-region eu-west-1`?"),
            ("EU-West-1", 64, "did you mean \"eu-west-1\"?"),
            ("GLOBAL", 64, "no host runs in"),
        ];
        for (region, code, why) in refused {
            let output = accept(region).expect_code(code);
            assert!(output.stderr.contains(why), "{output}");
            assert_eq!(host.bypass(), before);
        }
        accept("eu-west-1");
        eventually("the other region", || {
            host.bypass() == set(&["52.218.0.0/17"])
        });
        agent.wait_for("no hold", |status| !is_held(status));
        assert_eq!(host.bypass(), set(&["52.218.0.0/17"]));
        // The selected region again is no mistake.
        let output = accept("eu-west-1");
        assert!(!output.stderr.contains("--accept-region"), "{output}");
        let output = accept("us-east-1").expect_code(1);
        let why = "no region is held; this instance runs in eu-west-1";
        assert!(output.stderr.contains(why), "{output}");
    });
}

#[test]
fn answer_that_is_no_region_and_no_vpc_is_refused() {
    isolated(|| {
        let mut host = Host::new();
        host.set("select.regions", "[\"auto\"]");
        host.set("vpc.cidrs", "[\"auto\"]");
        for (path, value) in [
            ("mac", "02:00:00:00:00:01"),
            (
                "network/interfaces/macs/02:00:00:00:00:01/vpc-ipv4-cidr-blocks",
                "10.0.0.0/16",
            ),
        ] {
            host.imds.set("host", path, value);
        }
        host.reconcile(&[]);
        let before = host.bypass();
        let vpc = "network/interfaces/macs/02:00:00:00:00:01/vpc-ipv4-cidr-blocks";
        for (path, bad, good) in [
            ("placement/region", "everywhere", "us-east-1"),
            ("placement/region", "us-east-1a", "us-east-1"),
            (vpc, "0.0.0.0/0", "10.0.0.0/16"),
            (vpc, "10.0.0.0/16\n52.0.0.0/8", "10.0.0.0/16"),
            (vpc, "10.0.0.1/16", "10.0.0.0/16"),
        ] {
            host.imds.set("host", path, bad);
            let pass = host.run(&["reconcile"]).ok();
            assert!(
                pass.stdout.contains("earlier pass is used"),
                "{bad}: {pass}"
            );
            assert_eq!(host.bypass(), before, "{bad}");
            let throws = host.table(1084);
            assert!(throws.contains("10.0.0.0/8"), "{throws:?}");
            assert!(!throws.contains("52.0.0.0/8"), "{throws:?}");
            host.imds.set("host", path, good);
        }
    });
}

#[test]
fn commands_beside_an_agent_leave_the_question_to_the_agent() {
    isolated(|| {
        let mut host = Host::new();
        host.set("select.regions", "[\"auto\"]");
        // No fetch but the first.
        host.set("source.refresh", "\"1h\"");
        let agent = host.in_force();
        host.imds.set_mode(ImdsMode::Silent);
        let asked = host.imds.requests().len();
        for words in [
            &["explain", "52.216.1.1"][..],
            &["check"],
            &["ranges"],
            &["reconcile"],
            &["reconcile", "--dry-run"],
            &["flush", "--dry-run"],
        ] {
            let output = host.run(words);
            assert_ne!(output.code, None, "{output}");
            assert!(!output.stdout.contains("metadata service:"), "{output}");
            assert!(!output.stderr.contains("metadata service"), "{output}");
        }
        // The note of an agent's own first pass is part of these two.
        host.run(&["status"]).ok();
        host.run(&["history"]).ok();
        assert_eq!(host.imds.requests().len(), asked, "a command asked");
        drop(agent);
        let alone = host.run(&["reconcile", "--dry-run"]).ok();
        assert!(alone.stdout.contains("metadata service:"), "{alone}");
        assert!(host.imds.requests().len() > asked);
    });
}
