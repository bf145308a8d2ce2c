//! `ranges`: the selected prefixes.

use crate::setup::*;
use lab::*;

#[test]
fn ranges_lists_the_last_known_good_or_a_source() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        let nothing = setup.run(ns, &["ranges"]).expect_code(1);
        assert!(nothing.stderr.contains("no document"), "{nothing}");

        setup.run(ns, &["reconcile"]).ok();
        let value = setup.json(ns, &["ranges"], 0);
        let v4: Vec<&str> = value["prefixes"]["ipv4"]
            .as_array()
            .unwrap()
            .iter()
            .map(|prefix| prefix.as_str().unwrap())
            .collect();
        assert!(v4.contains(&"198.18.5.0/24"), "{v4:?}");
        assert_eq!(value["aggregated"]["ipv4"], v4.len());
        assert!(value["sync_token"].is_u64());
        // The prefixes are the routes.
        let routes = ns.ip_json("-4 route show table 1083");
        assert_eq!(routes.as_array().unwrap().len(), v4.len());
        let origins = value["origins"].as_array().unwrap();
        assert!(origins.iter().any(|origin| {
            origin["prefix"] == "54.231.0.0/16"
                && origin["origin"] == "selected"
                && origin["service"] == "S3"
                && origin["region"] == "us-east-1"
        }));

        let text = setup.run(ns, &["ranges"]).ok().stdout;
        let first: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("::"))
            .map(|line| line.split_whitespace().next().unwrap())
            .collect();
        assert_eq!(first, v4);
        let line = text.lines().find(|line| line.starts_with("54.231.0.0/16"));
        assert!(line.unwrap().contains("S3 us-east-1"), "{text}");

        // Another selection of the same document, and of a source without a config or a role.
        let west = setup.json(ns, &["ranges", "--region", "eu-west-1"], 0);
        assert!(west["prefixes"].to_string().contains("52.218.0.0/17"));
        let source = sample().display().to_string();
        let arguments = ["ranges", "--source", &source, "--region", "us-east-1"];
        let plain = as_nobody(ns, &arguments).ok();
        assert!(plain.stdout.contains("54.231.0.0/16"), "{plain}");
    });
}

/// A pass rejects a document older than the one in force; `ranges` still lists the content.
#[test]
fn ranges_reads_an_older_source() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let older = scratch().join("older.json");
        let text = r#"{"syncToken":"1000","createDate":"1970-01-01-00-16-40","prefixes":[
            {"ip_prefix":"54.231.0.0/16","region":"us-east-1","service":"S3"}]}"#;
        std::fs::write(&older, text).unwrap();
        let older = older.display().to_string();
        let value = setup.json(ns, &["ranges", "--source", &older], 0);
        assert_eq!(value["sync_token"], 1000);
        assert_eq!(
            value["prefixes"]["ipv4"],
            serde_json::json!(["54.231.0.0/16", "198.18.5.0/24"])
        );
        let in_force = setup.json(ns, &["ranges"], 0);
        assert_ne!(in_force["sync_token"], 1000);
        std::fs::write(&older, "").unwrap();
        let empty = setup
            .run(ns, &["ranges", "--source", &older])
            .expect_code(1);
        assert!(empty.stderr.contains("empty document"), "{empty}");
        // Without `--accept`, no message mentions the option.
        std::fs::write(&older, text.replace("54.231.0.0/16", "54.231.0.1/16")).unwrap();
        let bad = setup
            .run(ns, &["ranges", "--source", &older])
            .expect_code(1);
        assert!(bad.stderr.contains("host bits are set"), "{bad}");
        assert!(!bad.stderr.contains("--accept"), "{bad}");
    });
}

#[test]
fn ranges_asks_the_metadata_service_for_region_auto() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let source = sample().display().to_string();
        let arguments = ["ranges", "--source", &source, "-o", "json"];
        let value = trailblazer(ns, &arguments).ok().json();
        assert!(value["prefixes"].to_string().contains("54.231.0.0/16"));
        lab.imds.set_mode(ImdsMode::Status(403));
        let refused = trailblazer(ns, &arguments).expect_code(1);
        assert!(refused.stderr.contains("metadata service"), "{refused}");
    });
}
