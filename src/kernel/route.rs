//! Routes on the wire.

mod by_protocol;
mod legs;
mod options;

use ipnet::IpNet;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::wire::{CREATE, EXCL, REPLACE, WireError, each_attribute, put_address, put_u32};
use crate::facts::{HopState, Preference};
use crate::objects::{Leg, Route, RouteKey, RouteOptions, RouteTarget, Via};
use crate::types::{Family, IfIndex, Metric, NexthopId, Protocol, Realm, TableId};
pub use by_protocol::dump_protocol;
pub(super) use legs::Hop;
use legs::{decode_legs, join_legs, put_gateway, put_legs, realm_of, via_address};
use options::{RTA_METRICS, RTA_PREFSRC, decode_metrics, put_options};

// Message types and attributes of linux/rtnetlink.h.
pub(super) const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
pub(super) const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_NH_ID: u16 = 30;
pub(super) const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTN_THROW: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
/// `rtm_table` of tables above 255, whose number is in `RTA_TABLE`.
const RT_TABLE_COMPAT: u8 = 252;
/// Cached exceptions (path MTU, redirects), not routes.
pub(super) const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
pub(super) const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
/// Length of `struct rtmsg`.
pub(super) const RTMSG: usize = 12;

// linux/socket.h.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The kernel's number of a family.
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    }
}

/// The family of a kernel number; `None` for others.
pub fn family_of(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::Ipv4),
        AF_INET6 => Some(Family::Ipv6),
        _ => None,
    }
}

/// The change of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Refused if the key exists.
    Add,
    /// Replaces a route that was observed as ours; refused without a route.
    Replace,
    Delete,
}

impl Write {
    pub(super) fn flags(self) -> u16 {
        match self {
            Write::Add => CREATE | EXCL,
            Write::Replace => REPLACE,
            Write::Delete => 0,
        }
    }
}

pub(super) struct Header {
    pub(super) family: u8,
    pub(super) prefix_len: u8,
    pub(super) source_len: u8,
    pub(super) table: TableId,
    pub(super) protocol: u8,
    pub(super) scope: u8,
    pub(super) kind: u8,
    pub(super) flags: u32,
}

impl Header {
    /// The header of a question: everything but the family is open.
    pub(super) fn asking(family: Family, flags: u32) -> Header {
        Header {
            family: family_number(family),
            prefix_len: 0,
            source_len: 0,
            table: TableId(0),
            protocol: 0,
            scope: 0,
            kind: 0,
            flags,
        }
    }
}

pub(super) fn put_header(buffer: &mut Vec<u8>, header: &Header) {
    let table = u8::try_from(header.table.0).unwrap_or(RT_TABLE_COMPAT);
    let flags = header.flags.to_ne_bytes();
    buffer.extend_from_slice(&[
        header.family,
        header.prefix_len,
        header.source_len,
        0,
        table,
        header.protocol,
        header.scope,
        header.kind,
        flags[0],
        flags[1],
        flags[2],
        flags[3],
    ]);
}

/// Writes a route message; returns the message's type and flags.
pub fn encode(write: Write, route: &Route, buffer: &mut Vec<u8>) -> (u16, u16) {
    let deleting = write == Write::Delete;
    let via = match &route.target {
        RouteTarget::Via(via) => Some(via),
        _ => None,
    };
    let kind = match route.target {
        RouteTarget::Via(_) | RouteTarget::Nexthop(_) | RouteTarget::Multipath(_) => RTN_UNICAST,
        RouteTarget::Unreachable => RTN_UNREACHABLE,
        RouteTarget::Throw => RTN_THROW,
        RouteTarget::Other(kind) => kind,
    };
    let scope = match (deleting, via) {
        // A delete with a scope would only match routes of that scope.
        (true, _) => RT_SCOPE_NOWHERE,
        (false, Some(Via { gateway: None, .. })) => RT_SCOPE_LINK,
        (false, _) => RT_SCOPE_UNIVERSE,
    };
    put_header(
        buffer,
        &Header {
            family: family_number(route.key.family()),
            prefix_len: route.key.dst.prefix_len(),
            source_len: 0,
            table: route.key.table,
            protocol: route.protocol.0,
            scope,
            kind,
            flags: if via.is_some_and(|via| via.onlink) {
                RTNH_F_ONLINK
            } else {
                0
            },
        },
    );
    put_u32(buffer, RTA_TABLE, route.key.table.0);
    if route.key.dst.prefix_len() > 0 {
        put_address(buffer, RTA_DST, route.key.dst.addr());
    }
    if route.key.metric.0 != 0 {
        put_u32(buffer, RTA_PRIORITY, route.key.metric.0);
    }
    match &route.target {
        RouteTarget::Via(via) => {
            if let Some(gateway) = via.gateway {
                put_gateway(buffer, route.key.family(), gateway);
            }
            put_u32(buffer, RTA_OIF, via.device.0);
        }
        RouteTarget::Multipath(legs) if !deleting => put_legs(buffer, route, legs),
        // On a delete the id tells the kernel which of two routes with the same key is meant.
        RouteTarget::Nexthop(id) => put_u32(buffer, RTA_NH_ID, id.0),
        _ => {}
    }
    let realm_of_legs = matches!(route.target, RouteTarget::Multipath(_));
    if route.realm.0 != 0 && !deleting && !realm_of_legs {
        put_u32(buffer, RTA_FLOW, u32::from(route.realm.0));
    }
    if let Some(options) = &route.options
        && !deleting
    {
        put_options(buffer, options);
    }
    (
        if deleting { RTM_DELROUTE } else { RTM_NEWROUTE },
        write.flags(),
    )
}

/// A route as decoded from a message, for our tables or for the main table.
pub(super) struct Decoded {
    pub(super) key: RouteKey,
    /// `from PREFIX` with a length above 0: the route holds for some sources only.
    pub(super) from_some: bool,
    pub(super) hop: Option<Hop>,
    pub(super) multipath: Option<Vec<Hop>>,
    pub(super) nexthop: Option<NexthopId>,
    realm: Realm,
    pub(super) options: RouteOptions,
    pub(super) preference: Preference,
    pub(super) protocol: Protocol,
    pub(super) kind: u8,
}

/// The state of a next hop by its flags (`RTNH_F_*`, linux/rtnetlink.h).
fn hop_state(flags: u32) -> HopState {
    if flags & RTNH_F_DEAD != 0 {
        HopState::Dead
    } else if flags & RTNH_F_LINKDOWN != 0 {
        HopState::LinkDown
    } else {
        HopState::Live
    }
}

/// `ICMPV6_ROUTER_PREF_*` (linux/icmpv6.h): two bits, 1 is high, 3 is low; 0 and the invalid 2
/// count as medium (RFC 4191, section 2.2).
pub(super) fn preference_of(bits: u32) -> Preference {
    match bits & 3 {
        1 => Preference::High,
        3 => Preference::Low,
        _ => Preference::Medium,
    }
}

/// Reads a route message; `None` for a message about anything but an IP route of a table.
pub(super) fn decode(payload: &[u8]) -> Result<Option<Decoded>, WireError> {
    let Some((header, list)) = payload.split_first_chunk::<RTMSG>() else {
        return Err(WireError::Malformed("route header"));
    };
    let Some(family) = family_of(header[0]) else {
        return Ok(None);
    };
    let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    if flags & RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let mut table = TableId(u32::from(header[4]));
    let mut dst = family.default_prefix().addr();
    let mut metric = Metric(0);
    let mut realm = Realm(0);
    let (mut gateway, mut device, mut nexthop) = (None, None, None);
    let mut multipath = None;
    let mut options = RouteOptions::default();
    let mut preference = Preference::Medium;
    for attribute in each_attribute(list) {
        let attribute = attribute?;
        match attribute.kind {
            RTA_TABLE => table = TableId(attribute.u32()?),
            RTA_DST => dst = attribute.address()?,
            RTA_PRIORITY => metric = Metric(attribute.u32()?),
            RTA_GATEWAY => gateway = Some(attribute.address()?),
            RTA_VIA => gateway = Some(via_address(&attribute)?),
            RTA_OIF => device = Some(IfIndex(attribute.u32()?)),
            RTA_NH_ID => nexthop = Some(NexthopId(attribute.u32()?)),
            RTA_FLOW => realm = realm_of(&attribute)?,
            RTA_MULTIPATH => {
                let (legs, of_legs) = decode_legs(attribute.payload)?;
                multipath = Some(legs);
                realm = of_legs.unwrap_or(realm);
            }
            RTA_PREFSRC => options.source = Some(attribute.address()?),
            RTA_METRICS => options.metrics = decode_metrics(attribute.payload)?,
            RTA_PREF => preference = preference_of(u32::from(attribute.u8()?)),
            _ => {}
        }
    }
    let hop = device.map(|device| Hop {
        leg: Leg::only(Via {
            gateway,
            device,
            onlink: flags & RTNH_F_ONLINK != 0,
        }),
        state: hop_state(flags),
    });
    let dst = IpNet::new(dst, header[1]).map_err(|_| WireError::Malformed("prefix length"))?;
    Ok(Some(Decoded {
        key: RouteKey {
            table,
            dst,
            tos: header[3],
            metric,
        },
        from_some: header[2] != 0,
        hop,
        multipath,
        nexthop,
        realm,
        options,
        preference,
        protocol: Protocol(header[5]),
        kind: header[7],
    }))
}

impl Decoded {
    pub(super) fn into_route(self) -> Route {
        Route {
            key: self.key,
            realm: self.realm,
            options: self.options.shared(),
            protocol: self.protocol,
            target: target_of(self.kind, self.nexthop, self.multipath, self.hop),
        }
    }
}

fn target_of(
    kind: u8,
    nexthop: Option<NexthopId>,
    multipath: Option<Vec<Hop>>,
    hop: Option<Hop>,
) -> RouteTarget {
    match kind {
        RTN_UNICAST => match (nexthop, multipath, hop) {
            (Some(id), _, _) => RouteTarget::Nexthop(id),
            // The kernel sends no multipath without legs.
            (None, Some(hops), _) => {
                let legs = hops.into_iter().map(|hop| hop.leg).collect();
                RouteTarget::through(legs).unwrap_or(RouteTarget::Other(RTN_UNICAST))
            }
            (None, None, Some(hop)) => RouteTarget::Via(hop.leg.via),
            (None, None, None) => RouteTarget::Other(RTN_UNICAST),
        },
        RTN_UNREACHABLE => RouteTarget::Unreachable,
        RTN_THROW => RouteTarget::Throw,
        kind => RouteTarget::Other(kind),
    }
}

pub(super) fn request_table(family: Family, table: TableId) -> impl Fn(&mut Vec<u8>) {
    move |buffer| {
        let header = Header {
            table,
            ..Header::asking(family, 0)
        };
        put_header(buffer, &header);
        put_u32(buffer, RTA_TABLE, table.0);
    }
}

/// The kernel refuses the dump of a table that was never used with ENOENT. No other refusal means an
/// empty table.
pub(super) fn absent_is_empty<T>(
    result: Result<Vec<T>, NetlinkError>,
) -> Result<Vec<T>, NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// All routes of one table and family, ours and foreign.
pub fn dump_table(
    socket: &mut NetlinkSocket,
    family: Family,
    table: TableId,
) -> Result<Vec<Route>, NetlinkError> {
    let operation = format!("read the {family} routes of table {table}");
    let routes = absent_is_empty(socket.dump(
        &operation,
        RTM_GETROUTE,
        request_table(family, table),
        |frame| {
            if frame.kind != RTM_NEWROUTE {
                return Ok(None);
            }
            // The kernel filters by table. Without the filter of strict checking, routes of another
            // table would pass for ours.
            let decoded = decode(frame.body)?.filter(|route| route.key.table == table);
            Ok(decoded.map(Decoded::into_route))
        },
    ))?;
    Ok(if family == Family::Ipv6 {
        join_legs(routes)
    } else {
        routes
    })
}
