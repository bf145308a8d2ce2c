//! Nexthop objects on the wire.

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{RTNH_F_ONLINK, Write, family_number, family_of};
use super::wire::{WireError, each_attribute, put, put_address, put_u32, u32_at};
use crate::objects::{Nexthop, NexthopKind, Via};
use crate::types::{Family, IfIndex, NexthopId, Protocol};

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

/// Writes a nexthop message; gives its type and flags.
pub fn encode(write: Write, nexthop: &Nexthop, buffer: &mut Vec<u8>) -> (u16, u16) {
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
pub fn dump(socket: &mut NetlinkSocket) -> Result<Vec<Nexthop>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; NHMSG]);
    let dump = socket.dump(
        "read the nexthop objects",
        RTM_GETNEXTHOP,
        request,
        |frame| match frame.kind {
            RTM_NEWNEXTHOP => decode(frame.body).map(Some),
            _ => Ok(None),
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

fn decode(payload: &[u8]) -> Result<Nexthop, WireError> {
    let header = payload
        .get(..NHMSG)
        .ok_or(WireError::Malformed("nexthop header"))?;
    let family = family_of(header[0]).unwrap_or(Family::Ipv4);
    let onlink = u32_at(header, 4)? & RTNH_F_ONLINK != 0;
    let (mut id, mut gateway, mut device, mut group) = (None, None, None, None);
    for attribute in each_attribute(&payload[NHMSG..]) {
        let attribute = attribute?;
        match attribute.kind {
            NHA_ID => id = Some(NexthopId(attribute.u32()?)),
            NHA_OIF => device = Some(IfIndex(attribute.u32()?)),
            NHA_GATEWAY => gateway = Some(attribute.address()?),
            NHA_GROUP => {
                group = Some(
                    attribute
                        .payload
                        .chunks_exact(NEXTHOP_GRP)
                        .map(|member| u32_at(member, 0).map(NexthopId))
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
        id: id.ok_or(WireError::Malformed("nexthop id"))?,
        family,
        kind,
        protocol: Protocol(header[2]),
    })
}
