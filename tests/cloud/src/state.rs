//! The objects of an account: VPCs, route tables, prefix lists, targets and tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`
    Ipv4,
    /// `IPv6`
    Ipv6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(prefix: &IpNet) -> Family {
        match prefix {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }

    /// EC2's word.
    pub fn word(self) -> &'static str {
        match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        }
    }
}

/// An entry of a prefix list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The prefix, without host bits.
    pub cidr: IpNet,
    /// The text for people.
    pub description: Option<String>,
}

/// Entries that many versions and snapshots share.
pub(crate) type Entries = Arc<Vec<Entry>>;

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// The account's objects.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub vpcs: BTreeMap<String, Vpc>,
    pub tables: BTreeMap<String, Table>,
    pub lists: BTreeMap<String, List>,
    pub targets: BTreeMap<String, Target>,
    pub tags: BTreeMap<String, Tags>,
    /// The resources besides route tables that refer to a list, and the most entries that each takes.
    pub referrers: BTreeMap<String, BTreeMap<String, u32>>,
    /// The requests with a client token: the parameters and the list that they made.
    pub tokens: BTreeMap<String, (Vec<(String, String)>, String)>,
    /// The number of ids that were made up.
    pub ids: u64,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vpc {
    pub cidrs: Vec<IpNet>,
}

/// A route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub vpc: String,
    pub main: bool,
    pub subnets: Vec<String>,
    pub routes: Vec<Route>,
}

/// The destination of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Destination {
    Prefix(IpNet),
    List(String),
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub destination: Destination,
    /// The id of a target; `local` for the VPC itself.
    pub target: String,
    pub origin: Origin,
}

/// The creator of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Table,
    Call,
    Propagated,
}

impl Origin {
    /// EC2's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Origin::Table => "CreateRouteTable",
            Origin::Call => "CreateRoute",
            Origin::Propagated => "EnableVgwRoutePropagation",
        }
    }
}

/// A prefix list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    pub name: String,
    pub family: Family,
    /// An account, or `AWS`.
    pub owner: String,
    /// AWS's own lists have a weight in its place.
    pub max_entries: u32,
    /// The entries of the versions from `first` on.
    pub versions: Vec<Entries>,
    pub first: i64,
    /// The state as EC2 words it, `modify-complete` for example.
    pub state: String,
    pub message: Option<String>,
    pub change: Option<Change>,
    /// The id of an IPAM prefix list resolver's target that writes the entries.
    pub resolver: Option<String>,
}

impl List {
    /// The current version.
    pub(crate) fn version(&self) -> i64 {
        self.first + self.versions.len() as i64 - 1
    }

    /// The current entries.
    pub(crate) fn entries(&self) -> Entries {
        self.versions.last().cloned().unwrap_or_default()
    }

    /// The entries of a version.
    pub(crate) fn at(&self, version: i64) -> Option<Entries> {
        let index = usize::try_from(version - self.first).ok()?;
        self.versions.get(index).cloned()
    }

    /// True for one of AWS's own lists.
    pub(crate) fn is_of_aws(&self) -> bool {
        self.owner == "AWS"
    }
}

/// A change of a list that is in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The number of reads after which the change ends.
    pub due: usize,
    /// The verb of the state: `create`, `modify`, `restore` or `delete`.
    pub verb: &'static str,
    pub effect: Effect,
}

/// The effect of a change when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The list is as it is.
    None,
    /// A new version.
    Entries(Entries),
    Resize(u32),
    /// The list goes.
    Deleted,
    /// The change fails with this state message.
    Failed(String),
}

/// The kind of a target of routes, by the parameter of `CreateRoute` that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An internet gateway, `igw-…`.
    InternetGateway,
    /// A virtual private gateway, `vgw-…`.
    VirtualGateway,
    /// An egress-only internet gateway, `eigw-…`.
    EgressOnlyGateway,
    /// A NAT gateway, `nat-…`.
    NatGateway,
    /// A network interface, `eni-…`.
    Interface,
    /// An instance, `i-…`; its interface must exist.
    Instance,
    /// A transit gateway, `tgw-…`.
    TransitGateway,
    /// A peering connection, `pcx-…`.
    Peering,
    /// A Gateway Load Balancer endpoint, `vpce-…`.
    Endpoint,
    /// A local gateway, `lgw-…`.
    LocalGateway,
    /// A carrier gateway, `cagw-…`.
    CarrierGateway,
    /// A core network, by its ARN.
    CoreNetwork,
    /// An Oracle Database@AWS network, by its ARN.
    OdbNetwork,
}

/// A target of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The VPCs to which the target is attached, or in which it lies.
    pub vpcs: Vec<String>,
    /// EC2's word for the state: `available` for a NAT gateway, `active` for a peering connection.
    pub state: String,
    /// The interface of an instance, or the instance of an interface.
    pub other: Option<String>,
    /// The subnet of a NAT gateway, an interface or an endpoint.
    pub subnet: Option<String>,
}

impl Target {
    /// A target that is attached to a VPC and works.
    pub fn attached(kind: Kind, vpc: &str) -> Target {
        let state = match kind {
            Kind::InternetGateway
            | Kind::NatGateway
            | Kind::VirtualGateway
            | Kind::TransitGateway => "available",
            Kind::EgressOnlyGateway => "attached",
            Kind::Interface => "in-use",
            Kind::Peering => "active",
            Kind::Endpoint => "available",
            Kind::Instance => "running",
            _ => "available",
        };
        let in_subnet = matches!(kind, Kind::NatGateway | Kind::Interface | Kind::Endpoint);
        Target {
            kind,
            vpcs: vec![vpc.to_owned()],
            state: state.to_owned(),
            other: None,
            subnet: in_subnet.then(|| "subnet-0aaaaaaaaaaaaaaa1".to_owned()),
        }
    }

    /// True if packets of the VPC reach the target.
    pub(crate) fn serves(&self, vpc: &str) -> bool {
        let works = match self.kind {
            Kind::NatGateway | Kind::TransitGateway => self.state == "available",
            Kind::Endpoint => self.state.eq_ignore_ascii_case("available"),
            Kind::Peering => self.state == "active",
            Kind::Instance => self.state == "running",
            Kind::Interface => self.state == "in-use",
            _ => true,
        };
        works && self.vpcs.iter().any(|own| own == vpc)
    }
}

impl State {
    /// A new id with a prefix, in the long format.
    pub(crate) fn new_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}-0d0b1e{:011x}", self.ids)
    }

    /// The tags of a resource.
    pub(crate) fn tags_of(&self, resource: &str) -> Tags {
        self.tags.get(resource).cloned().unwrap_or_default()
    }

    /// True if a route leads nowhere: its target is gone or detached.
    pub(crate) fn is_blackhole(&self, vpc: &str, route: &Route) -> bool {
        if route.target == "local" {
            return false;
        }
        let target = self.targets.get(&route.target);
        !target.is_some_and(|target| target.serves(vpc))
    }

    /// The family of a destination; `None` if its list is gone.
    pub(crate) fn family_of(&self, destination: &Destination) -> Option<Family> {
        match destination {
            Destination::Prefix(prefix) => Some(Family::of(prefix)),
            Destination::List(id) => self.lists.get(id).map(|list| list.family),
        }
    }

    /// The places of a destination in the quota of a route table: one for a prefix, `MaxEntries`
    /// for a list ("Amazon VPC quotas").
    pub(crate) fn weight(&self, destination: &Destination) -> usize {
        match destination {
            Destination::Prefix(_) => 1,
            Destination::List(id) => {
                let list = self.lists.get(id);
                list.map_or(0, |list| list.max_entries as usize)
            }
        }
    }

    /// The places of a family that a table's routes take. Local and propagated routes have none.
    pub(crate) fn load(&self, table: &Table, family: Family) -> usize {
        let routes = table.routes.iter();
        let counted = routes.filter(|route| {
            route.origin == Origin::Call && self.family_of(&route.destination) == Some(family)
        });
        counted.map(|route| self.weight(&route.destination)).sum()
    }

    /// The resources that refer to a list: tables with a route to it, then others.
    pub(crate) fn references(&self, list: &str) -> Vec<String> {
        let tables = self.tables.iter();
        let with = tables.filter(|(_, table)| {
            let mut routes = table.routes.iter();
            routes.any(|route| matches!(&route.destination, Destination::List(id) if id == list))
        });
        let others = self.referrers.get(list).into_iter().flatten();
        let all = with.map(|(id, _)| id).chain(others.map(|(id, _)| id));
        all.cloned().collect()
    }
}
