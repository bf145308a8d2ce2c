//! The client of EC2's API against the double over HTTP: signatures that the double verifies,
//! requests by AWS's service model, and the errors of keys, clocks and regions.
//!
//! Credentials come from the environment, and a process can't change its own environment safely: each
//! case runs in a child of the test program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use cloud::{Cloud, Keys, Serve, Server, Signature, sample};
use ipnet::IpNet;
use trailblazer::types::{Family, Region};
use trailblazer::vpc::calls::Call;
use trailblazer::vpc::ec2::{Ec2, Ec2Settings, ListFilter, TableFilter};
use trailblazer::vpc::objects::{
    Entry, ListVersion, RouteDestination, RouteTableId, RouteTarget, Tags,
};

/// Characters that each encoding on the way treats in its own way.
const AWKWARD: &str = "a+b c=d&e/f%20é<\"~*'";

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// The variable that makes a process the child; its value is the region.
const CHILD: &str = "TRAILBLAZER_WIRE_CHILD";

/// The credentials of the child.
fn keys() -> Keys {
    Keys {
        access: "AKIDWIRE".to_owned(),
        secret: SECRET.to_owned(),
        token: Some("session/token+with=signs".to_owned()),
    }
}

fn double(signature: Signature, clock_offset: i64) -> (Cloud, Server) {
    let cloud = sample::account();
    let settings = Serve {
        signature,
        content_sha256: true,
        clock_offset,
    };
    let server = cloud::serve(&cloud, settings).unwrap();
    (cloud, server)
}

/// Runs the child against a server, and returns its output.
fn child(server: &Server, region: &str) -> String {
    let keys = keys();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_calls", "--ignored", "--nocapture"])
        .env("AWS_ENDPOINT_URL_EC2", server.url())
        .env("AWS_ACCESS_KEY_ID", keys.access)
        .env("AWS_SECRET_ACCESS_KEY", keys.secret)
        .env("AWS_SESSION_TOKEN", keys.token.unwrap())
        .env("AWS_REGION", region)
        .env(CHILD, region)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains(SECRET), "the secret is in the output");
    all
}

/// One call of each kind, in the environment that [`child`] sets.
#[tokio::test]
#[ignore = "run by the other tests, with an environment of its own"]
async fn child_calls() {
    // Without the parent the credentials and the endpoint would be the operator's own.
    let (Ok(region), Ok(url)) = (std::env::var(CHILD), std::env::var("AWS_ENDPOINT_URL_EC2"))
    else {
        return;
    };
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let mut settings = Ec2Settings::new(Region::from(region.as_str()));
    settings.retries = 0;
    settings.changes_per_second = 1000.0;
    let ec2 = Ec2::connect(&settings).unwrap();
    match all_calls(&ec2).await {
        Ok(()) => println!("all calls succeeded"),
        Err(error) => println!("failed: {error}"),
    }
}

async fn all_calls(ec2: &Ec2) -> Result<(), trailblazer::vpc::ec2::Ec2Error> {
    let entry = |cidr: &str| Entry {
        cidr: cidr.parse::<IpNet>().unwrap(),
        description: Some(AWKWARD.to_owned()),
    };
    let tags = Tags::from([("trailblazer:owner".to_owned(), AWKWARD.to_owned())]);
    let created = Call::CreateList {
        name: AWKWARD.to_owned(),
        family: Family::Ipv4,
        max_entries: 500,
        entries: (0..100).map(|n| entry(&format!("10.{n}.0.0/16"))).collect(),
        tags: tags.clone(),
        client_token: "token".to_owned(),
    };
    ec2.try_run(&created).await?;
    let list = ec2.perform(&created).await?.list.unwrap();
    let changed = Call::ModifyEntries {
        list: list.id.clone(),
        name: AWKWARD.to_owned(),
        current: ListVersion(1),
        add: (0..99).map(|n| entry(&format!("11.{n}.0.0/16"))).collect(),
        remove: vec!["10.0.0.0/16".parse().unwrap()],
    };
    ec2.perform(&changed).await?;
    let filter = ListFilter {
        names: vec![AWKWARD.to_owned()],
        tags: tags.clone(),
        ..ListFilter::default()
    };
    let found = ec2.describe_lists(&filter).await?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].tags, tags);
    assert_eq!(found[0].version, Some(ListVersion(2)));
    let entries = ec2.list_entries(&list.id, Some(ListVersion(2))).await?;
    assert_eq!(entries.len(), 198);
    assert_eq!(entries[0].description.as_deref(), Some(AWKWARD));
    let table = RouteTableId::from(sample::TABLE);
    let destination = RouteDestination::List(list.id.clone());
    let target = |id: &str| RouteTarget::from_id(id).unwrap();
    let (own, to) = (table.clone(), destination.clone());
    for call in [
        Call::ResizeList {
            list: list.id.clone(),
            name: AWKWARD.to_owned(),
            max_entries: 400,
        },
        Call::CreateRoute {
            table: own.clone(),
            destination: to.clone(),
            target: target(sample::IGW),
        },
        Call::ReplaceRoute {
            table: own.clone(),
            destination: to.clone(),
            target: target(sample::NAT),
        },
        Call::Tag {
            resource: sample::TABLE.to_owned(),
            tags: tags.clone(),
        },
    ] {
        ec2.perform(&call).await?;
    }
    let filter = TableFilter {
        tags: tags.clone(),
        ..TableFilter::default()
    };
    assert_eq!(ec2.describe_route_tables(&filter).await?.len(), 1);
    assert_eq!(ec2.list_associations(&list.id).await?, [sample::TABLE]);
    for call in [
        Call::DeleteRoute { table, destination },
        Call::Untag {
            resource: sample::TABLE.to_owned(),
            keys: tags.into_keys().collect(),
        },
        Call::RestoreList {
            list: list.id.clone(),
            previous: ListVersion(1),
            current: ListVersion(2),
        },
        Call::DeleteList { list: list.id },
    ] {
        ec2.perform(&call).await?;
    }
    Ok(())
}

#[test]
fn every_call_is_signed_over_its_body_and_keeps_to_awss_model() {
    let (cloud, server) = double(Signature::Verified(keys()), 0);
    let text = child(&server, "us-east-1");
    assert!(text.contains("all calls succeeded"), "{text}");
    assert_eq!(cloud.violations(), Vec::<String>::new());
    let mut actions: Vec<String> = cloud.calls().into_iter().map(|call| call.action).collect();
    actions.sort_unstable();
    actions.dedup();
    assert_eq!(actions.len(), 13, "{actions:?}");
    assert!(cloud.lists_named(AWKWARD).is_empty());
}

/// Wrong keys, clocks and regions: EC2's code, the request's number and words for the operator.
#[test]
fn wrong_keys_clocks_and_regions_are_named() {
    let other = |access: &str, secret: &str| {
        let known = Keys {
            access: access.to_owned(),
            secret: secret.to_owned(),
            ..keys()
        };
        Signature::Verified(known)
    };
    for (signature, offset, region, code, words) in [
        (
            other("OTHER", SECRET),
            0,
            "us-east-1",
            "AuthFailure",
            "access key",
        ),
        (
            other("AKIDWIRE", "x"),
            0,
            "us-east-1",
            "SignatureDoesNotMatch",
            "secret",
        ),
        (
            other("AKIDWIRE", SECRET),
            600,
            "us-east-1",
            "RequestExpired",
            "clock",
        ),
        (
            other("AKIDWIRE", SECRET),
            -600,
            "us-east-1",
            "SignatureDoesNotMatch",
            "clock",
        ),
        (
            other("AKIDWIRE", SECRET),
            0,
            "eu-west-1",
            "SignatureDoesNotMatch",
            "region",
        ),
    ] {
        let (cloud, server) = double(signature, offset);
        let text = child(&server, region);
        let line = text.lines().find(|line| line.contains("failed: "));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(code) && line.contains("5f1d0000-"), "{line}");
        assert!(line.to_lowercase().contains(words), "{words}: {line}");
        assert_eq!(cloud.violations(), Vec::<String>::new());
        println!("{line}");
    }
}
