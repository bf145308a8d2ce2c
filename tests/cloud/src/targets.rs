//! The actions that read the targets of routes. A check reads them to prove that a target exists
//! and is attached. The answers have the members that such a proof needs, not all of EC2's.

use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::select;
use crate::state::{Kind, State, Target};

/// The differences between the describing actions.
struct Action {
    kind: Kind,
    /// The parameter with ids.
    ids: &'static str,
    /// The code of an unknown id.
    missing: &'static str,
    /// The filters on an id, a VPC and the state; each other one is a tag's.
    filters: [&'static str; 3],
    /// True if tags can be filtered.
    tags: bool,
    /// The set of the answer.
    set: &'static str,
}

/// Answers a describing action; `show` fills one item.
fn describe(
    state: &State,
    settings: &Settings,
    request: &Request,
    action: &Action,
    show: impl Fn(&mut Xml, &str, &Target),
) -> Result<Xml, ApiError> {
    let ids = request.values(action.ids);
    for id in &ids {
        let target = state.targets.get(*id);
        if target.is_none_or(|target| target.kind != action.kind) {
            let text = format!("The ID '{id}' does not exist");
            return Err(ApiError::new(action.missing, text));
        }
    }
    let mut filters = request.filters();
    // DescribeNatGateways alone has the member Filter; the key in the request is the same.
    let known: Vec<&str> = action
        .filters
        .into_iter()
        .filter(|f| !f.is_empty())
        .collect();
    select::check(&filters, &known, action.tags)?;
    filters.retain(|filter| !filter.name.is_empty());
    let of_kind = state.targets.iter().filter(|(id, target)| {
        let by_id = ids.is_empty() || ids.contains(&id.as_str());
        target.kind == action.kind
            && by_id
            && select::matches(&filters, &state.tags_of(id), |name| {
                match action.filters.iter().position(|filter| *filter == name) {
                    Some(0) => vec![(*id).clone()],
                    Some(1) => target.vpcs.clone(),
                    _ => vec![target.state.clone()],
                }
            })
    });
    let (shown, next) = select::page(request, settings, of_kind.collect())?;
    let mut xml = Xml::default();
    xml.set(action.set, shown, |item, (id, target)| {
        show(item, id, target)
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}

/// The attachments of a gateway.
fn attachments(item: &mut Xml, target: &Target) {
    item.set("attachmentSet", &target.vpcs, |item, vpc| {
        item.text("state", &target.state);
        item.text("vpcId", vpc);
    });
}

fn first_vpc(target: &Target) -> Option<&str> {
    target.vpcs.first().map(String::as_str)
}

/// `DescribeInternetGateways`
pub(crate) fn internet_gateways(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let action = Action {
        kind: Kind::InternetGateway,
        ids: "InternetGatewayId",
        missing: "InvalidInternetGatewayID.NotFound",
        filters: [
            "internet-gateway-id",
            "attachment.vpc-id",
            "attachment.state",
        ],
        tags: true,
        set: "internetGatewaySet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("internetGatewayId", id);
        attachments(item, target);
        item.text("ownerId", &settings.account);
        item.tags(&state.tags_of(id));
    })
}

/// `DescribeEgressOnlyInternetGateways`. An unknown id is left out of the answer.
pub(crate) fn egress_only_gateways(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let action = Action {
        kind: Kind::EgressOnlyGateway,
        ids: "EgressOnlyInternetGatewayId",
        missing: "InvalidGatewayID.NotFound",
        filters: ["", "", ""],
        tags: true,
        set: "egressOnlyInternetGatewaySet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("egressOnlyInternetGatewayId", id);
        attachments(item, target);
        item.tags(&state.tags_of(id));
    })
}

/// `DescribeNatGateways`
pub(crate) fn nat_gateways(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let action = Action {
        kind: Kind::NatGateway,
        ids: "NatGatewayId",
        missing: "NatGatewayNotFound",
        filters: ["nat-gateway-id", "vpc-id", "state"],
        tags: true,
        set: "natGatewaySet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("natGatewayId", id);
        item.some("vpcId", first_vpc(target));
        item.some("subnetId", target.subnet.as_deref());
        item.text("state", &target.state);
        item.text("connectivityType", "public");
        item.tags(&state.tags_of(id));
    })
}

/// `DescribeNetworkInterfaces`
pub(crate) fn interfaces(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    if request.get("MaxResults").is_some() && !request.values("NetworkInterfaceId").is_empty() {
        let text = "The parameter NetworkInterfaceIds cannot be used with the parameter MaxResults";
        return Err(ApiError::misuse("InvalidParameterCombination", text));
    }
    let action = Action {
        kind: Kind::Interface,
        ids: "NetworkInterfaceId",
        missing: "InvalidNetworkInterfaceID.NotFound",
        filters: ["network-interface-id", "vpc-id", "status"],
        tags: true,
        set: "networkInterfaceSet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("networkInterfaceId", id);
        item.some("vpcId", first_vpc(target));
        item.some("subnetId", target.subnet.as_deref());
        item.text("ownerId", &settings.account);
        item.text("status", &target.state);
        item.text("sourceDestCheck", "false");
        if let Some(instance) = &target.other {
            item.node("attachment", |attachment| {
                attachment.text("instanceId", instance);
                attachment.text("instanceOwnerId", &settings.account);
                attachment.text("status", "attached");
            });
        }
        item.tags(&state.tags_of(id));
    })
}

/// `DescribeVpcPeeringConnections`
pub(crate) fn peerings(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let action = Action {
        kind: Kind::Peering,
        ids: "VpcPeeringConnectionId",
        missing: "InvalidVpcPeeringConnectionID.NotFound",
        filters: [
            "vpc-peering-connection-id",
            "requester-vpc-info.vpc-id",
            "status-code",
        ],
        tags: true,
        set: "vpcPeeringConnectionSet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("vpcPeeringConnectionId", id);
        let sides = ["requesterVpcInfo", "accepterVpcInfo"];
        for (side, vpc) in sides.into_iter().zip(&target.vpcs) {
            item.node(side, |info| {
                info.text("ownerId", &settings.account);
                info.text("vpcId", vpc);
                info.text("region", &settings.region);
            });
        }
        item.node("status", |status| {
            status.text("code", &target.state);
            status.text("message", &target.state);
        });
        item.tags(&state.tags_of(id));
    })
}

/// `DescribeTransitGatewayVpcAttachments`: one attachment for each VPC of a transit gateway. The
/// id of an attachment follows from both ids.
pub(crate) fn transit_attachments(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let known = [
        "state",
        "transit-gateway-attachment-id",
        "transit-gateway-id",
        "vpc-id",
    ];
    let filters = request.filters();
    select::check(&filters, &known, false)?;
    let wanted = request.values("TransitGatewayAttachmentIds");
    let mut found = Vec::new();
    for (id, target) in &state.targets {
        for vpc in &target.vpcs {
            let short = |id: &str| id.rsplit('-').next().unwrap_or_default().to_owned();
            let attachment = format!("tgw-attach-{}{}", short(id), short(vpc));
            let hit = select::matches(&filters, &state.tags_of(&attachment), |name| {
                vec![match name {
                    "state" => target.state.clone(),
                    "transit-gateway-attachment-id" => attachment.clone(),
                    "transit-gateway-id" => id.clone(),
                    _ => vpc.clone(),
                }]
            });
            let by_id = wanted.is_empty() || wanted.contains(&attachment.as_str());
            if target.kind == Kind::TransitGateway && hit && by_id {
                found.push((attachment, id, vpc, target));
            }
        }
    }
    if found.len() < wanted.len() {
        let text = "A transit gateway attachment does not exist.";
        let code = "InvalidTransitGatewayAttachmentID.NotFound";
        return Err(ApiError::new(code, text));
    }
    let (shown, next) = select::page(request, settings, found)?;
    let mut xml = Xml::default();
    xml.set(
        "transitGatewayVpcAttachments",
        shown,
        |item, (attachment, id, vpc, target)| {
            item.text("transitGatewayAttachmentId", &attachment);
            item.text("transitGatewayId", id);
            item.text("vpcId", vpc);
            item.text("vpcOwnerId", &settings.account);
            item.text("state", &target.state);
        },
    );
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}

/// `DescribeVpcEndpoints`
pub(crate) fn endpoints(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let action = Action {
        kind: Kind::Endpoint,
        ids: "VpcEndpointId",
        missing: "InvalidVpcEndpointId.NotFound",
        filters: ["vpc-endpoint-id", "vpc-id", "vpc-endpoint-state"],
        tags: true,
        set: "vpcEndpointSet",
    };
    describe(state, settings, request, &action, |item, id, target| {
        item.text("vpcEndpointId", id);
        item.text("vpcEndpointType", "GatewayLoadBalancer");
        item.some("vpcId", first_vpc(target));
        item.text("state", &target.state);
        item.set("subnetIdSet", &target.subnet, |item, subnet| {
            item.0.push_str(subnet);
        });
        item.text("ownerId", &settings.account);
        item.tags(&state.tags_of(id));
    })
}
