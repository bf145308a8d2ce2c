//! The guard's other rows: single prefixes, holds, and the operator's word.

use std::time::Duration;

use crate::site::{ROWS, Row, Site, TOKEN, assert_verdict, document, rows_and, verdict};

const GOOD: Row = ("16.182.0.0/16", "us-east-1", "S3");
const NEWER: u64 = TOKEN + 100;

/// A prefix that covers the host's own network, router, name server or a whole family is left out;
/// the rest of the document is accepted.
#[test]
fn prefixes_covering_the_hosts_own_networks_are_left_out() {
    lab::isolated(|| {
        // Public addresses everywhere, so that no other guard refuses first.
        let mut site = Site::new();
        site.edit("[\"10.0.1.10\"]", "[\"44.1.1.10\"]");
        site.edit("[\"10.0.0.0/16\"]", "[\"10.0.0.0/16\", \"45.0.0.0/16\"]");
        site.bare.ns.ip("addr add 44.1.1.11/24 dev eth0");
        let resolv = site.path("resolv.conf");
        std::fs::write(&resolv, "nameserver 46.0.0.53\n").unwrap();
        let bound = std::process::Command::new("mount")
            .args(["--bind", resolv.to_str().unwrap(), "/etc/resolv.conf"])
            .status()
            .unwrap();
        assert!(bound.success());
        site.install();

        let cases: &[(&str, &'static str)] = &[
            ("prefix-default", "0.0.0.0/0"),
            ("prefix-default", "::/0"),
            ("prefix-reserved", "252.0.0.0/10"),
            ("prefix-reserved", "0.0.0.0/8"),
            ("prefix-private", "10.128.0.0/9"),
            ("prefix-private", "100.64.0.0/10"),
            ("prefix-loopback", "127.0.0.0/8"),
            ("prefix-link-local", "169.254.0.0/16"),
            ("prefix-link-local", "fe80::/10"),
            ("prefix-multicast", "224.0.0.0/4"),
            ("prefix-documentation", "203.0.113.0/24"),
            ("prefix-documentation", "2001:db8::/32"),
            ("prefix-unique-local", "fc00::/7"),
            ("prefix-vpc", "45.0.0.0/15"),
            ("prefix-vpc", "45.0.7.0/24"),
            ("prefix-own-address", "2600:1f18:1000::/40"),
            ("prefix-gateway", "44.1.1.10/32"),
            ("prefix-name-server", "46.0.0.0/16"),
            // The metadata service is in link-local space, which is refused as a whole.
            ("prefix-link-local", "169.254.169.254/32"),
            ("prefix-unique-local", "fd00:ec2::254/128"),
        ];
        let mut token = NEWER;
        for (guard, prefix) in cases {
            site.publish(document(TOKEN, &ROWS));
            token += 1;
            site.publish(document(token, &rows_and(&[(prefix, "us-east-1", "S3")])));
            let before = site.bare.ns.snapshot();
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync", "{prefix}: {report:#}");
            assert_eq!(report["sync_token"], token, "the rest of it is in force");
            let found = report["verdicts"].as_array().unwrap();
            assert!(
                found.iter().any(|verdict| verdict["guard"] == *guard),
                "{prefix}: no {guard}: {found:#?}"
            );
            let named = found.iter().find(|verdict| {
                verdict["level"] == "reject"
                    && verdict["message"].as_str().unwrap().contains(prefix)
            });
            assert!(named.is_some(), "{prefix}: {found:#?}");
            before.assert_same(&site.bare.ns.snapshot());
        }
        // All bad prefixes at once, beside a good one.
        let bad = cases.iter().map(|(_, prefix)| (*prefix, "us-east-1", "S3"));
        let rows: Vec<Row> = bad.chain([GOOD]).chain(ROWS).collect();
        site.publish(document(token + 1, &rows));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_eq!(report["steps"].as_array().unwrap().len(), 1, "{report:#}");
        assert_eq!(report["steps"][0]["dst"], GOOD.0);
    });
}

#[test]
fn loss_holds_withdrawals_and_admits_additions() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        // 52.216.0.0/15 is more than half of the IPv4 addresses.
        let rows = [&ROWS[1..], &[GOOD]].concat();
        site.publish(document(NEWER, &rows));
        let before = site.before();
        let report = site.reconcile(&["--dry-run"], 3);
        site.assert_as(&before);
        assert_eq!(report["outcome"], "held");
        let report = site.reconcile(&[], 3);
        assert_eq!(report["outcome"], "held");
        assert_verdict(&report, "loss", "hold", "52.216.0.0/15");
        assert_verdict(&report, "loss", "hold", "its additions are accepted");
        let steps = report["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{report:#}");
        assert_eq!(
            (&steps[0]["action"], &steps[0]["dst"]),
            (&"add".into(), &GOOD.0.into())
        );
        assert!(site.bypass().contains(&"52.216.0.0/15".to_owned()));
        // Held and nothing to do is held all the same.
        let before = site.before();
        let report = site.reconcile(&[], 3);
        assert_eq!(report["steps"], serde_json::json!([]));
        before_but_guard(&site, &before);
        site.refuses(&["--accept", "7"], 1, &["--accept 7", &NEWER.to_string()]);
        let report = site.reconcile(&["--accept", &NEWER.to_string()], 0);
        assert_verdict(&report, "loss", "note", "the operator accepted it");
        assert_eq!(report["sync_token"], NEWER);
        assert_eq!(site.journal_end()["outcome"], "in_sync");
        // Nothing waits any more.
        let report = site.reconcile(&["--accept", &NEWER.to_string()], 0);
        assert_eq!(report["outcome"], "in_sync");
    });
}

/// Without a last known good, storage stays on the egress path while the first document is held.
#[test]
fn first_document_that_is_held_exits_with_3() {
    lab::isolated(|| {
        let site = Site::new();
        // Of the year 2106.
        let token = u64::from(u32::MAX);
        site.publish(document(token, &ROWS));
        for flags in [&["--dry-run"][..], &[]] {
            let report = site.reconcile(flags, 3);
            assert_eq!(report["outcome"], "held");
        }
        site.assert_closed();
        assert!(site.bypass().is_empty());
        site.reconcile(&["--accept", &token.to_string()], 0);
        assert!(!site.bypass().is_empty());
    });
}

/// `guard.json` notes when the source last said the same; the documents and the kernel stay.
#[track_caller]
fn before_but_guard(site: &Site, before: &crate::site::Before) {
    let guard = site.state_dir().join("guard.json");
    let kept = std::fs::read(&guard).unwrap();
    before.restore_file(&guard);
    site.assert_as(before);
    std::fs::write(&guard, kept).unwrap();
}

#[test]
fn guards_against_whole_documents_hold_all_of_their_changes() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("guard.max_prefixes = 6\n");
        site.install();
        let many: Vec<Row> = rows_and(&[
            GOOD,
            ("18.1.0.0/24", "us-east-1", "S3"),
            ("18.2.0.0/24", "us-east-1", "S3"),
        ]);
        let no_ipv6: Vec<Row> = ROWS
            .into_iter()
            .filter(|row| !row.0.contains(':'))
            .chain([GOOD])
            .collect();
        // A year ahead of any clock of today.
        let future = 4_000_000_000;
        for (guard, token, rows, says) in [
            ("max-prefixes", NEWER, many, "`[guard] max_prefixes` = 6"),
            (
                "empty",
                NEWER + 1,
                no_ipv6,
                "withdraws everything: 1 prefix",
            ),
            (
                "future-token",
                future,
                rows_and(&[GOOD]),
                "ahead of this host's clock",
            ),
        ] {
            site.publish(document(token, &rows));
            let before = site.before();
            let report = site.reconcile(&[], 3);
            assert_eq!(report["outcome"], "held", "{report:#}");
            assert_eq!(report["sync_token"], TOKEN);
            assert_verdict(&report, guard, "hold", says);
            assert_verdict(
                &report,
                guard,
                "hold",
                &format!("reconcile --accept {token}"),
            );
            assert_eq!(report["steps"], serde_json::json!([]), "{guard}");
            let last_good = site.state_dir().join("last-known-good");
            assert!(
                before.has_file(&last_good),
                "{guard}: the last known good changed"
            );
            before.assert_kernel(&site);
            // The true document ends the hold.
            site.publish(document(TOKEN, &ROWS));
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync");
            assert!(before.has_file(&last_good));
            before.assert_kernel(&site);
        }
    });
}

/// `accept_after` ends a hold after every fetch has returned the same document for this time.
#[test]
fn hold_ends_after_accept_after() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config
            .push_str("guard = { accept_after = \"2s\", hold_down = \"0s\" }\n");
        site.install();
        site.publish(document(NEWER, &ROWS[1..]));
        site.reconcile(&[], 3);
        site.reconcile(&[], 3);
        std::thread::sleep(Duration::from_millis(3100));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_verdict(
            &report,
            "loss",
            "note",
            "every fetch has selected the same since",
        );
        assert!(!site.bypass().contains(&"52.216.0.0/15".to_owned()));
    });
}

#[test]
fn hold_down_keeps_a_withdrawn_prefix_until_its_end() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("guard.hold_down = \"2s\"\n");
        site.install();
        let gone = "3.5.0.0/19";
        let rows: Vec<Row> = ROWS.into_iter().filter(|row| row.0 != gone).collect();
        site.publish(document(NEWER, &rows));
        let before = site.before();
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
        assert_verdict(&report, "hold-down", "note", gone);
        before.assert_kernel(&site);
        std::thread::sleep(Duration::from_millis(3100));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_eq!(report["steps"].as_array().unwrap().len(), 1);
        assert_eq!(report["steps"][0]["action"], "delete");
        assert_eq!(report["steps"][0]["dst"], gone);
    });
}

/// A change of the config is the operator's word: at once, without hold and without hold-down.
#[test]
fn config_changes_apply_at_once_without_the_guard() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.install();
        let include = "include = [\"172.16.5.0/24\", \"9.9.0.0/16\"]";
        let exclude = "exclude = [\"52.216.0.0/16\"]";
        site.config
            .push_str(&format!("select.{include}\nselect.{exclude}\n"));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_eq!(
            report["verdicts"],
            serde_json::json!([]),
            "private space included"
        );
        let table = site.bypass();
        for there in ["172.16.5.0/24", "9.9.0.0/16", "52.217.0.0/16"] {
            assert!(table.contains(&there.to_owned()), "{there}: {table:?}");
        }
        assert!(
            !table.contains(&"52.216.0.0/15".to_owned()),
            "split by the exclude"
        );
        // Another region: everything of the first goes, above any max_loss.
        // The new region has no IPv6 prefix, which must not look like success.
        site.edit("us-east-1", "eu-west-1");
        let report = site.reconcile(&[], 1);
        assert_eq!(report["outcome"], "changed");
        assert_eq!(report["degraded"][0]["part"], "selection");
        assert_eq!(report["degraded"][0]["family"], "ipv6");
        assert_eq!(
            site.bypass(),
            ["172.16.5.0/24", "52.218.0.0/17", "9.9.0.0/16"]
        );

        // But never a default route.
        for default in ["0.0.0.0/0", "::/0"] {
            let config = site.config.clone();
            site.edit("172.16.5.0/24", default);
            let report = site.refuses(&[], 64, &["select.include", default, "default route"]);
            assert_eq!(report, None);
            site.config = config;
        }
    });
}

/// Lost or damaged documents in the state directory remove no route.
#[test]
fn damaged_state_dir_deletes_no_route() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let last_good = site.state_dir().join("last-known-good");
        let table = site.bypass();
        let mut bytes = std::fs::read(&last_good).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&last_good, &bytes).unwrap();
        // Without a source too, the kernel's state stays.
        std::fs::remove_file(site.path("ip-ranges.json")).unwrap();
        let before = site.before();
        let report = site.reconcile(&[], 3);
        assert_verdict(&report, "last-known-good", "hold", "is damaged");
        site.assert_as(&before);
        assert_eq!(site.bypass(), table);
        // A document without the prefix does not remove it either.
        let rows: Vec<Row> = ROWS
            .into_iter()
            .filter(|row| row.0 != "3.5.0.0/19")
            .collect();
        site.publish(document(NEWER, &rows));
        let report = site.reconcile(&[], 3);
        assert_verdict(&report, "last-known-good", "hold", "3.5.0.0/19");
        assert_eq!(site.bypass(), table);
        let report = site.reconcile(&["--accept", &NEWER.to_string()], 0);
        assert_eq!(report["outcome"], "changed", "{report:#}");
        assert_eq!(site.bypass().len(), table.len() - 1);
        assert!(verdict_free(&report, "last-known-good"));
    });
}

fn verdict_free(report: &serde_json::Value, guard: &str) -> bool {
    let verdicts = report["verdicts"].as_array().unwrap();
    if verdicts.iter().any(|found| found["guard"] == guard) {
        return verdict(report, guard)["level"] != "hold";
    }
    true
}
