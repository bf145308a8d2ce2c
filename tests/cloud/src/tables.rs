//! The actions that read route tables and VPCs.

use ipnet::IpNet;

use crate::actions::no_table;
use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::select;
use crate::state::{Destination, Kind, Route, State, Table};

/// The filters of `DescribeRouteTables` that the double has.
const FILTERS: [&str; 10] = [
    "association.main",
    "association.subnet-id",
    "owner-id",
    "route-table-id",
    "route.destination-cidr-block",
    "route.destination-ipv6-cidr-block",
    "route.destination-prefix-list-id",
    "route.gateway-id",
    "route.state",
    "vpc-id",
];

/// `DescribeRouteTables`
pub(crate) fn describe(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let ids = request.values("RouteTableId");
    for id in &ids {
        state.tables.get(*id).ok_or_else(|| no_table(id))?;
    }
    let filters = request.filters();
    select::check(&filters, &FILTERS, true)?;
    let tables = state.tables.iter().filter(|(id, table)| {
        let by_id = ids.is_empty() || ids.contains(&id.as_str());
        by_id
            && select::matches(&filters, &state.tags_of(id), |name| {
                field(state, settings, id, table, name)
            })
    });
    let (tables, next) = select::page(request, settings, tables.collect())?;
    let mut xml = Xml::default();
    xml.set("routeTableSet", tables, |item, (id, table)| {
        item.text("routeTableId", id);
        item.text("vpcId", &table.vpc);
        item.text("ownerId", &settings.account);
        item.set("routeSet", &table.routes, |item, route| {
            show_route(item, state, settings, table, route);
        });
        show_associations(item, id, table);
        item.set("propagatingVgwSet", Vec::<String>::new(), |_, _| {});
        item.tags(&state.tags_of(id));
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}

/// The values of a table that a filter compares.
fn field(state: &State, settings: &Settings, id: &str, table: &Table, name: &str) -> Vec<String> {
    let of_routes =
        |value: &dyn Fn(&Route) -> Option<String>| table.routes.iter().filter_map(value).collect();
    match name {
        "association.main" => vec![table.main.to_string()],
        "association.subnet-id" => table.subnets.clone(),
        "owner-id" => vec![settings.account.clone()],
        "route-table-id" => vec![id.to_owned()],
        "vpc-id" => vec![table.vpc.clone()],
        "route.destination-cidr-block" => of_routes(&|route| match &route.destination {
            Destination::Prefix(IpNet::V4(prefix)) => Some(prefix.to_string()),
            _ => None,
        }),
        "route.destination-ipv6-cidr-block" => of_routes(&|route| match &route.destination {
            Destination::Prefix(IpNet::V6(prefix)) => Some(prefix.to_string()),
            _ => None,
        }),
        "route.destination-prefix-list-id" => of_routes(&|route| match &route.destination {
            Destination::List(list) => Some(list.clone()),
            Destination::Prefix(_) => None,
        }),
        "route.gateway-id" => of_routes(&|route| Some(route.target.clone())),
        _ => of_routes(&|route| Some(state_word(state, table, route).to_owned())),
    }
}

fn state_word(state: &State, table: &Table, route: &Route) -> &'static str {
    if state.is_blackhole(&table.vpc, route) {
        "blackhole"
    } else {
        "active"
    }
}

fn show_route(item: &mut Xml, state: &State, settings: &Settings, table: &Table, route: &Route) {
    match &route.destination {
        Destination::Prefix(IpNet::V4(prefix)) => item.value("destinationCidrBlock", prefix),
        Destination::Prefix(IpNet::V6(prefix)) => item.value("destinationIpv6CidrBlock", prefix),
        Destination::List(list) => item.text("destinationPrefixListId", list),
    }
    show_target(item, state, settings, &route.target);
    item.text("origin", route.origin.word());
    item.text("state", state_word(state, table, route));
}

/// The element of a target. EC2 shows an instance's route with the interface, and an attached
/// interface's route with the instance.
fn show_target(item: &mut Xml, state: &State, settings: &Settings, id: &str) {
    let target = state.targets.get(id);
    let other = target.and_then(|target| target.other.as_deref());
    match kind_of(state, id) {
        Some(Kind::EgressOnlyGateway) => item.text("egressOnlyInternetGatewayId", id),
        Some(Kind::NatGateway) => item.text("natGatewayId", id),
        Some(Kind::TransitGateway) => item.text("transitGatewayId", id),
        Some(Kind::Peering) => item.text("vpcPeeringConnectionId", id),
        Some(Kind::LocalGateway) => item.text("localGatewayId", id),
        Some(Kind::CarrierGateway) => item.text("carrierGatewayId", id),
        Some(Kind::CoreNetwork) => item.text("coreNetworkArn", id),
        Some(Kind::OdbNetwork) => item.text("odbNetworkArn", id),
        Some(Kind::Interface) => {
            show_instance(item, settings, other);
            item.text("networkInterfaceId", id);
        }
        Some(Kind::Instance) => {
            show_instance(item, settings, Some(id));
            item.some("networkInterfaceId", other);
        }
        // EC2 shows a Gateway Load Balancer endpoint as `gatewayId`: the shape has no other place.
        Some(Kind::Endpoint | Kind::InternetGateway | Kind::VirtualGateway) | None => {
            item.text("gatewayId", id);
        }
    }
}

fn show_instance(item: &mut Xml, settings: &Settings, instance: Option<&str>) {
    item.some("instanceId", instance);
    item.some(
        "instanceOwnerId",
        instance.map(|_| settings.account.as_str()),
    );
}

/// The kind of a target, from its id if the target is gone.
fn kind_of(state: &State, id: &str) -> Option<Kind> {
    if let Some(target) = state.targets.get(id) {
        return Some(target.kind);
    }
    let prefixes = [
        ("eigw-", Kind::EgressOnlyGateway),
        ("nat-", Kind::NatGateway),
        ("eni-", Kind::Interface),
        ("i-", Kind::Instance),
        ("tgw-", Kind::TransitGateway),
        ("pcx-", Kind::Peering),
    ];
    let found = prefixes.iter().find(|(prefix, _)| id.starts_with(prefix));
    found.map(|(_, kind)| *kind)
}

fn show_associations(item: &mut Xml, id: &str, table: &Table) {
    let main = table.main.then_some(None);
    let subnets = table.subnets.iter().map(Some);
    let all = main.into_iter().chain(subnets).enumerate();
    item.set("associationSet", all, |item, (index, subnet)| {
        let association = format!("rtbassoc-{}{index:02x}", id.trim_start_matches("rtb-"));
        item.text("routeTableAssociationId", &association);
        item.text("routeTableId", id);
        item.some("subnetId", subnet.map(String::as_str));
        item.value("main", subnet.is_none());
        item.node("associationState", |state| {
            state.text("state", "associated");
        });
    });
}

/// `DescribeVpcs`
pub(crate) fn describe_vpcs(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let ids = request.values("VpcId");
    for id in &ids {
        state.vpcs.get(*id).ok_or_else(|| {
            let text = format!("The vpc ID '{id}' does not exist");
            ApiError::new("InvalidVpcID.NotFound", text)
        })?;
    }
    let filters = request.filters();
    select::check(&filters, &["owner-id", "state", "vpc-id"], true)?;
    let vpcs = state.vpcs.iter().filter(|(id, _)| {
        let by_id = ids.is_empty() || ids.contains(&id.as_str());
        by_id
            && select::matches(&filters, &state.tags_of(id), |name| match name {
                "owner-id" => vec![settings.account.clone()],
                "state" => vec!["available".to_owned()],
                _ => vec![(*id).clone()],
            })
    });
    let (vpcs, next) = select::page(request, settings, vpcs.collect())?;
    let mut xml = Xml::default();
    xml.set("vpcSet", vpcs, |item, (id, vpc)| {
        item.text("vpcId", id);
        item.text("ownerId", &settings.account);
        item.text("state", "available");
        item.text("isDefault", "false");
        let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) =
            vpc.cidrs.iter().partition(|cidr| cidr.addr().is_ipv4());
        item.some("cidrBlock", v4.first().map(ToString::to_string).as_deref());
        item.set("cidrBlockAssociationSet", v4, |item, cidr| {
            item.value("cidrBlock", cidr);
            item.node("cidrBlockState", |state| state.text("state", "associated"));
        });
        item.set("ipv6CidrBlockAssociationSet", v6, |item, cidr| {
            item.value("ipv6CidrBlock", cidr);
            item.node("ipv6CidrBlockState", |s| s.text("state", "associated"));
        });
        item.tags(&state.tags_of(id));
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}
