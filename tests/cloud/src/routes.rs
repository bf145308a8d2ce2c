//! The actions that change routes.

use ipnet::IpNet;

use crate::actions::{no_list, no_table};
use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::state::{Destination, Family, Kind, Origin, Route, State};

/// The parameters that name a target, the kinds that each takes, and the code of an unknown id.
const TARGETS: [(&str, &[Kind], &str); 12] = [
    (
        "GatewayId",
        &[Kind::InternetGateway, Kind::VirtualGateway],
        "InvalidGatewayID.NotFound",
    ),
    (
        "EgressOnlyInternetGatewayId",
        &[Kind::EgressOnlyGateway],
        "InvalidEgressOnlyInternetGatewayId.NotFound",
    ),
    (
        "NatGatewayId",
        &[Kind::NatGateway],
        "InvalidNatGatewayID.NotFound",
    ),
    (
        "NetworkInterfaceId",
        &[Kind::Interface],
        "InvalidNetworkInterfaceID.NotFound",
    ),
    (
        "InstanceId",
        &[Kind::Instance],
        "InvalidInstanceID.NotFound",
    ),
    (
        "TransitGatewayId",
        &[Kind::TransitGateway],
        "InvalidTransitGatewayID.NotFound",
    ),
    (
        "VpcPeeringConnectionId",
        &[Kind::Peering],
        "InvalidVpcPeeringConnectionID.NotFound",
    ),
    (
        "VpcEndpointId",
        &[Kind::Endpoint],
        "InvalidVpcEndpointId.NotFound",
    ),
    (
        "LocalGatewayId",
        &[Kind::LocalGateway],
        "InvalidLocalGatewayID.NotFound",
    ),
    (
        "CarrierGatewayId",
        &[Kind::CarrierGateway],
        "InvalidCarrierGatewayID.NotFound",
    ),
    (
        "CoreNetworkArn",
        &[Kind::CoreNetwork],
        "InvalidCoreNetworkArn.NotFound",
    ),
    (
        "OdbNetworkArn",
        &[Kind::OdbNetwork],
        "InvalidOdbNetworkArn.NotFound",
    ),
];

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", text)
}

/// `CreateRoute`
pub(crate) fn create(
    state: &mut State,
    settings: &Settings,
    _due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("RouteTableId");
    let table = state.tables.get(id).ok_or_else(|| no_table(id))?;
    let destination = destination(state, request)?;
    let target = target(state, request, id, &destination)?;
    if table.routes.iter().any(|r| r.destination == destination) {
        let text = format!(
            "The route identified by {} already exists.",
            word(&destination)
        );
        return Err(ApiError::new("RouteAlreadyExists", text));
    }
    if let Some(family) = state.family_of(&destination) {
        let load = state.load(table, family) + state.weight(&destination);
        if load > settings.routes_per_table {
            let text = format!(
                "The route table {id} would have {load} {} routes; the maximum is {}.",
                family.word(),
                settings.routes_per_table
            );
            return Err(ApiError::new("RouteLimitExceeded", text));
        }
    }
    let route = Route {
        destination,
        target,
        origin: Origin::Call,
    };
    if let Some(table) = state.tables.get_mut(id) {
        table.routes.push(route);
    }
    Ok(done())
}

/// `ReplaceRoute`
pub(crate) fn replace(
    state: &mut State,
    _settings: &Settings,
    _due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("RouteTableId");
    let table = state.tables.get(id).ok_or_else(|| no_table(id))?;
    let destination = destination(state, request)?;
    let found = table
        .routes
        .iter()
        .position(|r| r.destination == destination);
    let found = found.ok_or_else(|| {
        invalid(format!(
            "There is no route defined for '{}' in the route table. Use CreateRoute instead.",
            word(&destination)
        ))
    })?;
    protected(&table.routes[found], id, "replace")?;
    let target = target(state, request, id, &destination)?;
    if let Some(table) = state.tables.get_mut(id) {
        table.routes[found].target = target;
    }
    Ok(done())
}

/// `DeleteRoute`
pub(crate) fn delete(
    state: &mut State,
    _settings: &Settings,
    _due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("RouteTableId");
    let table = state.tables.get(id).ok_or_else(|| no_table(id))?;
    // A route to a list that is gone can be deleted.
    let destination = named(request)?;
    let found = table
        .routes
        .iter()
        .position(|r| r.destination == destination);
    let found = found.ok_or_else(|| {
        let parameter = match &destination {
            Destination::List(_) => "destination-prefix-list-id",
            Destination::Prefix(IpNet::V4(_)) => "destination-cidr-block",
            Destination::Prefix(IpNet::V6(_)) => "destination-ipv6-cidr-block",
        };
        let name = word(&destination);
        let text = format!("no route with {parameter} {name} in route table {id}");
        ApiError::new("InvalidRoute.NotFound", text)
    })?;
    protected(&table.routes[found], id, "remove")?;
    if let Some(table) = state.tables.get_mut(id) {
        table.routes.remove(found);
    }
    Ok(done())
}

/// The answer of a change of routes.
fn done() -> Xml {
    let mut xml = Xml::default();
    xml.text("return", "true");
    xml
}

/// The local route and propagated routes are not the caller's to change. EC2 lets an interface
/// take the place of the local route; the double refuses that, since the product never asks.
fn protected(route: &Route, table: &str, verb: &str) -> Result<(), ApiError> {
    let kind = match route.origin {
        Origin::Call => return Ok(()),
        Origin::Table => "local route",
        Origin::Propagated => "propagated route",
    };
    let name = word(&route.destination);
    Err(ApiError::misuse(
        "InvalidParameterValue",
        format!("cannot {verb} {kind} {name} in route table {table}"),
    ))
}

fn word(destination: &Destination) -> String {
    match destination {
        Destination::Prefix(prefix) => prefix.to_string(),
        Destination::List(list) => list.clone(),
    }
}

/// The destination that a request names, in its canonical form.
fn named(request: &Request) -> Result<Destination, ApiError> {
    let keys = [
        "DestinationCidrBlock",
        "DestinationIpv6CidrBlock",
        "DestinationPrefixListId",
    ];
    let mut given = keys
        .iter()
        .filter_map(|key| Some((*key, request.get(key)?)));
    let Some((key, value)) = given.next() else {
        let text = "The request must contain a destination CIDR block or a prefix list ID.";
        return Err(ApiError::misuse("MissingParameter", text));
    };
    if given.next().is_some() {
        let text = "Only one of the destinations can be specified.";
        return Err(ApiError::misuse("InvalidParameterCombination", text));
    }
    if key == "DestinationPrefixListId" {
        return Ok(Destination::List(value.to_owned()));
    }
    let prefix: Option<IpNet> = value.parse().ok();
    let wanted = match key {
        "DestinationCidrBlock" => Family::Ipv4,
        _ => Family::Ipv6,
    };
    let prefix = prefix.filter(|prefix| Family::of(prefix) == wanted);
    let prefix = prefix.ok_or_else(|| {
        let text = format!(
            "Value ({value}) for parameter {key} is invalid. This is not a valid CIDR block."
        );
        ApiError::misuse("InvalidParameterValue", text)
    })?;
    Ok(Destination::Prefix(prefix.trunc()))
}

/// The destination of a new route: a list must exist, and its creation must be over.
fn destination(state: &State, request: &Request) -> Result<Destination, ApiError> {
    let destination = named(request)?;
    if let Destination::List(id) = &destination {
        let list = state.lists.get(id).ok_or_else(|| no_list(id))?;
        let change = list.change.as_ref();
        if change.is_some_and(|change| change.verb == "create" || change.verb == "delete") {
            let text = format!(
                "The prefix list ({id}) is in the current state ({}).",
                list.state
            );
            return Err(ApiError::new("IncorrectState", text));
        }
    }
    Ok(destination)
}

/// The target that a request names: exactly one, of the right kind, attached to the table's VPC.
fn target(
    state: &State,
    request: &Request,
    table: &str,
    destination: &Destination,
) -> Result<String, ApiError> {
    let mut given = TARGETS.iter().filter_map(|target| {
        let id = request.get(target.0)?;
        Some((target, id))
    });
    let Some(((key, kinds, code), id)) = given.next() else {
        let text = "The request must contain exactly one of the targets of a route.";
        return Err(ApiError::misuse("MissingParameter", text));
    };
    if given.next().is_some() {
        let text = "Only one of the targets of a route can be specified.";
        return Err(ApiError::misuse("InvalidParameterCombination", text));
    }
    let target = state.targets.get(id);
    let target = target.filter(|target| kinds.contains(&target.kind));
    let target = target.ok_or_else(|| {
        let noun = key.strip_suffix("Id").unwrap_or(key);
        let text = match *key {
            "GatewayId" => format!("The gateway ID '{id}' does not exist"),
            _ => format!("The {noun} '{id}' does not exist"),
        };
        ApiError::new(code, text)
    })?;
    let vpc = state.tables.get(table).map_or("", |table| &table.vpc);
    if !target.vpcs.iter().any(|own| own == vpc) {
        let noun = match *key {
            "GatewayId" => "network gateway",
            "NetworkInterfaceId" => "interface",
            _ => "target",
        };
        let text = format!("route table {table} and {noun} {id} belong to different networks");
        return Err(invalid(text));
    }
    if !target.serves(vpc) {
        let text = format!("The target {id} is in the state '{}'.", target.state);
        return Err(ApiError::new("IncorrectState", text));
    }
    let family = state.family_of(destination);
    if target.kind == Kind::EgressOnlyGateway && family == Some(Family::Ipv4) {
        return Err(invalid(format!(
            "The egress-only internet gateway {id} takes IPv6 destinations only."
        )));
    }
    Ok(id.to_owned())
}
