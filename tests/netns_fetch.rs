//! The path of the fetch while the egress gateway is dead, by the source address at the mirror.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

mod packets;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lab::*;
use packets::*;
use serde_json::Value;

/// A host behind `nat1` that fetches from the mirror in the internet.
struct Fetching<'a> {
    lab: &'a Lab,
    ipv6: bool,
    config: String,
    token: u64,
}

impl<'a> Fetching<'a> {
    fn new(lab: &'a Lab, ipv6: bool, path: &str) -> Self {
        let mut fetching = Fetching {
            lab,
            ipv6,
            config: String::new(),
            token: 1_795_021_512,
        };
        fetching.path(path);
        fetching
    }

    /// Another `[source] path` from the next pass on.
    fn path(&mut self, path: &str) {
        let url = if self.ipv6 {
            self.lab.mirror.url6()
        } else {
            self.lab.mirror.url()
        };
        let text = format!(
            "role = \"host\"\n\
             [source]\nurl = \"{url}\"\npath = \"{path}\"\ntimeout = \"500ms\"\n\
             state_dir = \"$STATE\"\n\
             [select]\nregions = [\"us-east-1\"]\n\
             [guard]\nmax_loss = \"100%\"\nhold_down = \"0s\"\n\
             [nat]\nbackend = \"nftables\"\n\
             [egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n"
        );
        self.config = self.lab.config("host1", &text);
    }

    /// The mirror's next document.
    fn publish(&mut self, prefixes: &[&str]) {
        self.token += 1;
        self.lab
            .mirror
            .set_document(document(self.token, prefixes).into_bytes());
    }

    /// Runs a pass that must succeed; returns the source addresses at the mirror.
    #[track_caller]
    fn pass(&self) -> (Value, BTreeSet<IpAddr>) {
        let before = self.lab.mirror.requests().len();
        let arguments = ["reconcile", "-o", "json", "-c", &self.config];
        let report = self.lab.trailblazer("host1", &arguments).ok().json();
        let requests = self.lab.mirror.requests();
        let seen = requests[before..].iter().map(|request| request.peer);
        (report, seen.collect())
    }

    fn through_nat(&self) -> BTreeSet<IpAddr> {
        let nat = self.lab.nat1;
        BTreeSet::from([if self.ipv6 {
            nat.egress6
        } else {
            nat.egress_public
        }])
    }

    fn by_main_default(&self) -> BTreeSet<IpAddr> {
        BTreeSet::from([if self.ipv6 { HOST1_6 } else { HOST1_PUBLIC }])
    }
}

fn says(report: &Value, text: &str) -> bool {
    let mut told = vec![report["notes"].to_string(), report["verdicts"].to_string()];
    told.retain(|lines| lines.contains(text));
    !told.is_empty()
}

/// Partners are tried all the time, and see nothing but the egress addresses.
fn with_a_dead_nat(ipv6: bool) {
    let lab = Lab::new();
    lab.plain_nat("nat1");
    let mut host = Fetching::new(&lab, ipv6, "auto");
    let (few, more) = (&FIRST[..5], FIRST);
    host.publish(few);

    // The first pass finds nothing in force and fetches as the host would without us. Afterwards
    // the setting `path` decides.
    let (report, seen) = host.pass();
    assert_eq!(report["outcome"], "changed", "{report:#}");
    assert_eq!(seen, host.by_main_default());
    count_from_now(&lab);
    let partners = lab.stream("host1", &[PARTNER, PARTNER6], PACE);
    partners.wait_for(4);
    for (path, expected) in [
        ("auto", host.through_nat()),
        ("egress", host.through_nat()),
        ("bypass", host.by_main_default()),
    ] {
        host.path(path);
        let (report, seen) = host.pass();
        assert_eq!(report["outcome"], "in_sync", "{path}: {report:#}");
        assert_eq!(seen, expected, "{path}");
        assert!(!says(&report, "main table's default"), "{report:#}");
    }

    lab.ns("nat1").ip("link set priv down");

    // Not by another way: the last known good stays, and the pass says why.
    host.path("egress");
    host.publish(more);
    let (report, seen) = host.pass();
    assert_eq!(report["outcome"], "in_sync", "{report:#}");
    assert_eq!(seen, BTreeSet::new());
    let url = if ipv6 {
        MIRROR6.to_string()
    } else {
        MIRROR.to_string()
    };
    assert!(says(&report, &url), "{report:#}");
    assert_eq!(report["sync_token"], host.token - 1, "{report:#}");

    // The other path, for this fetch alone, with a note.
    host.path("auto");
    let (report, seen) = host.pass();
    assert_eq!(report["outcome"], "changed", "{report:#}");
    assert_eq!(seen, host.by_main_default());
    assert!(
        says(&report, "fetched by the main table's default"),
        "{report:#}"
    );
    assert_eq!(report["sync_token"], host.token, "{report:#}");

    // Always the other way: nothing to be said.
    host.path("bypass");
    host.publish(few);
    let (report, seen) = host.pass();
    assert_eq!(report["outcome"], "changed", "{report:#}");
    assert_eq!(seen, host.by_main_default());
    assert!(!says(&report, "egress path fails"), "{report:#}");

    // The host's other traffic is as shut as before.
    for partner in [PARTNER, PARTNER6] {
        assert!(lab.who("host1", partner).is_err(), "{partner}");
    }
    let partners = partners.stop();
    for (partner, egress) in [
        (PARTNER, lab.nat1.egress_public),
        (PARTNER6, lab.nat1.egress6),
    ] {
        let counts = partners.of(partner);
        let fine = |seen: &String| seen.parse::<IpAddr>().is_err() || *seen == egress.to_string();
        assert!(counts.keys().all(fine), "{partner}: {counts:?}");
        assert!(counts.contains_key(&egress.to_string()), "{counts:?}");
    }
    assert_no_leaks(&lab);
}

#[test]
fn fetch_takes_the_configured_path_past_a_dead_nat_ipv4() {
    isolated(|| with_a_dead_nat(false));
}

#[test]
fn fetch_takes_the_configured_path_past_a_dead_nat_ipv6() {
    isolated(|| with_a_dead_nat(true));
}
