//! The Packer template: the images, and the template's description of each.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::*;

const TEMPLATE: &str = "packaging/ami/trailblazer.pkr.hcl";

/// The parser keeps a literal's quotes, which distinguish literals from expressions.
#[track_caller]
fn literal(value: &Value) -> &str {
    value
        .as_str()
        .and_then(|text| text.strip_prefix('"')?.strip_suffix('"'))
        .unwrap_or_else(|| panic!("no literal: {value}"))
}

/// The blocks of a kind within another, by their label.
fn inner<'a>(block: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let blocks = block[kind].as_array().unwrap();
    let labelled = blocks.iter().map(|block| {
        let labels = block.as_object().unwrap();
        let (label, body) = labels
            .iter()
            .find(|(label, _)| !label.starts_with("__"))
            .unwrap();
        (label.trim_matches('"'), body)
    });
    labelled.collect()
}

fn build() -> Value {
    ask(&["hcl", TEMPLATE])["build"][0].clone()
}

/// `image` and `architecture` of each source of the build.
fn images() -> BTreeSet<(String, String)> {
    let build = build();
    let sources = inner(&build, "source");
    let named: BTreeSet<(String, String)> = sources
        .iter()
        .map(|(_, source)| {
            let (image, architecture) = literal(&source["name"]).rsplit_once('-').unwrap();
            (image.to_owned(), architecture.to_owned())
        })
        .collect();
    assert_eq!(named.len(), sources.len(), "one name twice");
    named
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn every_packer_file_is_valid_hcl() {
    for file in files("packaging/ami", ".pkr.hcl") {
        ask(&["hcl", &file]);
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn images_match_the_list_of_the_page() {
    let page = read("docs/aws.md");
    let mut listed = BTreeSet::new();
    let (_, table) = page
        .split_once("| image | from | architectures | package |")
        .expect("the page's table of images");
    for row in table.lines().skip(2).take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for architecture in cells[2].split(", ") {
            listed.insert((
                cells[0].trim_matches('`').to_owned(),
                architecture.to_owned(),
            ));
        }
    }
    assert_eq!(images(), listed);
    for distribution in [
        "debian-12",
        "debian-13",
        "ubuntu-24.04",
        "amazon-linux-2023",
    ] {
        for architecture in ["amd64", "arm64"] {
            let image = (distribution.to_owned(), architecture.to_owned());
            assert!(listed.contains(&image), "{image:?}");
        }
    }
    assert_eq!(listed.len(), 8);
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn every_source_matches_its_name_and_is_encrypted() {
    let build = build();
    for (of, source) in inner(&build, "source") {
        assert_eq!(of, "amazon-ebs.trailblazer");
        let name = literal(&source["name"]);
        let architecture = name.rsplit_once('-').unwrap().1;
        assert!(literal(&source["ami_name"]).contains(name), "{source}");
        let expected = format!("${{var.instance_types.{architecture}}}");
        assert_eq!(source["instance_type"], expected.as_str(), "{name}");

        // An image of another architecture starts on no instance of this type.
        let filter = &source["source_ami_filter"][0];
        let filters = filter["filters"].as_str().unwrap();
        let machine = if architecture == "amd64" {
            "x86_64"
        } else {
            "arm64"
        };
        assert!(
            filters.contains(&format!("architecture = \"{machine}\"")),
            "{filters}"
        );
        // A name alone is anybody's to give.
        let owner = literal(&filter["owners"][0]);
        assert!(
            owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_digit()),
            "{owner}"
        );
        assert_eq!(filter["most_recent"], true);

        let disk = &source["launch_block_device_mappings"][0];
        assert_eq!(disk["encrypted"], true, "{name}");
        let root = if name.starts_with("ubuntu") {
            "/dev/sda1"
        } else {
            "/dev/xvda"
        };
        assert_eq!(literal(&disk["device_name"]), root, "{name}");
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn every_image_installs_one_package_of_its_format() {
    let build = build();
    let provisioners = inner(&build, "provisioner");
    for (image, architecture) in images() {
        let name = format!("\"amazon-ebs.{image}-{architecture}\"");
        let packages: Vec<&str> = provisioners
            .iter()
            .filter(|(kind, body)| {
                *kind == "file"
                    && body["only"]
                        .as_array()
                        .is_some_and(|only| only.iter().any(|one| *one == *name))
            })
            .map(|(_, body)| literal(&body["source"]))
            .collect();
        let ending = match (image.as_str(), architecture.as_str()) {
            ("amazon-linux-2023", "amd64") => ".x86_64.rpm".to_owned(),
            ("amazon-linux-2023", "arm64") => ".aarch64.rpm".to_owned(),
            (_, architecture) => format!("_{architecture}.deb"),
        };
        assert!(
            packages.len() == 1 && packages[0].ends_with(&ending),
            "{name}: {packages:?}"
        );
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn images_require_version_two_of_the_metadata_service() {
    let template = ask(&["hcl", TEMPLATE]);
    let of_all = &template["source"][0]["\"amazon-ebs\""]["\"trailblazer\""];
    assert_eq!(literal(&of_all["imds_support"]), "v2.0");
    assert_eq!(
        literal(&of_all["metadata_options"][0]["http_tokens"]),
        "required"
    );
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn provisioning_scripts_exist_and_pass_shellcheck() {
    let build = build();
    let (_, shell) = inner(&build, "provisioner")
        .into_iter()
        .find(|(kind, _)| *kind == "shell")
        .unwrap();
    let run: BTreeSet<String> = shell["scripts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|script| format!("packaging/ami/{}", literal(script)))
        .collect();
    let scripts = files("packaging/ami/provision", ".sh");
    assert_eq!(
        run,
        scripts.iter().cloned().collect(),
        "scripts that nobody runs"
    );
    for script in scripts
        .iter()
        .map(String::as_str)
        .chain(["packaging/dev/image-tools.sh"])
    {
        let text = read(script);
        assert!(
            text.starts_with("#!/bin/sh\n") && text.contains("\nset -eu\n"),
            "{script}"
        );
        tool("shellcheck", &["--norc", script]);
    }
    assert!(
        repository()
            .join("packaging/ami/files/cloud-init.conf")
            .exists()
    );
}
