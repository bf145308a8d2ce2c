//! Ends the flows that stand still on a way that is down, so that applications open new ones at once.
//!
//! A connection that is being opened, and a datagram flow, lose their entry: their next packet begins a
//! new flow on another way, and the application notices nothing. An open connection loses its socket:
//! the application gets an error at once. Its entry stays, so that packets under way go to the gateway
//! that is down instead of another one, whose NAT does not know the connection.

use std::collections::HashSet;
use std::fmt;

use super::conntrack::Conntrack;
use super::destroyer::destroy;
use super::ends::Ends;
use super::entry;
use super::error::{FlowError, failed};
use super::filter::Filter;
use super::listing::tcp_state;
use super::request;
use super::sockets::TCP;
use crate::health::Stuck;
use crate::kernel::wire::{NFGEN_LEN, attributes};
use crate::types::Mark;

/// Conntrack's states of a connection that is being opened: `TCP_CONNTRACK_SYN_SENT` and `…_SYN_RECV`
/// (linux/netfilter/nf_conntrack_tcp.h).
const OPENING: [u8; 2] = [1, 2];
/// Those of an open one: `…_ESTABLISHED`, `…_FIN_WAIT` and `…_CLOSE_WAIT`, which may still carry data.
const OPEN: [u8; 3] = [3, 4, 5];

/// The most flows of each kind that one call ends, some 10 MB of memory.
const MOST: usize = 65_536;

/// The ended flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Entries deleted: connections that were being opened, and flows of datagrams.
    pub begun_anew: u32,
    /// Open connections of this host whose sockets were destroyed.
    pub connections: u32,
    /// Open connections of this host that still receive packets, and go on.
    pub alive: u32,
    /// Open connections without a socket here, or whose socket the kernel cannot destroy.
    pub left: u32,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended {
            begun_anew,
            connections,
            alive,
            left,
        } = self;
        write!(
            f,
            "{connections} open connections ended, {begun_anew} flows begin anew on another way"
        )?;
        if *alive > 0 {
            write!(f, ", {alive} connections still receive packets and go on")?;
        }
        if *left > 0 {
            write!(
                f,
                ", {left} connections are left: no socket of this host, or a kernel without INET_DIAG_DESTROY"
            )?;
        }
        Ok(())
    }
}

/// Ends these flows with a mark, if they stand still. Blocks; works on the network namespace of the calling
/// thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// The kernel lists no flows, or refuses a change.
pub fn end_flows(mark: Mark, flows: Stuck) -> Result<Ended, FlowError> {
    let mut conntrack = Conntrack::open()?;
    let filter = Filter::marked(mark);
    let mut open: HashSet<Ends> = HashSet::new();
    let mut anew = Vec::new();
    conntrack.each_entry(filter, |body| {
        let flow = entry::parse(body)?;
        // The kernel ignores a filter that it doesn't know.
        if !filter.accepts(&flow) {
            return Ok(());
        }
        let more = attributes(body.get(NFGEN_LEN..).unwrap_or_default())?;
        let state = tcp_state(&flow, &more)?;
        let opening = state.is_some_and(|state| OPENING.contains(&state));
        let all = flows == Stuck::All;
        if (opening || (all && flow.protocol != TCP)) && anew.len() < MOST {
            anew.push(request::delete(&flow));
        } else if all && state.is_some_and(|state| OPEN.contains(&state)) && open.len() < MOST {
            open.insert(flow.original);
        }
        Ok(())
    })?;
    let written = conntrack.delete(&anew);
    let sockets = destroy(&open).map_err(failed("destroy the sockets of open connections"))?;
    let touched = sockets.destroyed + sockets.alive;
    let ended = Ended {
        begun_anew: written.updated,
        connections: sockets.destroyed,
        alive: sockets.alive,
        left: u32::try_from(open.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(touched),
    };
    written.failure.map_or(Ok(ended), Err)
}
