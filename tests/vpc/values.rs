//! Readings of the VPC as values: lookup, quota, spare lists and foreign changes.

use std::net::IpAddr;

use cloud::{Cloud, Family, NewList, Owner, Way};
use ipnet::IpNet;
use trailblazer::reconcile::Outcome;
use trailblazer::vpc::drift::{self, Left};
use trailblazer::vpc::lookup::lookup;
use trailblazer::vpc::objects::ListVersion;
use trailblazer::vpc::observe::{EntryCache, observe};
use trailblazer::vpc::observed::ObservedPlane;
use trailblazer::vpc::quota::Usage;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const VGW: &str = "vgw-0aaaaaaaaaaaaaaa1";

fn read(cloud: &Cloud) -> ObservedPlane {
    let writer = Writer::new(cloud, "");
    let mut cache = EntryCache::default();
    run(observe(&writer.ec2(), &writer.config.vpc_plane, &mut cache)).unwrap()
}

fn add_list(
    cloud: &Cloud,
    id: &str,
    name: &str,
    owner: Owner,
    max_entries: u32,
    prefixes: &[&str],
) {
    cloud.add_list(&NewList {
        id,
        name,
        family: Family::Ipv4,
        owner,
        max_entries,
        prefixes: prefixes.iter().map(|it| it.parse().unwrap()).collect(),
    });
}

/// A table with routes of all origins, a list of AWS, one of somebody else, and ours.
fn crowded() -> Cloud {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let aws = "com.amazonaws.us-east-1.dynamodb";
    add_list(
        &cloud,
        "pl-0ccccccccccccccc1",
        aws,
        Owner::Aws,
        1,
        &["3.218.0.0/16"],
    );
    let theirs = ["52.216.0.0/15", "10.0.7.0/24", "198.51.100.0/24"];
    add_list(
        &cloud,
        "pl-0ccccccccccccccc2",
        "theirs",
        Owner::Caller,
        20,
        &theirs,
    );
    cloud.set_route(TABLE, "pl-0ccccccccccccccc1", IGW);
    cloud.set_route(TABLE, "pl-0ccccccccccccccc2", IGW);
    cloud.set_route(TABLE, "54.231.0.0/16", NAT);
    cloud.set_route(TABLE, "52.217.0.0/24", NAT);
    cloud.propagate_route(TABLE, "198.51.100.0/24", VGW);
    cloud.propagate_route(TABLE, "203.0.113.0/24", VGW);
    cloud
}

#[test]
fn lookup_agrees_with_the_router_of_the_double() {
    let cloud = crowded();
    let observed = read(&cloud);
    let table = &observed.tables[0];
    for address in [
        "52.216.1.1",
        "52.217.0.1",
        "52.217.1.1",
        "54.231.1.1",
        "3.218.1.1",
        "10.0.0.1",
        "10.0.7.1",
        "198.51.100.1",
        "203.0.113.1",
        "8.8.8.8",
        "2600:1f18:1::1",
        "2001:db8::1",
    ] {
        let address: IpAddr = address.parse().unwrap();
        let hit = lookup(table, address, &observed);
        let target = hit.as_ref().map(|hit| {
            let target = hit.route.target.as_ref();
            (target.unwrap().id.clone(), hit.drops())
        });
        let way = match target {
            None => Way::None,
            Some((target, _)) if target == "local" => Way::Local,
            Some((target, true)) => Way::Blackhole(target),
            Some((target, false)) => Way::Target(target),
        };
        assert_eq!(way, cloud.target_of(TABLE, address), "{address}: {hit:?}");
    }
    let ours = lookup(table, "52.217.1.1".parse().unwrap(), &observed).unwrap();
    assert!(ours.list.is_some(), "{ours:?}");
}

#[test]
fn usage_counts_lists_with_their_weights_and_no_propagated_route() {
    let observed = read(&crowded());
    let table = &observed.tables[0];
    let usage = Usage::of(table, trailblazer::types::Family::Ipv4, &observed);
    let weights: Vec<u32> = usage.lists.iter().map(|(_, weight)| *weight).collect();
    // The local route, the default one, and two static ones.
    assert_eq!((usage.routes, weights), (4, vec![1, 20]), "{usage:?}");
    assert_eq!((usage.total(), usage.room(30), usage.room(10)), (25, 5, 0));
    assert_eq!(
        usage.arithmetic(3),
        "4 routes + 1 of pl-0ccccccccccccccc1 + 20 of pl-0ccccccccccccccc2 + 3 of our list = 28"
    );
}

#[test]
fn longer_and_equal_static_routes_are_named_as_rivals() {
    let cloud = crowded();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
    let report = run(writer.pass());
    let reason = &report.degraded[0].reason;
    for rival in ["54.231.0.0/16", "52.217.0.0/24"] {
        assert!(reason.contains(rival), "{reason}");
    }
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn spare_lists_count_with_their_marks_unless_the_settings_name_a_list() {
    let cloud = crowded();
    let spare = "pl-ffffffffffffffff1";
    add_list(&cloud, spare, "trailblazer-s3-ipv4", Owner::Caller, 5, &[]);
    assert!(read(&cloud).spares.ipv4.is_empty(), "without our tag");
    cloud.set_tag(spare, "trailblazer:owner", "trailblazer-s3");
    cloud.set_tag(spare, "trailblazer:token:1800000000", "");
    let observed = read(&cloud);
    assert_eq!(observed.spares.ipv4[0].id.0, spare);
    let newest = observed.newest(trailblazer::types::Family::Ipv4);
    assert_eq!(newest.unwrap().0, 1_800_000_000);
    let mut writer = Writer::new(&cloud, "");
    let ours = observed.lists.ipv4.ours().unwrap().list.id.0.clone();
    writer.config.vpc_plane.lists = vec![ours];
    let mut cache = EntryCache::default();
    let plane = &writer.config.vpc_plane;
    let observed = run(observe(&writer.ec2(), plane, &mut cache)).unwrap();
    assert!(observed.spares.ipv4.is_empty());
}

#[test]
fn only_a_change_that_no_newer_document_explains_is_drift() {
    let family = trailblazer::types::Family::Ipv4;
    let cloud = crowded();
    let before = read(&cloud);
    let ours = before.lists.ipv4.ours().unwrap();
    let left = Left::of(ours, &before.tables, None).unwrap();
    assert_eq!(
        drift::of(family, Some(&left), ours, &[]),
        None,
        "nothing changed"
    );
    let added: IpNet = "198.18.0.0/15".parse().unwrap();
    cloud.edit_list(&ours.list.id.0, &[added], &[]);
    let after = read(&cloud);
    let now = after.lists.ipv4.ours().unwrap();
    let text = drift::of(family, Some(&left), now, &[])
        .unwrap()
        .to_string();
    assert!(text.contains("+198.18.0.0/15"), "{text}");
    assert_eq!(drift::of(family, None, now, &[]), None, "no memory");
    let other = Left {
        version: ListVersion(left.version.0 + 1),
        ..left.clone()
    };
    assert_eq!(
        drift::of(family, Some(&other), now, &[]),
        None,
        "no new version"
    );
    cloud.set_tag(&ours.list.id.0, "trailblazer:token:1800000000", "");
    let after = read(&cloud);
    let now = after.lists.ipv4.ours().unwrap();
    assert_eq!(
        drift::of(family, Some(&left), now, &[]),
        None,
        "a newer document"
    );
}
