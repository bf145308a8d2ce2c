use super::*;

const LIST: &str = "pl-0a1";

fn list() -> ListId {
    ListId::from(LIST)
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let owned = |text: &str| text.to_owned();
    pairs.iter().map(|(k, v)| (owned(k), owned(v))).collect()
}

fn entry(cidr: &str, description: Option<&str>) -> Entry {
    Entry {
        cidr: cidr.parse().unwrap(),
        description: description.map(str::to_owned),
    }
}

fn route_call(destination: RouteDestination, target: &str) -> Call {
    Call::CreateRoute {
        table: RouteTableId::from("rtb-1"),
        destination,
        target: RouteTarget::from_id(target).unwrap(),
    }
}

#[test]
fn lists_are_selected_by_names_and_tags_in_pages() {
    let filter = ListFilter {
        ids: vec![],
        names: vec!["a".to_owned(), "b".to_owned()],
        tags: tags(&[("owner", "x")]),
    };
    let request = describe_lists(&filter);
    assert_eq!(request.effect, Effect::Read);
    assert_eq!(
        request.shown(),
        [
            "Filter.1.Name=prefix-list-name",
            "Filter.1.Value.1=a",
            "Filter.1.Value.2=b",
            "Filter.2.Name=tag:owner",
            "Filter.2.Value.1=x",
            "MaxResults=100"
        ]
    );
    assert_eq!(request.page("t=1&x").value("NextToken"), Some("t=1&x"));
}

#[test]
fn ids_go_without_a_page_size() {
    let lists = ListFilter {
        ids: vec![list(), ListId::from("pl-2")],
        ..ListFilter::default()
    };
    assert_eq!(
        describe_lists(&lists).shown(),
        ["PrefixListId.1=pl-0a1", "PrefixListId.2=pl-2"]
    );
    let tables = TableFilter {
        ids: vec![RouteTableId::from("rtb-1")],
        ..TableFilter::default()
    };
    assert_eq!(
        describe_route_tables(&tables).shown(),
        ["RouteTableId.1=rtb-1"]
    );
    let tagged = TableFilter {
        tags: tags(&[("trailblazer", "bypass")]),
        ..TableFilter::default()
    };
    assert_eq!(
        describe_route_tables(&tagged).shown(),
        [
            "Filter.1.Name=tag:trailblazer",
            "Filter.1.Value.1=bypass",
            "MaxResults=100"
        ]
    );
}

#[test]
fn entries_are_asked_of_one_version() {
    assert_eq!(
        list_entries(&list(), Some(ListVersion(7))).shown(),
        ["PrefixListId=pl-0a1", "TargetVersion=7", "MaxResults=100"]
    );
    assert_eq!(
        list_entries(&list(), None).value("TargetVersion"),
        None,
        "AWS's own lists have no version"
    );
    assert_eq!(
        list_associations(&list()).shown(),
        ["PrefixListId=pl-0a1", "MaxResults=255"]
    );
}

#[test]
fn new_list_has_entries_tags_and_a_token() {
    let call = Call::CreateList {
        name: "trailblazer-s3-ipv6".to_owned(),
        family: Family::Ipv6,
        max_entries: 20,
        entries: vec![entry("2600:1f60::/40", Some("S3 & more"))],
        tags: tags(&[("a", "1"), ("b", "")]),
        client_token: "t".to_owned(),
    };
    let request = change(&call);
    assert_eq!(request.effect, Effect::Repeatable);
    assert_eq!(
        request.shown(),
        [
            "PrefixListName=trailblazer-s3-ipv6",
            "AddressFamily=IPv6",
            "MaxEntries=20",
            "Entry.1.Cidr=2600:1f60::/40",
            "Entry.1.Description=S3 & more",
            "TagSpecification.1.ResourceType=prefix-list",
            "TagSpecification.1.Tag.1.Key=a",
            "TagSpecification.1.Tag.1.Value=1",
            "TagSpecification.1.Tag.2.Key=b",
            "TagSpecification.1.Tag.2.Value=",
            "ClientToken=t"
        ]
    );
    assert!(request.body().starts_with(
        "Action=CreateManagedPrefixList&Version=2016-11-15&PrefixListName=trailblazer-s3-ipv6"
    ));
    assert!(request.body().contains("Description=S3+%26+more"));
}

#[test]
fn modification_has_entries_or_a_size_but_never_both() {
    let entries = change(&Call::ModifyEntries {
        list: list(),
        name: "n".to_owned(),
        current: ListVersion(3),
        add: vec![entry("192.0.2.0/24", None)],
        remove: vec!["198.51.100.0/24".parse().unwrap()],
    });
    assert_eq!(
        entries.shown(),
        [
            "PrefixListId=pl-0a1",
            "PrefixListName=n",
            "CurrentVersion=3",
            "AddEntry.1.Cidr=192.0.2.0/24",
            "RemoveEntry.1.Cidr=198.51.100.0/24"
        ]
    );
    let size = change(&Call::ResizeList {
        list: list(),
        name: "n".to_owned(),
        max_entries: 40,
    });
    assert_eq!(
        size.shown(),
        ["PrefixListId=pl-0a1", "PrefixListName=n", "MaxEntries=40"]
    );
    assert_eq!((entries.action, entries.effect), (size.action, size.effect));
    let restore = change(&Call::RestoreList {
        list: list(),
        previous: ListVersion(2),
        current: ListVersion(5),
    });
    assert_eq!(
        restore.shown(),
        [
            "PrefixListId=pl-0a1",
            "PreviousVersion=2",
            "CurrentVersion=5"
        ]
    );
    let delete = change(&Call::DeleteList { list: list() });
    assert_eq!(delete.shown(), ["PrefixListId=pl-0a1"]);
}

#[test]
fn each_kind_of_destination_and_target_has_its_parameter() {
    let destinations = [
        (
            RouteDestination::Prefix("192.0.2.0/24".parse().unwrap()),
            "DestinationCidrBlock=192.0.2.0/24",
        ),
        (
            RouteDestination::Prefix("2001:db8::/32".parse().unwrap()),
            "DestinationIpv6CidrBlock=2001:db8::/32",
        ),
        (
            RouteDestination::List(list()),
            "DestinationPrefixListId=pl-0a1",
        ),
    ];
    for (destination, parameter) in destinations {
        assert_eq!(
            change(&route_call(destination, "igw-1")).shown(),
            ["RouteTableId=rtb-1", parameter, "GatewayId=igw-1"]
        );
    }
    for (target, parameter) in [
        ("vgw-1", "GatewayId"),
        ("eigw-1", "EgressOnlyInternetGatewayId"),
        ("nat-1", "NatGatewayId"),
        ("eni-1", "NetworkInterfaceId"),
        ("i-1", "InstanceId"),
        ("tgw-1", "TransitGatewayId"),
        ("pcx-1", "VpcPeeringConnectionId"),
        ("vpce-1", "VpcEndpointId"),
        ("lgw-1", "LocalGatewayId"),
        ("cagw-1", "CarrierGatewayId"),
        (
            "arn:aws:networkmanager::1:core-network/c-1",
            "CoreNetworkArn",
        ),
        ("arn:aws:odb:eu-west-1:1:odb-network/o-1", "OdbNetworkArn"),
    ] {
        let request = change(&route_call(RouteDestination::List(list()), target));
        assert_eq!(request.value(parameter), Some(target));
    }
    let delete = change(&Call::DeleteRoute {
        table: RouteTableId::from("rtb-1"),
        destination: RouteDestination::List(list()),
    });
    assert_eq!(
        delete.shown(),
        ["RouteTableId=rtb-1", "DestinationPrefixListId=pl-0a1"]
    );
}

#[test]
fn tags_are_set_with_values_and_deleted_by_key() {
    let set = change(&Call::Tag {
        resource: LIST.to_owned(),
        tags: tags(&[("trailblazer:token", "17")]),
    });
    assert_eq!(
        set.shown(),
        [
            "ResourceId.1=pl-0a1",
            "Tag.1.Key=trailblazer:token",
            "Tag.1.Value=17"
        ]
    );
    let delete = change(&Call::Untag {
        resource: LIST.to_owned(),
        keys: vec!["a".to_owned(), "b".to_owned()],
    });
    assert_eq!(
        delete.shown(),
        ["ResourceId.1=pl-0a1", "Tag.1.Key=a", "Tag.2.Key=b"]
    );
}

#[test]
fn dry_run_is_the_same_request_with_a_switch() {
    let call = Call::DeleteList { list: list() };
    let request = dry_run(&call);
    assert_eq!(request.effect, Effect::DryRun);
    assert_eq!(
        request.body(),
        format!("{}&DryRun=true", change(&call).body())
    );
}
