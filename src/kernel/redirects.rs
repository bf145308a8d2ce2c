//! Next hops that the kernel learned from ICMP redirects. Look-ups that name the route
//! (`RTM_F_FIB_MATCH`) don't show them.

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{Header, RTA_DST, RTM_GETROUTE, absent_is_empty, family_number, put_header};
use super::wire::{WireError, each_attribute, put_u32};
use crate::judge::Redirect;
use crate::types::{Family, TableId};

/// `RTM_F_CLONED` (linux/rtnetlink.h): exceptions in place of routes.
const RTM_F_CLONED: u32 = 0x200;
/// `RTCF_REDIRECTED` (linux/in_route.h): marks IPv4 exceptions by redirects.
const RTCF_REDIRECTED: u32 = 0x0004_0000;
/// `RTPROT_REDIRECT` (linux/rtnetlink.h): marks IPv6 exceptions by redirects.
const RTPROT_REDIRECT: u8 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
/// Places of protocol and flags in `struct rtmsg`, and its length.
const PROTOCOL: usize = 5;
const FLAGS: usize = 8;
const RTMSG: usize = 12;

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
        let header = Header {
            family: family_number(family),
            prefix_len: 0,
            source_len: 0,
            table: TableId(0),
            protocol: 0,
            scope: 0,
            kind: 0,
            flags: RTM_F_CLONED,
        };
        put_header(buffer, &header);
        put_u32(buffer, RTA_TABLE, table.0);
    };
    absent_is_empty(socket.dump(&operation, RTM_GETROUTE, request, |frame| {
        let header = frame.body.split_at_checked(RTMSG);
        let (header, list) = header.ok_or(WireError::Malformed("route header"))?;
        let mut flags = [0; 4];
        flags.copy_from_slice(&header[FLAGS..]);
        let learned = match family {
            Family::Ipv4 => u32::from_ne_bytes(flags) & RTCF_REDIRECTED != 0,
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
