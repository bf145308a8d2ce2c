//! Routes and nexthop objects on the wire.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::attribute::{
    Malformed, address_of, attributes, put, put_address, put_u32, u16_of, u32_of,
};
use super::netlink::{NetlinkError, NetlinkSocket};
use crate::facts::MainRoute;
use crate::objects::{Nexthop, NexthopKind, Route, RouteKey, RouteTarget, Via};
use crate::types::{Family, IfIndex, Metric, NexthopId, Protocol, Realm, TableId};

// Message types and attributes of linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_SRC: u16 = 2;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTN_THROW: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
/// `rtm_table` of tables above 255, whose number is in `RTA_TABLE`.
const RT_TABLE_COMPAT: u8 = 252;
/// Cached exceptions (path MTU, redirects), not routes.
const RTM_F_CLONED: u32 = 0x200;
/// Answer a look-up with the route that matched, not with a host route made from it.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// Say which table it is in; without it IPv4 says `main` whatever the table. IPv6 always says,
/// and refuses the flag (`inet6_rtm_valid_getroute_req`, net/ipv6/route.c).
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const RTNH_F_ONLINK: u32 = 4;
/// Length of `struct rtmsg`.
const RTMSG: usize = 12;
/// Length of `struct rtnexthop`.
const RTNEXTHOP: usize = 8;

// linux/nexthop.h.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// Length of `struct nhmsg`.
const NHMSG: usize = 8;
/// Length of `struct nexthop_grp`.
const NEXTHOP_GRP: usize = 8;

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

/// What to do with a route or a nexthop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Add; refused where the key exists.
    Add,
    /// Replace what was seen as ours; refused where nothing is there.
    Replace,
    /// Delete.
    Delete,
}

impl Write {
    fn flags(self) -> u16 {
        match self {
            Write::Add => NLM_F_CREATE | NLM_F_EXCL,
            Write::Replace => NLM_F_REPLACE,
            Write::Delete => 0,
        }
    }
}

struct Header {
    family: u8,
    prefix_len: u8,
    source_len: u8,
    table: TableId,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

fn put_header(buffer: &mut Vec<u8>, header: &Header) {
    let table = u8::try_from(header.table.0).unwrap_or(RT_TABLE_COMPAT);
    buffer.extend_from_slice(&[
        header.family,
        header.prefix_len,
        header.source_len,
        0,
        table,
        header.protocol,
        header.scope,
        header.kind,
    ]);
    buffer.extend_from_slice(&header.flags.to_ne_bytes());
}

/// Writes a route message; gives its type and flags.
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
        // A delete with a scope would only match that scope.
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
        RouteTarget::Nexthop(id) => put_u32(buffer, RTA_NH_ID, id.0),
        _ => {}
    }
    if route.realm.0 != 0 && !deleting {
        put_u32(buffer, RTA_FLOW, u32::from(route.realm.0));
    }
    (
        if deleting { RTM_DELROUTE } else { RTM_NEWROUTE },
        write.flags(),
    )
}

/// A gateway of the other family (IPv4 via an IPv6 router) goes into `RTA_VIA`.
fn put_gateway(buffer: &mut Vec<u8>, family: Family, gateway: IpAddr) {
    if Family::of(gateway) == family {
        return put_address(buffer, RTA_GATEWAY, gateway);
    }
    let mut value = u16::from(family_number(Family::of(gateway)))
        .to_ne_bytes()
        .to_vec();
    match gateway {
        IpAddr::V4(v4) => value.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => value.extend_from_slice(&v6.octets()),
    }
    put(buffer, RTA_VIA, &value);
}

/// A route as it stands in a message, before it is sorted into ours and the main table's.
struct Decoded {
    key: RouteKey,
    hops: Vec<Via>,
    nexthop: Option<NexthopId>,
    multipath: bool,
    realm: Realm,
    protocol: Protocol,
    kind: u8,
}

/// Reads a route message; `None` for what isn't an IP route of a table.
fn decode(payload: &[u8]) -> Result<Option<Decoded>, Malformed> {
    let header = payload.get(..RTMSG).ok_or(Malformed("route header"))?;
    let Some(family) = family_of(header[0]) else {
        return Ok(None);
    };
    let flags = u32_of(&header[8..12])?;
    if flags & RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let mut table = TableId(u32::from(header[4]));
    let mut dst = family.default_prefix().addr();
    let mut metric = Metric(0);
    let mut realm = Realm(0);
    let (mut gateway, mut device, mut nexthop) = (None, None, None);
    let mut multipath = None;
    for attribute in attributes(&payload[RTMSG..]) {
        let (kind, value) = attribute?;
        match kind {
            RTA_TABLE => table = TableId(u32_of(value)?),
            RTA_DST => dst = address_of(value)?,
            RTA_PRIORITY => metric = Metric(u32_of(value)?),
            RTA_GATEWAY => gateway = Some(address_of(value)?),
            RTA_VIA => gateway = Some(address_of(value.get(2..).unwrap_or(&[]))?),
            RTA_OIF => device = Some(IfIndex(u32_of(value)?)),
            RTA_NH_ID => nexthop = Some(NexthopId(u32_of(value)?)),
            RTA_FLOW => realm = Realm((u32_of(value)? & 0xffff) as u16),
            RTA_MULTIPATH => multipath = Some(decode_hops(value)?),
            _ => {}
        }
    }
    let onlink = flags & RTNH_F_ONLINK != 0;
    let is_multipath = multipath.is_some();
    let hops = multipath.unwrap_or_else(|| {
        device
            .map(|device| {
                vec![Via {
                    gateway,
                    device,
                    onlink,
                }]
            })
            .unwrap_or_default()
    });
    let dst = IpNet::new(dst, header[1]).map_err(|_| Malformed("prefix length"))?;
    Ok(Some(Decoded {
        key: RouteKey {
            table,
            dst,
            tos: header[3],
            metric,
        },
        hops,
        nexthop,
        multipath: is_multipath,
        realm,
        protocol: Protocol(header[5]),
        kind: header[7],
    }))
}

fn decode_hops(mut rest: &[u8]) -> Result<Vec<Via>, Malformed> {
    let mut hops = Vec::new();
    while rest.len() >= RTNEXTHOP {
        let length = usize::from(u16_of(rest)?);
        let hop = rest
            .get(RTNEXTHOP..length)
            .ok_or(Malformed("next hop length"))?;
        let device = IfIndex(u32_of(&rest[4..8])?);
        let onlink = u32::from(rest[2]) & RTNH_F_ONLINK != 0;
        let mut gateway = None;
        for attribute in attributes(hop) {
            match attribute? {
                (RTA_GATEWAY, value) => gateway = Some(address_of(value)?),
                (RTA_VIA, value) => gateway = Some(address_of(value.get(2..).unwrap_or(&[]))?),
                _ => {}
            }
        }
        hops.push(Via {
            gateway,
            device,
            onlink,
        });
        rest = rest.get(super::attribute::align(length)..).unwrap_or(&[]);
    }
    Ok(hops)
}

fn target_of(decoded: &Decoded) -> RouteTarget {
    match decoded.kind {
        RTN_UNICAST => {
            if let Some(id) = decoded.nexthop {
                return RouteTarget::Nexthop(id);
            }
            match decoded.hops.as_slice() {
                [via] if !decoded.multipath => RouteTarget::Via(*via),
                hops => RouteTarget::Multipath(hops.to_vec()),
            }
        }
        RTN_UNREACHABLE => RouteTarget::Unreachable,
        RTN_THROW => RouteTarget::Throw,
        kind => RouteTarget::Other(kind),
    }
}

fn request_table(family: Family, table: TableId) -> impl Fn(&mut Vec<u8>) {
    move |buffer| {
        put_header(
            buffer,
            &Header {
                family: family_number(family),
                prefix_len: 0,
                source_len: 0,
                table,
                protocol: 0,
                scope: 0,
                kind: 0,
                flags: 0,
            },
        );
        put_u32(buffer, RTA_TABLE, table.0);
    }
}

/// A table that was never used doesn't exist: the kernel says ENOENT to a dump of it, which is
/// the one refusal that really means empty.
fn absent_is_empty<T>(result: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// All routes of one table and family, ours or not.
pub fn dump_table(
    socket: &mut NetlinkSocket,
    family: Family,
    table: TableId,
) -> Result<Vec<Route>, NetlinkError> {
    let operation = format!("read the {family} routes of table {table}");
    absent_is_empty(socket.dump(
        &operation,
        RTM_GETROUTE,
        request_table(family, table),
        |kind, payload| {
            if kind != RTM_NEWROUTE {
                return Ok(None);
            }
            // The kernel filters; a kernel that doesn't must not make another table's routes ours.
            let decoded = decode(payload)?.filter(|route| route.key.table == table);
            Ok(decoded.map(|decoded| Route {
                key: decoded.key,
                target: target_of(&decoded),
                realm: decoded.realm,
                protocol: decoded.protocol,
            }))
        },
    ))
}

/// The main table, one entry a next hop.
pub fn dump_main(
    socket: &mut NetlinkSocket,
    family: Family,
) -> Result<Vec<MainRoute>, NetlinkError> {
    let operation = format!("read the {family} routes of the main table");
    let request = request_table(family, TableId::MAIN);
    let decoded =
        absent_is_empty(
            socket.dump(&operation, RTM_GETROUTE, request, |kind, payload| {
                if kind != RTM_NEWROUTE {
                    return Ok(None);
                }
                Ok(decode(payload)?.filter(|route| route.key.table == TableId::MAIN))
            }),
        )?;
    let mut routes = Vec::new();
    for route in decoded {
        let unicast = route.kind == RTN_UNICAST;
        let hops: Vec<Option<Via>> = if unicast && !route.hops.is_empty() {
            route.hops.iter().copied().map(Some).collect()
        } else {
            vec![None]
        };
        routes.extend(hops.into_iter().map(|via| MainRoute {
            dst: route.key.dst,
            metric: route.key.metric,
            gateway: via.and_then(|via| via.gateway),
            device: via.map(|via| via.device),
            onlink: via.is_some_and(|via| via.onlink),
            protocol: route.protocol,
            unicast,
        }));
    }
    Ok(routes)
}

/// A question to the kernel's routing decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The destination.
    pub destination: IpAddr,
    /// The source, for forwarded packets.
    pub source: Option<IpAddr>,
    /// The incoming interface, for forwarded packets.
    pub input: Option<IfIndex>,
    /// The packet's mark.
    pub mark: u32,
}

/// The routing decision: the route that matched, or the errno that the packet would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The matching route.
    Route(Route),
    /// `unreachable` and its like, as the application sees them.
    Errno(i32),
}

/// Asks the kernel what it would do with a packet.
pub fn lookup(socket: &mut NetlinkSocket, question: &Lookup) -> Result<Decision, NetlinkError> {
    let family = Family::of(question.destination);
    let operation = format!("look up the route to {}", question.destination);
    let answer = socket.ask(&operation, RTM_GETROUTE, |buffer| {
        put_header(
            buffer,
            &Header {
                family: family_number(family),
                prefix_len: family.bits(),
                source_len: if question.source.is_some() {
                    family.bits()
                } else {
                    0
                },
                table: TableId(0),
                protocol: 0,
                scope: 0,
                kind: 0,
                flags: match family {
                    Family::Ipv4 => RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE,
                    Family::Ipv6 => RTM_F_FIB_MATCH,
                },
            },
        );
        put_address(buffer, RTA_DST, question.destination);
        if let Some(source) = question.source {
            put_address(buffer, RTA_SRC, source);
        }
        if let Some(input) = question.input {
            put_u32(buffer, RTA_IIF, input.0);
        }
        if question.mark != 0 {
            put_u32(buffer, RTA_MARK, question.mark);
        }
    })?;
    match answer {
        Err(error) => Ok(Decision::Errno(error.errno)),
        Ok(payload) => match decode(&payload) {
            Ok(Some(decoded)) => Ok(Decision::Route(Route {
                key: decoded.key,
                target: target_of(&decoded),
                realm: decoded.realm,
                protocol: decoded.protocol,
            })),
            Ok(None) => Err(NetlinkError::Malformed {
                operation,
                what: "route look-up",
            }),
            Err(Malformed(what)) => Err(NetlinkError::Malformed { operation, what }),
        },
    }
}

/// Writes a nexthop message; gives its type and flags.
pub fn encode_nexthop(write: Write, nexthop: &Nexthop, buffer: &mut Vec<u8>) -> (u16, u16) {
    let deleting = write == Write::Delete;
    let family = match (&nexthop.kind, deleting) {
        (NexthopKind::Single(_), false) => family_number(nexthop.family),
        _ => 0,
    };
    let protocol = if deleting { 0 } else { nexthop.protocol.0 };
    let onlink = matches!(nexthop.kind, NexthopKind::Single(Via { onlink: true, .. })) && !deleting;
    buffer.extend_from_slice(&[family, 0, protocol, 0]);
    buffer.extend_from_slice(&(if onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
    put_u32(buffer, NHA_ID, nexthop.id.0);
    if deleting {
        return (RTM_DELNEXTHOP, 0);
    }
    match &nexthop.kind {
        NexthopKind::Single(via) => {
            put_u32(buffer, NHA_OIF, via.device.0);
            if let Some(gateway) = via.gateway {
                put_address(buffer, NHA_GATEWAY, gateway);
            }
        }
        NexthopKind::Group(members) => {
            let mut value = Vec::with_capacity(members.len() * NEXTHOP_GRP);
            for member in members {
                value.extend_from_slice(&member.0.to_ne_bytes());
                // weight - 1, weight_high, resvd2.
                value.extend_from_slice(&[0, 0, 0, 0]);
            }
            put(buffer, NHA_GROUP, &value);
        }
        NexthopKind::Other => {}
    }
    (RTM_NEWNEXTHOP, write.flags())
}

/// All nexthop objects, ours or not. A kernel without them (before 5.3) has none.
pub fn dump_nexthops(socket: &mut NetlinkSocket) -> Result<Vec<Nexthop>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; NHMSG]);
    let dump = socket.dump(
        "read the nexthop objects",
        RTM_GETNEXTHOP,
        request,
        |kind, payload| {
            if kind != RTM_NEWNEXTHOP {
                Ok(None)
            } else {
                decode_nexthop(payload).map(Some)
            }
        },
    );
    let mut nexthops = match dump {
        Err(error) if error.errno() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            Vec::new()
        }
        other => other?,
    };
    // The kernel stores no family of a group: it is that of its members.
    let singles: std::collections::BTreeMap<NexthopId, Family> = nexthops
        .iter()
        .map(|nexthop| (nexthop.id, nexthop.family))
        .collect();
    for nexthop in &mut nexthops {
        if let NexthopKind::Group(members) = &nexthop.kind
            && let Some(family) = members.first().and_then(|first| singles.get(first))
        {
            nexthop.family = *family;
        }
    }
    Ok(nexthops)
}

fn decode_nexthop(payload: &[u8]) -> Result<Nexthop, Malformed> {
    let header = payload.get(..NHMSG).ok_or(Malformed("nexthop header"))?;
    let family = family_of(header[0]).unwrap_or(Family::Ipv4);
    let onlink = u32_of(&header[4..8])? & RTNH_F_ONLINK != 0;
    let (mut id, mut gateway, mut device, mut group) = (None, None, None, None);
    for attribute in attributes(&payload[NHMSG..]) {
        let (kind, value) = attribute?;
        match kind {
            NHA_ID => id = Some(NexthopId(u32_of(value)?)),
            NHA_OIF => device = Some(IfIndex(u32_of(value)?)),
            NHA_GATEWAY => gateway = Some(address_of(value)?),
            NHA_GROUP => {
                group = Some(
                    value
                        .chunks_exact(NEXTHOP_GRP)
                        .map(|member| u32_of(member).map(NexthopId))
                        .collect::<Result<Vec<_>, _>>()?,
                );
            }
            _ => {}
        }
    }
    let kind = match (group, device) {
        (Some(members), _) => NexthopKind::Group(members),
        (None, Some(device)) => NexthopKind::Single(Via {
            gateway,
            device,
            onlink,
        }),
        (None, None) => NexthopKind::Other,
    };
    Ok(Nexthop {
        id: id.ok_or(Malformed("nexthop id"))?,
        family,
        kind,
        protocol: Protocol(header[2]),
    })
}
