//! Holds the documentation and the sample files to the code.

use std::collections::BTreeMap;

use super::*;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// A row of a table on the page: default and example, as TOML.
struct PageRow<'a> {
    default: &'a str,
    example: &'a str,
}

fn rows() -> BTreeMap<String, PageRow<'static>> {
    let mut table = "";
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading
                .strip_prefix('[')
                .map_or("", |rest| rest.trim_end_matches(']'));
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() != 8 || !cells[1].starts_with('`') {
            continue;
        }
        let code = |cell: &'static str| cell.trim_matches('`');
        let name = code(cells[1]);
        let key = if table.is_empty() {
            name.to_owned()
        } else {
            format!("{table}.{name}")
        };
        assert!(!cells[5].is_empty(), "{key} has no meaning");
        let row = PageRow {
            default: code(cells[3]),
            example: code(cells[4]),
        };
        assert!(rows.insert(key.clone(), row).is_none(), "{key} twice");
    }
    rows
}

#[test]
fn page_lists_every_key_and_no_other() {
    let mut known: Vec<String> = keys().into_iter().map(str::to_owned).collect();
    known.sort();
    let listed: Vec<String> = rows().into_keys().collect();
    assert_eq!(listed, known);
}

#[test]
fn defaults_of_the_page_are_the_defaults() {
    for (key, row) in rows() {
        if key == "role" {
            assert_eq!(row.default, "none");
            continue;
        }
        let text = format!("{key} = {}", row.default);
        let config = parse(&text, "docs").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config, Config::default(), "{text}");
    }
}

#[test]
fn examples_of_the_page_are_valid_and_not_the_default() {
    for (key, row) in rows() {
        let text = format!("{key} = {}", row.example);
        let config = parse(&text, "docs").unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(config, Config::default(), "{text}");
    }
}

#[test]
fn messages_quoted_on_the_page_are_real() {
    let text = "role = \"host\"\n\n[source]\nrefesh = \"5m\"\n\n[egress]\n\
                gateways  = [\"10.0.1.10\"]\n\ntable     = 1083\n";
    let error = parse(text, "/etc/trailblazer/trailblazer.toml").expect_err("two problems");
    assert!(PAGE.contains(&error.to_string()), "{error}");
}

#[test]
fn sample_files_and_the_first_example_are_valid() {
    let host = include_str!("../../examples/host.toml");
    let host = parse(host, "examples/host.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(host.role, Some(Role::Host));
    assert_eq!(host.egress.gateways_of(Family::Ipv4).len(), 2);
    let nat = include_str!("../../examples/nat.toml");
    let nat = parse(nat, "examples/nat.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(nat.role, Some(Role::Nat));
    assert_eq!(nat.nat.egress_addresses.len(), 1);
    // The page's own first example.
    let start = PAGE.find("```toml\n").expect("an example") + "```toml\n".len();
    let length = PAGE[start..].find("```").expect("its end");
    let first = parse(&PAGE[start..start + length], "docs");
    assert_eq!(first.expect("good").role, Some(Role::Host));
}
