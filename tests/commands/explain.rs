//! `explain`: which path, why, and whether the kernel agrees.

use crate::setup::*;
use lab::*;

#[track_caller]
fn explained(setup: &Setup, ns: &Ns, address: &str, code: i32) -> serde_json::Value {
    let value = setup.json(ns, &["explain", address], code);
    println!("{value:#}");
    let text = setup.run(ns, &["explain", address]).expect_code(code);
    let sentence = text.stdout.trim_end().lines().last().unwrap();
    println!("{}", text.stdout);
    assert_eq!(value["summary"], sentence);
    assert!(sentence.ends_with('.'), "{sentence}");
    assert_eq!(value["agrees"], code == 0);
    value
}

#[test]
fn explain_covers_the_host_role_before_and_after_a_pass() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        // Nothing was ever fetched.
        let nothing = explained(&setup, ns, &S3.to_string(), 1);
        assert_eq!(nothing["in_force"], false);
        assert_eq!(nothing["sync_token"], serde_json::Value::Null);
        // From the source, nothing stored.
        let source = sample().display().to_string();
        let s3 = S3.to_string();
        let future = setup.json(ns, &["explain", &s3, "--source", &source], 1);
        assert_eq!(future["expected"]["path"], "bypass");
        assert!(
            future["summary"]
                .as_str()
                .unwrap()
                .contains("not in force yet")
        );
        assert!(!setup.state.exists());

        setup.run(ns, &["reconcile"]).ok();
        let value = explained(&setup, ns, &s3, 0);
        assert_eq!(value["expected"]["path"], "bypass");
        assert_eq!(value["expected"]["prefix"], value["kernel"][0]["prefix"]);
        assert_eq!(value["expected"]["table"], 1083);
        assert_eq!(value["expected"]["gateway"], "10.0.1.1");
        assert_eq!(value["expected"]["device"], "priv");
        assert_eq!(value["origins"][0]["origin"], "selected");
        assert_eq!(value["origins"][0]["service"], "S3");
        assert_eq!(value["origins"][0]["region"], "us-east-1");
        let listed = value["listed"].as_array().unwrap();
        assert!(listed.iter().any(|row| row["service"] == "S3"));
        let s3_6 = explained(&setup, ns, &S3_6.to_string(), 0);
        assert_eq!(s3_6["expected"]["path"], "bypass");

        for (partner, gateway) in [(PARTNER, "10.0.1.10"), (PARTNER6, "2600:1f18:1000:1::a")] {
            let value = explained(&setup, ns, &partner.to_string(), 0);
            assert_eq!(value["expected"]["path"], "egress");
            assert_eq!(value["expected"]["gateways"][0], gateway);
            assert_eq!(value["kernel"][0]["table"], 1084);
            assert_eq!(value["listed"], serde_json::json!([]));
        }
        // S3, but of another region: listed, not selected.
        let elsewhere = explained(&setup, ns, &S3_ELSEWHERE.to_string(), 0);
        assert_eq!(elsewhere["expected"]["path"], "egress");
        assert_eq!(elsewhere["origins"], serde_json::json!([]));
        let listed = elsewhere["listed"].as_array().unwrap();
        assert!(listed.iter().any(|row| row["region"] == "eu-west-1"));

        for private in [PEER, RESOLVER, IMDS, PEER6, HOST2, HOST2_6] {
            let value = explained(&setup, ns, &private.to_string(), 0);
            assert_eq!(value["expected"]["path"], "main", "{private}");
        }
        let own = explained(&setup, ns, &HOST1.to_string(), 0);
        assert_eq!(own["expected"]["path"], "local");

        let excluded = explained(&setup, ns, "52.216.128.9", 0);
        assert_eq!(excluded["excluded_by"], "52.216.128.0/24");
        assert_eq!(excluded["expected"]["path"], "egress");
        assert_eq!(excluded["origins"][0]["origin"], "selected");
        let included = explained(&setup, ns, "198.18.5.9", 0);
        assert_eq!(included["origins"][0]["origin"], "include");
        assert_eq!(included["expected"]["path"], "bypass");
    });
}

#[test]
fn explain_names_foreign_routes_and_missing_ones() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        ns.ip("route add 52.216.10.10/32 via 10.0.1.10 proto static");
        let foreign = explained(&setup, ns, "52.216.10.10", 1);
        assert_eq!(foreign["kernel"][0]["agreement"], "foreign");
        assert_eq!(foreign["kernel"][0]["table"], 254);
        let summary = foreign["summary"].as_str().unwrap();
        assert!(summary.contains("52.216.10.10/32"), "{summary}");
        assert!(summary.contains("takes precedence"), "{summary}");
        explained(&setup, ns, "52.216.10.11", 0);

        // Somebody removed a route of ours.
        let prefix = explained(&setup, ns, "54.231.10.10", 0)["expected"]["prefix"].clone();
        ns.ip(&format!(
            "route del {} table 1083",
            prefix.as_str().unwrap()
        ));
        let gone = explained(&setup, ns, "54.231.10.10", 1);
        assert_eq!(gone["kernel"][0]["agreement"], "no");
        let summary = gone["summary"].as_str().unwrap();
        assert!(summary.contains("the kernel disagrees"), "{summary}");
        setup.run(ns, &["flush"]).ok();
        let flushed = explained(&setup, ns, "54.231.10.10", 1);
        let summary = flushed["summary"].as_str().unwrap();
        assert!(summary.contains("run trailblazer reconcile"), "{summary}");
    });
}

#[test]
fn explain_reports_a_closed_egress() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::new(
            "s",
            "role = \"host\"\n[select]\nregions = [\"us-east-1\"]\n\
             [egress]\ngateways = [\"10.0.1.10\"]\nclose = [\"ipv6\"]",
        );
        setup.run(ns, &["reconcile"]).ok();
        let value = explained(&setup, ns, &PARTNER6.to_string(), 0);
        assert_eq!(value["expected"]["path"], "closed");
        assert_eq!(value["kernel"][0]["errno"], 113);
    });
}

#[test]
fn explain_covers_the_nat_role_by_source_and_interface() {
    lab::isolated(|| {
        let lab = Lab::with(NatLayout::BulkInterface);
        let ns = lab.ns("nat1");
        let setup = Setup::nat("s", &lab.nat1, "");
        setup.run(ns, &["reconcile"]).ok();
        let value = explained(&setup, ns, &S3.to_string(), 0);
        assert_eq!(value["expected"]["path"], "bypass");
        let kernel = value["kernel"].as_array().unwrap();
        assert_eq!(kernel.len(), 1);
        assert_eq!(kernel[0]["input"], PRIVATE_LINK);
        assert!(kernel[0]["source"].as_str().unwrap().starts_with("10.0."));
        let partner = explained(&setup, ns, &PARTNER.to_string(), 0);
        assert_eq!(partner["expected"]["path"], "main");
        assert_eq!(
            partner["expected"]["translated_to"][0],
            lab.nat1.egress.to_string()
        );
        explained(&setup, ns, &PEER.to_string(), 0);
        explained(&setup, ns, &PARTNER6.to_string(), 0);

        ns.sysctl(&[("net/ipv4/ip_forward", "0")]);
        let off = explained(&setup, ns, &S3.to_string(), 1);
        let reason = off["kernel"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("forwarding is off"), "{reason}");
    });
}

#[test]
fn explain_works_without_privileges_and_state_dir() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let s3 = S3.to_string();
        let arguments = ["explain", &s3, "-c", &setup.config, "-o", "json"];
        let value = as_nobody(ns, &arguments).ok().json();
        assert_eq!(value["expected"]["path"], "bypass");
        ns.run(&["chmod", "000", &setup.state.display().to_string()]);
        let value = as_nobody(ns, &arguments).ok().json();
        assert_eq!(value["expected"]["path"], "bypass");
        assert_eq!(value["origins"][0]["origin"], "kernel");
        let notes = value["notes"].to_string();
        assert!(notes.contains("Permission denied"), "{notes}");
        assert!(notes.contains("this answer uses the routes"), "{notes}");
    });
}

#[test]
fn explain_refuses_bad_usage() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        trailblazer(ns, &["explain", "not-an-address"]).expect_code(64);
        trailblazer(ns, &["explain", "1.2.3.4"]).expect_code(64);
    });
}
