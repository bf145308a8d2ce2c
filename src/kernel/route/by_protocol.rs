//! The routes of all tables with one protocol number.

use super::super::netlink::{NetlinkError, NetlinkSocket};
use super::{Header, RTM_GETROUTE, RTM_NEWROUTE, decode, put_header};
use crate::objects::Route;
use crate::types::{Family, Protocol};

/// The routes of a family with a protocol number, in whatever table. Each leg of an IPv6 multipath
/// route counts as a route.
///
/// # Errors
/// The kernel refuses the question, or its answer is no list of routes.
pub fn dump_protocol(
    socket: &mut NetlinkSocket,
    family: Family,
    protocol: Protocol,
) -> Result<Vec<Route>, NetlinkError> {
    let operation = format!("read the {family} routes with protocol {protocol}");
    let request = |buffer: &mut Vec<u8>| {
        let header = Header {
            protocol: protocol.0,
            ..Header::asking(family, 0)
        };
        put_header(buffer, &header);
    };
    socket.dump(&operation, RTM_GETROUTE, request, |frame| {
        if frame.kind != RTM_NEWROUTE {
            return Ok(None);
        }
        // A kernel without strict checking (before 5.0) ignores the filter.
        let route = decode(frame.body)?.map(super::Decoded::into_route);
        Ok(route.filter(|route| route.protocol == protocol))
    })
}
