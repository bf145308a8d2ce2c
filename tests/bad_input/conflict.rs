//! Something foreign where ours should go: named, never overwritten, and everything else goes in.

use crate::site::{ROWS, Site, TOKEN, document, rows_and};

struct Case {
    name: &'static str,
    /// A shell command.
    make: &'static str,
    says: &'static [&'static str],
    config: &'static str,
}

/// Without an egress gateway in a family, no rule of ours uses the family's egress table.
const IPV6_EGRESS: &str = "egress.gateways = [\"2600:1f18:1000:1::10\"]\n";

const CASES: &[Case] = &[
    Case {
        name: "an IPv4 route with the key of ours",
        make: "ip route add 52.216.0.0/15 via 10.0.1.77 table 1083 proto static",
        says: &[
            "foreign route 52.216.0.0/15 in table 1083",
            "has the same prefix and metric as a route of Trailblazer",
            "ip route del 52.216.0.0/15 table 1083",
        ],
        config: "",
    },
    Case {
        name: "an IPv6 route with the key of ours",
        make: "ip -6 route add 2600:1fa0:8000::/39 via fe80::77 dev eth0 metric 1024 \
               table 1083 proto static",
        says: &[
            "foreign route 2600:1fa0:8000::/39 in table 1083",
            "ip -6 route del",
        ],
        config: "",
    },
    Case {
        name: "an IPv4 default in the bypass table",
        make: "ip route add default via 10.0.1.77 metric 99 table 1083 proto static",
        says: &[
            "foreign route 0.0.0.0/0 in table 1083",
            "is a default route in Trailblazer's table",
        ],
        config: "",
    },
    Case {
        name: "an IPv4 default in the egress table",
        make: "ip route add default via 10.0.1.77 metric 99 table 1084 proto static",
        says: &[
            "foreign route 0.0.0.0/0 in table 1084",
            "is a default route in Trailblazer's table",
        ],
        config: "",
    },
    Case {
        name: "an IPv6 default in the egress table",
        make: "ip -6 route add default via fe80::77 dev eth0 table 1084 proto static",
        says: &["foreign route ::/0 in table 1084"],
        config: IPV6_EGRESS,
    },
    Case {
        name: "a table of our name",
        make: "nft 'add table inet trailblazer; add chain inet trailblazer theirs; \
               add rule inet trailblazer theirs counter accept'",
        says: &[
            "table inet trailblazer belongs to another program",
            "nft delete table inet trailblazer",
        ],
        config: "",
    },
    Case {
        // An empty chain would pass for our own chain after `iptables -F`.
        name: "a chain of our name with somebody's rule in it",
        make: "iptables -w -t mangle -N TRAILBLAZER-THEIRS; \
               iptables -w -t mangle -A TRAILBLAZER-THEIRS -s 192.0.2.1 -j RETURN",
        says: &["TRAILBLAZER-THEIRS"],
        config: "nat.backend = \"iptables\"\n",
    },
];

#[test]
fn conflicts_are_named_and_never_overwritten_and_the_rest_goes_in() {
    lab::isolated(|| {
        for case in CASES {
            println!("{}", case.name);
            let mut site = Site::new();
            if case.config == IPV6_EGRESS {
                site.edit("egress.gateways = [\"10.0.1.10\"]\n", "");
            }
            site.config.push_str(case.config);
            site.publish(document(TOKEN, &ROWS));
            site.bare.ns.run(&["sh", "-ec", case.make]);
            let foreign = site.bare.ns.foreign_snapshot();
            let says = [&["conflict: "], case.says].concat();
            let dry = site.refuses(&["--dry-run"], 1, &says).expect("a report");
            for report in [dry, site.names(&[], &says), site.names(&[], &says)] {
                let conflicts = report["conflicts"].as_array().unwrap().len();
                assert!(conflicts >= 1, "{report:#}");
            }
            foreign.assert_same(&site.bare.ns.foreign_snapshot());
            if case.config == IPV6_EGRESS {
                let rules = site.bare.ns.ip("-6 rule show");
                assert!(rules.contains("lookup 1084"), "{rules}");
            } else {
                site.assert_closed();
            }
            let bypass = site.bypass();
            assert!(bypass.contains(&"3.5.0.0/19".to_owned()), "{bypass:?}");
            assert_eq!(site.journal_end()["outcome"], "failed");
        }
    });
}

/// Our state is in force, and a foreign route stands at a prefix of a newer document: the other
/// prefixes of the document go in.
#[test]
fn conflict_leaves_out_one_prefix_of_a_newer_document_until_removed() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        site.bare
            .ns
            .ip("route add 16.182.0.0/16 via 10.0.1.77 table 1083 proto static");
        let rows = rows_and(&[
            ("16.182.0.0/16", "us-east-1", "S3"),
            ("16.15.0.0/16", "us-east-1", "S3"),
        ]);
        site.publish(document(TOKEN + 100, &rows));
        site.names(
            &[],
            &["conflict: foreign route 16.182.0.0/16 in table 1083"],
        );
        assert!(site.bypass().contains(&"16.15.0.0/16".to_owned()));
        // The remedy that the message names.
        site.bare
            .ns
            .ip("route del 16.182.0.0/16 table 1083 metric 0");
        assert_eq!(site.reconcile(&[], 0)["outcome"], "changed");
    });
}

/// Other foreign things in our tables and among our rules are noted and left.
#[test]
fn other_foreign_objects_are_noted_and_left_alone() {
    lab::isolated(|| {
        let site = Site::new();
        site.bare.ns.ip_batch(
            "route add 9.9.9.0/24 via 10.0.1.77 table 1083 proto static\n\
             route add 52.216.0.0/15 via 10.0.1.77 metric 5 table 1083 proto static\n\
             route add 2620:fe::/48 via fe80::77 dev eth0 table 1084 proto static\n\
             rule add to 192.168.9.9 lookup main priority 30015\n",
        );
        site.bare
            .ns
            .nft("table inet theirs {\n chain c {\n counter accept\n }\n}\n");
        let before = site.bare.ns.foreign_snapshot();
        site.publish(document(TOKEN, &ROWS));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        let notes = report["notes"].to_string();
        for named in ["9.9.9.0/24", "2620:fe::/48", "30015"] {
            assert!(notes.contains(named), "{named}: {notes}");
        }
        before.assert_same(&site.bare.ns.foreign_snapshot());
        assert_eq!(site.reconcile(&[], 0)["outcome"], "in_sync");
    });
}
