//! The metrics: the format, the page of all metrics, and the rules and the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use trailblazer::status::metrics::{CATALOGUE, Kind, encode};
use trailblazer::status::snapshot::*;
use trailblazer::types::Family;

use crate::agent::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs `promtool`, which must succeed. `None` with a message on standard error if missing.
#[track_caller]
pub fn promtool(words: &[&str], input: &str) -> Option<String> {
    // Installed by packaging/dev/install-deps.sh, else the machine's own.
    let own = repository().join("target/tools/promtool");
    let program = if own.exists() {
        own
    } else {
        PathBuf::from("promtool")
    };
    let child = Command::new(program)
        .args(words)
        .current_dir(repository().join("packaging/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        // Some distributions lack promtool. CI must have it.
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            // libtest captures `eprintln!` of a passing test, but not a write to standard error.
            let line = format!(
                "NOT TESTED without promtool: promtool {}\n",
                words.join(" ")
            );
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        started => {
            started.expect("promtool starts (packaging/dev/install-deps.sh test fetches it)")
        }
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {words:?}:\n{text}");
    Some(text)
}

/// The samples of the text: name and labels, and the value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn metrics_carry_the_snapshots_values() {
    let snapshot = Snapshot {
        degraded: vec![missing_part()],
        ..filled()
    };
    let samples = samples(&encode(CATALOGUE, &snapshot));
    for (series, value) in [
        (
            "trailblazer_build_info{version=\"0.1.0\",role=\"host\",firewall=\"nftables\"}",
            1.0,
        ),
        ("trailblazer_in_force", 1.0),
        ("trailblazer_degraded{part=\"bypass\",family=\"ipv6\"}", 1.0),
        ("trailblazer_degraded{part=\"bypass\",family=\"\"}", 0.0),
        ("trailblazer_degraded{part=\"egress\",family=\"ipv4\"}", 0.0),
        ("trailblazer_in_force_seconds_total", 86_350.5),
        ("trailblazer_uptime_seconds_total", 86_420.25),
        ("trailblazer_state{state=\"in_force\"}", 1.0),
        ("trailblazer_state{state=\"paused\"}", 0.0),
        ("trailblazer_config_reload_refused", 1.0),
        ("trailblazer_config_differs", 1.0),
        ("trailblazer_conntrack_entries", 221_000.0),
        (
            "trailblazer_gateway_up{path=\"egress\",address=\"10.0.1.10\"}",
            1.0,
        ),
        (
            "trailblazer_gateway_up{path=\"egress\",address=\"10.0.1.11\"}",
            0.0,
        ),
        (
            "trailblazer_gateway_up{path=\"egress\",address=\"fd00::10\"}",
            0.0,
        ),
        (
            "trailblazer_egress_address_present{address=\"203.0.113.5\"}",
            0.0,
        ),
        ("trailblazer_conntrack_limit", 262_144.0),
        ("trailblazer_conntrack_dropped_total", 3.0),
        (
            "trailblazer_nat_busiest_ports{address=\"10.0.0.20\"}",
            58_060.0,
        ),
        (
            "trailblazer_pinned_flows{path=\"bypass\",family=\"ipv4\"}",
            120.0,
        ),
        (
            "trailblazer_displaced_flows{path=\"egress\",family=\"ipv4\"}",
            1.0,
        ),
        ("trailblazer_document_sync_token", 1_795_021_512.0),
        ("trailblazer_document_age_seconds", 130.0),
        ("trailblazer_document_freshness{level=\"fresh\"}", 1.0),
        ("trailblazer_document_freshness{level=\"alarm\"}", 0.0),
        ("trailblazer_breaker_state{state=\"open\"}", 0.0),
        ("trailblazer_fetches_total{result=\"unchanged\"}", 280.0),
        ("trailblazer_fetches_total{result=\"rejected\"}", 0.0),
        ("trailblazer_held", 1.0),
        (
            "trailblazer_prefixes{service=\"S3\",region=\"us-east-1\",family=\"ipv6\"}",
            2.0,
        ),
        ("trailblazer_routes{family=\"ipv4\"}", 11.0),
        ("trailblazer_drift_mended_total{object=\"route\"}", 12.0),
        ("trailblazer_drift_mended_total{object=\"nat\"}", 0.0),
        ("trailblazer_conflicts", 1.0),
        ("trailblazer_event_overruns_total", 1.0),
        (
            "trailblazer_bytes_total{path=\"bypass\",family=\"ipv4\"}",
            1_234_567_890_123.0,
        ),
        (
            "trailblazer_packets_total{path=\"egress\",family=\"ipv6\"}",
            0.0,
        ),
        ("trailblazer_saved_dollars_total", 55.5556),
        ("trailblazer_passes_total{outcome=\"rolled_back\"}", 0.0),
        ("trailblazer_pass_duration_seconds_bucket{le=\"0.1\"}", 2.0),
        ("trailblazer_pass_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("trailblazer_pass_duration_seconds_count", 4.0),
        ("trailblazer_pass_duration_seconds_sum", 2.575),
        ("trailblazer_fetch_duration_seconds_bucket{le=\"5\"}", 4.0),
        ("trailblazer_faults_total{whose=\"others\"}", 0.0),
        ("trailblazer_faults_total{whose=\"ours\"}", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn metrics_of_the_vpc_role_name_lists_and_tables() {
    let snapshot = Snapshot {
        vpc: Some(vpc_status()),
        ..filled()
    };
    let text = encode(CATALOGUE, &snapshot);
    let samples = samples(&text);
    let list = "{family=\"ipv4\",list=\"pl-0123456789abcdef0\"}";
    let table = "table=\"rtb-0123456789abcdef0\"";
    for (series, value) in [
        (format!("trailblazer_vpc_list_entries{list}"), 18.0),
        (format!("trailblazer_vpc_list_max_entries{list}"), 23.0),
        (format!("trailblazer_vpc_list_version{list}"), 3.0),
        (
            format!("trailblazer_vpc_table_routes{{{table},family=\"ipv4\"}}"),
            1.0,
        ),
        (
            format!("trailblazer_vpc_table_routes{{{table},family=\"ipv6\"}}"),
            0.0,
        ),
        ("trailblazer_vpc_holds".to_owned(), 1.0),
        (
            "trailblazer_vpc_requests_total{kind=\"throttled\"}".to_owned(),
            2.0,
        ),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
    promtool(&["check", "metrics"], &text);
}

/// Unknown values have no sample, rather than a wrong one.
#[test]
fn unknown_values_have_no_sample() {
    let empty = Snapshot {
        document: None,
        hold: None,
        traffic: None,
        saved_dollars: None,
        passes: vec![],
        firewall: None,
        drift: DriftStatus::default(),
        ..filled()
    };
    let text = encode(CATALOGUE, &empty);
    let samples = samples(&text);
    for name in [
        "trailblazer_document_age_seconds",
        "trailblazer_document_freshness",
        "trailblazer_held_since_timestamp_seconds",
        "trailblazer_bytes_total",
        "trailblazer_saved_dollars_total",
        "trailblazer_last_pass_timestamp_seconds",
        "trailblazer_drift_last_timestamp_seconds",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        assert!(
            !samples.keys().any(|series| series.starts_with(name)),
            "{name}"
        );
    }
    promtool(&["check", "metrics"], &text);
}

#[test]
fn label_values_are_escaped_and_unknown_words_are_counted() {
    let mut snapshot = filled();
    snapshot.version = "a\\b\"c\nd\u{9b}".to_owned();
    snapshot.selection = vec![GroupCount {
        service: "S\"3".to_owned(),
        region: "r\\".to_owned(),
        family: Family::Ipv4,
        prefixes: 1,
    }];
    snapshot.source.fetches.insert("teapot".to_owned(), 418);
    let text = encode(CATALOGUE, &snapshot);
    for line in [
        "trailblazer_build_info{version=\"a\\\\b\\\"c\\nd\\\\u{9b}\",role=\"host\",firewall=\"nftables\"} 1",
        "trailblazer_prefixes{service=\"S\\\"3\",region=\"r\\\\\",family=\"ipv4\"} 1",
        "trailblazer_fetches_total{result=\"teapot\"} 418",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    promtool(&["check", "metrics"], &text);
}

/// Every series appears once, under the HELP and TYPE of its metric; Prometheus's own parser and
/// lint agree.
#[test]
fn metrics_format_is_valid_for_prometheus() {
    let text = encode(CATALOGUE, &filled());
    let mut current = None;
    let mut series = BTreeSet::new();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(names.insert(name), "{name} twice");
            current = CATALOGUE.iter().find(|metric| metric.name == name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let metric = current.unwrap();
            assert_eq!(rest, format!("{} {}", metric.name, metric.kind.as_str()));
        } else {
            let metric = current.unwrap();
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(metric.name).expect("below its own HELP");
            let allowed: &[&str] = match metric.kind {
                Kind::Histogram => &["_bucket", "_sum", "_count"],
                Kind::Counter | Kind::Gauge => &[""],
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert!(
                series.insert(line.rsplit_once(' ').unwrap().0),
                "{line} twice"
            );
        }
    }
    assert_eq!(names.len(), CATALOGUE.len());
    promtool(&["check", "metrics"], &text);
}

/// The page's table is the catalogue, row by row: nothing is missing, nothing is made up.
#[test]
fn metrics_page_matches_the_catalogue() {
    const HEAD: &str = "| name | type | labels | meaning |\n|---|---|---|---|\n";
    let page = read("docs/metrics.md");
    let rows: String = CATALOGUE
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            format!(
                "| `{}` | {} | {} | {} |\n",
                metric.name,
                metric.kind.as_str(),
                labels.join(", "),
                metric.help
            )
        })
        .collect();
    let (before, after) = page.split_once(HEAD).expect("the table's head");
    if std::env::var_os("TRAILBLAZER_BLESS").is_some() {
        let rest = after.split_once("\n\n").map_or("", |(_, rest)| rest);
        let gap = if rest.is_empty() { "" } else { "\n" };
        let page = format!("{before}{HEAD}{rows}{gap}{rest}");
        std::fs::write(repository().join("docs/metrics.md"), page).unwrap();
        return;
    }
    assert!(
        after.starts_with(&rows) && !after[rows.len()..].starts_with('|'),
        "TRAILBLAZER_BLESS=1 writes the table of docs/metrics.md anew"
    );
    for name in names_in(&page) {
        assert!(exists(&name), "{name} of docs/metrics.md doesn't exist");
    }
}

/// Names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("trailblazer_"))
        .map(str::to_owned)
        .collect()
}

/// True if the agent has a series or histogram of the name.
fn exists(name: &str) -> bool {
    CATALOGUE.iter().any(|metric| metric.name == name)
        || samples(&encode(CATALOGUE, &filled()))
            .keys()
            .any(|series| series.split('{').next() == Some(name))
}

#[test]
fn alerts_and_dashboard_name_existing_metrics() {
    for file in [
        "packaging/prometheus/alerts.yml",
        "packaging/prometheus/alerts_test.yml",
        "packaging/prometheus/dashboard.json",
        "docs/operation.md",
        "README.md",
    ] {
        for name in names_in(&read(file)) {
            assert!(exists(&name), "{name} of {file} doesn't exist");
        }
    }
}

#[test]
fn alert_rules_pass_promtool() {
    promtool(&["check", "rules", "alerts.yml"], "");
    let report = promtool(&["test", "rules", "alerts_test.yml"], "");
    let succeeded = |report: String| report.contains("SUCCESS");
    assert!(report.is_none_or(succeeded), "no success");
}

/// Each alert is unit-tested, and names the fault, the remedy and the documentation.
#[test]
fn every_alert_has_a_test_and_advice() {
    let rules = read("packaging/prometheus/alerts.yml");
    let tests = read("packaging/prometheus/alerts_test.yml");
    let mut alerts = rules.split("- alert: ");
    alerts.next();
    let mut count = 0;
    for alert in alerts {
        let name = alert.lines().next().unwrap().trim();
        for part in ["severity:", "summary:", "action:"] {
            assert!(alert.contains(part), "{name} lacks {part}");
        }
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "{name} has no test"
        );
        count += 1;
    }
    assert!(count >= 8, "{count} alerts");
}

#[test]
fn dashboard_is_valid() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("packaging/prometheus/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut rules = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: id twice"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            // Prometheus itself makes `up`, by the name of the scrape job.
            let known = expression.contains("up{job=\"trailblazer\"");
            assert!(
                known || !names_in(expression).is_empty(),
                "{title}: {expression}"
            );
            // Grafana's own variables are no PromQL.
            let plain = expression
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h");
            let record = format!("r{}", rules.len());
            rules.push(serde_json::json!({"record": record, "expr": plain}));
        }
    }
    // JSON is YAML, and a recording rule is any expression with a name.
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    promtool(&["check", "rules", "/dev/stdin"], &rules.to_string());
    assert!(panels.len() >= 10);
}
