//! Notifications as values.

use super::filter::OF_ADMINISTRATORS;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::kernel::link::{self, RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK};
use crate::kernel::nexthop::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP};
use crate::kernel::route;
use crate::kernel::rule::{self, RTM_DELRULE, RTM_NEWRULE};
use crate::kernel::wire::{Frame, NFGEN_LEN, WireError, attributes, find};
use crate::kernel::xfrm;
use crate::objects::{ForwardPolicy, Route, RouteTarget, Rule};
use crate::types::{Family, IfIndex, TableId};

// Message types and attributes of linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNETCONF: u16 = 80;
/// `NETCONFA_IFINDEX`, with `NETCONFA_IFINDEX_ALL` as the value for all interfaces (linux/netconf.h).
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_IFINDEX_ALL: i32 = -1;
/// `IFF_UP`, `IFF_RUNNING`, `IFF_LOWER_UP` (linux/if.h): the flags that decide whether a link can
/// hold routes.
const LINK_FLAGS: u32 = 0x1 | 0x40 | 0x1_0000;
/// `IFA_F_TENTATIVE`, `IFA_F_DADFAILED` (linux/if_addr.h): the address can't be used yet.
const ADDRESS_FLAGS: u32 = 0x40 | 0x08;

// linux/netfilter/nf_tables.h, with the subsystem (10) in the high byte.
const NFT_MSG_NEWGEN: u16 = (10 << 8) | 15;
const NFTA_GEN_PROC_NAME: u16 = 3;
/// Attribute 1 of all other messages of nf_tables: the table's name.
const NFTA_TABLE_NAME: u16 = 1;

/// A change of the kernel's network state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A route of one of our tables was deleted.
    RouteGone(Route),
    /// A route of one of our tables was added or changed.
    RouteCame(Route),
    /// The default route of the main table changed.
    MainDefault(Family),
    /// A route of the main table changed that is nearly as wide as a default, or that no routing daemon
    /// installs.
    MainRoute(IpNet),
    /// A nexthop object changed, which a default of the main table may use.
    NexthopObject,
    /// A connected network of the main table was added or deleted.
    MainConnected(IpNet),
    /// A sysctl of an interface or of all interfaces changed (`forwarding`, `rp_filter` and others).
    /// The kernel doesn't report the value.
    Sysctl {
        family: Family,
        /// Of all interfaces, such as `net.ipv4.ip_forward`.
        host_wide: bool,
    },
    RuleGone(Rule),
    RuleCame(Rule),
    /// An interface was added or changed.
    Link {
        index: IfIndex,
        name: String,
        /// Alternative names: the settings may use one.
        altnames: Vec<String>,
        /// The flags that decide whether the link can hold routes.
        flags: u32,
    },
    LinkGone(IfIndex),
    /// An address was added or changed; the flags decide whether the address is usable.
    Address(IfIndex, IpAddr, u32),
    AddressGone(IfIndex, IpAddr),
    /// A forward policy of ours was deleted; `None` after a flush of all policies.
    PolicyGone(Option<ForwardPolicy>),
    FirewallTable {
        /// `NFPROTO_*` (linux/netfilter.h).
        family: u8,
        table: String,
    },
    /// An nf_tables transaction has ended.
    FirewallDone {
        /// The name of the program that made the transaction.
        program: String,
    },
}

/// A change with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub change: Change,
    /// The netlink port of the program that made the change; 0 for the kernel itself.
    pub port: u32,
}

/// Reads one notification of NETLINK_ROUTE; `None` for objects of no interest.
pub(super) fn route_event(frame: &Frame<'_>) -> Result<Option<Event>, WireError> {
    let change = match frame.kind {
        RTM_NEWROUTE | RTM_DELROUTE => route_change(frame)?,
        RTM_NEWRULE | RTM_DELRULE => rule_change(frame)?,
        RTM_NEWLINK | RTM_DELLINK => link_change(frame)?,
        RTM_NEWADDR | RTM_DELADDR => address_change(frame)?,
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Change::NexthopObject),
        RTM_NEWNETCONF => sysctl_change(frame)?,
        _ => None,
    };
    Ok(change.map(|change| Event {
        change,
        port: frame.port,
    }))
}

/// Reads one notification of NETLINK_XFRM; `None` for foreign policies.
pub(super) fn policy_event(frame: &Frame<'_>) -> Result<Option<Event>, WireError> {
    let change = match frame.kind {
        xfrm::DELPOLICY => xfrm::deleted(frame)?.map(|policy| Change::PolicyGone(Some(policy))),
        xfrm::FLUSHPOLICY => Some(Change::PolicyGone(None)),
        _ => None,
    };
    Ok(change.map(|change| Event {
        change,
        port: frame.port,
    }))
}

fn route_change(frame: &Frame<'_>) -> Result<Option<Change>, WireError> {
    let Some(decoded) = route::decode(frame.body)? else {
        return Ok(None);
    };
    let route = decoded.into_route();
    if route.key.table == TableId::MAIN {
        if Family::is_default(&route.key.dst) {
            return Ok(Some(Change::MainDefault(route.key.family())));
        }
        let wide = Family::is_wide(&route.key.dst);
        let connected = matches!(&route.target, RouteTarget::Via(via) if via.gateway.is_none());
        if connected && !wide {
            return Ok(Some(Change::MainConnected(route.key.dst)));
        }
        let lasting = OF_ADMINISTRATORS.contains(&route.protocol.0);
        return Ok((wide || lasting).then_some(Change::MainRoute(route.key.dst)));
    }
    Ok(Some(match frame.kind {
        RTM_DELROUTE => Change::RouteGone(route),
        _ => Change::RouteCame(route),
    }))
}

fn sysctl_change(frame: &Frame<'_>) -> Result<Option<Change>, WireError> {
    // `struct netconfmsg` (linux/netconf.h) holds the family only: AF_INET or AF_INET6
    // (linux/socket.h). Attributes begin at a multiple of 4 bytes.
    let Some((header, list)) = frame.body.split_at_checked(4) else {
        return Ok(None);
    };
    let Some(family) = route::family_of(header[0]) else {
        return Ok(None);
    };
    let list = attributes(list)?;
    let index = find(&list, NETCONFA_IFINDEX).map(|attribute| attribute.payload);
    Ok(Some(Change::Sysctl {
        family,
        host_wide: index == Some(&NETCONFA_IFINDEX_ALL.to_ne_bytes()[..]),
    }))
}

fn rule_change(frame: &Frame<'_>) -> Result<Option<Change>, WireError> {
    let rule = rule::decode(frame.body)?;
    Ok(rule.map(|rule| match frame.kind {
        RTM_DELRULE => Change::RuleGone(rule),
        _ => Change::RuleCame(rule),
    }))
}

fn link_change(frame: &Frame<'_>) -> Result<Option<Change>, WireError> {
    let link = link::decode_link(frame.body)?;
    Ok(link.map(|link| match frame.kind {
        RTM_DELLINK => Change::LinkGone(link.index),
        _ => Change::Link {
            index: link.index,
            name: link.name,
            altnames: link.altnames,
            flags: link.flags & LINK_FLAGS,
        },
    }))
}

fn address_change(frame: &Frame<'_>) -> Result<Option<Change>, WireError> {
    let address = link::decode_address(frame.body)?;
    Ok(address.map(|found| match frame.kind {
        RTM_DELADDR => Change::AddressGone(found.link, found.address),
        _ => Change::Address(found.link, found.address, found.flags & ADDRESS_FLAGS),
    }))
}

pub(super) fn firewall_event(frame: &Frame<'_>) -> Result<Option<Event>, WireError> {
    let Some((header, list)) = frame.body.split_at_checked(NFGEN_LEN) else {
        return Err(WireError::Malformed("nf_tables header"));
    };
    let list = attributes(list)?;
    let text = |kind| find(&list, kind).map(|attribute| attribute.text());
    let change = match frame.kind {
        NFT_MSG_NEWGEN => Some(Change::FirewallDone {
            program: text(NFTA_GEN_PROC_NAME).unwrap_or_default(),
        }),
        _ => text(NFTA_TABLE_NAME).map(|table| Change::FirewallTable {
            family: header[0],
            table,
        }),
    };
    Ok(change.map(|change| Event {
        change,
        port: frame.port,
    }))
}

/// True for `NLMSG_OVERRUN` and the other control messages below `NLMSG_MIN_TYPE`.
pub(super) fn is_control(frame: &Frame<'_>) -> bool {
    const NLMSG_MIN_TYPE: u16 = 0x10;
    frame.kind < NLMSG_MIN_TYPE
}
