//! The kernel's own routing decision (`RTM_GETROUTE`).

use std::net::IpAddr;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{Header, RTA_DST, RTM_GETROUTE, RTMSG, decode, put_header};
use super::wire::{Frame, WireError, each_attribute, put, put_address, put_u32};
use crate::judge::ordinary::{PORT, SOURCE_PORT};
pub use crate::judge::{Lookup, RouteDecision};
use crate::types::Family;

// linux/rtnetlink.h.
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_PREFSRC: u16 = 7;
const RTA_MARK: u16 = 16;
const RTA_UID: u16 = 25;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
/// Answers a look-up with the matching route instead of a host route derived from it.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// Adds the route's table to the answer; without the flag, IPv4 answers `main` for every table.
/// IPv6 always names the table and refuses the flag (`inet6_rtm_valid_getroute_req`,
/// net/ipv6/route.c).
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;

/// Asks the kernel for its routing decision about a packet to port 443. A packet from a socket
/// belongs to the user of the question: the service and an administrator's command ask the same.
/// Kernels before 4.17 ignore protocol and port.
pub fn lookup(
    socket: &mut NetlinkSocket,
    question: &Lookup,
) -> Result<RouteDecision, NetlinkError> {
    let family = Family::of(question.destination);
    let operation = format!("look up the route to {}", question.destination);
    let flags = match family {
        Family::Ipv4 => RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE,
        Family::Ipv6 => RTM_F_FIB_MATCH,
    };
    let request = |buffer: &mut Vec<u8>| put_question(buffer, question, flags);
    let decode = |frame: &Frame<'_>| Ok(decode(frame.body)?.map(|decoded| decoded.into_route()));
    Ok(
        match socket.ask(&operation, RTM_GETROUTE, request, decode)? {
            Ok(route) => RouteDecision::Route(route),
            Err(error) => RouteDecision::Errno(error.errno),
        },
    )
}

fn put_question(buffer: &mut Vec<u8>, question: &Lookup, flags: u32) {
    let family = Family::of(question.destination);
    let header = Header {
        prefix_len: family.bits(),
        source_len: question.source.map_or(0, |_| family.bits()),
        ..Header::asking(family, flags)
    };
    put_header(buffer, &header);
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
    if question.input.is_none() {
        put_u32(buffer, RTA_UID, question.user);
    }
    put(buffer, RTA_IP_PROTO, &[question.transport.number()]);
    put(buffer, RTA_SPORT, &SOURCE_PORT.to_be_bytes());
    put(buffer, RTA_DPORT, &PORT.to_be_bytes());
}

/// The source address that the kernel chooses for packets to a destination from a socket without
/// an address; `None` if no route leads there.
pub fn chosen_source(
    socket: &mut NetlinkSocket,
    destination: IpAddr,
) -> Result<Option<IpAddr>, NetlinkError> {
    let operation = format!("look up the source for {destination}");
    let question = Lookup::from_socket(destination);
    let request = |buffer: &mut Vec<u8>| put_question(buffer, &question, 0);
    let decode = |frame: &Frame<'_>| {
        let list = frame
            .body
            .get(RTMSG..)
            .ok_or(WireError::Malformed("route header"))?;
        for attribute in each_attribute(list) {
            let attribute = attribute?;
            if attribute.kind == RTA_PREFSRC {
                return Ok(Some(Some(attribute.address()?)));
            }
        }
        Ok(Some(None))
    };
    let answer = socket.ask(&operation, RTM_GETROUTE, request, decode)?;
    Ok(answer.ok().flatten())
}
