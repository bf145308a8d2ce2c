//! Each rule of the guard, with its figures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::config::GuardConfig;
use crate::ranges::{Selector, select};
use crate::types::{Family, PerFamily, Region, Service, SyncToken};

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

/// A row: prefix, region, service.
type RowText = (&'static str, &'static str, &'static str);

/// Four /24 and a /32 block of IPv6: small enough to count in the head.
const BASE: &[RowText] = &[
    ("3.5.0.0/24", "us-east-1", "S3"),
    ("3.5.2.0/24", "us-east-1", "S3"),
    ("3.5.4.0/24", "us-east-1", "S3"),
    ("3.5.6.0/24", "us-east-1", "S3"),
    ("52.218.0.0/17", "eu-west-1", "S3"),
    ("2600:1fa0:8000::/39", "us-east-1", "S3"),
];

fn text(token: u64, rows: &[RowText]) -> String {
    let list = |key: &str, six: bool| {
        let rows: Vec<String> = rows
            .iter()
            .filter(|(prefix, ..)| prefix.contains(':') == six)
            .map(|(prefix, region, service)| {
                format!(r#"{{"{key}": "{prefix}", "region": "{region}", "service": "{service}"}}"#)
            })
            .collect();
        rows.join(",")
    };
    format!(
        r#"{{"syncToken": "{token}", "createDate": "", "prefixes": [{}], "ipv6_prefixes": [{}]}}"#,
        list("ip_prefix", false),
        list("ipv6_prefix", true)
    )
}

/// Leaks the document, to keep the cases free of lifetimes.
fn document(token: u64, rows: &[RowText]) -> &'static Document<'static> {
    let text: &'static str = text(token, rows).leak();
    Box::leak(Box::new(Document::parse(text.as_bytes()).unwrap()))
}

fn without(rows: &[RowText], gone: &[&str]) -> Vec<RowText> {
    rows.iter()
        .copied()
        .filter(|(prefix, ..)| !gone.contains(prefix))
        .collect()
}

fn with(rows: &[RowText], more: &[RowText]) -> Vec<RowText> {
    [rows, more].concat()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A host over time: documents and state as stored by the caller of `judge`.
struct Host {
    config: GuardConfig,
    selector: Selector,
    include: Vec<IpNet>,
    exclude: Vec<IpNet>,
    environment: Environment,
    accept: Option<SyncToken>,
    kernel: PerFamily<Vec<IpNet>>,
    state: GuardState,
    state_unreadable: bool,
    last_good: LastGood<'static>,
    held: Option<&'static Document<'static>>,
    now: i64,
}

impl Host {
    /// With a document of token 1000 and the rows of `BASE` in force.
    fn new() -> Host {
        let mut host = Host::empty();
        host.last_good = LastGood::Document(document(1000, BASE));
        host
    }

    fn empty() -> Host {
        Host {
            config: GuardConfig {
                max_loss: 20.0,
                max_prefixes: 5000,
                accept_after: Duration::from_secs(86_400),
                hold_down: Duration::from_secs(86_400),
                ..GuardConfig::default()
            },
            selector: Selector {
                services: vec![Service::from("S3")],
                regions: vec![Region::from("us-east-1")],
                families: Family::ALL.into(),
            },
            include: Vec::new(),
            exclude: Vec::new(),
            environment: Environment::default(),
            accept: None,
            kernel: PerFamily::default(),
            state: GuardState::default(),
            state_unreadable: false,
            last_good: LastGood::Absent,
            held: None,
            now: NOW,
        }
    }

    fn judge(&self, fetch: Fetch<'static>) -> Result<Judgement, AcceptError> {
        judge(&GuardInputs {
            fetch,
            source: None,
            held: self.held,
            last_good: self.last_good.clone(),
            state: &self.state,
            state_unreadable: self.state_unreadable,
            now: self.now,
            config: &self.config,
            selector: &self.selector,
            include: &self.include,
            exclude: &self.exclude,
            environment: &self.environment,
            accept: self.accept,
            kernel_prefixes: &self.kernel,
        })
    }

    /// Judges, and updates documents and state like the caller; the state passes through JSON.
    fn pass(&mut self, fetch: Fetch<'static>) -> Judgement {
        let judgement = self.judge(fetch.clone()).unwrap();
        let which = |whose| match (whose, &fetch) {
            (Whose::Fetched, Fetch::Document(document)) => *document,
            (Whose::Held, _) => self.held.unwrap(),
            _ => panic!("{whose:?} without a document"),
        };
        match judgement.decision {
            Decision::Accept(whose) => {
                self.last_good = LastGood::Document(which(whose));
                self.held = None;
            }
            Decision::Keep => self.held = None,
            Decision::HoldAll(whose) | Decision::HoldWithdrawals(whose) => {
                self.held = Some(which(whose));
            }
        }
        let json = serde_json::to_string(&judgement.state).unwrap();
        self.state = serde_json::from_str(&json).unwrap();
        assert_eq!(self.state, judgement.state);
        self.state_unreadable = false;
        self.accept = None;
        judgement
    }
}

fn doc(token: u64, rows: &[RowText]) -> Fetch<'static> {
    Fetch::Document(document(token, rows))
}

fn v4(judgement: &Judgement) -> Vec<String> {
    let prefixes = &judgement.ranges.prefixes.ipv4;
    prefixes.iter().map(ToString::to_string).collect()
}

fn guards(judgement: &Judgement) -> Vec<(&'static str, Level)> {
    judgement
        .verdicts
        .iter()
        .map(|verdict| (verdict.guard, verdict.level))
        .collect()
}

#[track_caller]
fn says(judgement: &Judgement, guard: &str, words: &[&str]) {
    let found = judgement
        .verdicts
        .iter()
        .find(|verdict| verdict.guard == guard)
        .unwrap_or_else(|| panic!("no verdict of {guard}: {:#?}", judgement.verdicts));
    for words in words {
        assert!(found.message.contains(words), "{words:?} in {found}");
    }
}

const FOUR: [&str; 4] = ["3.5.0.0/24", "3.5.2.0/24", "3.5.4.0/24", "3.5.6.0/24"];

#[test]
fn first_document_is_accepted() {
    let mut host = Host::empty();
    let judgement = host.pass(doc(1000, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(judgement.verdicts, []);
    assert_eq!(v4(&judgement), FOUR);
    assert_eq!(
        judgement.ranges.prefixes.ipv6,
        nets(&["2600:1fa0:8000::/39"])
    );
    assert_eq!(judgement.ranges.selected, PerFamily { ipv4: 4, ipv6: 1 });
    assert_eq!(judgement.ranges.sync_token, Some(SyncToken(1000)));
    assert!(!judgement.nothing_in_force && !judgement.held);
}

#[test]
fn identical_document_changes_nothing() {
    let mut host = Host::new();
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(judgement.decision, Decision::Keep);
    assert_eq!(judgement.verdicts, []);
    assert_eq!(v4(&judgement), FOUR);
    // The same document in other bytes: rows in another order, one row twice.
    let mut rows = with(BASE, &BASE[..1]);
    rows.reverse();
    let judgement = host.pass(doc(1000, &rows));
    assert_eq!(judgement.decision, Decision::Keep);
    assert_eq!(judgement.verdicts, []);
}

#[test]
fn failed_first_fetch_puts_nothing_in_force() {
    for (fetch, guard, level) in [
        (
            Fetch::Rejected("the document is empty".into()),
            "document",
            Level::Reject,
        ),
        (
            Fetch::Failed("connection refused".into()),
            "source",
            Level::Note,
        ),
    ] {
        let judgement = Host::empty().pass(fetch.clone());
        assert!(judgement.nothing_in_force);
        assert_eq!(guards(&judgement)[0], (guard, level));
        says(&judgement, guard, &["no document is in force"]);
        let judgement = Host::new().pass(fetch);
        assert!(!judgement.nothing_in_force && !judgement.held);
        assert_eq!(guards(&judgement), [(guard, level)]);
        says(
            &judgement,
            guard,
            &["document 1000 (1970-01-01T00:16:40Z) stays in force"],
        );
        assert_eq!(v4(&judgement), FOUR);
    }
}

#[test]
fn an_older_token_is_rejected_with_both() {
    let mut host = Host::new();
    let judgement = host.pass(doc(999, &with(BASE, &[("3.6.0.0/24", "us-east-1", "S3")])));
    assert_eq!(judgement.decision, Decision::Keep);
    assert_eq!(guards(&judgement), [("older-token", Level::Reject)]);
    says(
        &judgement,
        "older-token",
        &[
            "999 (1970-01-01T00:16:39Z)",
            "1000 (1970-01-01T00:16:40Z)",
            "--accept 999",
        ],
    );
    assert_eq!(v4(&judgement), FOUR);
    // The operator's way back from an accepted token in the future.
    host.accept = Some(SyncToken(999));
    let judgement = host.pass(doc(999, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(judgement.ranges.sync_token, Some(SyncToken(999)));
}

#[test]
fn the_same_token_with_other_rows_is_rejected() {
    let mut host = Host::new();
    let judgement = host.pass(doc(1000, &BASE[1..]));
    assert_eq!(guards(&judgement), [("same-token", Level::Reject)]);
    says(
        &judgement,
        "same-token",
        &["1000", "5 instead of 6", "--accept 1000"],
    );
    assert_eq!(v4(&judgement), FOUR);
}

#[test]
fn a_bad_selected_row_rejects_the_document_and_another_is_a_note() {
    let mut host = Host::new();
    let bad = with(BASE, &[("3.6.0.1/24", "us-east-1", "S3")]);
    let judgement = host.pass(doc(1001, &bad));
    assert_eq!(guards(&judgement), [("bad-row", Level::Reject)]);
    says(
        &judgement,
        "bad-row",
        &["`3.6.0.1/24` (S3, us-east-1)", "3.6.0.0/24"],
    );
    assert_eq!(judgement.ranges.sync_token, Some(SyncToken(1000)));
    let elsewhere = with(BASE, &[("3.6.0.1/24", "us-east-1", "EC2")]);
    let judgement = host.pass(doc(1001, &elsewhere));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(guards(&judgement), [("bad-row-outside", Level::Note)]);
    // The config then selects the bad row: the accepted document stays, without the row.
    host.selector.services.push(Service::from("EC2"));
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(guards(&judgement), [("bad-row", Level::Reject)]);
    assert_eq!(v4(&judgement), FOUR);
}

#[test]
fn bad_prefixes_are_left_out_and_the_rest_kept() {
    let mut host = Host::new();
    host.environment.name_servers = vec!["3.8.0.2".parse().unwrap()];
    let more = [
        ("252.0.0.0/10", "us-east-1", "S3"),
        ("0.0.0.0/0", "us-east-1", "S3"),
        ("3.8.0.0/24", "us-east-1", "S3"),
        ("3.9.0.0/24", "us-east-1", "S3"),
        ("fc00:1::/32", "us-east-1", "S3"),
    ];
    let judgement = host.pass(doc(1001, &with(BASE, &more)));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(
        guards(&judgement),
        [
            ("prefix-default", Level::Reject),
            ("prefix-name-server", Level::Reject),
            ("prefix-reserved", Level::Reject),
            ("prefix-unique-local", Level::Reject),
        ]
    );
    let mut expected = FOUR.to_vec();
    expected.push("3.9.0.0/24");
    assert_eq!(v4(&judgement), expected);
    assert_eq!(judgement.ranges.selected, PerFamily { ipv4: 5, ipv6: 1 });
    // A withdrawal of rejected prefixes has no effect: no loss, no hold-down.
    let judgement = host.pass(doc(1002, &with(BASE, &more[3..4])));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(judgement.verdicts, []);
    assert_eq!(v4(&judgement), expected);
}

#[test]
fn included_prefixes_pass_the_guard_and_excluded_ones_never_do() {
    let mut host = Host::new();
    host.include = nets(&["10.9.0.0/16", "3.5.1.0/24", "3.6.0.0/24"]);
    host.exclude = nets(&["3.5.4.128/25", "3.6.0.0/25"]);
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(judgement.verdicts, []);
    assert_eq!(
        v4(&judgement),
        [
            "3.5.0.0/23",
            "3.5.2.0/24",
            "3.5.4.0/25",
            "3.5.6.0/24",
            "3.6.0.128/25",
            "10.9.0.0/16"
        ]
    );
    assert_eq!(judgement.ranges.selected.ipv4, 4);
}

#[test]
fn loss_above_the_bound_holds_withdrawals_and_lets_additions_in() {
    let mut host = Host::new();
    let rows = with(
        &without(BASE, &["3.5.6.0/24"]),
        &[("3.7.0.0/24", "us-east-1", "S3")],
    );
    let judgement = host.pass(doc(1001, &rows));
    assert_eq!(
        judgement.decision,
        Decision::HoldWithdrawals(Whose::Fetched)
    );
    assert!(judgement.held);
    assert_eq!(guards(&judgement), [("loss", Level::Hold)]);
    says(
        &judgement,
        "loss",
        &[
            "S3 us-east-1 ipv4: the document withdraws 256 of 1024 addresses (25.0 %)",
            "max_loss` = 20 %",
            "3.5.6.0/24",
            "--accept 1001",
            "2026-09-22T14:13:20Z",
        ],
    );
    let mut expected = FOUR.to_vec();
    expected.push("3.7.0.0/24");
    assert_eq!(v4(&judgement), expected);
    assert_eq!(judgement.ranges.selected.ipv4, 5);
    assert_eq!(judgement.ranges.sync_token, Some(SyncToken(1000)));
    // The additions stay in force while the source answers 304, fails, or serves rubbish.
    for fetch in [
        Fetch::SameAsHeld,
        Fetch::Failed("timeout".into()),
        Fetch::Rejected("empty".into()),
        doc(999, BASE),
    ] {
        host.now += 60;
        let judgement = host.pass(fetch);
        assert_eq!(judgement.decision, Decision::HoldWithdrawals(Whose::Held));
        assert_eq!(v4(&judgement), expected);
    }
}

#[test]
fn loss_at_the_bound_goes_in_and_is_held_down() {
    let mut host = Host::new();
    host.config.max_loss = 25.0;
    let judgement = host.pass(doc(1001, &without(BASE, &["3.5.6.0/24"])));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(guards(&judgement), [("hold-down", Level::Note)]);
    says(
        &judgement,
        "hold-down",
        &["24h", "1 prefix", "3.5.6.0/24", "2026-09-22T14:13:20Z"],
    );
    assert_eq!(v4(&judgement), FOUR);
    assert_eq!(judgement.ranges.selected.ipv4, 3);
    host.now += DAY - 1;
    assert_eq!(v4(&host.pass(Fetch::Unchanged)), FOUR);
    host.now += 1;
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(v4(&judgement), FOUR[..3]);
    assert_eq!((&host.state.hold, host.state.hold_down.len()), (&None, 0));
}

#[test]
fn ipv6_loss_is_told_in_networks() {
    let mut host = Host::new();
    let rows = with(
        &without(BASE, &["2600:1fa0:8000::/39"]),
        &[("2600:1fa0:8000::/40", "us-east-1", "S3")],
    );
    let judgement = host.pass(doc(1001, &rows));
    says(
        &judgement,
        "loss",
        &["S3 us-east-1 ipv6: the document withdraws 16777216 of 33554432 /64 networks (50.0 %)"],
    );
}

#[test]
fn a_renumbering_loses_nothing() {
    let mut host = Host::empty();
    host.pass(doc(
        1000,
        &[
            ("3.5.0.0/17", "us-east-1", "S3"),
            ("3.5.128.0/17", "us-east-1", "S3"),
        ],
    ));
    let judgement = host.pass(doc(1001, &[("3.5.0.0/16", "us-east-1", "S3")]));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(judgement.verdicts, []);
    assert_eq!(v4(&judgement), ["3.5.0.0/16"]);
}

#[test]
fn an_empty_group_holds_everything() {
    let mut host = Host::new();
    let rows = with(
        &without(BASE, &["2600:1fa0:8000::/39"]),
        &[("3.7.0.0/24", "us-east-1", "S3")],
    );
    let judgement = host.pass(doc(1001, &rows));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    assert_eq!(guards(&judgement), [("empty", Level::Hold)]);
    says(
        &judgement,
        "empty",
        &[
            "S3 us-east-1 ipv6: the document withdraws everything: 1 prefix",
            "100.0 %",
        ],
    );
    assert_eq!(v4(&judgement), FOUR, "no additions either");
    // "100%" allows all.
    host.config.max_loss = 100.0;
    let judgement = host.pass(doc(1001, &[]));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
}

#[test]
fn too_many_prefixes_hold_everything_even_the_first_time() {
    let mut host = Host::empty();
    host.config.max_prefixes = 4;
    let judgement = host.pass(doc(1000, BASE));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    assert!(judgement.held && judgement.nothing_in_force);
    says(
        &judgement,
        "max-prefixes",
        &["selects 5 prefixes", "max_prefixes` = 4", "--accept 1000"],
    );
    assert!(v4(&judgement).is_empty());
    // Counted after aggregation.
    let rows = [
        ("3.5.0.0/24", "us-east-1", "S3"),
        ("3.5.1.0/24", "us-east-1", "S3"),
        ("3.5.2.0/24", "us-east-1", "S3"),
        ("3.5.3.0/24", "us-east-1", "S3"),
        ("3.5.4.0/24", "us-east-1", "S3"),
    ];
    assert!(!host.pass(doc(1001, &rows)).held);
    // A changed config is the operator's decision: applied at once, with a note.
    host.config.max_prefixes = 1;
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(guards(&judgement), [("max-prefixes", Level::Note)]);
    assert_eq!(v4(&judgement), ["3.5.0.0/22", "3.5.4.0/24"]);
}

#[test]
fn a_token_in_the_future_holds_everything() {
    let mut host = Host::new();
    let tomorrow = u64::try_from(NOW).unwrap() + objections::TOKEN_AHEAD;
    let judgement = host.pass(doc(tomorrow + 1, BASE));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    says(
        &judgement,
        "future-token",
        &["1790086401", "1.0 days ahead", "2026-09-21T14:13:20Z"],
    );
    let judgement = host.pass(doc(tomorrow, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    let judgement = Host::empty().pass(doc(u64::MAX, BASE));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    says(&judgement, "future-token", &["no document is in force"]);
}

#[test]
fn hold_ends_after_accept_after_if_every_fetch_selects_the_same() {
    let mut host = Host::new();
    let smaller = without(BASE, &["3.5.4.0/24", "3.5.6.0/24"]);
    host.pass(doc(1001, &smaller));
    let since = host.state.hold.clone().unwrap().since;
    // A newer document with the same selection goes on. A failure doesn't restart the time, and
    // the time between the successes around the failure doesn't count.
    host.now += DAY / 2;
    host.pass(doc(1002, &smaller));
    let hold = host.state.hold.clone().unwrap();
    assert_eq!((hold.since, hold.token), (since, Some(SyncToken(1002))));
    host.now = since + DAY;
    let judgement = host.pass(Fetch::Failed("timeout".into()));
    assert!(judgement.held, "a failed fetch accepts nothing");
    host.now += 60;
    assert!(host.pass(Fetch::SameAsHeld).held);
    host.now += DAY / 2 - 1;
    assert!(host.pass(Fetch::SameAsHeld).held);
    host.now += 1;
    let judgement = host.pass(Fetch::SameAsHeld);
    assert_eq!(judgement.decision, Decision::Accept(Whose::Held));
    assert!(!judgement.held);
    says(
        &judgement,
        "loss",
        &["is accepted", "since 2026-09-22T02:14:20Z", "50.0 %"],
    );
    assert_eq!(v4(&judgement), FOUR, "hold-down follows");
    assert_eq!(host.state.hold, None);
    host.now += DAY;
    assert_eq!(v4(&host.pass(Fetch::Unchanged)), FOUR[..2]);
}

#[test]
fn hold_starts_again_after_another_selection() {
    let mut host = Host::new();
    host.pass(doc(1001, &without(BASE, &["3.5.4.0/24", "3.5.6.0/24"])));
    host.now += DAY - 1;
    host.pass(doc(1002, &without(BASE, &["3.5.2.0/24", "3.5.6.0/24"])));
    host.now += 1;
    assert!(host.pass(Fetch::SameAsHeld).held);
    assert_eq!(host.state.hold.clone().unwrap().since, NOW + DAY - 1);
    // The last known good again: the hold ends.
    let judgement = host.pass(Fetch::Unchanged);
    assert!(!judgement.held);
    assert_eq!(host.state.hold, None);
}

#[test]
fn clock_set_back_lengthens_no_hold() {
    let mut host = Host::new();
    host.now = NOW + 1000 * DAY;
    host.pass(doc(1001, &without(BASE, &["3.5.4.0/24", "3.5.6.0/24"])));
    host.now = NOW;
    host.pass(Fetch::SameAsHeld);
    host.now = NOW + DAY;
    assert_eq!(
        host.pass(Fetch::SameAsHeld).decision,
        Decision::Accept(Whose::Held)
    );
    assert_eq!(host.state.hold_down.len(), 2);
    host.now = NOW;
    host.pass(Fetch::Unchanged);
    host.now = NOW + DAY;
    host.pass(Fetch::Unchanged);
    assert_eq!(host.state.hold_down, []);
}

#[test]
fn accepted_candidate_goes_in_despite_objections() {
    let rows = without(BASE, &["3.5.4.0/24", "3.5.6.0/24"]);
    for fetch in [
        doc(1001, &rows),
        Fetch::SameAsHeld,
        Fetch::Failed("timeout".into()),
    ] {
        let mut host = Host::new();
        host.config.hold_down = Duration::ZERO;
        host.pass(doc(1001, &rows));
        host.accept = Some(SyncToken(1001));
        let judgement = host.pass(fetch);
        assert!(matches!(judgement.decision, Decision::Accept(_)));
        assert!(!judgement.held);
        says(&judgement, "loss", &["the operator accepted it", "50.0 %"]);
        assert_eq!(v4(&judgement), FOUR[..2]);
        assert_eq!((&host.state.hold, host.state.hold_down.len()), (&None, 0));
    }
}

#[test]
fn accept_without_a_matching_document_is_an_error() {
    let mut host = Host::new();
    let rows = without(BASE, &["3.5.4.0/24", "3.5.6.0/24"]);
    host.accept = Some(SyncToken(1005));
    let error = host.judge(doc(1001, &rows)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--accept 1005: the candidate's sync token is 1001; review the candidate with \
         `trailblazer reconcile --dry-run` and accept that token"
    );
    assert_eq!(
        host.judge(doc(1001, BASE)).unwrap_err(),
        error,
        "not even one that would pass"
    );
    let error = host.judge(Fetch::Unchanged).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--accept 1005: no document waits to be accepted (in force is 1000); nothing was changed"
    );
    assert_eq!(host.judge(doc(1000, BASE)).unwrap_err(), error);
    let bad = with(BASE, &[("3.6.0.1/24", "us-east-1", "S3")]);
    let error = host.judge(doc(1005, &bad)).unwrap_err();
    assert!(error.to_string().contains("host bits"), "{error}");
    // The document in force can be accepted again and again.
    host.accept = Some(SyncToken(1000));
    assert_eq!(
        host.judge(Fetch::Unchanged).unwrap().decision,
        Decision::Keep
    );
}

#[test]
fn hold_down_keeps_the_route_of_a_flapping_prefix() {
    let mut host = Host::new();
    host.config.max_loss = 30.0;
    let smaller = without(BASE, &["3.5.6.0/24"]);
    for token in 1..10u64 {
        let rows: &[RowText] = if token % 2 == 0 { BASE } else { &smaller };
        host.now += 3600;
        assert_eq!(v4(&host.pass(doc(1000 + token, rows))), FOUR);
        assert_eq!(host.state.hold_down.len(), usize::from(token % 2 != 0));
    }
    // Half of the block comes back: only the other half still waits.
    host.pass(doc(
        1011,
        &with(&smaller, &[("3.5.6.0/25", "us-east-1", "S3")]),
    ));
    assert_eq!(host.state.hold_down[0].prefix, nets(&["3.5.6.128/25"])[0]);
}

#[test]
fn additions_in_force_during_a_hold_are_held_down_later() {
    let mut host = Host::new();
    let rows = with(
        &without(BASE, &["3.5.6.0/24"]),
        &[("3.7.0.0/24", "us-east-1", "S3")],
    );
    host.pass(doc(1001, &rows));
    let judgement = host.pass(doc(1002, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(v4(&judgement).last().unwrap(), "3.7.0.0/24");
    assert_eq!(host.state.hold_down[0].prefix, nets(&["3.7.0.0/24"])[0]);
}

#[test]
fn a_prefix_that_moves_to_another_selected_region_is_not_withdrawn() {
    let mut host = Host::new();
    host.config.max_loss = 50.0;
    host.selector.regions.push(Region::from("eu-west-1"));
    let moved = with(
        &without(BASE, &["3.5.6.0/24"]),
        &[("3.5.6.0/24", "eu-west-1", "S3")],
    );
    let judgement = host.pass(doc(1001, &moved));
    assert_eq!(judgement.verdicts, []);
    assert_eq!(host.state.hold_down, []);
    assert_eq!(v4(&judgement)[..4], FOUR);
}

#[test]
fn a_change_of_the_config_applies_at_once() {
    let mut host = Host::new();
    host.config.max_loss = 30.0;
    host.selector.regions.push(Region::from("eu-west-1"));
    host.pass(doc(1001, &without(BASE, &["3.5.6.0/24"])));
    assert_eq!(host.state.hold_down.len(), 1);
    host.selector.regions.remove(0);
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(judgement.verdicts, []);
    assert_eq!(v4(&judgement), ["52.218.0.0/17"]);
    // Selected again within the time: the route stays. `exclude` removes the route.
    host.selector.regions = vec![Region::from("us-east-1")];
    host.exclude = nets(&["3.5.6.0/25"]);
    assert_eq!(
        v4(&host.pass(Fetch::Unchanged)).last().unwrap(),
        "3.5.6.128/25"
    );
    host.config.hold_down = Duration::ZERO;
    assert_eq!(v4(&host.pass(Fetch::Unchanged)), FOUR[..3]);
}

#[test]
fn unreadable_memory_deletes_no_route() {
    let mut host = Host::empty();
    host.last_good = LastGood::Unreadable("wrong digest".into());
    host.kernel.ipv4 = nets(&["3.5.6.0/24", "54.231.0.0/16"]);
    host.exclude = nets(&["54.231.0.0/17"]);
    // Without a document: the kernel's prefixes.
    for _ in 0..3 {
        host.now += 10 * DAY;
        let judgement = host.pass(Fetch::Failed("timeout".into()));
        assert!(judgement.nothing_in_force && judgement.held);
        assert_eq!(v4(&judgement), ["3.5.6.0/24", "54.231.128.0/17"]);
        says(
            &judgement,
            "last-known-good",
            &["wrong digest", "2 prefixes"],
        );
    }
    // With a document: the unexplained prefixes stay until the operator has had time.
    let judgement = host.pass(doc(1000, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(guards(&judgement), [("last-known-good", Level::Hold)]);
    let mut expected = FOUR.to_vec();
    expected.push("54.231.128.0/17");
    assert_eq!(v4(&judgement), expected);
    host.now += DAY - 1;
    let judgement = host.pass(Fetch::Unchanged);
    assert!(judgement.held);
    assert_eq!(v4(&judgement), expected);
    let mut other = Host::empty();
    (other.last_good, other.state, other.now) =
        (host.last_good.clone(), host.state.clone(), host.now);
    other.accept = Some(SyncToken(1000));
    let judgement = other.pass(Fetch::Unchanged);
    assert!(!judgement.held);
    assert_eq!(v4(&judgement), FOUR);
    host.now += 1;
    let judgement = host.pass(Fetch::Unchanged);
    assert!(!judgement.held);
    assert_eq!(v4(&judgement), FOUR);
}

#[test]
fn unreadable_state_adopts_the_prefixes_of_the_kernel() {
    let mut host = Host::empty();
    host.kernel.ipv4 = nets(&["54.231.0.0/16"]);
    let judgement = host.pass(doc(1000, BASE));
    assert_eq!(guards(&judgement), [("last-known-good", Level::Note)]);
    assert_eq!(v4(&judgement).last().unwrap(), "54.231.0.0/16");
    // A deselected family is the operator's decision.
    host.selector.families = BTreeSet::from([Family::Ipv6]);
    assert!(v4(&host.pass(Fetch::Unchanged)).is_empty());

    let mut host = Host::new();
    host.state_unreadable = true;
    host.kernel.ipv4 = nets(&["3.5.0.0/24", "54.231.0.0/16"]);
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(guards(&judgement), [("last-known-good", Level::Hold)]);
    assert_eq!(v4(&judgement).last().unwrap(), "54.231.0.0/16");

    let mut host = Host::new();
    host.last_good = LastGood::Unreadable("wrong digest".into());
    host.kernel.ipv4 = nets(&["3.5.0.0/24"]);
    let judgement = host.pass(doc(1000, BASE));
    assert!(!judgement.held);
    says(&judgement, "last-known-good", &["nothing was lost"]);
    // With a readable last known good, the kernel's prefixes are not used.
    let mut host = Host::new();
    host.kernel.ipv4 = nets(&["54.231.0.0/16"]);
    assert_eq!(v4(&host.pass(Fetch::Unchanged)), FOUR);
}

#[test]
fn mistyped_names_get_hints() {
    let mut host = Host::new();
    host.selector.regions = vec![Region::from("us-east1")];
    let judgement = host.pass(Fetch::Unchanged);
    assert_eq!(guards(&judgement), [("selection", Level::Note)]);
    says(&judgement, "selection", &["did you mean `us-east-1`?"]);
}

#[test]
fn a_state_of_another_version_is_read() {
    let state: GuardState = serde_json::from_str(
        r#"{"hold": {"since": 5, "boot_id": "x"}, "new": 1,
            "hold_down": [{"prefix": "3.5.0.0/24", "since": 3}]}"#,
    )
    .unwrap();
    assert_eq!(state.hold.unwrap().since, 5);
    assert_eq!(state.hold_down[0].kept, Kept::Withdrawn);
}

/// One answer of the source in the property below.
#[derive(Debug, Clone)]
enum Said {
    Rows(BTreeSet<usize>),
    Same,
    Failed,
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => prop::collection::btree_set(0usize..6, 0..=6).prop_map(Said::Rows),
        2 => Just(Said::Same),
        1 => Just(Said::Failed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// For any series of answers: all prefixes of the accepted document are in force, a removed
    /// prefix was in no list for the time of `hold_down`, and every prefix in force was in some
    /// document.
    #[test]
    fn no_route_is_removed_before_its_hold_down_ends(steps in prop::collection::vec((said(), 0i64..60_000), 1..30)) {
        let mut host = Host::new();
        let mut last_listed: BTreeMap<IpNet, i64> = BTreeMap::new();
        for (token, (step, wait)) in (2000u64..).zip(steps) {
            host.now += wait;
            let fetch = match step {
                Said::Rows(rows) => {
                    doc(token, &rows.iter().map(|row| BASE[*row]).collect::<Vec<_>>())
                }
                Said::Same if host.held.is_some() => Fetch::SameAsHeld,
                Said::Same => Fetch::Unchanged,
                Said::Failed => Fetch::Failed("timeout".into()),
            };
            let judgement = host.pass(fetch);
            let in_force: BTreeSet<IpNet> = judgement
                .ranges
                .prefixes
                .ipv4
                .iter()
                .chain(&judgement.ranges.prefixes.ipv6)
                .copied()
                .collect();
            let LastGood::Document(last) = host.last_good else { panic!() };
            let listed = select(last, &host.selector).unwrap();
            for (_, prefix) in listed.prefixes() {
                prop_assert!(in_force.contains(prefix), "{} is listed", prefix);
                last_listed.insert(*prefix, host.now);
            }
            for (prefix, time) in &last_listed {
                prop_assert!(
                    in_force.contains(prefix) || time + DAY <= host.now,
                    "{} went early", prefix
                );
            }
            let known = nets(&BASE.iter().map(|(prefix, ..)| *prefix).collect::<Vec<_>>());
            prop_assert!(in_force.iter().all(|prefix| known.contains(prefix)));
            prop_assert_eq!(judgement.held, host.state.hold.is_some());
            prop_assert_eq!(host.held.is_some(), host.state.hold.is_some());
        }
    }
}

#[test]
fn hold_for_a_token_in_the_future_never_ends_by_itself() {
    let mut host = Host::new();
    let ahead = u64::try_from(NOW + 9 * DAY).unwrap();
    host.pass(doc(ahead, BASE));
    for _ in 0..3 {
        host.now += DAY;
        let judgement = host.pass(Fetch::SameAsHeld);
        assert_eq!(judgement.decision, Decision::HoldAll(Whose::Held));
        says(
            &judgement,
            "future-token",
            &["until a source has a document with a sane token"],
        );
    }
    // A sane token ends the hold; so does the operator's word.
    let judgement = host.pass(doc(1001, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    host.accept = Some(SyncToken(ahead));
    let judgement = host.pass(doc(ahead, BASE));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
}

#[test]
fn document_that_adds_half_the_internet_is_held() {
    let halves: Vec<RowText> = vec![
        ("64.0.0.0/3", "us-east-1", "S3"),
        ("128.0.0.0/3", "us-east-1", "S3"),
    ];
    let judgement = Host::new().pass(doc(1001, &with(BASE, &halves)));
    assert_eq!(guards(&judgement), [("prefix-too-short", Level::Reject)]);
    assert_eq!(v4(&judgement), FOUR);
    // The same in many prefixes that are long enough, with and without a document in force.
    let tens: Vec<String> = (64..96).map(|first| format!("{first}.0.0.0/10")).collect();
    let tens: Vec<RowText> = tens
        .into_iter()
        .map(|prefix| (&*Box::leak(prefix.into_boxed_str()), "us-east-1", "S3"))
        .collect();
    for mut host in [Host::new(), Host::empty()] {
        let judgement = host.pass(doc(1001, &with(BASE, &tens)));
        assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
        says(&judgement, "gain", &["would gain", "max_new_addresses"]);
    }
    // The share counts from a million addresses on.
    let mut host = Host::new();
    let few = [
        ("52.92.0.0/14", "us-east-1", "S3"),
        ("52.96.0.0/11", "us-east-1", "S3"),
    ];
    assert!(!host.pass(doc(1001, &with(BASE, &few[..1]))).held);
    let mut host = Host::new();
    let judgement = host.pass(doc(1001, &with(BASE, &few)));
    says(&judgement, "gain", &["max_gain", "500 %"]);
    host.accept = Some(SyncToken(1001));
    let judgement = host.pass(doc(1001, &with(BASE, &few)));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
}

#[test]
fn prefixes_around_canaries_and_sources_are_left_out() {
    let mut host = Host::new();
    host.config.canaries = nets(&["9.9.9.9/32"]);
    host.environment.sources = vec!["8.7.6.5".parse().unwrap()];
    let rows = [
        ("9.9.0.0/16", "us-east-1", "S3"),
        ("8.7.6.0/24", "us-east-1", "S3"),
    ];
    let judgement = host.pass(doc(1001, &with(BASE, &rows)));
    says(&judgement, "prefix-canary", &["9.9.0.0/16", "canaries"]);
    says(&judgement, "prefix-source", &["8.7.6.0/24"]);
    assert_eq!(v4(&judgement), FOUR);
}

#[test]
fn withdrawn_prefixes_in_hold_down_count_towards_max_prefixes() {
    let mut host = Host::new();
    host.config.max_loss = 100.0;
    host.config.max_prefixes = 6;
    host.pass(doc(1001, &without(BASE, &["3.5.0.0/24", "3.5.2.0/24"])));
    assert_eq!(v4(&host.pass(Fetch::Unchanged)), FOUR);
    let more = [
        ("3.7.0.0/24", "us-east-1", "S3"),
        ("3.7.2.0/24", "us-east-1", "S3"),
    ];
    let rows = with(&without(BASE, &["3.5.0.0/24", "3.5.2.0/24"]), &more);
    let judgement = host.pass(doc(1002, &rows));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    says(
        &judgement,
        "max-prefixes",
        &["7 prefixes, 2 of them withdrawn"],
    );
}

#[test]
fn new_selection_never_installs_what_the_document_withdraws() {
    // The withdrawal arrives together with the config that selects the region.
    let mut host = Host::new();
    host.pass(Fetch::Unchanged);
    host.selector.regions.push(Region::from("eu-west-1"));
    let judgement = host.pass(doc(1001, &without(BASE, &["52.218.0.0/17"])));
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    assert_eq!(v4(&judgement), FOUR);
    // The same beside a document that is held for another reason.
    let mut host = Host::new();
    host.pass(Fetch::Unchanged);
    host.selector.regions.push(Region::from("eu-west-1"));
    host.config.max_prefixes = 4;
    let judgement = host.pass(doc(1001, &without(BASE, &["52.218.0.0/17"])));
    assert_eq!(judgement.decision, Decision::HoldAll(Whose::Fetched));
    assert_eq!(v4(&judgement), FOUR);
    // Without a new document the last known good decides.
    let mut host = Host::new();
    host.pass(Fetch::Unchanged);
    host.selector.regions.push(Region::from("eu-west-1"));
    assert_eq!(v4(&host.pass(Fetch::Unchanged)).len(), 5);
}
