//! `flush`: everything of ours away, nothing else.

use crate::setup::*;
use lab::*;

fn round_trip(ns: &Ns, setup: &Setup) {
    // iptables-nft creates its built-in chains at the first rule, and never removes them.
    for tool in ["iptables", "ip6tables"] {
        for (table, chain) in [
            ("mangle", "PREROUTING"),
            ("mangle", "OUTPUT"),
            ("mangle", "POSTROUTING"),
            ("nat", "POSTROUTING"),
            ("filter", "FORWARD"),
        ] {
            for action in ["-A", "-D"] {
                ns.run(&[tool, "-t", table, action, chain, "-j", "RETURN"]);
            }
        }
    }
    let before = ns.snapshot();
    setup.run(ns, &["reconcile"]).ok();
    let installed = ns.snapshot();
    assert_ne!(installed, before);
    let preview = setup.json(ns, &["flush", "--dry-run"], 2);
    assert_eq!(preview["outcome"], "pending", "{preview}");
    installed.assert_same(&ns.snapshot());
    let report = setup.json(ns, &["flush"], 0);
    assert_eq!(report["outcome"], "changed", "{report}");
    assert_eq!(report["error"], serde_json::Value::Null);
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["action"] == "delete"));
    assert_eq!(preview["steps"], report["steps"]);
    let last_rule = steps.iter().rposition(|s| s["object"] == "rule").unwrap();
    assert!(
        steps[..last_rule].iter().all(|s| s["object"] == "rule"),
        "rules first: {report}"
    );
    assert!(steps.iter().any(|step| step["object"] == "nat"));
    before.assert_same(&ns.snapshot());
    assert!(!setup.state.join("numbers.json").exists());

    let nothing = setup.json(ns, &["flush", "--dry-run"], 0);
    assert_eq!(nothing["outcome"], "in_sync", "{nothing}");
    let again = setup.run(ns, &["flush"]).ok();
    let last = again.stdout.trim_end().lines().last().unwrap();
    assert!(
        last.starts_with("No objects of Trailblazer found"),
        "{again}"
    );
    let passes = setup.json(ns, &["history"], 0);
    let causes: Vec<&str> = passes["passes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pass| pass["cause"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["reconcile", "flush", "flush"]);
    assert_eq!(passes["passes"][1]["outcome"], "changed");
}

#[test]
fn flush_restores_a_host_with_nftables() {
    lab::isolated(|| {
        let lab = Lab::new();
        let setup = Setup::host("s", "[nat]\nbackend = \"nftables\"\n");
        round_trip(lab.ns("host1"), &setup);
    });
}

#[test]
fn flush_restores_a_host_with_iptables() {
    lab::isolated(|| {
        let lab = Lab::new();
        let setup = Setup::host("s", "[nat]\nbackend = \"iptables\"\n");
        round_trip(lab.ns("host1"), &setup);
    });
}

#[test]
fn flush_restores_a_nat_instance_with_nftables() {
    lab::isolated(|| {
        let lab = Lab::with(NatLayout::BulkInterface);
        let setup = Setup::nat("s", &lab.nat1, "backend = \"nftables\"\n");
        round_trip(lab.ns("nat1"), &setup);
    });
}

#[test]
fn flush_restores_a_nat_instance_with_iptables() {
    lab::isolated(|| {
        let lab = Lab::with(NatLayout::BulkInterface);
        let setup = Setup::nat("s", &lab.nat1, "backend = \"iptables\"\n");
        round_trip(lab.ns("nat1"), &setup);
    });
}

/// The numbers come from the state directory, and foreign objects stay.
#[test]
fn flush_finds_other_numbers_in_the_state_dir() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        ns.ip_batch(
            "route add 198.51.100.0/24 via 10.0.1.1 table 2083 proto static\n\
             rule add pref 20050 fwmark 0x1 lookup 77 protocol static\n",
        );
        let before = ns.snapshot();
        let setup = Setup::host(
            "s",
            "table = 2084\n[bypass]\ntable = 2083\n[kernel]\nprotocol = 84\npriority = 20000\n",
        );
        setup.run(ns, &["reconcile"]).ok();
        let state = setup.state.display().to_string();
        let plain = trailblazer(ns, &["flush"]).ok();
        assert!(
            plain.stdout.contains("Removed") && ns.ip("rule").contains("20000"),
            "the default state dir knows nothing of those numbers; nftables is one for all: {plain}"
        );
        setup.run(ns, &["reconcile"]).ok();
        let report = trailblazer(ns, &["flush", "--state-dir", &state]).ok();
        assert!(report.stdout.contains("Removed: "), "{report}");
        before.assert_same(&ns.snapshot());
    });
}

#[test]
fn flush_ignores_a_broken_default_config_but_not_a_named_one() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let broken = scratch().join("broken.toml");
        std::fs::write(&broken, "role = \"hots\"\n").unwrap();
        let broken = broken.display().to_string();
        let before = ns.snapshot();
        trailblazer(ns, &["flush", "-c", &broken]).expect_code(64);

        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        trailblazer(ns, &["flush", "-c", &broken]).expect_code(64);
        assert_ne!(ns.snapshot(), before);
        // The lab's own /etc, invisible outside.
        let etc = scratch().join("etc");
        std::fs::create_dir_all(etc.join("upper")).unwrap();
        std::fs::create_dir_all(etc.join("work")).unwrap();
        let script = format!(
            "mount -t overlay overlay -o lowerdir=/etc,upperdir={0}/upper,workdir={0}/work /etc \
             && mkdir -p /etc/trailblazer && cp {broken} /etc/trailblazer/trailblazer.toml \
             && {1} flush -o json",
            etc.display(),
            binary().display()
        );
        let output = ns.exec(&["unshare", "--mount", "sh", "-c", &script]).ok();
        let report = output.json();
        assert_eq!(report["outcome"], "changed");
        assert!(report["notes"][0].as_str().unwrap().contains("hots"));
        before.assert_same(&ns.snapshot());
    });
}

#[test]
fn flush_leaves_foreign_objects_with_our_names() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "[nat]\nbackend = \"iptables\"\n");
        setup.run(ns, &["reconcile"]).ok();
        for words in ["-N TRAILBLAZER-FOREIGN", "-A TRAILBLAZER-FOREIGN -j RETURN"] {
            let mut all = vec!["iptables", "-t", "mangle"];
            all.extend(words.split(' '));
            ns.run(&all);
        }
        ns.nft("table inet trailblazer {\n chain x {\n }\n}");
        let report = setup.json(ns, &["flush"], 0);
        let notes = report["notes"].to_string();
        assert!(notes.contains("TRAILBLAZER-FOREIGN"), "{notes}");
        assert!(notes.contains("table inet trailblazer"), "{notes}");
        let left = ns.run(&["iptables-save"]) + &ns.run(&["ip6tables-save"]);
        let ours: Vec<&str> = left
            .lines()
            .filter(|line| line.contains("TRAILBLAZER") && !line.contains("FOREIGN"))
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
        assert!(!ns.ip("rule").contains("30000"));
    });
}

/// A foreign rule jumps to one of our chains: everything else is removed, and the chain that stays
/// is named.
#[test]
fn flush_names_irremovable_objects_and_removes_the_rest() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "[nat]\nbackend = \"iptables\"\n");
        setup.run(ns, &["reconcile"]).ok();
        let chains = ns.run(&["iptables", "-t", "mangle", "-S"]);
        let chain = chains
            .lines()
            .find_map(|line| line.strip_prefix("-N TRAILBLAZER"))
            .unwrap();
        let chain = format!("TRAILBLAZER{chain}");
        let hook = ["iptables", "-t", "mangle", "-A", "INPUT", "-j", &chain];
        ns.run(&hook);
        let report = setup.json(ns, &["flush"], 1);
        assert_eq!(report["outcome"], "failed");
        let error = report["error"].as_str().unwrap();
        assert!(
            error.contains(&chain) || error.contains("iptables"),
            "{error}"
        );
        assert!(!ns.ip("rule").contains("30000"));
        assert_eq!(ns.ip_json("route show table 1083"), serde_json::json!([]));
        assert!(setup.state.join("numbers.json").exists());
        ns.run(&["iptables", "-t", "mangle", "-D", "INPUT", "-j", &chain]);
        setup.run(ns, &["flush"]).ok();
        assert!(!ns.run(&["iptables-save"]).contains("TRAILBLAZER"));
    });
}

#[test]
fn flush_needs_privilege_and_creates_nothing() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let state = scratch().join("nowhere").display().to_string();
        let refused = as_nobody(ns, &["flush", "--state-dir", &state]).expect_code(1);
        assert!(refused.stderr.contains("CAP_NET_ADMIN"), "{refused}");
        let json = as_nobody(ns, &["flush", "--state-dir", &state, "-o", "json"]).expect_code(1);
        assert_eq!(json.json()["outcome"], "failed");
        let nothing = trailblazer(ns, &["flush", "--state-dir", &state, "-o", "json"]).ok();
        assert_eq!(nothing.json()["outcome"], "in_sync");
        assert!(!scratch().join("nowhere").exists());
    });
}

#[test]
fn flush_names_the_rules_of_a_config_with_other_numbers_and_state_dir() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let first = Setup::host(
            "first",
            "table = 2084\n[bypass]\ntable = 2083\n[kernel]\npriority = 20000\n",
        );
        first.run(ns, &["reconcile"]).ok();
        let second = Setup::host("second", "");
        let noted = second.run(ns, &["reconcile"]).ok();
        assert!(
            noted.stdout.contains("rules of another config remain"),
            "{noted}"
        );
        let report = second.run(ns, &["flush"]).expect_code(1);
        assert!(
            report.stderr.contains("rules of another config remain"),
            "{report}"
        );
        assert!(report.stderr.contains("ipv4 20000: "), "{report}");
        first.run(ns, &["flush"]).ok();
        second.run(ns, &["flush"]).ok();
    });
}

/// The config changed its tables and its state dir, and kept its priorities: the rules were replaced,
/// and nobody remembers the old tables.
#[test]
fn flush_names_the_routes_of_a_config_with_other_tables_and_state_dir() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let before = ns.snapshot();
        let first = Setup::host("first", "table = 2084\n[bypass]\ntable = 2083\n");
        first.run(ns, &["reconcile"]).ok();
        let second = Setup::host("second", "");
        second.run(ns, &["reconcile"]).ok();
        for words in [&["flush", "--dry-run"][..], &["flush"]] {
            let report = second.run(ns, words).expect_code(1);
            for words in [
                "routes of another config remain",
                "in table 2083",
                "in table 2084",
            ] {
                assert!(report.stderr.contains(words), "{report}");
            }
            assert!(!report.stdout.contains("as it was before"), "{report}");
        }
        assert_ne!(ns.ip_json("route show table 2083"), serde_json::json!([]));
        first.run(ns, &["flush"]).ok();
        second.run(ns, &["flush"]).ok();
        before.assert_same(&ns.snapshot());
    });
}

/// A route with the protocol number in the main table is no route of ours: no config puts one there.
#[test]
fn flush_ignores_routes_with_the_protocol_number_in_the_main_table() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        ns.ip("route add 198.51.100.0/24 via 10.0.1.1 proto 83");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        setup.run(ns, &["flush"]).ok();
        assert!(ns.ip("route show 198.51.100.0/24").contains("10.0.1.1"));
    });
}
