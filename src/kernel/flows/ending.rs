//! Ends the flows that stand still on a way that is down, so that applications open new ones at once.
//!
//! A connection that is being opened, and a datagram flow, lose their entry: their next packet begins a
//! new flow on another way, and the application notices nothing. An open connection loses its socket:
//! the application gets an error at once. Its entry stays, so that packets under way go to the gateway
//! that is down instead of another one, whose NAT does not know the connection.

use std::fmt;

use super::conntrack::Conntrack;
use super::destroyer::{Destroyed, Destroyer};
use super::ends::Ends;
use super::entry;
use super::error::{FlowError, failed};
use super::filter::Filter;
use super::listing::tcp_state;
use super::request;
use super::sockets::TCP;
use crate::kernel::wire::{NFGEN_LEN, attributes};
use crate::types::Mark;

/// `TCP_CONNTRACK_SYN_SENT`, `…_SYN_RECV` (linux/netfilter/nf_conntrack_tcp.h): the connection is being
/// opened. [`ENDED`] states from `FIN_WAIT` on need no end.
const OPENING: [u8; 2] = [1, 2];
const ESTABLISHED: u8 = 3;
const CLOSE_WAIT: u8 = 5;

/// The ended flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Entries deleted: connections that were being opened, and flows of datagrams.
    pub begun_anew: u32,
    /// Open connections of this host whose sockets were destroyed.
    pub connections: u32,
    /// Open connections without a socket here, or whose socket the kernel cannot destroy.
    pub left: u32,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended {
            begun_anew,
            connections,
            left,
        } = self;
        write!(
            f,
            "{connections} open connections ended, {begun_anew} flows begin anew on another way"
        )?;
        if *left > 0 {
            write!(
                f,
                ", {left} connections are left: no socket of this host, or a kernel without INET_DIAG_DESTROY"
            )?;
        }
        Ok(())
    }
}

/// Ends the flows with a mark. Blocks; works on the network namespace of the calling thread. Needs
/// CAP_NET_ADMIN.
///
/// # Errors
/// The kernel lists no flows, or refuses a change.
pub fn end_flows(mark: Mark) -> Result<Ended, FlowError> {
    let mut conntrack = Conntrack::open()?;
    let filter = Filter::marked(mark);
    let mut open: Vec<Ends> = Vec::new();
    let mut anew = Vec::new();
    conntrack.each_entry(filter, |body| {
        let flow = entry::parse(body)?;
        // The kernel ignores a filter that it doesn't know.
        if !filter.accepts(&flow) {
            return Ok(());
        }
        let more = attributes(body.get(NFGEN_LEN..).unwrap_or_default())?;
        match tcp_state(&flow, &more)? {
            Some(state) if OPENING.contains(&state) => anew.push(request::delete(&flow)),
            Some(ESTABLISHED..=CLOSE_WAIT) => open.push(flow.original),
            Some(_) => {}
            None if flow.protocol == TCP => {}
            None => anew.push(request::delete(&flow)),
        }
        Ok(())
    })?;
    let written = conntrack.delete(&anew);
    let mut ended = Ended {
        begun_anew: written.updated,
        ..Ended::default()
    };
    let mut destroyer = Destroyer::open().map_err(failed("open a socket of sock_diag"))?;
    for ends in open {
        match destroyer
            .destroy(ends)
            .map_err(failed("destroy a socket"))?
        {
            Destroyed::Yes => ended.connections += 1,
            Destroyed::Absent | Destroyed::Impossible => ended.left += 1,
        }
    }
    written.failure.map_or(Ok(ended), Err)
}
