//! Several tables, and the removal of our objects.

use cloud::{Cloud, Family, Kind, NewList, Owner, Target, Way};
use trailblazer::reconcile::Outcome;
use trailblazer::vpc::flush::{Flushed, flush};

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const SECOND: &str = "rtb-0aaaaaaaaaaaaaaa2";
const FOREIGN: &str = "rtb-0aaaaaaaaaaaaaaa3";
const OTHER_VPC: &str = "vpc-0aaaaaaaaaaaaaaa2";

/// A VPC with a second table, and one that no setting names.
fn three_tables() -> Cloud {
    let cloud = vpc();
    for table in [SECOND, FOREIGN] {
        cloud.add_table(table, VPC);
        cloud.set_route(table, "0.0.0.0/0", NAT);
    }
    cloud
}

/// A writer whose settings name other tables.
fn writer(cloud: &Cloud, tables: &str) -> Writer {
    let mut writer = Writer::new(cloud, "");
    let path = writer.directory.path().display();
    let text = format!(
        "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
         [guard]\nhold_down = \"0s\"\n[vpc_plane]\nregion = \"{REGION}\"\ntables = [{tables}]\n\
         floor = 1\ntarget.ipv4 = \"{IGW}\"\n"
    );
    let config = trailblazer::config::parse(&text, "test").unwrap_or_else(|e| panic!("{e}"));
    let region = trailblazer::types::Region::from(REGION);
    writer.config = trailblazer::vpc::session::resolved(&config, &region);
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
    writer
}

fn way(cloud: &Cloud, table: &str) -> Way {
    cloud.target_of(table, "52.217.1.1".parse().unwrap())
}

fn to(target: &str) -> Way {
    Way::Target(target.to_owned())
}

#[test]
fn tables_by_id_and_by_tag_share_one_list_and_no_other_table_changes() {
    let cloud = three_tables();
    cloud.set_tag(SECOND, "trailblazer", "bypass");
    let mut writer = writer(&cloud, &format!("\"{TABLE}\", \"tag:trailblazer=bypass\""));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_eq!(way(&cloud, TABLE), to(IGW));
    assert_eq!(way(&cloud, SECOND), to(IGW));
    assert_eq!(way(&cloud, FOREIGN), to(NAT));
    assert!(list(&cloud, "ipv4").is_some());
}

#[test]
fn missing_table_and_unused_tag_are_named_and_change_nothing() {
    for (tables, word) in [
        ("\"rtb-0aaaaaaaaaaaaaaa9\"", "rtb-0aaaaaaaaaaaaaaa9"),
        ("\"tag:trailblazer=bypass\"", "trailblazer=bypass"),
    ] {
        let cloud = three_tables();
        let mut writer = writer(&cloud, tables);
        let report = run(writer.pass());
        assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
        let error = report.error.unwrap();
        assert!(error.contains(word), "{error}");
        assert_eq!(cloud.writes(), 0);
    }
}

#[test]
fn table_of_another_vpc_fails_alone_and_the_first_one_gets_its_route() {
    let cloud = vpc();
    cloud.add_vpc(OTHER_VPC, &["10.1.0.0/16"]);
    cloud.add_table(SECOND, OTHER_VPC);
    let mut writer = writer(&cloud, &format!("\"{SECOND}\", \"{TABLE}\""));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert_eq!(way(&cloud, TABLE), to(IGW));
    assert_eq!(way(&cloud, SECOND), Way::None);
    let error = report.error.unwrap();
    assert!(
        error.contains("CreateRoute") && error.contains(IGW),
        "{error}"
    );
    cloud.set_target(
        IGW,
        Target {
            vpcs: vec![VPC.to_owned(), OTHER_VPC.to_owned()],
            ..Target::attached(Kind::InternetGateway, VPC)
        },
    );
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    assert_eq!(way(&cloud, SECOND), to(IGW));
}

fn flushed(writer: &Writer, dry_run: bool) -> Result<Flushed, String> {
    let ec2 = writer.ec2();
    let mut flushed = run(flush(&ec2, &writer.config, dry_run));
    match flushed.error.take() {
        Some(error) => Err(error.to_string()),
        None => Ok(flushed),
    }
}

#[test]
fn flush_deletes_routes_before_the_list() {
    let cloud = three_tables();
    let mut writer = writer(&cloud, &format!("\"{TABLE}\", \"{SECOND}\""));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.clear_calls();
    let planned = flushed(&writer, true).unwrap();
    assert_eq!((planned.steps.len(), cloud.writes()), (3, 0));
    assert_eq!(flushed(&writer, false).unwrap().done, 3);
    let calls = cloud.calls().into_iter().filter(|call| call.mutating);
    let actions: Vec<String> = calls.map(|call| call.action).collect();
    assert_eq!(
        actions,
        ["DeleteRoute", "DeleteRoute", "DeleteManagedPrefixList"]
    );
    assert_eq!(list(&cloud, "ipv4"), None);
    assert_eq!(way(&cloud, TABLE), to(NAT));
    assert!(flushed(&writer, false).unwrap().steps.is_empty());
}

#[test]
fn flush_names_the_table_of_somebody_else_that_keeps_the_list() {
    let cloud = three_tables();
    let mut writer = writer(&cloud, &format!("\"{TABLE}\""));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let ours = list(&cloud, "ipv4").unwrap();
    cloud.set_route(FOREIGN, &ours, IGW);
    let error = flushed(&writer, false).unwrap_err();
    assert!(error.contains(FOREIGN), "{error}");
    assert_eq!(list(&cloud, "ipv4"), Some(ours));
    assert_eq!(way(&cloud, FOREIGN), to(IGW));
}

#[test]
fn flush_keeps_the_list_of_a_route_that_stays() {
    let cloud = vpc();
    let mut writer = writer(&cloud, &format!("\"{TABLE}\""));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.configure(|settings| {
        settings.denied.insert("DeleteRoute".to_owned());
    });
    cloud.clear_calls();
    let error = flushed(&writer, false).unwrap_err();
    assert!(error.contains("ec2:DeleteRoute is missing"), "{error}");
    let mut actions = cloud.calls().into_iter().map(|call| call.action);
    assert!(!actions.any(|action| action == "DeleteManagedPrefixList"));
    assert_eq!(way(&cloud, TABLE), to(IGW));
}

#[test]
fn list_of_the_settings_outlives_a_flush() {
    let cloud = vpc();
    let ours = "pl-0bbbbbbbbbbbbbbb1";
    cloud.add_list(&NewList {
        id: ours,
        name: "made-by-terraform",
        family: Family::Ipv4,
        owner: Owner::Caller,
        max_entries: 10,
        prefixes: vec!["52.216.0.0/15".parse().unwrap()],
    });
    cloud.set_tag(ours, "trailblazer:owner", "trailblazer-s3");
    let mut writer = writer(&cloud, &format!("\"{TABLE}\""));
    writer.config.vpc_plane.lists = vec![ours.to_owned()];
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_eq!(way(&cloud, TABLE), to(IGW));
    let flushed = flushed(&writer, false).unwrap();
    assert!(flushed.left[0].contains("stays"), "{flushed:?}");
    assert_eq!(way(&cloud, TABLE), to(NAT));
    assert_eq!(cloud.prefixes(ours).len(), 2);
}

/// A writer acts before each call of a flush: it may put the list back, and nothing is half done.
#[test]
fn flush_beside_a_running_writer_leaves_all_or_nothing() {
    for index in 0..12 {
        let cloud = vpc();
        let mut first = writer(&cloud, &format!("\"{TABLE}\""));
        assert_eq!(run(first.pass()).outcome, Outcome::Changed);
        let start = cloud.next_call() + index;
        let mut second = writer(&cloud, &format!("\"{TABLE}\""));
        cloud.before_call(move |_, call, _| {
            if call == start {
                std::thread::scope(|scope| scope.spawn(|| run(second.pass())).join().unwrap());
            }
        });
        let result = flushed(&first, false);
        let ways = [to(IGW), to(NAT)];
        assert!(ways.contains(&way(&cloud, TABLE)), "{index}: {result:?}");
        cloud.before_call(|_, _, _| {});
        let mut third = writer(&cloud, &format!("\"{TABLE}\""));
        let report = run(third.pass());
        let is_good = matches!(report.outcome, Outcome::Changed | Outcome::InSync);
        assert!(is_good, "{index}: {result:?} then {report:?}");
        assert_eq!(way(&cloud, TABLE), to(IGW), "{index}");
        assert!(list(&cloud, "ipv4").is_some());
        assert_eq!(cloud.violations(), Vec::<String>::new());
    }
}
