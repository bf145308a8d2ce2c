//! The legs of multipath routes on the wire, and the attributes that legs share with routes.

use std::net::IpAddr;

use super::{
    RTA_FLOW, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA, RTNH_F_ONLINK, family_number, hop_state,
};
use crate::facts::HopState;
use crate::kernel::wire::{
    Attribute, WireError, each_attribute, put, put_address, put_u32, u16_at, u32_at,
};
use crate::objects::{Leg, Route, RouteTarget, Via};
use crate::types::{Family, IfIndex, Realm};

/// Length of `struct rtnexthop`.
const RTNEXTHOP: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) struct Hop {
    pub(in crate::kernel) leg: Leg,
    /// Left out of the routes of our tables, since the state changes with the carrier.
    pub(in crate::kernel) state: HopState,
}

/// Without legs a delete matches the whole route; with legs IPv6 would delete leg by leg.
///
/// IPv4 refuses a realm of the whole route beside legs (`fib_create_info`,
/// net/ipv4/fib_semantics.c), so each leg carries the realm.
pub(super) fn put_legs(buffer: &mut Vec<u8>, route: &Route, legs: &[Leg]) {
    let mut value = Vec::new();
    for leg in legs {
        let mut attributes = Vec::new();
        if let Some(gateway) = leg.via.gateway {
            put_gateway(&mut attributes, route.key.family(), gateway);
        }
        let realm = if leg.realm.0 == 0 {
            route.realm
        } else {
            leg.realm
        };
        if realm.0 != 0 {
            put_u32(&mut attributes, RTA_FLOW, u32::from(realm.0));
        }
        // At most two attributes of 20 and 8 bytes: the length always fits.
        let length = (RTNEXTHOP + attributes.len()) as u16;
        let hops = u8::try_from(leg.weight.saturating_sub(1)).unwrap_or(u8::MAX);
        value.extend_from_slice(&length.to_ne_bytes());
        value.extend_from_slice(&[
            if leg.via.onlink {
                RTNH_F_ONLINK as u8
            } else {
                0
            },
            hops,
        ]);
        value.extend_from_slice(&leg.via.device.0.to_ne_bytes());
        value.extend_from_slice(&attributes);
    }
    put(buffer, RTA_MULTIPATH, &value);
}

/// A gateway of the other family (IPv4 via an IPv6 router) goes into `RTA_VIA`.
pub(super) fn put_gateway(buffer: &mut Vec<u8>, family: Family, gateway: IpAddr) {
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

/// The address behind the family of a `struct rtvia`.
pub(super) fn via_address(attribute: &Attribute) -> Result<IpAddr, WireError> {
    let payload = attribute.payload.get(2..).unwrap_or_default();
    Attribute {
        kind: attribute.kind,
        payload,
    }
    .address()
}

/// Reads the legs of a multipath route, and the realm if all legs carry the same one.
pub(super) fn decode_legs(mut rest: &[u8]) -> Result<(Vec<Hop>, Option<Realm>), WireError> {
    let mut legs: Vec<Hop> = Vec::new();
    while rest.len() >= RTNEXTHOP {
        let length = usize::from(u16_at(rest, 0)?);
        let attributes = rest
            .get(RTNEXTHOP..length)
            .ok_or(WireError::Malformed("next hop length"))?;
        let (mut gateway, mut realm) = (None, Realm(0));
        for attribute in each_attribute(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                RTA_GATEWAY => gateway = Some(attribute.address()?),
                RTA_VIA => gateway = Some(via_address(&attribute)?),
                RTA_FLOW => realm = realm_of(&attribute)?,
                _ => {}
            }
        }
        let flags = u32::from(rest[2]);
        legs.push(Hop {
            leg: Leg {
                via: Via {
                    gateway,
                    device: IfIndex(u32_at(rest, 4)?),
                    onlink: flags & RTNH_F_ONLINK != 0,
                },
                weight: u16::from(rest[3]) + 1,
                realm,
            },
            state: hop_state(flags),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    let first = legs.first().map(|hop| hop.leg.realm);
    let common = first.filter(|realm| legs.iter().all(|hop| hop.leg.realm == *realm));
    if common.is_some() {
        for hop in &mut legs {
            hop.leg.realm = Realm(0);
        }
    }
    Ok((legs, common.filter(|realm| realm.0 != 0)))
}

/// The destination realm is the low half; the source realm above has no meaning in our routes.
pub(super) fn realm_of(attribute: &Attribute) -> Result<Realm, WireError> {
    Ok(Realm((attribute.u32()? & 0xffff) as u16))
}

/// Joins the legs of an IPv6 multipath route where the kernel sends one message for each leg, as
/// kernels before 4.11 do: the legs follow each other in the dump.
pub(super) fn join_legs(routes: Vec<Route>) -> Vec<Route> {
    let mut joined: Vec<Route> = Vec::with_capacity(routes.len());
    for route in routes {
        if let Some(last) = joined.last_mut()
            && last.key == route.key
            && last.protocol == route.protocol
            && let (Some(mut legs), Some(more)) = (legs_of(&last.target), legs_of(&route.target))
        {
            legs.extend(more);
            last.target = RouteTarget::through(legs).unwrap_or(route.target);
        } else {
            joined.push(route);
        }
    }
    joined
}

/// The next hops with a gateway: the kernel joins no others to a multipath route.
fn legs_of(target: &RouteTarget) -> Option<Vec<Leg>> {
    match target {
        RouteTarget::Via(via) if via.gateway.is_some() => Some(vec![Leg::only(*via)]),
        RouteTarget::Multipath(legs) => Some(legs.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::super::{RTMSG, Write, decode, encode};
    use super::*;
    use crate::objects::RouteKey;
    use crate::types::{Metric, Protocol, TableId};

    fn leg(gateway: &str, device: u32, weight: u16) -> Leg {
        Leg {
            via: Via {
                gateway: Some(gateway.parse().unwrap()),
                device: IfIndex(device),
                onlink: device == 3,
            },
            weight,
            realm: Realm(0),
        }
    }

    fn default_over(dst: &str, target: RouteTarget) -> Route {
        let dst: IpNet = dst.parse().unwrap();
        Route {
            key: RouteKey {
                table: TableId(1084),
                dst,
                tos: 0,
                metric: Metric(1024),
            },
            target,
            realm: Realm(if dst.addr().is_ipv4() { 91 } else { 0 }),
            options: None,
            protocol: Protocol(83),
        }
    }

    #[test]
    fn multipath_route_reads_back_as_written() {
        for (dst, gateways) in [
            ("0.0.0.0/0", ["10.0.1.10", "10.0.2.10"]),
            ("::/0", ["2001:db8::10", "fe80::20"]),
        ] {
            let legs = vec![leg(gateways[0], 2, 1), leg(gateways[1], 3, 256)];
            let route = default_over(dst, RouteTarget::through(legs).unwrap());
            let mut buffer = Vec::new();
            encode(Write::Replace, &route, &mut buffer);
            let read = decode(&buffer).unwrap().unwrap().into_route();
            assert_eq!(read, route);
        }
    }

    #[test]
    fn realm_of_each_leg_reads_back_as_written() {
        let with = |gateway, realm| Leg {
            realm: Realm(realm),
            ..leg(gateway, 2, 1)
        };
        let legs = vec![with("10.0.1.10", 85), with("10.0.1.20", 86)];
        let route = Route {
            realm: Realm(0),
            ..default_over("0.0.0.0/0", RouteTarget::through(legs).unwrap())
        };
        let mut buffer = Vec::new();
        encode(Write::Replace, &route, &mut buffer);
        assert_eq!(decode(&buffer).unwrap().unwrap().into_route(), route);
    }

    #[test]
    fn order_and_link_flags_of_legs_make_no_difference() {
        const DEAD_LINKDOWN: u8 = 1 | 16;
        let legs = [leg("10.0.1.10", 2, 1), leg("10.0.1.20", 2, 1)];
        let route = |legs: &[Leg]| RouteTarget::Multipath(legs.to_vec());
        let backwards = default_over("0.0.0.0/0", route(&[legs[1], legs[0]]));
        let mut buffer = Vec::new();
        encode(Write::Add, &backwards, &mut buffer);
        // The first leg's `rtnh_flags`: behind the table and the metric, 8 bytes each, the header
        // of RTA_MULTIPATH and the length.
        buffer[RTMSG + 8 + 8 + 4 + 2] |= DEAD_LINKDOWN;
        let read = decode(&buffer).unwrap().unwrap().into_route();
        assert_eq!(read.target, route(&legs));
    }

    #[test]
    fn separate_entries_of_one_ipv6_route_are_joined() {
        let (first, second) = (leg("fe80::1", 2, 1), leg("fe80::2", 2, 1));
        let one = |leg: Leg| default_over("::/0", RouteTarget::Via(leg.via));
        let other = default_over("2001:db8::/32", RouteTarget::Via(first.via));
        let joined = join_legs(vec![one(second), one(first), other.clone()]);
        let both = default_over("::/0", RouteTarget::Multipath(vec![first, second]));
        assert_eq!(joined, [both, other]);
    }
}
