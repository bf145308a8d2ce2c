//! Next hops that the kernel learned from ICMP redirects. Look-ups that name the route
//! (`RTM_F_FIB_MATCH`) don't show them.

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{
    Header, RTA_DST, RTA_GATEWAY, RTA_TABLE, RTM_F_CLONED, RTM_GETROUTE, RTMSG, absent_is_empty,
    put_header,
};
use super::wire::{WireError, each_attribute, put_u32, u32_at};
use crate::judge::Redirect;
use crate::types::{Family, TableId};

/// `RTCF_REDIRECTED` (linux/in_route.h): marks IPv4 exceptions by redirects.
const RTCF_REDIRECTED: u32 = 0x0004_0000;
/// `RTPROT_REDIRECT` (linux/rtnetlink.h): marks IPv6 exceptions by redirects.
const RTPROT_REDIRECT: u8 = 1;
/// Places of protocol and flags in `struct rtmsg`.
const PROTOCOL: usize = 5;
const FLAGS: usize = 8;

/// The redirects for destinations that the table's routes lead to.
///
/// # Errors
/// The kernel refuses the dump.
pub fn dump(
    socket: &mut NetlinkSocket,
    family: Family,
    table: TableId,
) -> Result<Vec<Redirect>, NetlinkError> {
    let operation = format!("read the {family} redirects of table {table}");
    let request = |buffer: &mut Vec<u8>| {
        let header = Header::asking(family, RTM_F_CLONED);
        put_header(buffer, &header);
        put_u32(buffer, RTA_TABLE, table.0);
    };
    absent_is_empty(socket.dump(&operation, RTM_GETROUTE, request, |frame| {
        let header = frame.body.split_at_checked(RTMSG);
        let (header, list) = header.ok_or(WireError::Malformed("route header"))?;
        let learned = match family {
            Family::Ipv4 => u32_at(header, FLAGS)? & RTCF_REDIRECTED != 0,
            Family::Ipv6 => header[PROTOCOL] == RTPROT_REDIRECT,
        };
        let (mut destination, mut gateway) = (None, None);
        for attribute in each_attribute(list) {
            let attribute = attribute?;
            match attribute.kind {
                RTA_DST => destination = Some(attribute.address()?),
                RTA_GATEWAY => gateway = Some(attribute.address()?),
                _ => {}
            }
        }
        let pair = destination.zip(gateway).filter(|_| learned);
        Ok(pair.map(|(destination, gateway)| Redirect {
            destination,
            gateway,
        }))
    }))
}
