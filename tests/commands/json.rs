//! Every JSON object has the fields of docs/json.md and no other.

use std::collections::BTreeSet;

use crate::setup::*;
use lab::*;

/// The fields in the first column below a heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let page = include_str!("../../docs/json.md");
    let heading = format!("\n## {heading}\n");
    let (_, section) = page.split_once(&heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" |").next().unwrap());
    let names = cells.flat_map(|cell| cell.split('`'));
    names
        .filter(|part| !part.trim_matches([',', ' ']).is_empty())
        .chain(["version", "format"])
        .map(str::to_owned)
        .collect()
}

#[test]
fn page_documents_every_field_of_every_command() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        let s3 = S3.to_string();
        for (heading, words) in [
            ("reconcile", &["reconcile"][..]),
            ("explain ADDRESS", &["explain", &s3]),
            ("explain NAME", &["explain", "localhost"]),
            ("explain PREFIX", &["explain", "52.216.0.0/15"]),
            ("ranges", &["ranges"]),
            ("check", &["check"]),
            ("history", &["history"]),
            ("blocked", &["blocked"]),
            ("flows", &["flows"]),
            ("probe", &["probe"]),
            ("drain", &["drain", "10.0.1.10"]),
            ("kick", &["kick"]),
            ("kick", &["kick", "--wait"]),
            ("flush", &["flush", "--dry-run"]),
            ("flush", &["flush"]),
        ] {
            let words = [words, &["-o", "json"]].concat();
            let object = setup.run(ns, &words).json();
            assert_eq!(object["version"], env!("CARGO_PKG_VERSION"), "{words:?}");
            assert_eq!(object["format"], 1, "{words:?}");
            let fields = object.as_object().unwrap().keys().cloned();
            let mut listed = listed(heading);
            if heading == "kick" {
                // Only after a wait for a pass, which needs an agent.
                assert!(listed.remove("pass"));
            }
            assert_eq!(fields.collect::<BTreeSet<_>>(), listed, "{words:?}");
        }
    });
}
