//! The records by which a test proves that no address left its way.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::world::{IGW, TABLE, account, id, list, ok};

/// A writer that removes before it adds is seen, by the versions and by the watch.
#[test]
fn a_removal_before_an_addition_is_seen_in_versions_and_by_the_watch() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24", "198.51.100.0/24"]);
    cloud.set_route(TABLE, &list, IGW);
    cloud.watch(TABLE, ["192.0.2.1".parse().unwrap()], IGW);
    let modify = |version: &str, change: &str| {
        let version = format!("CurrentVersion={version}");
        ok(
            &cloud,
            "ModifyManagedPrefixList",
            &[&id(&list), &version, change],
        );
    };
    modify("1", "RemoveEntry.1.Cidr=198.51.100.0/24");
    let keep: BTreeSet<IpNet> = ["192.0.2.0/24".parse().unwrap()].into();
    assert!(cloud.lost(&list, 1, &keep).is_empty());
    assert!(cloud.strayed().is_empty());
    modify("2", "RemoveEntry.1.Cidr=192.0.2.0/24");
    modify("3", "AddEntry.1.Cidr=192.0.2.0/24");
    assert_eq!(
        cloud.lost(&list, 1, &keep),
        [(3, "192.0.2.0/24".parse().unwrap())]
    );
    let strayed = cloud.strayed();
    assert!(!strayed.is_empty());
    assert!(strayed.iter().all(|stray| stray.calls == 3), "{strayed:?}");
    let numbers: Vec<i64> = cloud.versions(&list).iter().map(|v| v.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

/// EC2 keeps a number of versions; the record keeps all.
#[test]
fn old_versions_go_and_stay_in_the_record() {
    let cloud = account();
    cloud.configure(|settings| settings.versions = 2);
    let list = list(&cloud, 10, &[]);
    for (version, prefix) in [(1, "10.1.0.0/16"), (2, "10.2.0.0/16"), (3, "10.3.0.0/16")] {
        let version = format!("CurrentVersion={version}");
        let change = format!("AddEntry.1.Cidr={prefix}");
        ok(
            &cloud,
            "ModifyManagedPrefixList",
            &[&id(&list), &version, &change],
        );
    }
    let gone = ["TargetVersion=2", &id(&list)];
    let gone = crate::world::code(&cloud, "GetManagedPrefixListEntries", &gone);
    assert_eq!(gone, "InvalidParameterValue");
    assert_eq!(cloud.versions(&list).len(), 4);
}
