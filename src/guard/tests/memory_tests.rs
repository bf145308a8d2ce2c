//! The guard's memory: holds, hold-downs, and damaged state.

use super::*;

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
