//! EC2's answers as values. Unknown elements are ignored; the absence of a known one is a fault,
//! since half an answer must never read as an empty one.

use ipnet::IpNet;

use super::xml::Element;
use crate::types::Family;
use crate::vpc::objects::{
    Account, Entry, ListId, ListState, ListVersion, PrefixList, RouteDestination, RouteOrigin,
    RouteState, RouteTable, RouteTableId, RouteTarget, Tags, VpcId, VpcRoute,
};

/// The owner of AWS's own prefix lists, which have no version and no size.
const AWS: &str = "AWS";

/// The elements of a route's target. EC2 describes a Gateway Load Balancer endpoint as `gatewayId`.
const TARGETS: [&str; 11] = [
    "gatewayId",
    "natGatewayId",
    // Before the instance: EC2 describes the interface of an instance with both.
    "networkInterfaceId",
    "instanceId",
    "egressOnlyInternetGatewayId",
    "transitGatewayId",
    "vpcPeeringConnectionId",
    "localGatewayId",
    "carrierGatewayId",
    "coreNetworkArn",
    "odbNetworkArn",
];

/// The reason for an answer that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeFault {
    #[error("the answer is a document {0:?}")]
    Document(String),
    #[error("the answer has no {element} in {inside}")]
    Missing {
        element: &'static str,
        inside: String,
    },
    #[error("the answer has {value:?} as {element}")]
    Value {
        element: &'static str,
        value: String,
    },
    #[error("EC2 answered that the call failed, without a reason")]
    Failed,
    #[error("the answer says that the call was carried out, although it was a dry run")]
    NoDryRun,
}

/// A page of an answer with many items.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub items: Vec<T>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// Reads a page of the answer to an action. `set` is the element with the items: EC2 sends an empty
/// set too.
pub(super) fn page<T>(
    root: &Element,
    action: &str,
    set: &'static str,
    item: impl Fn(&Element) -> Result<T, DecodeFault>,
) -> Result<Page<T>, DecodeFault> {
    check(root, action)?;
    let set = root.child(set).ok_or_else(|| missing(set, root))?;
    Ok(Page {
        items: set.items().map(item).collect::<Result<_, _>>()?,
        next: root.text_of("nextToken").map(str::to_owned),
    })
}

/// Reads the answer to a call that changes something: the list of a call about a list.
pub(super) fn performed(root: &Element, action: &str) -> Result<Option<PrefixList>, DecodeFault> {
    check(root, action)?;
    if root.text_of("return") == Some("false") {
        return Err(DecodeFault::Failed);
    }
    if !action.contains("PrefixList") {
        return Ok(None);
    }
    let list = root
        .child("prefixList")
        .ok_or_else(|| missing("prefixList", root))?;
    prefix_list(list).map(Some)
}

fn check(root: &Element, action: &str) -> Result<(), DecodeFault> {
    match root.name.strip_suffix("Response") {
        Some(name) if name == action => Ok(()),
        _ => Err(DecodeFault::Document(root.name.clone())),
    }
}

/// `ManagedPrefixList`
pub(super) fn prefix_list(from: &Element) -> Result<PrefixList, DecodeFault> {
    let owner = required(from, "ownerId")?;
    let is_settable = owner != AWS;
    let list = PrefixList {
        id: ListId::from(required(from, "prefixListId")?),
        arn: required(from, "prefixListArn")?.to_owned(),
        name: required(from, "prefixListName")?.to_owned(),
        family: match required(from, "addressFamily")? {
            "IPv4" => Some(Family::Ipv4),
            "IPv6" => Some(Family::Ipv6),
            _ => None,
        },
        owner: Account::from(owner),
        state: ListState::from_word(required(from, "state")?),
        state_message: from.text_of("stateMessage").map(str::to_owned),
        max_entries: number(from, "maxEntries")?,
        version: number(from, "version")?.map(ListVersion),
        tags: tags(from)?,
        from_ipam: from.text_of("ipamPrefixListResolverTargetId").is_some(),
    };
    if is_settable && list.max_entries.is_none() {
        return Err(missing("maxEntries", from));
    }
    if is_settable && list.version.is_none() {
        return Err(missing("version", from));
    }
    Ok(list)
}

/// `PrefixListEntry`
pub(super) fn entry(from: &Element) -> Result<Entry, DecodeFault> {
    Ok(Entry {
        cidr: cidr("cidr", required(from, "cidr")?)?,
        description: from.text_of("description").map(str::to_owned),
    })
}

/// `PrefixListAssociation`: the resource.
pub(super) fn association(from: &Element) -> Result<String, DecodeFault> {
    required(from, "resourceId").map(str::to_owned)
}

/// `RouteTable`
pub(super) fn route_table(from: &Element) -> Result<RouteTable, DecodeFault> {
    let routes = from
        .child("routeSet")
        .ok_or_else(|| missing("routeSet", from))?;
    let associations = from
        .child("associationSet")
        .ok_or_else(|| missing("associationSet", from))?;
    let in_force = |association: &&Element| {
        let state = association.child("associationState");
        let word = state.and_then(|state| state.text_of("state"));
        !matches!(word, Some("disassociated" | "failed"))
    };
    let associations: Vec<&Element> = associations.items().filter(in_force).collect();
    let subnets = associations.iter();
    Ok(RouteTable {
        id: RouteTableId::from(required(from, "routeTableId")?),
        vpc: VpcId::from(required(from, "vpcId")?),
        owner: Account::from(required(from, "ownerId")?),
        routes: routes
            .items()
            .filter_map(|route| vpc_route(route).transpose())
            .collect::<Result<_, _>>()?,
        tags: tags(from)?,
        subnets: subnets
            .filter_map(|association| association.text_of("subnetId"))
            .map(str::to_owned)
            .collect(),
        is_main: associations
            .iter()
            .any(|association| association.text_of("main") == Some("true")),
    })
}

/// `Route`; `None` for a destination of a later version of EC2.
fn vpc_route(from: &Element) -> Result<Option<VpcRoute>, DecodeFault> {
    let prefix = |element: &'static str| {
        from.text_of(element)
            .map(|text| cidr(element, text).map(RouteDestination::Prefix))
    };
    let list = from.text_of("destinationPrefixListId");
    let destination = prefix("destinationCidrBlock")
        .or_else(|| prefix("destinationIpv6CidrBlock"))
        .or_else(|| list.map(|list| Ok(RouteDestination::List(ListId::from(list)))));
    let Some(destination) = destination.transpose()? else {
        return Ok(None);
    };
    let target = TARGETS.iter().find_map(|element| from.text_of(element));
    Ok(Some(VpcRoute {
        destination,
        target: target.and_then(RouteTarget::from_id),
        instance: from.text_of("instanceId").map(str::to_owned),
        state: match required(from, "state")? {
            "active" => RouteState::Active,
            "blackhole" => RouteState::Blackhole,
            other => RouteState::Other(other.to_owned()),
        },
        origin: match required(from, "origin")? {
            "CreateRouteTable" => RouteOrigin::CreateRouteTable,
            "CreateRoute" => RouteOrigin::CreateRoute,
            "EnableVgwRoutePropagation" => RouteOrigin::Propagated,
            other => RouteOrigin::Other(other.to_owned()),
        },
    }))
}

/// The tags. EC2 leaves the set out of some answers about objects without tags.
fn tags(from: &Element) -> Result<Tags, DecodeFault> {
    let set = from.child("tagSet").into_iter();
    set.flat_map(Element::items)
        .map(|tag| {
            let value = tag.text_of("value").unwrap_or_default();
            Ok((required(tag, "key")?.to_owned(), value.to_owned()))
        })
        .collect()
}

fn required<'e>(from: &'e Element, element: &'static str) -> Result<&'e str, DecodeFault> {
    from.text_of(element).ok_or_else(|| missing(element, from))
}

fn missing(element: &'static str, inside: &Element) -> DecodeFault {
    DecodeFault::Missing {
        element,
        inside: inside.name.clone(),
    }
}

fn number<T: std::str::FromStr>(
    from: &Element,
    element: &'static str,
) -> Result<Option<T>, DecodeFault> {
    let parsed = from.text_of(element).map(|text| {
        text.parse().map_err(|_| DecodeFault::Value {
            element,
            value: text.to_owned(),
        })
    });
    parsed.transpose()
}

fn cidr(element: &'static str, text: &str) -> Result<IpNet, DecodeFault> {
    text.parse().map_err(|_| DecodeFault::Value {
        element,
        value: text.to_owned(),
    })
}

#[cfg(test)]
mod tests;
