//! Holds the documentation and the sample files to the code.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// A row of a table on the page: default and example, as TOML, and the meaning.
struct PageRow<'a> {
    default: &'a str,
    example: &'a str,
    meaning: &'a str,
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
            meaning: cells[5],
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
    let vpc = include_str!("../../examples/vpc.toml");
    let vpc = parse(vpc, "examples/vpc.toml").unwrap_or_else(|error| panic!("{error}"));
    assert!(vpc.vpc_role);
    assert_eq!(vpc.vpc_plane.families().count(), 2);
    // The page's own first example.
    let start = PAGE.find("```toml\n").expect("an example") + "```toml\n".len();
    let length = PAGE[start..].find("```").expect("its end");
    let first = parse(&PAGE[start..start + length], "docs");
    assert_eq!(first.expect("good").role, Some(Role::Host));
}

/// The JSON schema for editors and for the tools that write configs.
fn schema() -> serde_json::Value {
    serde_json::from_str(include_str!("../../docs/trailblazer.schema.json")).expect("JSON")
}

/// The schema of a key.
fn schema_of(key: &str) -> serde_json::Value {
    let path = key.split('.');
    path.fold(schema(), |node, name| node["properties"][name].clone())
}

fn schema_keys(node: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let Some(properties) = node["properties"].as_object() else {
        found.push(path.to_owned());
        return;
    };
    assert_eq!(node["additionalProperties"], false, "{path}");
    for (name, node) in properties {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        schema_keys(node, &path, found);
    }
}

fn matches(form: &str, text: &str) -> bool {
    regex::Regex::new(form).expect("a pattern").is_match(text)
}

/// True if the schema accepts the value: the parts of JSON Schema in use.
fn accepts(node: &serde_json::Value, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    let kind = match value {
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    let types = match &node["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let bound = |name: &str| node[name].as_f64();
    let number = value.as_f64();
    let text = value.as_str();
    let items = value.as_array();
    (types.contains(&kind.into()) || kind == "integer" && types.contains(&"number".into()))
        && node["enum"]
            .as_array()
            .is_none_or(|words| words.contains(value))
        && number.is_none_or(|number| bound("minimum").is_none_or(|least| least <= number))
        && number.is_none_or(|number| bound("maximum").is_none_or(|most| number <= most))
        && text.is_none_or(|text| {
            node["pattern"]
                .as_str()
                .is_none_or(|form| matches(form, text))
        })
        && text.is_none_or(|text| bound("maxLength").is_none_or(|most| text.len() as f64 <= most))
        && items
            .is_none_or(|items| bound("minItems").is_none_or(|least| least <= items.len() as f64))
        && items.is_none_or(|items| items.iter().all(|item| accepts(&node["items"], item)))
        && value.as_object().is_none_or(|fields| {
            let known = |name: &str| node["properties"].get(name);
            let mut fields = fields.iter();
            fields.all(|(name, value)| known(name).is_some_and(|node| accepts(node, value)))
        })
}

/// A text of the page without code marks and without the addresses of links.
fn plain(text: &str) -> String {
    let links = regex::Regex::new(r"\[([^\]`]*)\]\([^)]*\)").expect("a pattern");
    links.replace_all(text, "$1").replace('`', "")
}

fn json_of(text: &str) -> serde_json::Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("the same types")
}

#[test]
fn schema_has_every_key_and_no_other() {
    let mut found = Vec::new();
    schema_keys(&schema(), "", &mut found);
    found.sort();
    let mut known: Vec<String> = keys().into_iter().map(str::to_owned).collect();
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn schema_has_the_defaults_and_examples_of_the_page() {
    for (key, row) in rows() {
        let node = schema_of(&key);
        for (text, stated) in [
            (row.default, &node["default"]),
            (row.example, &node["examples"][0]),
        ] {
            if text == "none" {
                assert!(stated.is_null(), "{key}");
                continue;
            }
            let value = json_of(&format!("x = {text}"))["x"].clone();
            assert_eq!(*stated, value, "{key}");
            assert!(accepts(&node, &value), "{key}: {value}");
        }
        assert_eq!(node["description"], plain(row.meaning), "{key}");
    }
    for text in [
        include_str!("../../examples/host.toml"),
        include_str!("../../examples/nat.toml"),
        include_str!("../../examples/vpc.toml"),
    ] {
        assert!(accepts(&schema(), &json_of(text)), "{text}");
    }
}

/// Values that any key may get by a slip: each with a form that some keys have.
const SLIPS: [&str; 24] = [
    "5",
    "-1",
    "0.5",
    "true",
    "[]",
    "[5]",
    "[\"\"]",
    "\"\"",
    "\"5\"",
    "\"5M\"",
    "\"5 m\"",
    "\"-5m\"",
    "\"+5\"",
    "\"64mib\"",
    "\"20\"",
    "\".5 %\"",
    "\"10.0.1.10/24x\"",
    "\"eth 0\"",
    "\"x/y\"",
    "\"ftp://a.example/x\"",
    "\"HTTP://a.example/x\"",
    "\"::1\"",
    "[\"s3\"]",
    "[\"us_east_1\"]",
];

/// The keys whose own value the program refuses for more than its form: numbers inside of texts,
/// and combinations.
const JUDGED_BEYOND_FORM: [&str; 32] = [
    "agent.metrics",
    "agent.resync",
    "agent.stale.alarm",
    "agent.stale.warn",
    "bypass.gateway",
    "egress.gateways",
    "egress.table",
    "guard.max_loss",
    "guard.shortest_prefix.ipv4",
    "guard.shortest_prefix.ipv6",
    "kernel.marks.gateway",
    "kernel.marks.path",
    "kernel.protocol",
    "nat.bypass",
    "nat.mss",
    "nat.sources",
    "probe.bypass_interval",
    "probe.fall",
    "probe.hold",
    "probe.hold_limit",
    "probe.interval",
    "probe.rise",
    "probe.settle",
    "probe.suspect_interval",
    "probe.targets",
    "probe.timeout",
    "source.refresh",
    "source.timeout",
    "vpc_plane.deadline",
    "vpc_plane.headroom",
    "vpc_plane.quota",
    "vpc_plane.writes_per_second",
];

#[test]
fn schema_and_program_accept_and_refuse_the_same() {
    let rows = rows();
    let stated = rows.values().flat_map(|row| [row.default, row.example]);
    let values: BTreeSet<&str> = stated.filter(|text| *text != "none").chain(SLIPS).collect();
    let mut beyond_form = BTreeSet::new();
    for key in rows.keys() {
        let schema = schema_of(key);
        for value in &values {
            let text = format!("{key} = {value}");
            let refusal = match parse(&text, "docs") {
                Ok(_) => None,
                Err(error) => error
                    .problems
                    .into_iter()
                    .find(|problem| problem.key == *key),
            };
            match (
                accepts(&schema, &json_of(&format!("x = {value}"))["x"]),
                refusal,
            ) {
                (false, None) => panic!("the schema refuses {text}"),
                (true, Some(_)) => drop(beyond_form.insert(key.as_str())),
                _ => {}
            }
        }
    }
    let stated = BTreeSet::from(JUDGED_BEYOND_FORM);
    let differing: Vec<_> = beyond_form.symmetric_difference(&stated).collect();
    assert!(differing.is_empty(), "{differing:?}");
    for text in [
        "rolle = \"host\"",
        "source.refesh = \"5m\"",
        "[agent.stale]\nwarm = \"1d\"",
    ] {
        parse(text, "docs").expect_err(text);
        assert!(!accepts(&schema(), &json_of(text)), "{text}");
    }
}
