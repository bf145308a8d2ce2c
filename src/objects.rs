//! Routes, policy rules and nexthop objects as values: the fields of the kernel's objects, no more.
//!
//! The same types describe the desired and the observed state, so a comparison is `==`.

mod forward_policy;
mod neighbour;
mod options;
mod selector;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{Family, IfIndex, Mark, Metric, NexthopId, Priority, Protocol, Realm, TableId};
pub use forward_policy::{ForwardPolicy, PolicyAction};
pub use neighbour::NeighbourState;
pub use options::{MetricKind, MetricValue, RouteMetric, RouteOptions, SharedOptions};
pub use selector::ForeignSelector;

/// The identity of a route in the kernel's FIB: two routes with equal keys shadow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    pub table: TableId,
    /// The default route is `0.0.0.0/0` or `::/0`. Implies the address family.
    pub dst: IpNet,
    /// `rtm_tos`; always 0 in our routes.
    pub tos: u8,
    /// The metric as the kernel reports it: the kernel turns an IPv6 metric of 0 into 1024
    /// (`IP6_RT_PRIO_USER`, include/net/ip6_fib.h).
    pub metric: Metric,
}

impl RouteKey {
    /// The address family of the route.
    pub fn family(&self) -> Family {
        Family::of_net(&self.dst)
    }
}

/// One next hop: a device, and a gateway unless the destination is on the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Via {
    /// `None` for destinations directly on the link.
    pub gateway: Option<IpAddr>,
    pub device: IfIndex,
    /// Treat the gateway as reachable although no connected network contains it
    /// (`RTNH_F_ONLINK`).
    pub onlink: bool,
}

impl Via {
    /// The next hop, without the way to reach it.
    pub fn hop(&self) -> (Option<IpAddr>, IfIndex) {
        (self.gateway, self.device)
    }
}

/// One of several next hops of a multipath route (`struct rtnexthop`).
///
/// The flags `dead` and `linkdown` are left out on purpose: the kernel sets and clears them with
/// the carrier of the link, so a leg without carrier is no drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    pub via: Via,
    /// 1 to 256; the kernel stores one less (`rtnh_hops`).
    pub weight: u16,
    /// The realm of this leg alone; 0 for the realm of the route.
    pub realm: Realm,
}

impl Leg {
    /// The only leg of a route.
    pub fn only(via: Via) -> Leg {
        Leg {
            via,
            weight: 1,
            realm: Realm(0),
        }
    }
}

/// The effect of a route on a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    Via(Via),
    /// Several next hops (`RTA_MULTIPATH`), sorted: the kernel keeps the order in which legs were
    /// added, and the order has no meaning. [`RouteTarget::through`] builds the sorted form.
    Multipath(Vec<Leg>),
    /// A nexthop object (`RTA_NH_ID`). Earlier versions installed such egress defaults; this
    /// version only replaces or deletes them.
    Nexthop(NexthopId),
    /// Refuse with EHOSTUNREACH.
    Unreachable,
    /// Leave the table and continue with the next rule.
    Throw,
    /// A type that we never install (`RTN_*`, linux/rtnetlink.h).
    Other(u8),
}

impl RouteTarget {
    /// The next hops of a route that forwards by its own next hops; empty for any other route.
    pub fn legs(&self) -> Vec<Leg> {
        match self {
            RouteTarget::Via(via) => vec![Leg::only(*via)],
            RouteTarget::Multipath(legs) => legs.clone(),
            _ => Vec::new(),
        }
    }

    /// True for a route that forwards by its own next hops, as our bypass routes do.
    pub fn forwards(&self) -> bool {
        matches!(self, RouteTarget::Via(_) | RouteTarget::Multipath(_))
    }

    /// The target that leaves by these legs; `None` without a leg. A single leg gives a plain next
    /// hop, as in the kernel, which stores no multipath of one.
    pub fn through(mut legs: Vec<Leg>) -> Option<RouteTarget> {
        legs.sort();
        match legs.as_slice() {
            [] => None,
            [only] => Some(RouteTarget::Via(only.via)),
            _ => Some(RouteTarget::Multipath(legs)),
        }
    }
}

/// A route in one of our tables, ours or foreign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub key: RouteKey,
    pub target: RouteTarget,
    /// The destination realm, 0 for none.
    pub realm: Realm,
    pub options: SharedOptions,
    pub protocol: Protocol,
}

/// The next hops of the bypass path, and the options that its routes carry.
///
/// Invariant: `legs` has at least one element and is sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BypassPath {
    legs: Vec<Leg>,
    pub options: SharedOptions,
}

impl BypassPath {
    /// A path with these legs; `None` without a leg. A single leg has the weight 1: without a
    /// second leg a weight has no meaning, and the kernel stores none.
    pub fn new(mut legs: Vec<Leg>, options: SharedOptions) -> Option<BypassPath> {
        legs.sort();
        if let [only] = legs.as_mut_slice() {
            only.weight = 1;
        }
        (!legs.is_empty()).then_some(BypassPath { legs, options })
    }

    /// A path with one next hop.
    pub fn single(via: Via, options: SharedOptions) -> BypassPath {
        BypassPath {
            legs: vec![Leg::only(via)],
            options,
        }
    }

    /// The next hops, sorted.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// The next hops without their weights.
    pub fn vias(&self) -> impl Iterator<Item = Via> + '_ {
        self.legs.iter().map(|leg| leg.via)
    }

    /// The interfaces, each once.
    pub fn devices(&self) -> BTreeSet<IfIndex> {
        self.vias().map(|via| via.device).collect()
    }

    /// The first next hop.
    pub fn first(&self) -> Via {
        // The invariant of the type.
        self.legs[0].via
    }

    /// The target of each route of the path.
    pub fn target(&self) -> RouteTarget {
        match self.legs.as_slice() {
            [only] => RouteTarget::Via(only.via),
            _ => RouteTarget::Multipath(self.legs.clone()),
        }
    }
}

/// The effect of a policy rule on a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    Lookup {
        table: TableId,
        /// Ignore results with a prefix of this length or shorter (`FRA_SUPPRESS_PREFIXLEN`).
        suppress_prefixlength: Option<u32>,
    },
    /// Continue at the rule of that priority (`FR_ACT_GOTO`).
    Goto(Priority),
    /// No effect; serves as the target of a goto (`FR_ACT_NOP`).
    Nop,
    /// Another action (`FR_ACT_*`, linux/fib_rules.h).
    Other(u8),
}

/// A policy rule, ours or foreign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The kernel has one rule list for each family.
    pub family: Family,
    pub priority: Priority,
    /// Selects by incoming interface (`FRA_IIFNAME`).
    pub iif: Option<String>,
    pub mark: Option<Mark>,
    /// Selectors without a field, in the order of `ip rule`. Of our rules, only those of the shut
    /// state have one ([`Rule::is_of_shut`]), and those that give IPv4 packets of a path a realm.
    pub foreign_selectors: Vec<ForeignSelector>,
    pub action: RuleAction,
    pub protocol: Protocol,
}

impl Rule {
    /// True for a rule that lets answers of this host pass while its egress is shut, if the rule is
    /// ours: see `desired::shut`.
    pub fn is_of_shut(&self) -> bool {
        let from = |selector: &ForeignSelector| matches!(selector, ForeignSelector::From(_));
        matches!(self.action, RuleAction::Goto(_)) && self.foreign_selectors.iter().any(from)
    }

    /// True for a rule that leads packets to such a table. Our rules with a mark do not: they serve pinned
    /// flows, probes and the firewall's look-ups.
    pub fn leads_to(&self, is_wanted: impl Fn(TableId) -> bool) -> bool {
        let looks_up = matches!(self.action, RuleAction::Lookup { table, .. } if is_wanted(table));
        looks_up && self.mark.is_none()
    }
}

/// A nexthop object (`RTM_NEWNEXTHOP`). This version installs none; it reads them to find and
/// delete those of earlier versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexthopObject {
    pub id: NexthopId,
    /// The kernel stores no family for a group; a group gets the family of its members here.
    pub family: Family,
    pub kind: NexthopKind,
    pub protocol: Protocol,
}

/// The next hops behind a nexthop object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NexthopKind {
    Single(Via),
    Group(Vec<GroupMember>),
    /// A kind that we never installed, such as a blackhole.
    Other,
}

/// A member of a nexthop group (`struct nexthop_grp`, linux/nexthop.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupMember {
    pub id: NexthopId,
    pub weight: u16,
}
