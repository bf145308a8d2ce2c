//! Prefix lists: sizes, versions, owners.

use cloud::{Family, NewList, Owner};

use crate::world::{AWS_LIST, IGW, TABLE, account, code, id, list, ok, send, state, text};

#[test]
fn a_stale_version_is_refused_and_a_change_makes_a_new_one() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24"]);
    let list_id = id(&list);
    let add = "AddEntry.1.Cidr=198.51.100.0/24";
    let missing = code(&cloud, "ModifyManagedPrefixList", &[&list_id, add]);
    assert_eq!(missing, "MissingParameter");
    let answer = ok(
        &cloud,
        "ModifyManagedPrefixList",
        &[&list_id, add, "CurrentVersion=1"],
    );
    // The answer shows the list before the change.
    assert_eq!(text(&answer, "state"), "modify-in-progress");
    assert_eq!(text(&answer, "version"), "1");
    assert_eq!(state(&cloud, &list), "modify-complete");
    let stale = [
        "CurrentVersion=1",
        "RemoveEntry.1.Cidr=192.0.2.0/24",
        &list_id,
    ];
    let stale = code(&cloud, "ModifyManagedPrefixList", &stale);
    assert_eq!(stale, "PrefixListVersionMismatch");
    assert_eq!(cloud.versions(&list).len(), 2);
    assert_eq!(cloud.prefixes(&list).len(), 2);
}

#[test]
fn entries_and_size_never_change_together() {
    let cloud = account();
    let list = list(&cloud, 10, &[]);
    let both = [
        "CurrentVersion=1",
        "AddEntry.1.Cidr=192.0.2.0/24",
        "MaxEntries=20",
        &id(&list),
    ];
    let both = code(&cloud, "ModifyManagedPrefixList", &both);
    assert_eq!(both, "InvalidParameterCombination");
    let nothing = code(&cloud, "ModifyManagedPrefixList", &[&id(&list)]);
    assert_eq!(nothing, "InvalidRequest");
    assert_eq!(cloud.violations().len(), 2);
}

#[test]
fn additions_and_removals_of_one_call_are_at_most_100_together() {
    let cloud = account();
    let prefixes: Vec<String> = (0..60).map(|n| format!("10.{n}.0.0/16")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let list = list(&cloud, 200, &prefixes);
    let mut parameters = vec![id(&list), "CurrentVersion=1".to_owned()];
    for n in 0..50 {
        parameters.push(format!("RemoveEntry.{}.Cidr=10.{n}.0.0/16", n + 1));
        parameters.push(format!("AddEntry.{}.Cidr=11.{n}.0.0/16", n + 1));
    }
    let exact: Vec<&str> = parameters.iter().map(String::as_str).collect();
    ok(&cloud, "ModifyManagedPrefixList", &exact);
    parameters[1] = "CurrentVersion=2".to_owned();
    for parameter in &mut parameters {
        *parameter = parameter
            .replace("Cidr=10.", "Cidr=12.")
            .replace("Cidr=11.", "Cidr=10.");
    }
    parameters.push("AddEntry.51.Cidr=13.0.0.0/16".to_owned());
    let over: Vec<&str> = parameters.iter().map(String::as_str).collect();
    assert_eq!(
        code(&cloud, "ModifyManagedPrefixList", &over),
        "InvalidParameterValue"
    );
}

#[test]
fn entries_are_canonical_of_one_family_and_within_the_maximum() {
    let cloud = account();
    let list = list(&cloud, 2, &["192.0.2.77/24"]);
    let only = cloud.prefixes(&list);
    assert_eq!(only, ["192.0.2.0/24".parse().unwrap()].into());
    let cases = [
        ("AddEntry.1.Cidr=2001:db8::/32", "InvalidParameterValue"),
        ("AddEntry.1.Cidr=192.0.2.0", "InvalidParameterValue"),
        (
            "AddEntry.1.Cidr=192.0.2.0/24",
            "InvalidPrefixListModification",
        ),
        (
            "RemoveEntry.1.Cidr=198.51.100.0/24",
            "InvalidPrefixListModification",
        ),
        ("MaxEntries=0", "InvalidParameterValue"),
        ("MaxEntries=1001", "InvalidParameterValue"),
    ];
    for (parameter, wanted) in cases {
        let parameters = [&id(&list), parameter, "CurrentVersion=1"];
        let found = code(&cloud, "ModifyManagedPrefixList", &parameters);
        assert_eq!(found, wanted, "{parameter}");
    }
    let over = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=198.51.100.0/24",
        "AddEntry.2.Cidr=203.0.113.0/24",
    ];
    let found = code(&cloud, "ModifyManagedPrefixList", &over);
    assert_eq!(found, "PrefixListMaxEntriesExceeded");
    let twice = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=192.0.2.0/24",
        "RemoveEntry.1.Cidr=192.0.2.0/24",
    ];
    let found = code(&cloud, "ModifyManagedPrefixList", &twice);
    assert_eq!(found, "InvalidParameterValue");
}

#[test]
fn a_size_below_the_entries_is_refused_and_a_larger_one_holds() {
    let cloud = account();
    let list = list(&cloud, 3, &["192.0.2.0/24", "198.51.100.0/24"]);
    let small = code(
        &cloud,
        "ModifyManagedPrefixList",
        &[&id(&list), "MaxEntries=1"],
    );
    assert_eq!(small, "PrefixListMaxEntriesExceeded");
    ok(
        &cloud,
        "ModifyManagedPrefixList",
        &[&id(&list), "MaxEntries=40"],
    );
    assert_eq!(cloud.max_entries(&list), Some(40));
    assert_eq!(cloud.versions(&list).len(), 1);
}

/// The size is a weight in each table with a route to the list.
#[test]
fn a_size_over_a_tables_quota_fails_with_the_table_in_the_message() {
    let cloud = account();
    let list = list(&cloud, 3, &["192.0.2.0/24"]);
    cloud.set_route(TABLE, &list, IGW);
    // The default route and the list: 1 + 3. The local route has no weight.
    cloud.configure(|settings| settings.routes_per_table = 10);
    ok(
        &cloud,
        "ModifyManagedPrefixList",
        &[&id(&list), "MaxEntries=9"],
    );
    assert_eq!(state(&cloud, &list), "modify-complete");
    ok(
        &cloud,
        "ModifyManagedPrefixList",
        &[&id(&list), "MaxEntries=10"],
    );
    let described = ok(
        &cloud,
        "DescribeManagedPrefixLists",
        &[&format!("PrefixListId.1={list}")],
    );
    assert_eq!(text(&described, "state"), "modify-failed");
    assert!(
        text(&described, "stateMessage").contains(TABLE),
        "{described}"
    );
    assert_eq!(cloud.max_entries(&list), Some(9));
}

#[test]
fn a_change_in_progress_lasts_the_set_number_of_reads_and_blocks_others() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24"]);
    cloud.configure(|settings| settings.progress_reads = 2);
    let change = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=198.51.100.0/24",
    ];
    ok(&cloud, "ModifyManagedPrefixList", &change);
    assert_eq!(
        code(&cloud, "ModifyManagedPrefixList", &change),
        "IncorrectState"
    );
    assert_eq!(state(&cloud, &list), "modify-in-progress");
    assert_eq!(cloud.prefixes(&list).len(), 1);
    assert_eq!(state(&cloud, &list), "modify-in-progress");
    assert_eq!(state(&cloud, &list), "modify-complete");
    assert_eq!(cloud.prefixes(&list).len(), 2);
}

#[test]
fn a_version_is_restored_as_a_new_version() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24"]);
    let change = [
        &id(&list),
        "CurrentVersion=1",
        "AddEntry.1.Cidr=198.51.100.0/24",
    ];
    ok(&cloud, "ModifyManagedPrefixList", &change);
    let restore = |current: &str, previous: &str| {
        let current = format!("CurrentVersion={current}");
        let previous = format!("PreviousVersion={previous}");
        send(
            &cloud,
            "RestoreManagedPrefixListVersion",
            &[&id(&list), &current, &previous],
        )
    };
    assert!(restore("1", "1").body.contains("PrefixListVersionMismatch"));
    assert!(restore("2", "2").body.contains("InvalidParameterValue"));
    assert_eq!(restore("2", "1").status, 200);
    assert_eq!(state(&cloud, &list), "restore-complete");
    assert_eq!(cloud.versions(&list).last().unwrap().number, 3);
    assert_eq!(cloud.prefixes(&list).len(), 1);
    let old = ["TargetVersion=2", &id(&list)];
    let old = ok(&cloud, "GetManagedPrefixListEntries", &old);
    assert_eq!(old.matches("<cidr>").count(), 2);
}

#[test]
fn a_list_with_references_survives_its_deletion() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24"]);
    cloud.set_route(TABLE, &list, IGW);
    ok(&cloud, "DeleteManagedPrefixList", &[&id(&list)]);
    assert_eq!(state(&cloud, &list), "delete-failed");
    let references = ok(&cloud, "GetManagedPrefixListAssociations", &[&id(&list)]);
    assert_eq!(text(&references, "resourceId"), TABLE);
    cloud.drop_route(TABLE, &list);
    ok(&cloud, "DeleteManagedPrefixList", &[&id(&list)]);
    let gone = code(&cloud, "GetManagedPrefixListEntries", &[&id(&list)]);
    assert_eq!(gone, "InvalidPrefixListID.NotFound");
}

/// A security group counts entries too, and is named like a table.
#[test]
fn resources_of_other_kinds_refer_to_a_list() {
    let cloud = account();
    let list = list(&cloud, 10, &["192.0.2.0/24"]);
    cloud.refer(&list, "sg-0aaaaaaaaaaaaaaa1", 60);
    ok(
        &cloud,
        "ModifyManagedPrefixList",
        &[&id(&list), "MaxEntries=61"],
    );
    let described = ok(
        &cloud,
        "DescribeManagedPrefixLists",
        &[&format!("PrefixListId.1={list}")],
    );
    assert!(
        text(&described, "stateMessage").contains("sg-0aaaaaaaaaaaaaaa1"),
        "{described}"
    );
    let references = ok(&cloud, "GetManagedPrefixListAssociations", &[&id(&list)]);
    assert_eq!(text(&references, "resourceId"), "sg-0aaaaaaaaaaaaaaa1");
    ok(&cloud, "DeleteManagedPrefixList", &[&id(&list)]);
    assert_eq!(state(&cloud, &list), "delete-failed");
}

#[test]
fn a_client_token_makes_one_list() {
    let cloud = account();
    let parameters = [
        "PrefixListName=a",
        "AddressFamily=IPv6",
        "MaxEntries=5",
        "ClientToken=t1",
        "TagSpecification.1.ResourceType=prefix-list",
        "TagSpecification.1.Tag.1.Key=trailblazer:owner",
        "TagSpecification.1.Tag.1.Value=me",
    ];
    let first = ok(&cloud, "CreateManagedPrefixList", &parameters);
    let again = ok(&cloud, "CreateManagedPrefixList", &parameters);
    assert_eq!(text(&first, "prefixListId"), text(&again, "prefixListId"));
    assert_eq!(cloud.lists_named("a").len(), 1);
    let tags = cloud.tags(&text(&first, "prefixListId"));
    assert_eq!(tags["trailblazer:owner"], "me");
    let other = [
        "PrefixListName=b",
        "AddressFamily=IPv6",
        "MaxEntries=5",
        "ClientToken=t1",
    ];
    let other = code(&cloud, "CreateManagedPrefixList", &other);
    assert_eq!(other, "IdempotentParameterMismatch");
}

#[test]
fn lists_of_others_are_readable_and_refuse_changes() {
    let cloud = account();
    let list = |id, owner| NewList {
        id,
        name: "foreign",
        family: Family::Ipv4,
        owner,
        max_entries: 5,
        prefixes: vec!["192.0.2.0/24".parse().unwrap()],
    };
    cloud.add_list(&list("pl-0other", Owner::Other("210987654321".to_owned())));
    cloud.add_list(&list("pl-0ipam", Owner::Resolver));
    for (list, wanted) in [
        (AWS_LIST, "UnsupportedOperation"),
        ("pl-0other", "UnauthorizedOperation"),
        ("pl-0ipam", "UnsupportedOperation"),
    ] {
        ok(&cloud, "GetManagedPrefixListEntries", &[&id(list)]);
        let change = [
            &id(list),
            "CurrentVersion=1",
            "AddEntry.1.Cidr=198.51.100.0/24",
        ];
        let found = code(&cloud, "ModifyManagedPrefixList", &change);
        assert_eq!(found, wanted, "{list}");
    }
    let described = ok(
        &cloud,
        "DescribeManagedPrefixLists",
        &["PrefixListId.1=pl-63a5400a"],
    );
    assert_eq!(text(&described, "ownerId"), "AWS");
    assert!(!described.contains("<version>") && !described.contains("<maxEntries>"));
    let resolved = ok(
        &cloud,
        "DescribeManagedPrefixLists",
        &["PrefixListId.1=pl-0ipam"],
    );
    assert!(
        resolved.contains("<ipamPrefixListResolverTargetId>"),
        "{resolved}"
    );
}
