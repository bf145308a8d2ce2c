//! Every config that a reader could copy, run by the real binary on a host with the page's
//! addresses.

use serde_json::Value;

use crate::tools::*;
use lab::{Bare, Output};

/// The path of the config in the unit.
pub const PLACE: &str = "/etc/trailblazer/trailblazer.toml";

/// The config in a file of user data.
#[track_caller]
pub fn of_user_data(path: &str) -> String {
    let documents = ask(&["yaml", path]);
    let written: Vec<&Value> = documents[0]["write_files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|file| file["path"] == PLACE)
        .collect();
    assert_eq!(written.len(), 1, "{path} writes {PLACE} once");
    written[0]["content"].as_str().unwrap().to_owned()
}

/// The object of this kind in the DaemonSet's file.
#[track_caller]
pub fn of_fleet(kind: &str) -> Value {
    let documents = ask(&["yaml", "packaging/kubernetes/daemonset.yaml"]);
    let mut found = documents
        .as_array()
        .unwrap()
        .iter()
        .filter(|document| document["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}")).clone();
    assert!(found.next().is_none(), "two of {kind}");
    object
}

/// All configs, each with its origin.
fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in files("packaging/ami/cloud-init", ".yaml") {
        let config = of_user_data(&path);
        found.push((path, config));
    }
    let map = of_fleet("ConfigMap");
    let config = map["data"]["trailblazer.toml"].as_str().unwrap();
    found.push(("the ConfigMap".to_owned(), config.to_owned()));
    for page in ["docs/aws.md", "docs/kubernetes.md"] {
        for block in blocks(&read(page), "toml") {
            found.push((page.to_owned(), block));
        }
    }
    found.push(("packaging/files/trailblazer.toml.example".to_owned(), {
        read("packaging/files/trailblazer.toml.example")
    }));
    found
}

/// `reconcile --dry-run` of a config in the page's subnet: 10.0.0.0/16 with the router at 10.0.0.1,
/// as a host (…11) that is also the NAT (…10 and …20).
fn plan(bare: &Bare, config: &str) -> Output {
    let file = lab::write_config("trailblazer.toml", config);
    lab::trailblazer(
        &bare.ns,
        &[
            "reconcile",
            "--dry-run",
            "-o",
            "json",
            "-c",
            &file,
            // No metadata service names the region, and the document is out of reach.
            "--region",
            "us-east-1",
            "--source",
            repository()
                .join("examples/ip-ranges.json")
                .to_str()
                .unwrap(),
            "--state-dir",
            lab::scratch().join("state").to_str().unwrap(),
        ],
    )
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn every_example_config_is_valid_and_applies() {
    lab::isolated(|| {
        let configs = all();
        // cloud-init's two, the ConfigMap, the page's and the package's.
        assert!(configs.len() >= 5, "{configs:?}");
        for (place, config) in configs {
            let bare = Bare::new();
            bare.ns.ip("addr add 10.0.0.11/16 dev eth0");
            if config.contains("\nrole = \"nat\"") || config.starts_with("role = \"nat\"") {
                bare.ns.ip("addr add 10.0.0.10/16 dev eth0");
                bare.ns.ip("addr add 10.0.0.20/16 dev eth0");
            }
            let report = plan(&bare, &config).expect_code(2).json();
            let steps = report["steps"].as_array().unwrap();
            let storage = steps
                .iter()
                .any(|step| step["table"] == 1083 && step["dst"] == "52.216.0.0/15");
            assert!(storage, "{place}: S3 takes the bypass path: {report:#}");
        }
    });
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn host_example_uses_the_nat_of_the_page() {
    lab::isolated(|| {
        let page = read("docs/aws.md");
        let first = "PrivateIpAddress=10.0.0.10,Primary=true";
        let second = "PrivateIpAddress=10.0.0.20,Primary=false";
        assert!(
            page.contains(first) && page.contains(second),
            "the NAT's two addresses"
        );

        let bare = Bare::new();
        bare.ns.ip("addr add 10.0.0.11/24 dev eth0");
        let host = of_user_data("packaging/ami/cloud-init/host.yaml");
        let report = plan(&bare, &host).expect_code(2).json();
        let default = report["steps"]
            .as_array()
            .unwrap()
            .iter()
            .find(|step| {
                step["table"] == 1084 && step["dst"] == "0.0.0.0/0" && step["gateway"].is_string()
            })
            .unwrap_or_else(|| panic!("an egress default in {report:#}"));
        assert_eq!(default["gateway"], "10.0.0.10");
    });
}

/// The checks above notice a mistake in any config, and name the place.
#[test]
#[ignore = "needs the image tools: make test-images"]
fn misspelt_key_is_refused() {
    lab::isolated(|| {
        for (place, config) in all() {
            let bare = Bare::new();
            let wrong = format!("{config}\n[sourse]\nrefresh = \"5m\"\n");
            let output = plan(&bare, &wrong).expect_code(64);
            assert!(
                output.stderr.contains("sourse"),
                "{place}: {}",
                output.stderr
            );
        }
    });
}

/// The image left by `bake.sh`, on a machine of another region whose NAT is down.
#[test]
#[ignore = "needs the image tools: make test-images"]
fn baked_document_suffices_for_a_boot_without_a_source() {
    lab::isolated(|| {
        let bare = Bare::new();
        bare.ns.ip("addr add 10.0.0.11/24 dev eth0");
        let state = lab::scratch().join("baked");
        let state = state.to_str().unwrap();
        let document = repository().join("examples/ip-ranges.json");
        let bake = read("packaging/ami/provision/bake.sh");
        assert!(bake.contains("trailblazer reconcile --cache-only \"$@\"\n"));
        let words = [
            "reconcile",
            "--cache-only",
            "--state-dir",
            state,
            "--region",
            "eu-west-1",
        ];
        let words = [&words[..], &["--source", document.to_str().unwrap()]].concat();
        let before = bare.ns.snapshot();
        lab::trailblazer(&bare.ns, &words).expect_code(0);
        before.assert_same(&bare.ns.snapshot());
        let mut left: Vec<_> = std::fs::read_dir(state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock" && !name.starts_with("journal."))
            .collect();
        left.sort();
        // No facts, which would be those of the build machine. The guard knows the selection.
        assert_eq!(left, ["confirmed.json", "guard.json", "last-known-good"]);

        let host = of_user_data("packaging/ami/cloud-init/host.yaml");
        let file = lab::write_config("booted", &host);
        let words = [
            "reconcile",
            "-c",
            &file,
            "--state-dir",
            state,
            "--region",
            "us-east-1",
        ];
        let words = [
            &words[..],
            &["--source", "http://127.0.0.1:9/ip-ranges.json"],
        ]
        .concat();
        lab::trailblazer(&bare.ns, &words).expect_code(0);
        let bypass = bare.ns.ip("route show table 1083");
        assert!(bypass.contains("52.216.0.0/15"), "{bypass}");
    });
}
