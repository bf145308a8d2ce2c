//! Impossible settings (exit 64 before anything is touched), unreadable files, and settings that do
//! not fit this host (exit 1).

use std::os::unix::fs::PermissionsExt as _;

use crate::site::{BINARY, ROWS, Site, TOKEN, document, state_files};

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

/// Valid settings that do not fit this host: exit 1, named, nothing changed. The pass had begun, so
/// the state directory holds the lock, the journal with the failure, and nothing else.
#[test]
fn settings_unfit_for_this_host_change_nothing() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let good = site.config.clone();
        let nat = good
            .replace("\"host\"", "\"nat\"")
            .replace("egress.gateways", "nat.egress_addresses");
        for (config, says) in [
            (
                good.replace("10.0.1.10", "10.9.9.9"),
                &["[egress] gateways", "gateway 10.9.9.9 is not on-link"][..],
            ),
            (
                good.clone() + "bypass.gateway = \"10.9.9.1\"\n",
                &["[bypass] gateway", "10.9.9.1 is not on-link"],
            ),
            (
                good.replace("10.0.1.10", "10.0.1.11"),
                &["[egress] gateways", "10.0.1.11 is an address of this host"],
            ),
            (
                good.clone() + "bypass.gateway = \"10.0.1.11\"\n",
                &["[bypass] gateway", "10.0.1.11 is an address of this host"],
            ),
            (
                good.clone() + "bypass.gateway = \"fe80::7\"\n",
                &["link-local gateway fe80::7 needs an interface"],
            ),
            (
                good.clone() + "bypass.interface = \"ens99\"\n",
                &["[bypass] interface", "no interface ens99", "eth0"],
            ),
            (
                // The main table's default goes through the NAT already.
                good.replace("10.0.1.10", "10.0.1.1"),
                &["10.0.1.1, which is an egress gateway", "silently"],
            ),
            (
                // Asked of the metadata service, which isn't there.
                nat + "nat.sources = [\"10.0.2.0/24\"]\n",
                &["metadata service", "needed for [nat] egress_addresses"],
            ),
        ] {
            site.config = config;
            let report = site.refuses(&["--dry-run"], 1, says).expect("a report");
            assert_eq!(report["steps"], serde_json::json!([]));
            assert!(!site.state_dir().exists() || !site.state_dir().join("numbers.json").exists());
            site.refuses(&[], 1, says);
            assert_eq!(state_files(&site.state_dir()).len(), 0, "{}", site.config);
            assert_eq!(site.journal_end()["outcome"], "failed");
        }
        // And with ours in force already: everything stays.
        site.config = good.clone();
        site.install();
        site.config = good.replace("10.0.1.10", "10.9.9.9");
        site.refuses(&[], 1, &["gateway 10.9.9.9 is not on-link"]);
    });
}
