//! Faults, delays, throttling, credentials, and second writers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud::{Buckets, Delivery, Fault, Identity, Wrong};

use crate::world::{TABLE, account, code, id, list, ok, send, state};

#[test]
fn a_fault_before_the_effect_leaves_the_list_and_one_after_it_does_not() {
    for (fault, versions) in [
        (Fault::before(Wrong::Dropped), 1),
        (Fault::after(Wrong::Dropped), 2),
        (Fault::before(Wrong::Html(503)), 1),
        (Fault::after(Wrong::Truncated), 2),
        (Fault::after(Wrong::Unavailable), 2),
    ] {
        let cloud = account();
        let list = list(&cloud, 10, &[]);
        cloud.fail_next(fault.clone());
        let change = [
            &id(&list),
            "CurrentVersion=1",
            "AddEntry.1.Cidr=198.51.100.0/24",
        ];
        let answer = send(&cloud, "ModifyManagedPrefixList", &change);
        assert_eq!(cloud.versions(&list).len(), versions, "{fault:?}");
        match fault.wrong {
            Wrong::Dropped => assert_eq!(answer.delivery, Delivery::Dropped),
            Wrong::Html(_) => assert!(answer.body.starts_with("<html>"), "{}", answer.body),
            Wrong::Truncated => {
                assert!(!answer.body.contains("</ModifyManagedPrefixListResponse>"))
            }
            _ => assert_eq!(answer.status, 503),
        }
        assert_eq!(state(&cloud, &list).split_once('-').unwrap().1, "complete");
    }
}

#[test]
fn reads_lag_behind_writes_and_a_new_list_does_not_exist_yet() {
    let cloud = account();
    cloud.configure(|settings| settings.lag = 2);
    let list = list(&cloud, 10, &[]);
    for _ in 0..2 {
        let found = code(&cloud, "GetManagedPrefixListEntries", &[&id(&list)]);
        assert_eq!(found, "InvalidPrefixListID.NotFound");
    }
    ok(&cloud, "GetManagedPrefixListEntries", &[&id(&list)]);
    let change = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=198.51.100.0/24",
    ];
    ok(&cloud, "ModifyManagedPrefixList", &change);
    let read = || ok(&cloud, "GetManagedPrefixListEntries", &[&id(&list)]);
    let shown = [read(), read(), read()].map(|xml| xml.matches("<cidr>").count());
    assert_eq!(shown, [0, 0, 1]);
}

#[test]
fn token_buckets_empty_and_fill_by_the_clock() {
    let cloud = account();
    cloud.set_time(Duration::ZERO);
    cloud.configure(|settings| settings.buckets = Some(Buckets::default()));
    let filter = format!("RouteTableId.1={TABLE}");
    let take = |parameters: &[&str]| send(&cloud, "DescribeRouteTables", parameters).status;
    let statuses: Vec<u16> = (0..101).map(|_| take(&[&filter])).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        100
    );
    assert_eq!(take(&[&filter]), 503);
    // Another budget, half as large.
    let unfiltered: Vec<u16> = (0..51).map(|_| take(&[])).collect();
    assert_eq!(
        unfiltered.iter().filter(|status| **status == 200).count(),
        50
    );
    cloud.set_time(Duration::from_millis(100));
    assert_eq!(
        [take(&[&filter]), take(&[&filter]), take(&[&filter])],
        [200, 200, 503]
    );
}

#[test]
fn throttling_credentials_and_permissions_have_their_codes() {
    let cloud = account();
    cloud.throttle(2);
    assert_eq!(code(&cloud, "DescribeVpcs", &[]), "RequestLimitExceeded");
    assert_eq!(send(&cloud, "DescribeVpcs", &[]).status, 503);
    ok(&cloud, "DescribeVpcs", &[]);
    for (identity, wanted, status) in [
        (Identity::Expired, "RequestExpired", 400),
        (Identity::ClockBehind, "RequestExpired", 400),
        (Identity::ClockAhead, "SignatureDoesNotMatch", 403),
        (Identity::Unknown, "AuthFailure", 401),
        (Identity::OtherRegion, "OptInRequired", 401),
    ] {
        cloud.configure(|settings| settings.identity = identity);
        assert_eq!(code(&cloud, "DescribeVpcs", &[]), wanted);
        assert_eq!(send(&cloud, "DescribeVpcs", &[]).status, status);
    }
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

/// A second writer gets in between the first one's read and its write.
#[test]
fn a_second_writer_acts_before_a_call() {
    let cloud = account();
    let list = list(&cloud, 10, &[]);
    let second = id(&list);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    cloud.before_call(move |cloud, index, request| {
        log.lock().unwrap().push((index, request.action.clone()));
        if request.action == "ModifyManagedPrefixList" {
            let change = [
                &second,
                "CurrentVersion=1",
                "AddEntry.1.Cidr=203.0.113.0/24",
            ];
            ok(cloud, "ModifyManagedPrefixList", &change);
        }
    });
    let change = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=198.51.100.0/24",
    ];
    let found = code(&cloud, "ModifyManagedPrefixList", &change);
    assert_eq!(found, "PrefixListVersionMismatch");
    assert_eq!(
        *seen.lock().unwrap(),
        [(1, "ModifyManagedPrefixList".to_owned())]
    );
}

#[test]
fn elements_of_a_later_version_are_added_on_request() {
    let cloud = account();
    cloud.configure(|settings| settings.unknown_elements = true);
    let xml = ok(&cloud, "DescribeRouteTables", &[]);
    assert!(xml.contains("<laterElement>"), "{xml}");
}

/// Of writers that name the same version, one wins; no change is lost.
#[test]
fn writers_of_many_threads_meet_at_the_version() {
    let cloud = account();
    let list = list(&cloud, 200, &[]);
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (cloud, list) = (cloud.clone(), list.clone());
                scope.spawn(move || {
                    let writes = (0..25).filter(|n| {
                        let version = cloud.versions(&list).len();
                        let version = format!("CurrentVersion={version}");
                        let entry = format!("AddEntry.1.Cidr=10.{writer}.{n}.0/24");
                        let change = [&id(&list), version.as_str(), entry.as_str()];
                        send(&cloud, "ModifyManagedPrefixList", &change).status == 200
                    });
                    writes.count()
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert!(wins > 0);
    assert_eq!(cloud.prefixes(&list).len(), wins);
    assert_eq!(cloud.versions(&list).len(), wins + 1);
}
