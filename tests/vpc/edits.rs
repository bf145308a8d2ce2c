//! Edits of another hand at each point of a pass: noticed at once, named, and repaired.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud::{Cloud, Fault, Wrong};
use ipnet::IpNet;
use trailblazer::config::{AutoOr, DriftUse};
use trailblazer::reconcile::Outcome;
use trailblazer::vpc::look::PassMemory;
use trailblazer::vpc::report::VpcReport;

use crate::schedule::{Paced, Stop};
use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const LOST: &str = "52.0.10.0/24";
const FOREIGN: &str = "198.51.100.0/24";

/// An edit in the console.
#[derive(Debug, Clone, Copy)]
enum Edit {
    EntryGone,
    EntryAdded,
    RouteGone,
    RouteLedAway,
}

const EDITS: [Edit; 4] = [
    Edit::EntryGone,
    Edit::EntryAdded,
    Edit::RouteGone,
    Edit::RouteLedAway,
];

impl Edit {
    fn make(self, cloud: &Cloud, ours: &str) {
        let (lost, foreign) = (LOST.parse().unwrap(), FOREIGN.parse().unwrap());
        match self {
            Edit::EntryGone => cloud.edit_list(ours, &[], &[lost]),
            Edit::EntryAdded => cloud.edit_list(ours, &[foreign], &[]),
            Edit::RouteGone => cloud.drop_route(TABLE, ours),
            Edit::RouteLedAway => cloud.set_route(TABLE, ours, NAT),
        }
    }

    /// The word for the edit in a message.
    fn word(self) -> &'static str {
        match self {
            Edit::EntryGone => LOST,
            Edit::EntryAdded => FOREIGN,
            Edit::RouteGone | Edit::RouteLedAway => TABLE,
        }
    }
}

/// A VPC under a first document, and a writer with a second one. The time for lagging readings is
/// longer than any test.
fn between() -> (Cloud, Writer, Vec<IpNet>) {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.memory.waits.visible_after = Duration::from_secs(3600);
    let all = many(60, 0);
    writer.publish(&document_of(TOKEN, &all[..50]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    writer.publish(&document_of(TOKEN + 1, &all[3..]));
    cloud.clear_calls();
    (cloud, writer, all[3..].to_vec())
}

/// A pass that must not wait for its time limits.
#[track_caller]
fn pass_in_time(writer: &mut Writer, place: &str) -> VpcReport {
    let report = run(async {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, writer.pass()).await
    });
    report.unwrap_or_else(|_elapsed| panic!("{place}: the pass waits"))
}

#[track_caller]
fn assert_whole(cloud: &Cloud, wanted: &[IpNet], place: &str) {
    let ours = list(cloud, "ipv4").unwrap();
    assert_eq!(
        cloud.prefixes(&ours),
        wanted.iter().copied().collect(),
        "{place}"
    );
    let routes = cloud.routes(TABLE);
    assert!(
        routes.contains(&(ours, IGW.to_owned())),
        "{place}: {routes:?}"
    );
    assert_eq!(cloud.violations(), Vec::<String>::new(), "{place}");
}

#[test]
fn edit_before_any_call_of_a_pass_is_noticed_and_repaired() {
    let (cloud, mut writer, _) = between();
    let first = cloud.next_call();
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let calls = cloud.next_call() - first;
    for edit in EDITS {
        for offset in 0..calls {
            let (cloud, mut writer, wanted) = between();
            let ours = list(&cloud, "ipv4").unwrap();
            let at = cloud.next_call() + offset;
            let list = ours.clone();
            cloud.before_call(move |cloud, call, _| {
                if call == at {
                    edit.make(cloud, &list);
                }
            });
            let place = format!("{edit:?} before call {offset} of {calls}");
            let report = pass_in_time(&mut writer, &place);
            assert_eq!(report.outcome, Outcome::Changed, "{place}: {report:?}");
            let report = pass_in_time(&mut writer, &place);
            assert_eq!(report.exit_code(), 0, "{place}: {report:?}");
            assert_whole(&cloud, &wanted, &place);
        }
    }
}

/// A program that undoes the changes after each of them: the pass ends after two repairs, and names the
/// edit. The next pass repairs it.
#[test]
fn program_that_undoes_each_change_ends_the_pass_with_its_edit_by_name() {
    for edit in EDITS {
        let (cloud, mut writer, wanted) = between();
        let ours = list(&cloud, "ipv4").unwrap();
        let written = Arc::new(Mutex::new(false));
        cloud.before_call(move |cloud, _, request| {
            let mut written = written.lock().unwrap();
            let is_write = ["ModifyManagedPrefixList", "CreateRoute", "ReplaceRoute"];
            if is_write.contains(&request.action.as_str()) {
                *written = true;
            } else if request.action == "DescribeRouteTables" && std::mem::take(&mut *written) {
                edit.make(cloud, &ours);
            }
        });
        let place = format!("{edit:?}");
        if matches!(edit, Edit::RouteGone | Edit::RouteLedAway) {
            // Routes have no version: the second loss of a route that no reading has shown may be a lag.
            writer.memory.waits.visible_after = Duration::from_millis(500);
        }
        let report = pass_in_time(&mut writer, &place);
        assert_eq!(report.exit_code(), 1, "{place}: {report:?}");
        let error = report.error.clone().unwrap();
        for part in ["another program", edit.word()] {
            assert!(error.contains(part), "{place}: {part}: {error}");
        }
        assert!(report.contended, "{place}");
        cloud.before_call(|_, _, _| {});
        let report = pass_in_time(&mut writer, &place);
        assert_eq!(report.outcome, Outcome::Changed, "{place}: {report:?}");
        assert_whole(&cloud, &wanted, &place);
    }
}

/// With `drift = "hold"` an edit during a pass is held too.
#[test]
fn held_edit_during_a_pass_is_held() {
    let (cloud, mut writer, wanted) = between();
    writer.config.vpc_plane.drift = DriftUse::Hold;
    let ours = list(&cloud, "ipv4").unwrap();
    let first = cloud.next_call();
    let list = ours.clone();
    let mut written = false;
    cloud.before_call(move |cloud, _, request| {
        if request.action == "ModifyManagedPrefixList" {
            written = true;
        } else if request.action == "DescribeRouteTables" && std::mem::take(&mut written) {
            Edit::EntryAdded.make(cloud, &list);
        }
    });
    let report = pass_in_time(&mut writer, "held");
    cloud.before_call(|_, _, _| {});
    assert!(cloud.next_call() > first);
    let foreign: IpNet = FOREIGN.parse().unwrap();
    for round in 0..2 {
        assert!(cloud.prefixes(&ours).contains(&foreign), "{round}");
        let report = pass_in_time(&mut writer, "held");
        assert_eq!(report.outcome, Outcome::Held, "{round}: {report:?}");
        assert!(report.holds[0].contains(FOREIGN), "{report:?}");
    }
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    cloud.edit_list(&ours, &[], &[foreign]);
    let report = pass_in_time(&mut writer, "taken back");
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_whole(&cloud, &wanted, "taken back");
}

/// Two writers that start at once make two lists, and delete one: maybe between its description and the
/// reading of its entries.
#[test]
fn list_that_goes_before_its_entries_are_read_is_a_reason_to_read_again() {
    let (cloud, mut writer, wanted) = between();
    let ours = list(&cloud, "ipv4").unwrap();
    writer.memory = PassMemory::default();
    let gone = Arc::new(Mutex::new(false));
    cloud.before_call(move |cloud, _, request| {
        let mut gone = gone.lock().unwrap();
        if request.action == "GetManagedPrefixListEntries" && !std::mem::replace(&mut *gone, true) {
            cloud.drop_list(&ours);
        }
    });
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_whole(&cloud, &wanted, "a list that has gone");
}

/// The edit stays until somebody takes it back; then the document goes in.
#[track_caller]
fn assert_held(writer: &mut Writer, wanted: &[IpNet], place: &str) {
    let cloud = writer.cloud.clone();
    let (ours, lost) = (list(&cloud, "ipv4").unwrap(), LOST.parse().unwrap());
    for round in 0..2 {
        let report = pass_in_time(writer, place);
        assert_eq!(report.outcome, Outcome::Held, "{place} {round}: {report:?}");
        assert!(report.holds[0].contains(LOST), "{place}: {report:?}");
        assert!(!report.drift.is_empty(), "{place}: {report:?}");
        assert!(!cloud.prefixes(&ours).contains(&lost), "{place} {round}");
    }
    cloud.edit_list(&ours, &[lost], &[]);
    let report = pass_in_time(writer, place);
    assert_eq!(report.outcome, Outcome::Changed, "{place}: {report:?}");
    assert_eq!(report.drift, [], "{place}");
    assert_whole(&cloud, wanted, place);
}

/// The mark of the own document explains no edit: neither in the pass that has made the mark, nor after a
/// pass that ended without a reading, nor after the death of its process.
#[test]
fn edit_after_the_mark_of_the_own_document_is_held() {
    let is_change = |action: &str| action == "ModifyManagedPrefixList";
    let hold = |writer: &mut Writer| writer.config.vpc_plane.drift = DriftUse::Hold;
    let edit = |cloud: &Cloud| Edit::EntryGone.make(cloud, &list(cloud, "ipv4").unwrap());

    let (cloud, mut writer, wanted) = between();
    hold(&mut writer);
    let mut is_edited = false;
    cloud.before_call(move |cloud, _, request| {
        if is_change(&request.action) && !std::mem::replace(&mut is_edited, true) {
            edit(cloud);
        }
    });
    let report = pass_in_time(&mut writer, "in the pass");
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert!(report.holds[0].contains(LOST), "{report:?}");
    assert_held(&mut writer, &wanted, "in the pass");

    let (cloud, mut writer, wanted) = between();
    hold(&mut writer);
    let mut fails = false;
    cloud.before_call(move |cloud, call, request| {
        fails |= is_change(&request.action);
        if fails {
            let wrong = Wrong::Code("UnauthorizedOperation".to_owned());
            let after_effect = false;
            cloud.fail(
                call,
                Fault {
                    after_effect,
                    wrong,
                },
            );
        }
    });
    let report = pass_in_time(&mut writer, "without a reading");
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    cloud.before_call(|_, _, _| {});
    edit(&cloud);
    assert_held(&mut writer, &wanted, "without a reading");

    let (cloud, mut writer, wanted) = between();
    hold(&mut writer);
    let marks = || cloud.tags(&list(&cloud, "ipv4").unwrap());
    let before = marks();
    run(async {
        let mut pass = Paced::new(&writer, &cloud, Default::default());
        while marks() == before {
            assert!(matches!(pass.go_on().await, Stop::Call));
        }
    });
    edit(&cloud);
    assert_held(&mut writer, &wanted, "after a death");
}

/// Writers of one document: the changes of the one are no edits to the other.
#[test]
fn change_of_another_writer_of_the_same_document_is_no_edit() {
    let (cloud, mut writer, wanted) = between();
    writer.config.vpc_plane.drift = DriftUse::Hold;
    let mut other = Writer::new(&cloud, "");
    let all = many(60, 0);
    other.publish(&document_of(TOKEN, &all[..50]));
    assert_eq!(run(other.pass()).outcome, Outcome::InSync);
    other.publish(&document_of(TOKEN + 1, &wanted));
    run(async {
        let ours = list(&cloud, "ipv4").unwrap();
        let before = cloud.tags(&ours);
        let mut pass = Paced::new(&writer, &cloud, Default::default());
        while cloud.tags(&ours) == before {
            assert!(matches!(pass.go_on().await, Stop::Call));
        }
        assert_eq!(other.pass().await.outcome, Outcome::Changed);
        let report = loop {
            if let Stop::End(report, _) = pass.go_on().await {
                break report;
            }
        };
        assert_eq!((report.exit_code(), &report.drift), (0, &Vec::new()));
        assert_eq!(report.holds, Vec::<String>::new());
    });
    let report = pass_in_time(&mut writer, "later");
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    assert_whole(&cloud, &wanted, "later");
}

/// The lists of another region are out of sight, which is no deletion.
#[test]
fn list_in_another_region_is_not_taken_for_a_deleted_one() {
    let (_, mut writer, _) = between();
    let elsewhere = vpc();
    writer.cloud = elsewhere.clone();
    writer.memory.entries = Default::default();
    let region = trailblazer::types::Region::from("eu-west-1");
    writer.config.vpc_plane.region = AutoOr::Set(region);
    let report = pass_in_time(&mut writer, "elsewhere");
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_eq!(report.drift, []);
    let ours = list(&elsewhere, "ipv4").unwrap();
    elsewhere.drop_route(TABLE, &ours);
    let report = pass_in_time(&mut writer, "later");
    assert_eq!((report.drift.len(), report.repaired.len()), (1, 1));
}
