//! `trailblazer probe`: each way out of a host, probed by hand.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "packets/mod.rs"]
mod packets;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lab::*;
use packets::*;
use serde_json::Value;

/// Two NATs. The servers of the probes are those of the lab.
fn settings() -> String {
    format!(
        "[egress]\n\
         gateways = [\"10.0.1.10\", \"10.0.1.20\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]\n\
         [probe]\ntargets = [\"{PARTNER}:{PORT}\", \"[{PARTNER6}]:{PORT}\"]\n"
    )
}

fn machine(lab: &Lab) -> Machine<'_> {
    lab.guarded_nat("nat1");
    lab.guarded_nat("nat2");
    Machine::new(lab, "host1", Firewall::Nftables, &settings())
}

/// Notes the sources of new connections at a server: a probe may be reset before the server accepts it.
fn note_sources(server: &Ns) {
    server.nft(
        "table inet seen {\n\
         set sources4 { type ipv4_addr; flags dynamic; }\n\
         set sources6 { type ipv6_addr; flags dynamic; }\n\
         chain in { type filter hook prerouting priority -310; policy accept;\n\
         tcp flags syn / syn,ack update @sources4 { ip saddr }\n\
         tcp flags syn / syn,ack update @sources6 { ip6 saddr }\n}\n}\n",
    );
}

/// The sources since the last call.
fn sources(server: &Ns) -> BTreeSet<IpAddr> {
    let all = ["sources4", "sources6"].into_iter().flat_map(|set| {
        let listed = server.exec(&["nft", "-j", "list", "set", "inet", "seen", set]);
        let listed = listed.ok().json();
        let found = &listed["nftables"][1]["set"]["elem"];
        let found = found.as_array().cloned().unwrap_or_default();
        server.nft(&format!("flush set inet seen {set}"));
        found
    });
    all.map(|address| address.as_str().unwrap().parse().unwrap())
        .collect()
}

/// The way of a gateway, or the bypass path of a family, in the answer.
fn way<'v>(answer: &'v Value, gateway: Option<&str>, family: &str) -> &'v Value {
    let kind = if gateway.is_some() {
        "gateway"
    } else {
        "bypass"
    };
    let mut ways = answer["ways"].as_array().unwrap().iter();
    let found = ways.find(|way| {
        way["way"] == kind && way["gateway"].as_str() == gateway && way["family"] == family
    });
    found.unwrap_or_else(|| panic!("{gateway:?} {family}: {answer}"))
}

/// The answer of a probe with this exit code that fits. On a busy machine an answer may come too late.
fn answer(machine: &Machine, words: &[&str], code: i32, fits: impl Fn(&Value) -> bool) -> Value {
    let all = [words, &["-n", "2", "-o", "json"]].concat();
    let run = || {
        let output = machine.run(&all);
        let answer = (output.code == Some(code)).then(|| output.json());
        answer.filter(&fits)
    };
    let within = std::time::Duration::from_secs(30);
    wait_until(within, std::time::Duration::ZERO, run, || {
        machine.run(&all).to_string()
    })
}

#[test]
fn each_gateway_is_probed_through_its_own_nat() {
    isolated(|| {
        let lab = Lab::new();
        let machine = machine(&lab);
        machine.changed();
        let (partner, storage) = (lab.ns("partner"), lab.ns("s3"));
        note_sources(partner);
        note_sources(storage);
        for (gateway, family, nat) in [
            ("10.0.1.10", "ipv4", &lab.nat1),
            ("10.0.1.20", "ipv4", &lab.nat2),
            ("2600:1f18:1000:1::10", "ipv6", &lab.nat1),
            ("2600:1f18:1000:1::20", "ipv6", &lab.nat2),
        ] {
            let answer = answer(&machine, &["probe", gateway], 0, |_| true);
            let found = way(&answer, Some(gateway), family);
            assert_eq!(found["answers"], true, "{found}");
            assert_eq!(found["sent"], 2, "{found}");
            assert!(found["latency_ms"]["mean"].as_f64() > Some(0.0), "{found}");
            let own = match family {
                "ipv4" => nat.egress_public,
                _ => nat.egress6,
            };
            assert_eq!(sources(partner), BTreeSet::from([own]), "{gateway}");
        }
        let target = format!("{S3}:{PORT}");
        let words = ["probe", "bypass", "--target", &target];
        let answer = answer(&machine, &words, 0, |_| true);
        assert_eq!(way(&answer, None, "ipv4")["answers"], true, "{answer}");
        let six = way(&answer, None, "ipv6");
        assert_eq!(
            six["answers"],
            Value::Null,
            "no server of the family: {six}"
        );
        assert_eq!(sources(storage), BTreeSet::from([HOST1_PUBLIC]));
    });
}

#[test]
fn silent_nat_is_named() {
    isolated(|| {
        let lab = Lab::new();
        let machine = machine(&lab);
        machine.changed();
        lab.ns("nat2").nft("table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; }");
        let targets = [format!("{PARTNER}:{PORT}"), format!("[{PARTNER6}]:{PORT}")];
        let words = ["probe", "--target", &targets[0], "--target", &targets[1]];
        let well = |answer: &Value| {
            let first = way(answer, Some("10.0.1.10"), "ipv4");
            first["answers"] == true
        };
        let found = answer(&machine, &words, 1, well);
        for gateway in ["10.0.1.20", "2600:1f18:1000:1::20"] {
            let family = if gateway.contains(':') {
                "ipv6"
            } else {
                "ipv4"
            };
            let found = way(&found, Some(gateway), family);
            assert_eq!(found["answers"], false, "{found}");
            assert_eq!(found["loss_percent"], 100.0, "{found}");
            assert_eq!(found["latency_ms"], Value::Null, "{found}");
        }
        let text = machine.run(&words).expect_code(1).stdout;
        assert!(text.contains("gateway 10.0.1.20             "), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("No answer through "), "{text}");
        for gateway in ["gateway 10.0.1.20", "gateway 2600:1f18:1000:1::20"] {
            assert!(last.contains(gateway), "{text}");
        }
        let text = machine.run(&["probe", "10.0.1.20"]).expect_code(1).stdout;
        let end = "No way answers: the servers may be down, or each way.\n";
        assert!(text.ends_with(end), "{text}");
        // The name of the region's endpoint has no address in the lab.
        let said = machine.run(&["probe", "bypass"]).expect_code(1).stderr;
        let unknown = "no probe: cannot resolve s3.dualstack.us-east-1.amazonaws.com";
        assert!(said.contains(unknown), "{said}");
    });
}

#[test]
fn probe_without_rules_or_privilege_says_why() {
    isolated(|| {
        let lab = Lab::new();
        let machine = machine(&lab);
        let why = |words: &[&str]| {
            let output = machine.run(&[words, &["-o", "json"]].concat());
            let answer = output.expect_code(1).json();
            assert_eq!(answer["good"], false, "{answer}");
            answer["error"].as_str().unwrap().to_owned()
        };
        let error = why(&["probe"]);
        let missing = "no probe: the kernel has no policy rules of pinned flows";
        assert!(error.starts_with(missing), "{error}");
        machine.changed();
        let error = why(&["probe", "10.0.1.99"]);
        let known = "it has rules for gateway 10.0.1.10, gateway 10.0.1.20, ";
        assert!(error.contains(known), "{error}");
        let binary = lab::binary().to_string_lossy().into_owned();
        let words = [&binary, "probe", "-c", machine.config()];
        let output = machine.ns().exec_unprivileged(&words).expect_code(1);
        assert!(output.stderr.contains("run as root"), "{}", output.stderr);
    });
}
