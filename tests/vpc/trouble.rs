//! Trouble of a pass that is alone: throttling, changes in progress, quotas, lagging reads.

use std::time::Duration;

use cloud::{Buckets, Cloud, Fault, Wrong};
use ipnet::IpNet;
use trailblazer::reconcile::Outcome;
use trailblazer::types::Region;
use trailblazer::vpc::ec2::{Backoff, Ec2, Ec2Settings};
use trailblazer::vpc::pass::pass;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const OTHER: &str = "rtb-0aaaaaaaaaaaaaaa2";

/// A VPC with a list under the first document, and a writer with the second one; the addresses of both
/// are watched.
fn between(old: &[IpNet], new: &[IpNet]) -> (Cloud, Writer) {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document_of(TOKEN, old));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let common: Vec<IpNet> = old.iter().filter(|it| new.contains(it)).copied().collect();
    cloud.watch(TABLE, addresses(&common), IGW);
    writer.publish(&document_of(TOKEN + 1, new));
    (cloud, writer)
}

fn assert_in_force(cloud: &Cloud, wanted: &[IpNet]) {
    let ours = list(cloud, "ipv4").unwrap();
    assert_eq!(cloud.prefixes(&ours), wanted.iter().copied().collect());
    assert!(cloud.strayed().is_empty(), "{:?}", cloud.strayed());
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn throttling_beyond_the_deadline_loses_nothing_and_the_next_pass_converges() {
    let all = many(150, 0);
    let (cloud, mut writer) = between(&all[..100], &all[50..]);
    // The clock of the double stands still, so that its buckets stay empty.
    cloud.set_time(Duration::from_secs(1));
    cloud.configure(|settings| {
        settings.buckets = Some(Buckets {
            read: (100.0, 0.0),
            unfiltered: (100.0, 0.0),
            write: (0.0, 0.0),
        });
    });
    let mut settings = Ec2Settings::new(Region::from(REGION));
    settings.total = Duration::from_secs(2);
    settings.retries = u32::MAX;
    settings.backoff = Backoff {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(20),
    };
    settings.changes_per_second = 1000.0;
    let ec2 = Ec2::over(InProcess(cloud.clone()), &settings);
    let report = run(pass(
        &ec2,
        &writer.config,
        &writer.options,
        &mut writer.memory,
    ));
    assert_eq!(
        (report.outcome, report.exit_code()),
        (Outcome::Failed, 1),
        "{report:?}"
    );
    let error = report.error.as_ref().unwrap();
    assert!(error.contains("RequestLimitExceeded"), "{error}");
    assert!(report.sent.throttled > 1, "{report:?}");
    assert_in_force(&cloud, &all[..100]);
    cloud.configure(|settings| settings.buckets = None);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_in_force(&cloud, &all[50..]);
}

#[test]
fn own_bucket_spreads_changes_and_ends_with_the_deadline() {
    let all = many(350, 0);
    let (cloud, mut writer) = between(&all[..1], &all);
    let mut settings = Ec2Settings::new(Region::from(REGION));
    settings.total = Duration::from_secs(20);
    settings.changes_per_second = 0.01;
    settings.burst = 2;
    let ec2 = Ec2::over(InProcess(cloud.clone()), &settings);
    let before = cloud.writes();
    let report = run(pass(
        &ec2,
        &writer.config,
        &writer.options,
        &mut writer.memory,
    ));
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    let error = report.error.as_ref().unwrap();
    assert!(error.contains("the next pass continues"), "{error}");
    assert_eq!(cloud.writes() - before, 2);
    assert!(cloud.strayed().is_empty());
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_in_force(&cloud, &all);
}

#[test]
fn changes_in_progress_are_waited_for() {
    for progress_reads in 1..=6 {
        let all = many(260, 0);
        let (cloud, mut writer) = between(&all[..130], &all[20..]);
        cloud.configure(|settings| settings.progress_reads = progress_reads);
        let report = run(writer.pass());
        assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
        assert_in_force(&cloud, &all[20..]);
    }
}

#[test]
fn full_table_of_somebody_else_fails_the_resize_by_name_and_changes_nothing() {
    let all = many(40, 0);
    let (cloud, mut writer) = between(&all[..10], &all[5..]);
    let ours = list(&cloud, "ipv4").unwrap();
    // Another table, outside of the settings, leads our list too and has no room for a larger one.
    cloud.add_table(OTHER, VPC);
    cloud.set_route(OTHER, &ours, IGW);
    for prefix in many(480, 0) {
        let IpNet::V4(prefix) = prefix else { continue };
        let [_, second, third, _] = prefix.addr().octets();
        cloud.set_route(OTHER, &format!("60.{second}.{third}.0/24"), NAT);
    }
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    let error = report.error.as_ref().unwrap();
    assert!(
        error.contains(OTHER) && error.contains("maximum size"),
        "{error}"
    );
    assert_in_force(&cloud, &all[..10]);
    cloud.drop_route(OTHER, &ours);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_in_force(&cloud, &all[5..]);
}

#[test]
fn own_table_without_room_for_a_larger_list_is_held_with_the_entries_as_they_are() {
    let all = many(60, 0);
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "quota = 50\n");
    writer.publish(&document_of(TOKEN, &all[..30]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.watch(TABLE, addresses(&all[..30]), IGW);
    writer.publish(&document_of(TOKEN + 1, &all));
    let report = run(writer.pass());
    assert_eq!(
        (report.outcome, report.exit_code()),
        (Outcome::Held, 3),
        "{report:?}"
    );
    assert!(report.holds[0].contains("quota of 50"), "{report:?}");
    assert_in_force(&cloud, &all[..30]);
}

/// EC2 took the creation, the answers were lost, and readings lag: the same client token finds the list.
#[test]
fn creation_without_an_answer_makes_no_second_list() {
    for lag in 0..=5 {
        let cloud = vpc();
        cloud.configure(|settings| settings.lag = lag);
        let mut writer = Writer::new(&cloud, "");
        let all = many(150, 0);
        writer.publish(&document_of(TOKEN, &all));
        // The reads of the first plan, then the creation and its repetitions.
        let first = cloud.next_call() + 2;
        for index in first..first + 4 {
            cloud.fail(index, Fault::after(Wrong::Dropped));
        }
        let report = run(writer.pass());
        let calls = cloud.calls();
        let creations = calls
            .iter()
            .filter(|it| it.action == "CreateManagedPrefixList");
        assert!(creations.count() >= 4, "lag {lag}: {calls:?}");
        assert_eq!(report.outcome, Outcome::Changed, "lag {lag}: {report:?}");
        assert_in_force(&cloud, &all);
    }
}

#[test]
fn reads_that_lag_behind_make_no_second_list() {
    for lag in 1..=5 {
        for progress_reads in [0, 2] {
            let cloud = vpc();
            cloud.configure(|settings| {
                settings.lag = lag;
                settings.progress_reads = progress_reads;
            });
            let mut writer = Writer::new(&cloud, "");
            let all = many(150, 0);
            writer.publish(&document_of(TOKEN, &all));
            let report = run(writer.pass());
            assert_eq!(report.outcome, Outcome::Changed, "lag {lag}: {report:?}");
            assert_in_force(&cloud, &all);
            writer.publish(&document_of(TOKEN + 1, &all[20..]));
            let report = run(writer.pass());
            assert_eq!(report.outcome, Outcome::Changed, "lag {lag}: {report:?}");
            assert_in_force(&cloud, &all[20..]);
        }
    }
}

/// A part that the guard misses is missing before and after the changes.
#[test]
fn service_without_prefixes_is_missing_in_the_pass_that_changes_lists_too() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "[select]\nservices = [\"S3\", \"S33\"]\n");
    writer.publish(&document_of(TOKEN, &many(10, 10)));
    for outcome in [Outcome::Changed, Outcome::InSync] {
        let report = run(writer.pass());
        assert_eq!((report.outcome, report.exit_code()), (outcome, 1));
        let mut missing = report.degraded.iter();
        let named = missing.any(|it| it.reason.contains("S33"));
        assert!(named, "{outcome:?}: {:?}", report.degraded);
    }
}
