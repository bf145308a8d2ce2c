//! Impossible settings (exit 64 before anything is touched), unreadable files, and settings that do
//! not fit this host (exit 1).

use std::os::unix::fs::PermissionsExt as _;

use crate::site::{BINARY, ROWS, Site, TOKEN, document};

#[test]
fn invalid_settings_are_refused_by_name() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let good = site.config.clone();
        for (line, says) in [
            (
                "guard.max_los = \"5%\"",
                &["unknown key", "\"max_loss\""][..],
            ),
            (
                "[gaurd]\nmax_loss = \"5%\"",
                &["unknown table", "\"guard\""],
            ),
            ("max_prefixes = 3", &["unknown key", "[guard]"]),
            (
                "guard.max_loss = \"20 bytes\"",
                &["guard.max_loss", "\"20%\""],
            ),
            ("guard.max_loss = \"120%\"", &["guard.max_loss", "100"]),
            (
                "guard.max_loss = 20",
                &["guard.max_loss", "20 has no unit", "\"20%\""],
            ),
            (
                "guard.hold_down = \"5 parsecs\"",
                &["guard.hold_down", "parsecs"],
            ),
            (
                "guard.hold_down = 24",
                &["guard.hold_down", "24 has no unit"],
            ),
            ("source.max_bytes = \"64m\"", &["source.max_bytes", "64m"]),
            ("source.refresh = 5m", &["not valid TOML", "write \"5m\""]),
            (
                "bypass.table = 2000\negress.table = 2000",
                &["2000 is the bypass path's table too"],
            ),
            ("egress.table = 254", &["254", "\"main\""]),
            ("bypass.table = -1", &["bypass.table"]),
            ("kernel.priority = 32766", &["kernel.priority"]),
            ("kernel.protocol = 4", &["kernel.protocol"]),
            ("kernel.protocol = 12", &["kernel.protocol", "BIRD"]),
            (
                "kernel.marks = { path = \"0x30\", gateway = \"0x70\" }",
                &["kernel.marks.gateway"],
            ),
            (
                "select.families = []",
                &["select.families", "the list is empty"],
            ),
            (
                "select.services = []",
                &["select.services", "the list is empty"],
            ),
            (
                "select.include = [\"52.216.0.1/15\"]",
                &["select.include", "52.216.0.0/15"],
            ),
            (
                "select.include = [\"::/0\"]",
                &["select.include", "default route"],
            ),
            (
                "egress.close = [\"ipv4\"]",
                &["ipv4 is closed and has the gateway 10.0.1.10"],
            ),
            ("bypass.gateway = \"router\"", &["bypass.gateway", "router"]),
            ("nat.backend = \"pf\"", &["nat.backend", "pf"]),
            // Two at once: both are named.
            (
                "guard.max_los = 1\nselect.services = []",
                &["max_los", "select.services", "2 problems"],
            ),
        ] {
            site.config = format!("{good}{line}\n");
            println!("{line}");
            assert_eq!(
                site.refuses(&[], 64, says),
                None,
                "nothing on standard output"
            );
            assert!(!site.state_dir().exists(), "{line}: a state dir was made");
            // `file:line:column`, for editors.
            let stderr = site.run(&[]).stderr;
            assert!(stderr.contains("trailblazer.toml:"), "{stderr}");
        }
        for (key, from, to, says) in [
            ("source.timeout", "\"2s\"", "\"0s\"", "0s"),
            ("source.timeout", "\"2s\"", "2", "2 has no unit"),
            (
                "source.url",
                "\"/",
                "\"s3://",
                "only https, http and file can be fetched",
            ),
        ] {
            site.config = good.replacen(from, to, 1);
            assert_eq!(site.refuses(&[], 64, &[key, says]), None);
        }
        // A NAT instance without egress addresses.
        site.config = good
            .replace("\"host\"", "\"nat\"")
            .replace("egress.gateways", "#");
        site.refuses(&[], 64, &["nat.egress_addresses", "[\"10.0.0.20\"]"]);
        // No role at all.
        site.config = good.replace("role = \"host\"\n", "");
        site.refuses(&[], 64, &["role", "--role"]);
        // An empty document and one that is not text.
        site.config = String::new();
        site.refuses(&[], 64, &["role", "--role"]);
        assert!(!site.state_dir().exists());
    });
}

#[test]
fn missing_or_unreadable_config_file_is_refused() {
    lab::isolated(|| {
        let site = Site::new();
        let before = site.before();
        let run = |path: &std::path::Path, prefix: &[&str], code: i32, says: &[&str]| {
            let path = path.to_str().unwrap();
            let words = [prefix, &[BINARY, "reconcile", "-c", path]].concat();
            let output = site.bare.ns.exec(&words).expect_code(code);
            assert_eq!(output.stdout, "", "{output}");
            for words in says {
                assert!(output.stderr.contains(words), "lacks {words:?}: {output}");
            }
            site.assert_as(&before);
            assert!(!site.state_dir().exists());
        };
        let absent = site.path("absent.toml");
        run(
            &absent,
            &[],
            64,
            &["absent.toml does not exist", "correct the path of -c"],
        );
        // Unreadable is the host's refusal: 1.
        run(
            &site.path(""),
            &[],
            1,
            &["cannot read the config file", "Is a directory"],
        );
        let secret = site.path("secret.toml");
        std::fs::write(&secret, &site.config).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
        let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        run(
            &secret,
            &powerless,
            1,
            &["cannot read the config file", "Permission denied"],
        );
        let binary = site.path("binary.toml");
        std::fs::write(&binary, b"role = \"\xff\"").unwrap();
        run(&binary, &[], 64, &["is not text", "not UTF-8"]);
    });
}

/// Valid settings with a part that this host cannot have: the part is left out and named, the exit
/// code is 1, and everything else goes in.
#[test]
fn settings_unfit_for_this_host_cost_only_their_part() {
    const EGRESS: &str = "via 10.0.1.10";
    const ROUTER: &str = "via 10.0.1.1 ";
    const CLOSED: &str = "No route to host";
    lab::isolated(|| {
        let mut site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let good = site.config.clone();
        let before = site.bare.ns.snapshot();
        for (config, part, says, partner, storage) in [
            (
                good.replace("10.0.1.10", "10.9.9.9"),
                "egress",
                "gateway 10.9.9.9 is not on-link",
                CLOSED,
                ROUTER,
            ),
            (
                good.clone() + "bypass.gateway = \"10.9.9.1\"\n",
                "bypass",
                "10.9.9.1 is not on-link",
                EGRESS,
                EGRESS,
            ),
            (
                good.replace("10.0.1.10", "10.0.1.11"),
                "egress",
                "10.0.1.11 is an address of this host",
                CLOSED,
                ROUTER,
            ),
            (
                good.clone() + "bypass.gateway = \"10.0.1.11\"\n",
                "bypass",
                "10.0.1.11 is an address of this host",
                EGRESS,
                EGRESS,
            ),
            (
                // IPv4 lacks nothing.
                good.clone() + "bypass.gateway = \"fe80::7\"\n",
                "bypass",
                "link-local gateway fe80::7 needs an interface",
                EGRESS,
                ROUTER,
            ),
            (
                good.clone() + "bypass.interface = \"ens99\"\n",
                "bypass",
                "no interface ens99; it has: lo, eth0",
                EGRESS,
                EGRESS,
            ),
            (
                // The main table's default goes through the NAT already.
                good.replace("10.0.1.10", "10.0.1.1"),
                "bypass",
                "10.0.1.1, which is an egress gateway",
                ROUTER,
                ROUTER,
            ),
        ] {
            site.config = config;
            site.reconcile(&["--dry-run"], 2);
            let report = site.reconcile(&[], 1);
            assert_eq!(report["outcome"], "changed", "{report:#}");
            let missing = &report["degraded"][0];
            assert_eq!(missing["part"], part, "{report:#}");
            let reason = missing["reason"].as_str().unwrap();
            assert!(reason.contains(says), "lacks {says:?}: {reason}");
            assert_eq!(site.journal_end()["degraded"][0]["reason"], reason);
            for (address, way) in [("203.0.113.9", partner), ("52.216.1.1", storage)] {
                let seen = site.way(address);
                assert!(seen.contains(way), "{says}: {address}: {seen}");
            }
            let again = site.reconcile(&[], 1);
            assert_eq!(again["outcome"], "in_sync", "{again:#}");
            assert_eq!(again["degraded"], report["degraded"]);
            site.flush();
            before.assert_same(&site.bare.ns.snapshot());
        }
    });
}

/// A mistake about the bypass breaks no bypass path that works.
#[test]
fn unfit_bypass_settings_leave_the_working_bypass_routes() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.install();
        let (good, routes) = (site.config.clone(), site.bypass());
        for mistake in [
            "bypass.gateway = \"10.9.9.1\"\n",
            "bypass.gateway = \"10.0.1.11\"\n",
            "bypass.interface = \"ens99\"\n",
        ] {
            site.config = good.clone() + mistake;
            let report = site.reconcile(&[], 1);
            assert_eq!(report["outcome"], "in_sync", "{report:#}");
            assert_eq!(report["degraded"][0]["part"], "bypass");
            assert_eq!(site.bypass(), routes, "{mistake}");
            let seen = site.way("52.216.1.1");
            assert!(seen.contains("via 10.0.1.1 "), "{mistake}: {seen}");
        }
        // The egress of a wrong gateway is closed, and the bypass stays.
        site.config = good.replace("10.0.1.10", "10.9.9.9");
        let report = site.reconcile(&[], 1);
        assert_eq!(report["degraded"][0]["part"], "egress");
        assert_eq!(site.bypass(), routes);
        let seen = site.way("203.0.113.9");
        assert!(seen.contains("No route to host"), "{seen}");
        site.config = good;
        assert_eq!(site.reconcile(&[], 0)["degraded"], serde_json::json!([]));
    });
}
