//! Raw netlink for one route at a time: delete, receive, restore.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use trailblazer::kernel::route::{self, Write};
use trailblazer::kernel::wire::{REQUEST, attributes, find, frames, write_message};
use trailblazer::objects::Route;

use super::Res;

/// `RTM_NEWROUTE` and `RTM_DELROUTE` (linux/rtnetlink.h).
pub const CAME: u16 = 24;
/// As above.
pub const GONE: u16 = 25;
/// `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE` (linux/rtnetlink.h).
const GROUPS: [u32; 2] = [7, 11];
/// Length of `struct rtmsg`.
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
/// A route still missing after this time is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// The message that adds or deletes a route, without an ACK.
pub fn message(write: Write, route: &Route) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, 1, |bytes| {
        let (kind, flags) = route::encode(write, route, bytes);
        (kind, flags | REQUEST)
    });
    bytes
}

/// Sends a message; the kernel has executed it on return.
pub fn send(socket: &Socket, message: &[u8]) -> Res<()> {
    socket.send_to(message, &SocketAddr::new(0, 0), 0)?;
    Ok(())
}

/// A socket subscribed to all routes.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Begins to listen.
    pub fn open() -> Res<Listener> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(LOST_AFTER))?;
        Ok(Listener {
            socket,
            buffer: Vec::with_capacity(64 << 10),
        })
    }

    /// Waits for a notification of a kind about a destination; returns the time of arrival.
    pub fn wait(&mut self, kind: u16, destination: IpAddr) -> Res<Instant> {
        let octets = match destination {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        loop {
            self.buffer.clear();
            self.socket
                .recv_from(&mut self.buffer, 0)
                .map_err(|error| format!("{destination} isn't back: {error}"))?;
            let heard = Instant::now();
            for frame in frames(&self.buffer)? {
                let found = find(
                    &attributes(frame.body.get(RTMSG..).unwrap_or(&[]))?,
                    RTA_DST,
                );
                if frame.kind == kind && found.is_some_and(|found| found.payload == octets) {
                    return Ok(heard);
                }
            }
        }
    }
}
