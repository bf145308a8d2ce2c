//! Documents that lose or add too much.

use super::*;

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
