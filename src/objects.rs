//! Routes, policy rules and nexthop objects as values: what the kernel stores, no more.
//!
//! The same types serve the desired and the observed state, so that a comparison is `==`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{Family, IfIndex, Mark, Metric, NexthopId, Priority, Protocol, Realm, TableId};

/// What makes two routes the same object to the kernel's FIB: two of one key shadow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The table the route lies in.
    pub table: TableId,
    /// The destination; the default route is `0.0.0.0/0` or `::/0`. Also says the family.
    pub dst: IpNet,
    /// `rtm_tos`; ours is always 0.
    pub tos: u8,
    /// The metric as the kernel reports it: for IPv6, 0 is never seen, it becomes 1024
    /// (`IP6_RT_PRIO_USER`, include/net/ip6_fib.h).
    pub metric: Metric,
}

impl RouteKey {
    /// The address family of the route.
    pub fn family(&self) -> Family {
        Family::of_net(&self.dst)
    }
}

/// One way out: a device, and a gateway unless the destination is on the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Via {
    /// The router, `None` for destinations directly on the link.
    pub gateway: Option<IpAddr>,
    /// The device.
    pub device: IfIndex,
    /// Take the gateway for reachable although no connected network holds it (`RTNH_F_ONLINK`).
    pub onlink: bool,
}

/// What a route does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// Send it on.
    Via(Via),
    /// Send it on through a nexthop object (`RTA_NH_ID`).
    Nexthop(NexthopId),
    /// Several ways with weights (`RTA_MULTIPATH`); never ours, kept for reports.
    Multipath(Vec<Via>),
    /// Refuse with EHOSTUNREACH.
    Unreachable,
    /// Leave this table and go on with the next rule.
    Throw,
    /// A type that we never install (`RTN_*`, linux/rtnetlink.h).
    Other(u8),
}

/// A route in one of our tables, ours or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Its identity.
    pub key: RouteKey,
    /// Its effect.
    pub target: RouteTarget,
    /// Its destination realm, 0 for none.
    pub realm: Realm,
    /// Who installed it.
    pub protocol: Protocol,
}

/// What a policy rule does with a packet that it selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Look the destination up in a table.
    Lookup {
        /// The table.
        table: TableId,
        /// Ignore results whose prefix is this long or shorter (`FRA_SUPPRESS_PREFIXLEN`).
        suppress_prefixlength: Option<u32>,
    },
    /// Go on at the rule of that priority (`FR_ACT_GOTO`).
    Goto(Priority),
    /// Nothing: a landing place (`FR_ACT_NOP`).
    Nop,
    /// An action that we never install (`FR_ACT_*`, linux/fib_rules.h).
    Other(u8),
}

/// A policy rule, ours or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its family: the kernel has one list each.
    pub family: Family,
    /// Its place in the list.
    pub priority: Priority,
    /// Selects by incoming interface (`FRA_IIFNAME`).
    pub iif: Option<String>,
    /// Selects by firewall mark.
    pub mark: Option<Mark>,
    /// Selectors that we never use, in words (`from 10.0.0.0/8`, `oif eth1`, …); ours have none.
    pub foreign_selectors: Vec<String>,
    /// Its effect.
    pub action: RuleAction,
    /// Who installed it.
    pub protocol: Protocol,
}

/// A nexthop object (`RTM_NEWNEXTHOP`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// Its id.
    pub id: NexthopId,
    /// Its family; groups have one here too, although the kernel stores none for them.
    pub family: Family,
    /// What it stands for.
    pub kind: NexthopKind,
    /// Who installed it.
    pub protocol: Protocol,
}

/// What a nexthop object stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NexthopKind {
    /// One gateway.
    Single(Via),
    /// Others, each with the same weight.
    Group(Vec<NexthopId>),
    /// A kind that we never install.
    Other,
}
