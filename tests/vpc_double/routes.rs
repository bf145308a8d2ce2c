//! Routes, their targets, and the router's decisions.

use std::net::IpAddr;

use cloud::{Cloud, Kind, Target, Way};

use crate::world::{EIGW, IGW, NAT, TABLE, VPC, account, code, list, ok, text};

fn create(cloud: &Cloud, destination: &str, target: &str) -> String {
    let table = format!("RouteTableId={TABLE}");
    code(cloud, "CreateRoute", &[&table, destination, target])
}

#[track_caller]
fn created(cloud: &Cloud, destination: &str, target: &str) {
    let table = format!("RouteTableId={TABLE}");
    ok(cloud, "CreateRoute", &[&table, destination, target]);
}

fn way(cloud: &Cloud, address: &str) -> Way {
    let address: IpAddr = address.parse().unwrap();
    cloud.target_of(TABLE, address)
}

#[test]
fn a_target_must_exist_and_be_attached_to_the_tables_vpc() {
    let cloud = account();
    let elsewhere = Target::attached(Kind::InternetGateway, "vpc-0bbbbbbbbbbbbbbb1");
    cloud.set_target("igw-0bbbbbbbbbbbbbbb1", elsewhere);
    let deleted = Target {
        state: "deleted".to_owned(),
        ..Target::attached(Kind::NatGateway, VPC)
    };
    cloud.set_target("nat-0bbbbbbbbbbbbbbb1", deleted);
    let v4 = "DestinationCidrBlock=192.0.2.0/24";
    let cases = [
        (
            "GatewayId=igw-0ccccccccccccccc1",
            "InvalidGatewayID.NotFound",
        ),
        (
            "GatewayId=nat-0aaaaaaaaaaaaaaa1",
            "InvalidGatewayID.NotFound",
        ),
        ("GatewayId=igw-0bbbbbbbbbbbbbbb1", "InvalidParameterValue"),
        ("NatGatewayId=nat-0bbbbbbbbbbbbbbb1", "IncorrectState"),
        (
            "EgressOnlyInternetGatewayId=eigw-0aaaaaaaaaaaaaaa1",
            "InvalidParameterValue",
        ),
        (
            "VpcPeeringConnectionId=pcx-1",
            "InvalidVpcPeeringConnectionID.NotFound",
        ),
    ];
    for (target, wanted) in cases {
        assert_eq!(create(&cloud, v4, target), wanted, "{target}");
    }
    let v6 = "DestinationIpv6CidrBlock=2001:db8::/32";
    created(&cloud, v6, &format!("EgressOnlyInternetGatewayId={EIGW}"));
    assert_eq!(way(&cloud, "2001:db8::1"), Way::Target(EIGW.to_owned()));
}

#[test]
fn routes_are_created_once_replaced_if_present_and_deleted_if_present() {
    let cloud = account();
    let table = format!("RouteTableId={TABLE}");
    // Host bits are cleared.
    created(
        &cloud,
        "DestinationCidrBlock=192.0.2.77/24",
        &format!("GatewayId={IGW}"),
    );
    let destination = "DestinationCidrBlock=192.0.2.0/24";
    let again = create(&cloud, destination, &format!("NatGatewayId={NAT}"));
    assert_eq!(again, "RouteAlreadyExists");
    let nat = format!("NatGatewayId={NAT}");
    ok(&cloud, "ReplaceRoute", &[&table, destination, &nat]);
    assert_eq!(way(&cloud, "192.0.2.1"), Way::Target(NAT.to_owned()));
    let other = "DestinationCidrBlock=198.51.100.0/24";
    let found = code(&cloud, "ReplaceRoute", &[&table, other, &nat]);
    assert_eq!(found, "InvalidParameterValue");
    assert_eq!(
        code(&cloud, "DeleteRoute", &[&table, other]),
        "InvalidRoute.NotFound"
    );
    ok(&cloud, "DeleteRoute", &[&table, destination]);
    let local = "DestinationCidrBlock=10.0.0.0/16";
    assert_eq!(
        code(&cloud, "DeleteRoute", &[&table, local]),
        "InvalidParameterValue"
    );
    assert_eq!(
        cloud.violations().len(),
        1,
        "only the local route is held against the client"
    );
}

#[test]
fn a_detached_target_is_a_blackhole() {
    let cloud = account();
    cloud.detach(NAT);
    assert_eq!(way(&cloud, "192.0.2.1"), Way::Blackhole(NAT.to_owned()));
    let tables = ok(
        &cloud,
        "DescribeRouteTables",
        &[&format!("RouteTableId.1={TABLE}")],
    );
    assert!(tables.contains("<state>blackhole</state>"), "{tables}");
}

#[test]
fn routes_and_weights_are_held_against_the_quota_of_a_family() {
    let cloud = account();
    let list = list(&cloud, 8, &["192.0.2.0/24"]);
    cloud.configure(|settings| settings.routes_per_table = 9);
    // The default route has one place, the list eight.
    created(
        &cloud,
        &format!("DestinationPrefixListId={list}"),
        &format!("GatewayId={IGW}"),
    );
    let over = create(
        &cloud,
        "DestinationCidrBlock=198.51.100.0/24",
        &format!("GatewayId={IGW}"),
    );
    assert_eq!(over, "RouteLimitExceeded");
    let v6 = "DestinationIpv6CidrBlock=::/0";
    created(&cloud, v6, &format!("EgressOnlyInternetGatewayId={EIGW}"));
}

#[test]
fn the_longest_prefix_wins_and_a_static_route_wins_a_tie() {
    let cloud = account();
    let own = list(&cloud, 8, &["192.0.2.0/24", "10.0.7.0/24"]);
    cloud.set_route(TABLE, &own, IGW);
    assert_eq!(way(&cloud, "192.0.2.1"), Way::Target(IGW.to_owned()));
    assert_eq!(way(&cloud, "198.51.100.1"), Way::Target(NAT.to_owned()));
    // Inside of the VPC an entry is ignored.
    assert_eq!(way(&cloud, "10.0.7.1"), Way::Local);
    cloud.propagate_route(TABLE, "192.0.2.0/24", NAT);
    assert_eq!(way(&cloud, "192.0.2.1"), Way::Target(IGW.to_owned()));
    cloud.set_route(TABLE, "192.0.2.0/25", NAT);
    assert_eq!(way(&cloud, "192.0.2.1"), Way::Target(NAT.to_owned()));
    assert_eq!(way(&cloud, "192.0.2.200"), Way::Target(IGW.to_owned()));
    let second = list(&cloud, 8, &["192.0.2.0/24"]);
    cloud.set_route(TABLE, &second, NAT);
    let both = vec![IGW.to_owned(), NAT.to_owned()];
    assert_eq!(way(&cloud, "192.0.2.200"), Way::Random(both));
}

#[test]
fn tables_are_found_by_tag_vpc_and_route() {
    let cloud = account();
    cloud.set_tag(TABLE, "trailblazer", "bypass");
    cloud.add_table("rtb-0bbbbbbbbbbbbbbb1", VPC);
    let by = |name: &str, value: &str| {
        let name = format!("Filter.1.Name={name}");
        let value = format!("Filter.1.Value.1={value}");
        ok(&cloud, "DescribeRouteTables", &[&name, &value])
    };
    for (name, value, count) in [
        ("tag:trailblazer", "bypass", 1),
        ("tag:trailblazer", "other", 0),
        ("tag:trailblazer", "by*", 1),
        ("tag-key", "trailblazer", 1),
        ("vpc-id", VPC, 2),
        ("route-table-id", TABLE, 1),
        ("route.gateway-id", "local", 2),
    ] {
        let found = by(name, value).matches("<vpcId>").count();
        assert_eq!(found, count, "{name} {value}");
    }
    let local = by("route-table-id", TABLE);
    assert_eq!(text(&local, "gatewayId"), "local");
}

#[test]
fn tags_are_set_read_and_deleted() {
    let cloud = account();
    let resource = format!("ResourceId.1={TABLE}");
    let tag = [
        "Tag.1.Key=a",
        "Tag.1.Value=1",
        "Tag.2.Key=b",
        "Tag.2.Value=2",
    ];
    ok(
        &cloud,
        "CreateTags",
        &[&resource, tag[0], tag[1], tag[2], tag[3]],
    );
    ok(
        &cloud,
        "DeleteTags",
        &[&resource, "Tag.1.Key=a", "Tag.1.Value=other", "Tag.2.Key=b"],
    );
    assert_eq!(cloud.tags(TABLE), [("a".to_owned(), "1".to_owned())].into());
    let found = ok(
        &cloud,
        "DescribeTags",
        &["Filter.1.Name=key", "Filter.1.Value.1=a"],
    );
    assert_eq!(text(&found, "resourceType"), "route-table");
    let reserved = [&resource, "Tag.1.Key=aws:a", "Tag.1.Value=1"];
    assert_eq!(
        code(&cloud, "CreateTags", &reserved),
        "InvalidParameterValue"
    );
    let unknown = [
        "ResourceId.1=rtb-0ddddddddddddddd1",
        "Tag.1.Key=a",
        "Tag.1.Value=1",
    ];
    assert_eq!(
        code(&cloud, "CreateTags", &unknown),
        "InvalidRouteTableID.NotFound"
    );
}
