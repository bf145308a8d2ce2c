//! Notifications of the kernel: routes of our tables, the main table's default, rules, links,
//! addresses, nexthop objects, and nf_tables.
//!
//! IPv4 routes vanish in silence when their link goes down or the last address is removed, so
//! links and addresses are watched too (measured: DESIGN, "What vanishes").

mod decode;
mod filter;

use std::io;

use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use thiserror::Error;

use super::wire::{WireError, frames, own};
use crate::types::TableId;
pub use decode::{Change, Event};

/// `RTNLGRP_*` (linux/rtnetlink.h): LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR,
/// IPV6_ROUTE, IPV6_RULE, NEXTHOP.
const ROUTE_GROUPS: [u32; 8] = [1, 5, 7, 8, 9, 11, 19, 32];
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// The largest notification: that of a link with many virtual functions may take 32 KiB.
const RECEIVE: usize = 64 << 10;
/// `MSG_DONTWAIT` (linux/socket.h).
const DONT_WAIT: i32 = 0x40;

/// Why the kernel's notifications can't be had.
#[derive(Debug, Error)]
#[error(
    "cannot {operation}: {source}; without the kernel's notifications only the resync sees changes"
)]
pub struct ListenError {
    operation: &'static str,
    #[source]
    source: io::Error,
}

impl ListenError {
    /// The system gives the listener no thread.
    pub fn no_thread(source: io::Error) -> ListenError {
        cannot("start a thread that listens")(source)
    }
}

fn cannot(operation: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |source| ListenError { operation, source }
}

/// What one reading of the sockets gave.
#[derive(Debug, Default)]
pub struct Heard {
    /// The changes, in the order of each socket; our own process's are left out.
    pub events: Vec<Event>,
    /// The kernel dropped notifications, or one was unreadable: anything may have changed.
    pub lost: bool,
}

/// Listens to routes and, where the kernel has nf_tables, to the firewall.
#[derive(Debug)]
pub struct Listener {
    route: Socket,
    firewall: Option<Socket>,
    buffer: Vec<u8>,
    /// The tables and our own ports that the filter goes by.
    filtered: Option<(Vec<TableId>, Vec<u32>)>,
}

impl Listener {
    /// Opens the sockets. `buffer` is the receive buffer of each, in bytes: what comes faster
    /// than we read is dropped by the kernel, which says so.
    ///
    /// # Errors
    /// No socket, or no membership in a group.
    pub fn open(buffer: usize) -> Result<Listener, ListenError> {
        let route = open(NETLINK_ROUTE, buffer).map_err(cannot("open a route socket"))?;
        for group in ROUTE_GROUPS {
            match route.add_membership(group) {
                Ok(()) => {}
                // Kernels before 5.3 have no nexthop objects.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                Err(error) => return Err(cannot("listen to route notifications")(error)),
            }
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
            buffer: Vec::with_capacity(RECEIVE),
            filtered: None,
        })
    }

    /// Lets the kernel leave out the routes of all tables but these and the main table's default,
    /// and what our own sockets change. Costs nothing where it does so already.
    ///
    /// # Errors
    /// The kernel refuses the filter; everything is heard then.
    pub fn filter(&mut self, tables: &[TableId]) -> Result<(), ListenError> {
        let own = own::open_ports(NETLINK_ROUTE);
        if let Some((filtered, ports)) = &self.filtered
            && (filtered.as_slice(), ports) == (tables, &own)
        {
            return Ok(());
        }
        let program = filter::routes_of(tables, &own);
        // Tried once for each: a kernel that refuses does so the next time too.
        self.filtered = Some((tables.to_vec(), own));
        socket2::SockRef::from(&self.route)
            .attach_filter(&program)
            .map_err(cannot("filter route notifications"))
    }

    /// Waits for something to read, without bound.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&self) -> Result<(), ListenError> {
        let mut ready = vec![PollFd::new(&self.route, PollFlags::IN)];
        if let Some(firewall) = &self.firewall {
            ready.push(PollFd::new(firewall, PollFlags::IN));
        }
        loop {
            match poll(&mut ready, None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(cannot("wait for notifications")(errno.into())),
            }
        }
    }

    /// Reads what is there, at most `most` datagrams a socket, without waiting.
    ///
    /// # Errors
    /// A socket fails for good.
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
        Ok(heard)
    }
}

fn open(protocol: isize, buffer: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    // Beyond the host's limit only with CAP_NET_ADMIN in the initial user namespace.
    if sockopt::set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
    }
    Ok(socket)
}

/// The kernel has no nf_tables, or no such group.
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
            // Any process may send to our port: only the kernel's word counts.
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
