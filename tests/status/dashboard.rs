//! The Grafana dashboard: its queries, evaluated by Prometheus's own engine with a fleet.

use serde_json::{Value, json};

use crate::metrics::{promtool, read};

/// A host of the fleet.
struct Host {
    up: u8,
    state: &'static str,
    /// Labels `part` and `family` of a fault.
    fault: Option<(&'static str, &'static str)>,
}

impl Host {
    const GOOD: Host = Host {
        up: 1,
        state: "in_force",
        fault: None,
    };

    fn series(&self, name: &str) -> Vec<Value> {
        let mut all = vec![constant(
            &format!("up{{job=\"trailblazer\",instance=\"{name}\"}}"),
            self.up,
        )];
        if self.up == 0 {
            return all;
        }
        let mut put = |metric: &str, labels: &str, value: u8| {
            let series = format!("{metric}{{job=\"trailblazer\",instance=\"{name}\"{labels}}}");
            all.push(constant(&series, value));
        };
        put(
            "trailblazer_in_force",
            "",
            (self.state == "in_force").into(),
        );
        for state in ["starting", "in_force", "degraded", "paused", "stopping"] {
            let labels = format!(",state=\"{state}\"");
            put("trailblazer_state", &labels, (state == self.state).into());
        }
        for part in ["egress", "bypass"] {
            for family in ["", "ipv4"] {
                let labels = format!(",part=\"{part}\",family=\"{family}\"");
                let faulty = self.fault == Some((part, family));
                put("trailblazer_degraded", &labels, faulty.into());
            }
        }
        put("trailblazer_conflicts", "", 0);
        all
    }
}

fn constant(series: &str, value: u8) -> Value {
    json!({"series": series, "values": format!("{value}x10")})
}

fn dashboard() -> Value {
    serde_json::from_str(&read("packaging/prometheus/dashboard.json")).unwrap()
}

/// The queries of a panel, with Grafana's variables replaced as Grafana does.
fn queries(title: &str) -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let panel = panels.iter().find(|panel| panel["title"] == title).unwrap();
    let targets = panel["targets"].as_array().unwrap();
    let queries = targets.iter().map(|target| {
        let query = target["expr"].as_str().unwrap();
        query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "5m")
    });
    queries.collect()
}

fn samples(of: &[(&str, u32)]) -> Vec<Value> {
    let samples = of.iter();
    samples
        .map(|(labels, value)| json!({"labels": labels, "value": value}))
        .collect()
}

#[test]
fn dashboard_shows_198_of_200_in_force_and_why_the_others_are_not() {
    let mut series = Vec::new();
    for index in 0..200 {
        let host = match index {
            7 => Host {
                up: 0,
                ..Host::GOOD
            },
            42 => Host {
                state: "degraded",
                fault: Some(("egress", "ipv4")),
                ..Host::GOOD
            },
            _ => Host::GOOD,
        };
        series.extend(host.series(&format!("h{index}")));
    }
    let mut expected = Vec::new();
    let mut expect = |title: &str, index: usize, of: &[(&str, u32)]| {
        expected.push(json!({
            "expr": queries(title)[index], "eval_time": "5m", "exp_samples": samples(of)
        }));
    };
    expect("In force", 0, &[("{}", 198)]);
    expect("In force", 1, &[("{}", 200)]);
    expect("Not in force", 0, &[("{}", 2)]);
    let table = "Not in force, and why";
    expect(
        table,
        0,
        &[(r#"{instance="h7", why="the agent does not answer"}"#, 1)],
    );
    expect(table, 1, &[]);
    expect(
        table,
        2,
        &[(r#"{instance="h42", why="degraded: ipv4 egress"}"#, 1)],
    );
    expect(table, 3, &[]);
    expect(table, 4, &[]);
    let in_force = (r#"{state="in_force"}"#, 198);
    expect(
        "Hosts by state",
        0,
        &[in_force, (r#"{state="degraded"}"#, 1)],
    );
    let test = json!({"tests": [
        {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    ]});
    promtool(&["test", "rules", "/dev/stdin"], &test.to_string());
}

#[test]
fn paused_and_failed_hosts_and_faults_of_both_families_have_their_reason() {
    let hosts = [
        (
            "a",
            Host {
                state: "paused",
                ..Host::GOOD
            },
        ),
        (
            "b",
            Host {
                state: "degraded",
                ..Host::GOOD
            },
        ),
        (
            "c",
            Host {
                state: "degraded",
                fault: Some(("bypass", "")),
                ..Host::GOOD
            },
        ),
    ];
    let series: Vec<Value> = hosts
        .iter()
        .flat_map(|(name, host)| host.series(name))
        .collect();
    let table = queries("Not in force, and why");
    let expected: Vec<Value> = [
        (1, r#"{instance="a", why="paused"}"#),
        (2, r#"{instance="c", why="degraded: bypass"}"#),
        (
            4,
            r#"{instance="b", why="the last pass failed: trailblazer status"}"#,
        ),
    ]
    .iter()
    .map(|(index, labels)| {
        json!({
            "expr": table[*index], "eval_time": "5m", "exp_samples": samples(&[(labels, 1)])
        })
    })
    .collect();
    let test = json!({"tests": [
        {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    ]});
    promtool(&["test", "rules", "/dev/stdin"], &test.to_string());
}

/// Forty hosts fit into each graph: no query gives a line a host, and each axis has one unit.
#[test]
fn graphs_stay_readable_with_many_hosts() {
    let dashboard = dashboard();
    let mut places: Vec<(&str, [u64; 4])> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{title}"
        );
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| place[side].as_u64().unwrap());
        assert!(x + w <= 24, "{title}");
        for (other, [ox, oy, ow, oh]) in &places {
            let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
            assert!(apart, "{title} lies on {other}");
        }
        places.push((title, [x, y, w, h]));
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("$instance"), "{title}: {query}");
            let few = ["topk(", "bottomk("]
                .iter()
                .any(|limit| query.starts_with(limit));
            let one = [
                "sum",
                "count",
                "min",
                "max",
                "quantile(",
                "histogram_quantile(",
                "(",
            ]
            .iter()
            .any(|aggregation| query.starts_with(aggregation));
            assert!(few || one, "{title}: a line a host: {query}");
            let named = target["legendFormat"]
                .as_str()
                .unwrap()
                .contains("instance");
            assert!(!named || few, "{title}: {query}");
        }
    }
    // A document that is confirmed each minute is days old: the two ages have axes of their own.
    for (title, metric) in [
        (
            "Time since the last confirmation",
            "trailblazer_document_age_seconds",
        ),
        ("Time since publication", "trailblazer_document_sync_token"),
    ] {
        for query in queries(title) {
            assert!(query.contains(metric), "{title}: {query}");
        }
    }
}
