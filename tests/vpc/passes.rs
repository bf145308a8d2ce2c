//! Single passes: first installation, no change, changes, conflicts.

use std::net::IpAddr;

use cloud::{NewList, Owner, Way};
use ipnet::IpNet;
use trailblazer::reconcile::Outcome;
use trailblazer::vpc::flush::flush;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const VGW: &str = "vgw-0aaaaaaaaaaaaaaa1";

#[test]
fn first_pass_leads_storage_to_the_target_and_the_second_writes_nothing() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(
        TOKEN,
        &["52.216.0.0/15", "54.231.0.0/16", "2600:1fa0::/40"],
    ));
    let report = run(writer.dry_run());
    assert_eq!(report.outcome, Outcome::Pending, "{report:?}");
    assert_eq!(report.exit_code(), 2);
    assert_eq!(cloud.writes(), 0);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    for (address, target) in [
        ("52.217.1.1", IGW),
        ("54.231.200.1", IGW),
        ("8.8.8.8", NAT),
        ("2600:1fa0:1::1", EIGW),
    ] {
        let way = cloud.target_of(TABLE, address.parse::<IpAddr>().unwrap());
        assert_eq!(way, Way::Target(target.to_owned()), "{address}");
    }
    cloud.clear_calls();
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    assert_eq!((report.exit_code(), cloud.writes()), (0, 0));
    let mut stranger = Writer::new(&cloud, "");
    stranger.publish(&document(
        TOKEN,
        &["52.216.0.0/15", "54.231.0.0/16", "2600:1fa0::/40"],
    ));
    let report = run(stranger.pass());
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    assert_eq!(cloud.writes(), 0);
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn storage_of_all_regions_takes_seven_changes_of_lists_and_nine_reads_in_sync() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "quota = 1000\n");
    writer.publish(&document_of(TOKEN, &many(175, 451)));
    cloud.configure(|settings| settings.routes_per_table = 1000);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    let changes = cloud.calls().into_iter().filter(|call| call.mutating);
    let (routes, lists): (Vec<_>, Vec<_>) = changes.partition(|call| call.action == "CreateRoute");
    assert_eq!((lists.len(), routes.len()), (7, 2), "{lists:?}");
    cloud.clear_calls();
    let mut stranger = Writer::new(&cloud, "quota = 1000\n");
    stranger.publish(&document_of(TOKEN, &many(175, 451)));
    let report = run(stranger.pass());
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    assert_eq!((cloud.reads(), cloud.writes()), (9, 0));
    cloud.clear_calls();
    let report = run(stranger.pass());
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    // An agent knows the entries of each version.
    assert_eq!((cloud.reads(), cloud.writes()), (2, 0));
}

#[test]
fn changed_document_loses_no_common_address_between_calls() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    let old = many(120, 20);
    writer.publish(&document_of(TOKEN, &old));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    // 60 go, 110 come.
    let all = many(230, 40);
    let new: Vec<IpNet> = all
        .iter()
        .filter(|it| !old[..60].contains(it))
        .copied()
        .collect();
    let common: Vec<IpNet> = old.iter().filter(|it| new.contains(it)).copied().collect();
    for prefix in &common {
        let target = if matches!(prefix, IpNet::V4(_)) {
            IGW
        } else {
            EIGW
        };
        cloud.watch(TABLE, [prefix.addr()], target);
    }
    writer.publish(&document_of(TOKEN + 1, &new));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert!(cloud.strayed().is_empty(), "{:?}", cloud.strayed());
    let list = list(&cloud, "ipv4").unwrap();
    let v4 = new.iter().filter(|it| matches!(it, IpNet::V4(_))).copied();
    assert_eq!(cloud.prefixes(&list), v4.collect());
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn older_document_changes_nothing() {
    let cloud = vpc();
    let mut fast = Writer::new(&cloud, "");
    fast.publish(&document(TOKEN + 60, &["52.216.0.0/15", "54.231.0.0/16"]));
    assert_eq!(run(fast.pass()).outcome, Outcome::Changed);
    cloud.clear_calls();
    let mut slow = Writer::new(&cloud, "");
    slow.publish(&document(TOKEN, &["52.216.0.0/15", "3.5.0.0/19"]));
    let report = run(slow.pass());
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert_eq!((report.exit_code(), cloud.writes()), (3, 0));
    assert!(
        report.holds[0].contains("stale mirror"),
        "{:?}",
        report.holds
    );
}

/// A newer document that changes no entry counts too: a stale mirror must not go behind it.
#[test]
fn document_without_changes_marks_the_list_against_older_ones() {
    let cloud = vpc();
    let mut fast = Writer::new(&cloud, "");
    let prefixes = ["52.216.0.0/15", "54.231.0.0/16"];
    for token in [TOKEN, TOKEN + 60] {
        fast.publish(&document(token, &prefixes));
        assert_eq!(run(fast.pass()).outcome, Outcome::Changed);
    }
    cloud.clear_calls();
    assert_eq!(run(fast.pass()).outcome, Outcome::InSync);
    let mut slow = Writer::new(&cloud, "");
    slow.publish(&document(TOKEN + 30, &["52.216.0.0/15", "3.5.0.0/19"]));
    let report = run(slow.pass());
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert_eq!(cloud.writes(), 0);
}

/// Two writers created a list each; the next pass of any of them leaves one, with both in the way.
#[test]
fn spare_list_of_another_writer_goes_once_the_chosen_one_is_whole() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    let prefixes = ["52.216.0.0/15", "54.231.0.0/16"];
    writer.publish(&document(TOKEN, &prefixes));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    // An id before each of the double's own.
    let other = "pl-00000000000000001";
    cloud.add_list(&NewList {
        id: other,
        name: "trailblazer-s3-ipv4",
        family: cloud::Family::Ipv4,
        owner: Owner::Caller,
        max_entries: 10,
        prefixes: vec!["52.216.0.0/15".parse().unwrap()],
    });
    cloud.set_tag(other, "trailblazer:owner", "trailblazer-s3");
    cloud.set_route(TABLE, other, IGW);
    let watched = ["52.217.1.1", "54.231.1.1"].map(|it| it.parse::<IpAddr>().unwrap());
    cloud.watch(TABLE, watched, IGW);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert_eq!(list(&cloud, "ipv4").as_deref(), Some(other));
    assert_eq!(cloud.prefixes(other).len(), 2);
    assert!(cloud.strayed().is_empty(), "{:?}", cloud.strayed());
    let routes = cloud.routes(TABLE);
    assert_eq!(
        routes
            .iter()
            .filter(|(to, _)| to.starts_with("pl-"))
            .count(),
        1
    );
    cloud.clear_calls();
    assert_eq!(run(writer.pass()).outcome, Outcome::InSync);
    assert_eq!((cloud.writes(), cloud.violations().len()), (0, 0));
}

#[test]
fn lists_of_others_are_never_touched() {
    for (owner, word) in [
        (Owner::Caller, "no tag"),
        (
            Owner::Other("999999999999".to_owned()),
            "belongs to account 999999999999",
        ),
        (Owner::Resolver, "IPAM"),
    ] {
        let cloud = vpc();
        cloud.add_list(&NewList {
            id: "pl-0bbbbbbbbbbbbbbb1",
            name: "trailblazer-s3-ipv4",
            family: cloud::Family::Ipv4,
            owner,
            max_entries: 10,
            prefixes: vec!["198.51.100.0/24".parse().unwrap()],
        });
        let mut writer = Writer::new(&cloud, "");
        writer.publish(&document(TOKEN, &["52.216.0.0/15", "2600:1fa0::/40"]));
        let report = run(writer.pass());
        assert_eq!(
            (report.outcome, report.exit_code()),
            (Outcome::Failed, 1),
            "{report:?}"
        );
        let error = report.error.unwrap();
        assert!(error.contains(word), "{error}");
        assert_eq!(cloud.versions("pl-0bbbbbbbbbbbbbbb1").len(), 1);
        // The other family is in force.
        assert!(list(&cloud, "ipv6").is_some());
    }
}

#[test]
fn overlapping_list_of_another_target_is_a_conflict() {
    let cloud = vpc();
    cloud.add_list(&NewList {
        id: "pl-0ccccccccccccccc1",
        name: "com.amazonaws.us-east-1.s3",
        family: cloud::Family::Ipv4,
        owner: Owner::Aws,
        max_entries: 1,
        prefixes: vec!["52.216.0.0/16".parse().unwrap()],
    });
    cloud.set_route(TABLE, "pl-0ccccccccccccccc1", NAT);
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15"]));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    let error = report.error.unwrap();
    assert!(error.contains("at random"), "{error}");
    let ours = list(&cloud, "ipv4").unwrap();
    assert!(
        !cloud
            .routes(TABLE)
            .iter()
            .any(|(destination, _)| *destination == ours)
    );
}

#[test]
fn table_without_room_is_held_with_the_arithmetic() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "quota = 50\n");
    writer.publish(&document_of(TOKEN, &many(60, 0)));
    let report = run(writer.pass());
    assert_eq!(
        (report.outcome, report.exit_code()),
        (Outcome::Held, 3),
        "{report:?}"
    );
    assert!(
        report.holds[0].contains("2 routes + 60 of our list = 62")
            || report.holds[0].contains("= "),
        "{:?}",
        report.holds
    );
    assert!(
        !cloud
            .routes(TABLE)
            .iter()
            .any(|(destination, _)| destination.starts_with("pl-"))
    );
}

#[test]
fn edited_list_is_named_and_mended_or_held() {
    for (drift, outcome) in [("mend", Outcome::Changed), ("hold", Outcome::Held)] {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, &format!("drift = \"{drift}\"\n"));
        writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        let ours = list(&cloud, "ipv4").unwrap();
        let (gone, new) = (
            "54.231.0.0/16".parse().unwrap(),
            "198.51.100.0/24".parse().unwrap(),
        );
        cloud.edit_list(&ours, &[new], &[gone]);
        let report = run(writer.pass());
        assert_eq!(report.outcome, outcome, "{report:?}");
        let words = report.drift[0].to_string();
        assert!(
            words.contains("+198.51.100.0/24") && words.contains("-54.231.0.0/16"),
            "{words}"
        );
        assert_eq!(
            cloud.prefixes(&ours).contains(&gone),
            outcome == Outcome::Changed
        );
        // A hold lasts.
        let report = run(writer.pass());
        let lasting = match outcome {
            Outcome::Held => Outcome::Held,
            _ => Outcome::InSync,
        };
        assert_eq!(report.outcome, lasting, "{report:?}");
    }
}

#[test]
fn missing_target_is_named_and_a_detached_one_degrades() {
    let cloud = vpc();
    cloud.remove_target(IGW);
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "2600:1fa0::/40"]));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(report.error.as_ref().unwrap().contains(IGW), "{report:?}");
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "2600:1fa0::/40"]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.detach(IGW);
    let report = run(writer.pass());
    assert_eq!(report.exit_code(), 1, "{report:?}");
    assert!(
        report.degraded[0].reason.contains("gone or detached"),
        "{report:?}"
    );
}

/// A deleted or led away route, and a deleted list: in the history with the table and the repair.
#[test]
fn deleted_and_led_away_routes_are_drift() {
    for mode in ["", "mode = \"routes\"\n"] {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, mode);
        writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        let report = run(writer.pass());
        assert_eq!((report.outcome, report.drift.len()), (Outcome::InSync, 0));
        let ours = list(&cloud, "ipv4").unwrap_or("54.231.0.0/16".to_owned());
        for (edit, words) in [
            (None, "has deleted the route of"),
            (Some(NAT), "to nat-0aaaaaaaaaaaaaaa1 in place of"),
        ] {
            match edit {
                None => cloud.drop_route(TABLE, &ours),
                Some(target) => cloud.set_route(TABLE, &ours, target),
            }
            let report = run(writer.pass());
            assert_eq!(report.outcome, Outcome::Changed, "{mode}: {report:?}");
            let [drift] = &report.drift[..] else {
                panic!("{mode}: {report:?}");
            };
            let text = drift.to_string();
            for part in [words, TABLE, &ours, IGW] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        // Another target in the settings is no drift.
        cloud.set_target(
            VGW,
            cloud::Target::attached(cloud::Kind::VirtualGateway, VPC),
        );
        writer.config.vpc_plane.target.ipv4 = Some(VGW.to_owned());
        let report = run(writer.pass());
        assert_eq!(
            (report.outcome, report.drift.len()),
            (Outcome::Changed, 0),
            "{mode}"
        );
    }
}

#[test]
fn deleted_list_is_drift_and_a_flushed_one_is_not() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15"]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let ec2 = writer.ec2();
    assert!(run(flush(&ec2, &writer.config, false)).error.is_none());
    let report = run(writer.pass());
    assert_eq!((report.outcome, report.drift.len()), (Outcome::Changed, 0));
    // By another hand.
    let ours = list(&cloud, "ipv4").unwrap();
    let elsewhere = Writer::new(&cloud, "");
    let flushed = run(flush(&elsewhere.ec2(), &elsewhere.config, false));
    assert!(flushed.error.is_none());
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    let text = report.drift[0].to_string();
    assert!(
        text.contains(&format!("deleted prefix list {ours}")),
        "{text}"
    );
}
