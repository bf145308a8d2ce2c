//! Notifications of the kernel: routes of our tables, the main table's routes but those of routing
//! daemons, rules, links, addresses, sysctls of interfaces, and nf_tables.
//!
//! The kernel removes IPv4 routes without a notification when their link goes down or loses its
//! last address, so that links and addresses are watched too.

mod decode;
mod filter;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod neighbours;

use std::io;
use std::time::Instant;

use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use thiserror::Error;

use super::wire::{WireError, frames, own};
use crate::types::TableId;
pub use decode::{Change, Event};
pub use neighbours::GivenUp;

/// `RTNLGRP_*` (linux/rtnetlink.h): LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR,
/// IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF.
const ROUTE_GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 19, 24, 25];
/// `RTNLGRP_NEXTHOP`; kernels before 5.3 have no such group.
const NEXTHOP_GROUP: u32 = 32;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// `XFRMNLGRP_POLICY` (linux/xfrm.h).
const POLICY_GROUP: u32 = 4;
/// Bound of a notification: a link with many virtual functions may take 32 KiB.
const RECEIVE: usize = 64 << 10;
/// `MSG_DONTWAIT` (linux/socket.h).
const DONT_WAIT: i32 = 0x40;

/// The kernel's notifications are not available.
#[derive(Debug, Error)]
#[error(
    "cannot {operation}: {source}; without kernel notifications the agent notices changes only at the next resync"
)]
pub struct ListenError {
    operation: &'static str,
    #[source]
    source: io::Error,
}

impl ListenError {
    /// The system refused a thread for the listener.
    pub fn no_thread(source: io::Error) -> ListenError {
        cannot("start the listening thread")(source)
    }
}

fn cannot(operation: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |source| ListenError { operation, source }
}

/// The result of one reading of the sockets.
#[derive(Debug, Default)]
pub struct Heard {
    /// The changes in the order of each socket, without those of this process.
    pub events: Vec<Event>,
    /// The kernel dropped notifications, or sent an unreadable one: anything may have changed.
    pub lost: bool,
}

/// Listens to routing and, if the kernel has nf_tables, to the firewall.
#[derive(Debug)]
pub struct Listener {
    route: Socket,
    firewall: Option<Socket>,
    policies: Option<Socket>,
    buffer: Vec<u8>,
    /// The tables and own ports of the attached filter.
    filtered: Option<(Vec<TableId>, Vec<u32>)>,
}

impl Listener {
    /// Opens the sockets with receive buffers of `buffer` bytes. With a full buffer, the kernel
    /// drops notifications and reports the loss.
    ///
    /// # Errors
    /// The system refuses a socket or the membership in a group.
    pub fn open(buffer: usize) -> Result<Listener, ListenError> {
        let route = open(NETLINK_ROUTE, buffer).map_err(cannot("open a route socket"))?;
        for group in ROUTE_GROUPS {
            route
                .add_membership(group)
                .map_err(cannot("listen to route notifications"))?;
        }
        match route.add_membership(NEXTHOP_GROUP) {
            Err(error) if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) => {
                return Err(cannot("listen to nexthop notifications")(error));
            }
            _ => {}
        }
        let firewall = open(NETLINK_NETFILTER, buffer)
            .and_then(|socket| socket.add_membership(NFTABLES_GROUP).map(|()| socket));
        let firewall = match firewall {
            Ok(socket) => Some(socket),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(cannot("listen to nf_tables notifications")(error)),
        };
        Ok(Listener {
            route,
            firewall,
            policies: None,
            buffer: Vec::with_capacity(RECEIVE),
            filtered: None,
        })
    }

    /// Listens to the forward policies of IPsec too. Without the notifications (a kernel without
    /// IPsec), drift is found by the next pass.
    pub fn hear_policies(&mut self, buffer: usize) {
        if self.policies.is_some() {
            return;
        }
        let socket = open(NETLINK_XFRM, buffer)
            .and_then(|socket| socket.add_membership(POLICY_GROUP).map(|()| socket));
        self.policies = socket.ok();
    }

    /// Lets the kernel drop notifications about routes of other tables than `tables` (except the
    /// main table's routes that no routing daemon installs, and wide ones) and about changes made through our own sockets. Does nothing if the
    /// same filter is attached.
    ///
    /// # Errors
    /// The kernel refuses the filter; all notifications arrive then.
    pub fn filter(&mut self, tables: &[TableId]) -> Result<(), ListenError> {
        let own = own::open_ports(NETLINK_ROUTE);
        if let Some((filtered, ports)) = &self.filtered
            && (filtered.as_slice(), ports) == (tables, &own)
        {
            return Ok(());
        }
        let program = filter::routes_of(tables, &own);
        // One attempt per filter: a kernel that refuses once refuses again.
        self.filtered = Some((tables.to_vec(), own));
        socket2::SockRef::from(&self.route)
            .attach_filter(&program)
            .map_err(cannot("filter route notifications"))
    }

    /// Waits for a notification, at most until `until`.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn wait(&self, until: Option<Instant>) -> Result<(), ListenError> {
        let mut ready = vec![PollFd::new(&self.route, PollFlags::IN)];
        let others = [&self.firewall, &self.policies].into_iter().flatten();
        ready.extend(others.map(|socket| PollFd::new(socket, PollFlags::IN)));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // A timeout out of range of the system call's is none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut ready, left.as_ref()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(cannot("wait for notifications")(errno.into())),
            }
        }
    }

    /// Reads the waiting notifications, at most `most` datagrams per socket.
    ///
    /// # Errors
    /// A socket fails permanently.
    pub fn read(&mut self, most: usize) -> Result<Heard, ListenError> {
        let mut heard = Heard::default();
        drain(
            &self.route,
            &mut self.buffer,
            most,
            |bytes| read_all(bytes, NETLINK_ROUTE, decode::route_event),
            &mut heard,
        )?;
        if let Some(firewall) = &self.firewall {
            drain(
                firewall,
                &mut self.buffer,
                most,
                |bytes| read_all(bytes, NETLINK_NETFILTER, decode::firewall_event),
                &mut heard,
            )?;
        }
        if let Some(policies) = &self.policies {
            drain(
                policies,
                &mut self.buffer,
                most,
                |bytes| read_all(bytes, NETLINK_XFRM, decode::policy_event),
                &mut heard,
            )?;
        }
        Ok(heard)
    }
}

fn open(protocol: isize, buffer: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    // A buffer beyond the host's limit takes CAP_NET_ADMIN in the initial user namespace.
    if sockopt::set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
    }
    Ok(socket)
}

/// True if the kernel lacks nf_tables or the group.
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::PROTONOSUPPORT, Errno::INVAL, Errno::OPNOTSUPP];
    absent
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn drain(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    most: usize,
    read: impl Fn(&[u8]) -> Result<Vec<Event>, WireError>,
    heard: &mut Heard,
) -> Result<(), ListenError> {
    for _ in 0..most {
        buffer.clear();
        match socket.recv_from(buffer, DONT_WAIT) {
            // Any process may send to our port: accept the kernel's messages only (port 0).
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok(_) => match read(buffer) {
                Ok(mut events) => heard.events.append(&mut events),
                Err(_unreadable) => heard.lost = true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                heard.lost = true;
            }
            Err(error) => return Err(cannot("read notifications")(error)),
        }
    }
    Ok(())
}

fn read_all(
    bytes: &[u8],
    protocol: isize,
    read: impl Fn(&super::wire::Frame<'_>) -> Result<Option<Event>, WireError>,
) -> Result<Vec<Event>, WireError> {
    let mut events = Vec::new();
    for frame in frames(bytes)? {
        if !decode::is_control(&frame) && !own::is_own(protocol, frame.port) {
            events.extend(read(&frame)?);
        }
    }
    Ok(events)
}
