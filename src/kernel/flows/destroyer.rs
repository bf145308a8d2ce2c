//! Destroys TCP sockets of this host that stand still, over `NETLINK_SOCK_DIAG`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::ends::Ends;
use super::entry::Tracked;
use super::sockets::{
    NETLINK_SOCK_DIAG, OPEN, SOCK_DIAG_BY_FAMILY, TCP, is_absent, parse, request, state,
};
use crate::kernel::wire::{DUMP, Wire, WireError, attributes, find};
use crate::types::Family;

/// `SOCK_DESTROY` (linux/sock_diag.h).
const SOCK_DESTROY: u16 = 21;
/// `INET_DIAG_INFO` (linux/inet_diag.h): a `struct tcp_info`, asked for by the bit of its number.
const INET_DIAG_INFO: u16 = 2;
/// Length of `struct inet_diag_msg`.
const MESSAGE_LEN: usize = 72;
/// `struct inet_diag_sockid` in a message, which names one socket by its cookie.
const ID: std::ops::Range<usize> = 4..52;
/// `tcpi_unacked` in `struct tcp_info` (linux/tcp.h): segments without an acknowledgement.
const UNACKNOWLEDGED: usize = 24;
/// `tcpi_last_data_recv` and `tcpi_last_ack_recv` in `struct tcp_info` (linux/tcp.h), in milliseconds.
const LAST_RECEIVED: [usize; 2] = [52, 56];

const ENOENT: i32 = 2;
const EOPNOTSUPP: i32 = 95;

/// A connection that has received a packet within this time goes on: its gateway may refuse new flows
/// alone. Rounds of probes have failed for longer.
pub(super) const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// The sockets of some connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Destroyed {
    pub(super) destroyed: u32,
    /// Connections that go on.
    pub(super) alive: u32,
    /// The connections with a socket here, whatever became of it.
    pub(super) of_host: HashSet<Ends>,
    /// The kernel lists no sockets of a family: a connection without a socket in `of_host` may have one.
    pub(super) is_partial: bool,
}

/// Destroys the sockets of these connections, each with its ends in the direction from this host, unless
/// `goes_on` for the socket: reads and writes fail with `ECONNABORTED`.
///
/// A request by the ends alone would fall back to a listening socket at the source, so each socket is
/// named by its cookie from a listing without listening sockets.
pub(super) fn destroy(
    connections: &HashMap<Ends, Tracked>,
    goes_on: impl Fn(&Activity) -> bool,
) -> Result<Destroyed, WireError> {
    let mut found = Destroyed::default();
    if connections.is_empty() {
        return Ok(found);
    }
    let mut listing = Wire::open(NETLINK_SOCK_DIAG)?;
    for family in Family::ALL {
        let mut stuck = Vec::new();
        let listed = listing.ask(SOCK_DIAG_BY_FAMILY, DUMP, &listing_of(family), |frame| {
            let (_, source, target) = parse(frame.body).ok_or(WireError::Malformed("a socket"))?;
            let ends = Ends { source, target };
            if connections.contains_key(&ends) {
                found.of_host.insert(ends);
                let id = frame.body.get(ID).ok_or(WireError::Malformed("a socket"))?;
                if Activity::of(frame.body)?.is_some_and(|activity| goes_on(&activity)) {
                    found.alive += 1;
                } else {
                    stuck.push(id.to_vec());
                }
            }
            Ok(())
        });
        match listed {
            Err(error) if is_absent(&error) => {
                found.is_partial = true;
                continue;
            }
            listed => listed?,
        }
        let mut changes = Wire::open(NETLINK_SOCK_DIAG)?;
        for id in stuck {
            let mut request = request(family, TCP, 0);
            request[8..].copy_from_slice(&id);
            match changes.ask(SOCK_DESTROY, 0, &request, |_| Ok(())) {
                Ok(()) => found.destroyed += 1,
                // Closed meanwhile, or a kernel without `CONFIG_INET_DIAG_DESTROY`.
                Err(error) if matches!(error.errno(), Some(ENOENT | EOPNOTSUPP)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// A `struct inet_diag_req_v2` for all open connections of a family, with their `struct tcp_info`.
fn listing_of(family: Family) -> Vec<u8> {
    let states = OPEN
        .iter()
        .filter(|open| **open != state::SYN_RECV)
        .fold(0, |bits: u32, state| bits | 1 << state);
    let mut request = request(family, TCP, states);
    request[2] = 1 << (INET_DIAG_INFO - 1);
    request
}

/// The recent packets of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity {
    /// The time since data or an acknowledgement came in.
    pub(super) received: Duration,
    /// Data waits for its acknowledgement.
    pub(super) waits: bool,
}

impl Activity {
    /// `None` if the kernel doesn't say.
    fn of(body: &[u8]) -> Result<Option<Activity>, WireError> {
        let list = attributes(body.get(MESSAGE_LEN..).unwrap_or_default())?;
        let info = find(&list, INET_DIAG_INFO);
        let number = |at: usize| {
            let bytes = info?.payload.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let youngest = LAST_RECEIVED.into_iter().filter_map(number).min();
        Ok(youngest.map(|age| Activity {
            received: Duration::from_millis(age.into()),
            waits: number(UNACKNOWLEDGED).is_some_and(|segments| segments > 0),
        }))
    }

    /// A packet has come in a moment ago.
    pub(super) fn is_alive(&self) -> bool {
        self.received < ALIVE_WITHIN
    }
}
