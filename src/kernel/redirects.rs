//! Next hops that the kernel learned from ICMP redirects. Look-ups that name the route
//! (`RTM_F_FIB_MATCH`) don't show them.

use super::errno::KernelError;
use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{
    Header, RTA_DST, RTA_GATEWAY, RTA_TABLE, RTM_F_CLONED, RTM_GETROUTE, RTMSG, Write,
    absent_is_empty, encode, put_header,
};
use super::wire::{WireError, each_attribute, put_u32, u32_at};
use crate::judge::Redirect;
use crate::objects::Route;
use crate::types::{Family, Metric, TableId};

/// `RTCF_REDIRECTED` (linux/in_route.h): marks IPv4 exceptions by redirects.
const RTCF_REDIRECTED: u32 = 0x0004_0000;
/// Place of the flags in `struct rtmsg`.
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
            // IPv6 names no origin. The gateway of an exception for a path MTU is the route's, and
            // the judge passes over the gateways of the route.
            Family::Ipv6 => u32_at(header, FLAGS)? & RTM_F_CLONED != 0,
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

/// Makes the kernel forget the redirects for destinations that a route leads to, without a moment
/// in which no route leads there.
///
/// The exceptions belong to the next hop of the route. Replacing the route by an equal one keeps
/// both, and `ip route flush cache` writes to a sysctl, which the sandbox of the unit forbids. So a
/// copy with a worse metric stands in while the route is deleted and added again.
///
/// # Errors
/// The kernel refuses a step. At least one of the two routes remains.
pub fn forget(
    socket: &mut NetlinkSocket,
    route: &Route,
) -> Result<Result<(), KernelError>, NetlinkError> {
    let mut copy = route.clone();
    copy.key.metric = Metric(route.key.metric.0.saturating_add(1));
    let steps = [
        (Write::Add, &copy),
        (Write::Delete, route),
        (Write::Add, route),
        (Write::Delete, &copy),
    ];
    for (write, route) in steps {
        let message = |_, buffer: &mut Vec<u8>| encode(write, route, buffer);
        if let Some((_, error)) = socket.batch("forget redirects", 1, message)?.pop() {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
