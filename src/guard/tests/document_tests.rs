//! Documents by themselves: tokens, rows, prefixes.

use super::*;

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
