//! Prefix lists, entries, route tables and routes, as EC2 describes them.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{Family, name_type, number_type};

name_type!(
    /// The id of a prefix list, `pl-…`.
    ListId
);
name_type!(
    /// The id of a route table, `rtb-…`.
    RouteTableId
);
name_type!(
    /// The id of a VPC, `vpc-…`.
    VpcId
);
name_type!(
    /// An AWS account, 12 digits; `AWS` for AWS's own lists.
    Account
);
number_type!(
    /// The version of a list's entries. EC2 raises it with each change of the entries, and refuses a
    /// change that names another version than the current one.
    ListVersion(i64)
);

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// The progress of the last change of a prefix list (`state`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListState {
    /// `create-complete`, `modify-complete` or `restore-complete`: the list takes changes.
    Settled,
    /// `create-in-progress`, `modify-in-progress` or `restore-in-progress`.
    InProgress,
    /// The last change failed (`…-failed`): the reason is in the state message, and the list is as it
    /// was before.
    Failed,
    /// `delete-in-progress`: the list goes, unless a route refers to it.
    Deleting,
    /// `delete-complete`: the list is gone, and EC2 describes it for a while.
    Deleted,
    /// A word of a later version of EC2.
    Other(String),
}

impl ListState {
    /// The state of EC2's word.
    pub fn from_word(word: &str) -> ListState {
        match word {
            "create-complete" | "modify-complete" | "restore-complete" => ListState::Settled,
            "create-in-progress" | "modify-in-progress" | "restore-in-progress" => {
                ListState::InProgress
            }
            "create-failed" | "modify-failed" | "restore-failed" | "delete-failed" => {
                ListState::Failed
            }
            "delete-in-progress" => ListState::Deleting,
            "delete-complete" => ListState::Deleted,
            other => ListState::Other(other.to_owned()),
        }
    }
}

/// A managed prefix list (`DescribeManagedPrefixLists`), without its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixList {
    pub id: ListId,
    pub arn: String,
    pub name: String,
    /// `None` for a family of a later version of EC2.
    pub family: Option<Family>,
    pub owner: Account,
    pub state: ListState,
    /// EC2's reason for the state.
    pub state_message: Option<String>,
    /// The weight of the list in the quota of each route table; AWS's own lists have none.
    pub max_entries: Option<u32>,
    /// AWS's own lists have none.
    pub version: Option<ListVersion>,
    pub tags: Tags,
    /// True if an IPAM prefix list resolver writes the entries.
    pub from_ipam: bool,
}

/// An entry of a prefix list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub cidr: IpNet,
    pub description: Option<String>,
}

/// The destination of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteDestination {
    Prefix(IpNet),
    List(ListId),
}

impl fmt::Display for RouteDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteDestination::Prefix(prefix) => prefix.fmt(f),
            RouteDestination::List(list) => list.fmt(f),
        }
    }
}

/// The kind of a route's target. Each kind has its own parameter of `CreateRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TargetKind {
    /// `igw-…` or `vgw-…`: `GatewayId`.
    Gateway,
    /// `eigw-…`: `EgressOnlyInternetGatewayId`, IPv6 only.
    EgressOnlyGateway,
    /// `nat-…`: `NatGatewayId`.
    NatGateway,
    /// `eni-…`: `NetworkInterfaceId`.
    NetworkInterface,
    /// `i-…`: `InstanceId`. EC2 describes the route with the interface too.
    Instance,
    /// `tgw-…`: `TransitGatewayId`.
    TransitGateway,
    /// `pcx-…`: `VpcPeeringConnectionId`.
    Peering,
    /// `vpce-…`: `VpcEndpointId` (a Gateway Load Balancer endpoint).
    Endpoint,
    /// `lgw-…`: `LocalGatewayId`.
    LocalGateway,
    /// `cagw-…`: `CarrierGatewayId`.
    CarrierGateway,
    /// `arn:…:networkmanager:…`: `CoreNetworkArn`.
    CoreNetwork,
    /// `arn:…:odb:…`: `OdbNetworkArn`.
    OdbNetwork,
    /// The VPC itself; never written.
    Local,
}

words!(TargetKind {
    Gateway => "GatewayId",
    EgressOnlyGateway => "EgressOnlyInternetGatewayId",
    NatGateway => "NatGatewayId",
    NetworkInterface => "NetworkInterfaceId",
    Instance => "InstanceId",
    TransitGateway => "TransitGatewayId",
    Peering => "VpcPeeringConnectionId",
    Endpoint => "VpcEndpointId",
    LocalGateway => "LocalGatewayId",
    CarrierGateway => "CarrierGatewayId",
    CoreNetwork => "CoreNetworkArn",
    OdbNetwork => "OdbNetworkArn",
    Local => "local",
});

/// The target of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTarget {
    pub kind: TargetKind,
    /// The id, or the ARN.
    pub id: String,
}

impl RouteTarget {
    /// The target with this id or ARN. `None` for an id of an unknown kind.
    pub fn from_id(id: &str) -> Option<RouteTarget> {
        const PREFIXES: [(&str, TargetKind); 11] = [
            ("igw-", TargetKind::Gateway),
            ("vgw-", TargetKind::Gateway),
            ("eigw-", TargetKind::EgressOnlyGateway),
            ("nat-", TargetKind::NatGateway),
            ("eni-", TargetKind::NetworkInterface),
            ("i-", TargetKind::Instance),
            ("tgw-", TargetKind::TransitGateway),
            ("pcx-", TargetKind::Peering),
            ("vpce-", TargetKind::Endpoint),
            ("lgw-", TargetKind::LocalGateway),
            ("cagw-", TargetKind::CarrierGateway),
        ];
        let by_prefix = PREFIXES.iter().find(|(prefix, _)| id.starts_with(prefix));
        let kind = match by_prefix {
            Some((_, kind)) => *kind,
            None if id == "local" => TargetKind::Local,
            None if id.starts_with("arn:") && id.contains(":networkmanager:") => {
                TargetKind::CoreNetwork
            }
            None if id.starts_with("arn:") && id.contains(":odb:") => TargetKind::OdbNetwork,
            None => return None,
        };
        Some(RouteTarget {
            kind,
            id: id.to_owned(),
        })
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.id)
    }
}

/// The state of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteState {
    Active,
    /// The target is gone or detached: packets to the destination are dropped.
    Blackhole,
    /// A word of a later version of EC2.
    Other(String),
}

/// The creator of a route (`origin`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteOrigin {
    /// With the table: the local route.
    CreateRouteTable,
    CreateRoute,
    /// A virtual private gateway.
    Propagated,
    /// A word of a later version of EC2.
    Other(String),
}

/// A route of a route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcRoute {
    pub destination: RouteDestination,
    /// `None` for a target of a later version of EC2. The interface, if the target is an instance.
    pub target: Option<RouteTarget>,
    /// The instance of a target that is an interface or an instance.
    pub instance: Option<String>,
    pub state: RouteState,
    pub origin: RouteOrigin,
}

impl VpcRoute {
    /// True if the route leads to the target: an instance is described by its interface too.
    pub fn leads_to(&self, target: &RouteTarget) -> bool {
        self.target.as_ref() == Some(target)
            || target.kind == TargetKind::Instance && self.instance.as_ref() == Some(&target.id)
    }

    /// The id of the target, for messages.
    pub fn target_name(&self) -> &str {
        let target = self.target.as_ref();
        target.map_or("an unknown target", |target| &target.id)
    }
}

/// A route table (`DescribeRouteTables`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    pub id: RouteTableId,
    pub vpc: VpcId,
    pub owner: Account,
    pub routes: Vec<VpcRoute>,
    pub tags: Tags,
    /// The subnets with this table.
    pub subnets: Vec<String>,
    /// The main table: every subnet without a table of its own has this one.
    pub is_main: bool,
}

impl VpcRoute {
    /// True for a route of the VPC's own networks.
    pub fn is_local(&self) -> bool {
        let target = self.target.as_ref();
        target.is_some_and(|target| target.kind == TargetKind::Local)
            || self.origin == RouteOrigin::CreateRouteTable
    }
}

impl RouteTable {
    /// The route to a destination.
    pub fn route_to(&self, destination: &RouteDestination) -> Option<&VpcRoute> {
        let mut routes = self.routes.iter();
        routes.find(|route| route.destination == *destination)
    }
}
