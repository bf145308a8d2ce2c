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
    assert_eq!(value["agrees"], code == 0, "{value:#}");
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
        assert!(reason.contains("net.ipv4.ip_forward is off"), "{reason}");

        // No pass helps, so no advice names one.
        ns.sysctl(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/priv/forwarding", "0"),
        ]);
        for address in [S3, PARTNER] {
            let off = explained(&setup, ns, &address.to_string(), 1);
            let summary = off["summary"].as_str().unwrap();
            let remedy = "sysctl -w net.ipv4.conf.priv.forwarding=1";
            assert!(summary.contains(remedy), "{summary}");
            assert!(!summary.contains("reconcile"), "{summary}");
        }
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
        trailblazer(ns, &["explain", "1.2.3.999"]).expect_code(64);
        trailblazer(ns, &["explain", "1.2.3.4"]).expect_code(64);
    });
}

/// Each part of a prefix with its path; a foreign route inside is found wherever it lies.
#[test]
fn explain_divides_a_prefix_by_path() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let part = |value: &serde_json::Value, path: &str| {
            let parts = value["parts"].as_array().unwrap().iter();
            parts.clone().find(|part| part["path"] == path).cloned()
        };
        // 52.216.128.0/24 is excluded.
        let value = explained(&setup, ns, "52.216.0.0/14", 0);
        let bypass = part(&value, "bypass").unwrap();
        let egress = part(&value, "egress").unwrap();
        let percent = |part: &serde_json::Value| part["percent"].as_f64().unwrap();
        assert_eq!(percent(&bypass) + percent(&egress), 100.0);
        assert!(egress["prefixes"].to_string().contains("52.216.128.0/24"));
        assert_eq!(egress["expected"]["gateways"][0], "10.0.1.10");
        // All of one family: local space, the host itself, storage, and the rest.
        for whole in ["0.0.0.0/0", "::/0"] {
            let value = explained(&setup, ns, whole, 0);
            for path in ["bypass", "egress", "main", "local"] {
                assert!(part(&value, path).is_some(), "{whole}: {value:#}");
            }
        }
        let inside = explained(&setup, ns, "52.216.10.0/24", 0);
        assert_eq!(inside["parts"].as_array().unwrap().len(), 1);

        ns.ip("route add 52.216.10.10/32 via 10.0.1.10 proto static");
        let foreign = explained(&setup, ns, "52.216.0.0/15", 1);
        assert_eq!(foreign["different_total"], 1);
        assert_eq!(foreign["different"][0]["prefix"], "52.216.10.10/32");
        explained(&setup, ns, "52.216.11.0/24", 0);
        ns.ip("route del 52.216.10.10/32");
        setup.run(ns, &["flush"]).ok();
        let flushed = explained(&setup, ns, "52.216.0.0/15", 1);
        assert_ne!(flushed["different_total"], 0);
    });
}

#[test]
fn explain_resolves_names_and_explains_each_address() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let hosts = scratch().join("hosts").display().to_string();
        let mut text =
            format!("{S3} bucket.example\n{S3_6} bucket.example\n{PARTNER} bucket.example\n");
        text.extend((1..=20).map(|host| format!("198.51.100.{host} many.example\n")));
        std::fs::write(&hosts, text).unwrap();
        ns.run(&["mount", "--bind", &hosts, "/etc/hosts"]);
        let value = explained(&setup, ns, "bucket.example", 0);
        let addresses = value["addresses"].as_array().unwrap();
        let path = |address: std::net::IpAddr| {
            let mut found = addresses.iter();
            let found = found.find(|one| one["address"] == address.to_string());
            found.unwrap()["expected"]["path"].clone()
        };
        assert_eq!(addresses.len(), 3);
        assert_eq!(path(S3), "bypass");
        assert_eq!(path(S3_6), "bypass");
        assert_eq!(path(PARTNER), "egress");
        let many = explained(&setup, ns, "many.example", 0);
        assert_eq!(many["addresses"].as_array().unwrap().len(), 16);
        assert_eq!(many["left_out"], 4);
        let summary = many["summary"].as_str().unwrap();
        assert!(summary.contains("has 20 addresses"), "{summary}");
        assert!(summary.contains("4 not looked at"), "{summary}");
        let unknown = setup
            .run(ns, &["explain", "nowhere.invalid"])
            .expect_code(1);
        let words = "cannot resolve nowhere.invalid";
        assert!(unknown.stderr.contains(words), "{unknown}");
        assert!(unknown.stdout.is_empty(), "{unknown}");
        // A resolver that drops the question, such as behind a dead NAT: the command says what it
        // waits for.
        lab::set_resolv_conf(&format!(
            "nameserver {PARTNER}\noptions timeout:2 attempts:1\n"
        ));
        lab.ns("partner").nft(
            "add table inet mute
            add chain inet mute input { type filter hook input priority 0; }
            add rule inet mute input udp dport 53 drop",
        );
        let waited = setup
            .run(ns, &["explain", "nowhere.example"])
            .expect_code(1);
        let words = "waiting for the name resolution of nowhere.example, at most 10 s";
        assert!(waited.stderr.contains(words), "{waited}");
    });
}

/// The source address in the answer is the one that the server sees, also after a translation on
/// this host.
#[test]
fn explain_probes_with_a_connection() {
    lab::isolated(|| {
        let lab = Lab::new();
        lab.plain_nat("nat1");
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let port = format!("--probe={PORT}");
        let probe = |address: std::net::IpAddr, code| {
            let address = address.to_string();
            let value = setup.json(ns, &["explain", &address, &port], code);
            println!("{value:#}");
            let text = setup.run(ns, &["explain", &address, &port]);
            println!("{}", text.expect_code(code).stdout);
            value["probe"].clone()
        };
        let ip = |value: &serde_json::Value| {
            let text = value.as_str().unwrap();
            text.parse::<std::net::SocketAddr>().unwrap().ip()
        };
        for (address, own) in [(S3, HOST1), (S3_6, HOST1_6)] {
            let direct = probe(address, 0);
            assert_eq!(direct["outcome"], "connected");
            assert_eq!(ip(&direct["source"]), own);
            assert_eq!(direct["translated_by_gateway"], false);
        }
        let through = probe(PARTNER, 0);
        assert_eq!(through["translated_by_gateway"], true);
        assert_eq!(ip(&through["local"]), HOST1);

        // The router forwards packets with this host's address alone, so another port must do.
        ns.nft(&format!(
            "table ip theirs {{ chain out {{ type nat hook postrouting priority srcnat; \
             ip daddr {S3} tcp dport {PORT} snat to {HOST1}:1234-1243\n}}\n}}"
        ));
        let translated = probe(S3, 0);
        assert_eq!(ip(&translated["local"]), HOST1);
        let source = translated["source"].as_str().unwrap();
        assert!(source.starts_with(&format!("{HOST1}:12")), "{source}");
        ns.nft("delete table ip theirs");

        let s3 = S3.to_string();
        let refused = setup.json(ns, &["explain", &s3, "--probe=9"], 1);
        assert_eq!(refused["probe"]["outcome"], "refused");
        assert_eq!(refused["agrees"], true);
        // Nobody answers: the wait is bounded.
        lab.ns("s3")
            .nft("table inet mute { chain in { type filter hook input priority 0; drop\n}\n}");
        assert_eq!(probe(S3, 1)["outcome"], "timed_out");
        setup
            .run(ns, &["explain", "52.216.0.0/15", "--probe"])
            .expect_code(64);
    });
}

/// The reply tuple of conntrack shows the translation on a NAT.
#[test]
fn explain_probes_on_a_nat() {
    lab::isolated(|| {
        let lab = Lab::with(NatLayout::BulkInterface);
        let ns = lab.ns("nat1");
        let setup = Setup::nat("s", &lab.nat1, "");
        setup.run(ns, &["reconcile"]).ok();
        let seen = ns.who(PARTNER).unwrap();
        let (partner, port) = (PARTNER.to_string(), format!("--probe={PORT}"));
        let value = setup.json(ns, &["explain", &partner, &port], 0);
        let source = value["probe"]["source"].as_str().unwrap();
        let source: std::net::SocketAddr = source.parse().unwrap();
        assert_eq!(source.ip(), seen);
    });
}
