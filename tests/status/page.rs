//! docs/status.md lists every field of the JSON and no other.

use std::collections::BTreeSet;

use serde_json::Value;
use trailblazer::status::snapshot::Snapshot;

use crate::agent::*;

/// Objects described as a whole on the page.
const WHOLE: [&str; 12] = [
    "source.fetches",
    "source.latency",
    "routes",
    "drift.mended",
    "pinned.flows",
    "traffic.bypass",
    "traffic.dropped.closed",
    "traffic.dropped.outside",
    "traffic.dropped.sources",
    "traffic.egress",
    "pass_totals.outcomes",
    "pass_totals.duration",
];

/// Fields in the first column, below the heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let page = include_str!("../../docs/status.md");
    let (_, section) = page.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|row| {
            let cell = row.split(" |").next().unwrap();
            cell.split('`')
                .filter(|part| !part.trim_matches([',', ' ']).is_empty())
        })
        .map(str::to_owned)
        .collect()
}

/// Paths of the fields without fields of their own.
fn leaves(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !WHOLE.contains(&path) && path != "faults" => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                leaves(&path, value, found);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            leaves(&format!("{path}[]"), &items[0], found);
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn status_page_documents_every_field_of_a_running_agent() {
    let mut fields = BTreeSet::from(["agent", "format"].map(str::to_owned));
    let snapshot = Snapshot {
        degraded: vec![missing_part()],
        vpc: Some(vpc_status()),
        ..filled()
    };
    leaves("", &serde_json::to_value(snapshot).unwrap(), &mut fields);
    let mut listed = listed("## While an agent runs");
    // Named for being null.
    for whole in [
        "config",
        "config.refused",
        "conntrack",
        "document",
        "hold",
        "hold.changes",
        "hold_down",
        "pinned",
        "vpc",
    ] {
        assert!(listed.remove(whole), "{whole}");
    }
    assert_eq!(listed, fields);
}

/// The object is checked against the page by `commands::status_without_an_agent`.
pub fn check_absent(object: &Value) {
    let fields: BTreeSet<String> = object.as_object().unwrap().keys().cloned().collect();
    assert_eq!(listed("## While none answers"), fields);
}
