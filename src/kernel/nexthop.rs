//! Nexthop objects on the wire: reading, for defaults of the main table that use an object, and
//! deleting, for the objects that earlier versions left.

use std::collections::BTreeMap;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{RTNH_F_ONLINK, family_of};
use super::wire::{WireError, each_attribute, put_u32, u32_at};
use crate::objects::{GroupMember, NexthopKind, NexthopObject, Via};
use crate::types::{Family, IfIndex, NexthopId, Protocol};

// linux/nexthop.h.
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// Length of `struct nhmsg`.
const NHMSG: usize = 8;
/// Length of `struct nexthop_grp`.
const NEXTHOP_GRP: usize = 8;

/// Writes the message that deletes a nexthop object; returns the message's type and flags.
pub fn encode_delete(id: NexthopId, buffer: &mut Vec<u8>) -> (u16, u16) {
    buffer.extend_from_slice(&[0; NHMSG]);
    put_u32(buffer, NHA_ID, id.0);
    (RTM_DELNEXTHOP, 0)
}

/// All nexthop objects, ours or foreign. A kernel without support (before 5.3) has none.
pub fn dump(socket: &mut NetlinkSocket) -> Result<Vec<NexthopObject>, NetlinkError> {
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
    let mut objects = match dump {
        Err(error) if error.errno() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            Vec::new()
        }
        other => other?,
    };
    let families: BTreeMap<NexthopId, Family> = objects
        .iter()
        .map(|object| (object.id, object.family))
        .collect();
    for object in &mut objects {
        if let NexthopKind::Group(members) = &object.kind
            && let Some(family) = members.first().and_then(|first| families.get(&first.id))
        {
            object.family = *family;
        }
    }
    Ok(objects)
}

pub(super) fn decode(payload: &[u8]) -> Result<NexthopObject, WireError> {
    let header = payload
        .get(..NHMSG)
        .ok_or(WireError::Malformed("nexthop header"))?;
    let onlink = u32_at(header, 4)? & RTNH_F_ONLINK != 0;
    let (mut id, mut gateway, mut device, mut group) = (None, None, None, None);
    for attribute in each_attribute(&payload[NHMSG..]) {
        let attribute = attribute?;
        match attribute.kind {
            NHA_ID => id = Some(NexthopId(attribute.u32()?)),
            NHA_OIF => device = Some(IfIndex(attribute.u32()?)),
            NHA_GATEWAY => gateway = Some(attribute.address()?),
            NHA_GROUP => {
                let members = attribute.payload.chunks_exact(NEXTHOP_GRP);
                group = Some(members.map(decode_member).collect::<Result<Vec<_>, _>>()?);
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
    Ok(NexthopObject {
        id: id.ok_or(WireError::Malformed("nexthop id"))?,
        family: family_of(header[0]).unwrap_or(Family::Ipv4),
        kind,
        protocol: Protocol(header[2]),
    })
}

/// `struct nexthop_grp`: the id, then the weight less one in a low and a high byte. Kernels before
/// 6.12 have no high byte, which is then 0.
fn decode_member(bytes: &[u8]) -> Result<GroupMember, WireError> {
    let less_one = u16::from_le_bytes([bytes[4], bytes[5]]);
    Ok(GroupMember {
        id: NexthopId(u32_at(bytes, 0)?),
        weight: less_one.saturating_add(1),
    })
}
