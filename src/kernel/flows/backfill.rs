//! Marks flows that this host opened or forwards before our rules existed.
//!
//! A flow without a mark takes the path of a new flow at its next packet. A flow that began before our
//! rules left by another path, perhaps with another source address, and its peer would reset it. So each
//! open flow gets the mark of the path that its packets take now, before the first route changes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::BATCH;
use super::conntrack::Conntrack;
use super::error::{FlowError, failed};
use super::filter::Filter;
use super::select::OwnAddresses;
use super::sockets::{self, Socket};
use super::written::Written;
use crate::types::{Mark, PinMarks};

/// The open flows to mark.
pub struct Outgoing<'a> {
    pub marks: PinMarks,
    /// The addresses of this host.
    pub own: &'a [IpAddr],
    /// The mark of the path that packets to a destination take now; `None` for packets on neither path.
    pub path_of: &'a mut dyn FnMut(IpAddr) -> Option<Mark>,
}

/// Gives every open flow of this host the mark of its present path, and returns the number of flows.
/// Flows with a path, and flows opened from outside, keep their mark.
///
/// TCP connections and connected UDP sockets that conntrack doesn't know are inserted. Blocks; works on
/// the network namespace of the calling thread. Needs CAP_NET_ADMIN. The memory in use doesn't grow with
/// the number of flows.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the first refusal, after all
/// other flows were marked.
pub fn backfill_outgoing(outgoing: Outgoing<'_>) -> Result<u32, FlowError> {
    let Outgoing {
        marks,
        own,
        path_of,
    } = outgoing;
    let own = OwnAddresses::new(own);
    // Flows of the egress path without a slot began before paths were pinned.
    let told = Mark {
        value: 0,
        mask: marks.mask() & !marks.slot(0).value,
    };
    let mut conntrack = Conntrack::open()?;
    let mut written = conntrack.mark_each(Filter::marked(told), |flow| {
        let leaves = own.leaves(flow);
        leaves.then(|| path_of(flow.original.target.ip())).flatten()
    })?;
    let unknown = sockets::listeners().and_then(|listeners| {
        let mut of_sockets = OfSockets::new(&mut conntrack, told.mask, &mut written);
        let mut take = |socket: Socket| {
            if own.is_opened(&socket, &listeners)
                && let Some(mark) = path_of(socket.ends.source.ip())
            {
                of_sockets.take(&socket, mark);
            }
        };
        sockets::each_connection(&mut take)?;
        sockets::each_connected_udp(&mut take)?;
        of_sockets.finish();
        Ok(())
    });
    match unknown {
        // Flows that conntrack knows are marked.
        Err(error) if !sockets::is_absent(&error) => return Err(failed("list sockets")(error)),
        _ => {}
    }
    let Written {
        updated, inserted, ..
    } = written;
    written.failure.map_or(Ok(updated + inserted), Err)
}

/// Sockets in batches of one mark each.
struct OfSockets<'c> {
    conntrack: &'c mut Conntrack,
    told: u32,
    written: &'c mut Written,
    batches: BTreeMap<Mark, Vec<Socket>>,
}

impl<'c> OfSockets<'c> {
    fn new(conntrack: &'c mut Conntrack, told: u32, written: &'c mut Written) -> Self {
        OfSockets {
            conntrack,
            told,
            written,
            batches: BTreeMap::new(),
        }
    }

    fn take(&mut self, socket: &Socket, mark: Mark) {
        let batch = self.batches.entry(mark).or_default();
        batch.push(Socket {
            ends: socket.ends.reversed(),
            ..*socket
        });
        if batch.len() == BATCH {
            let full = std::mem::take(batch);
            self.send(&full, mark);
        }
    }

    fn send(&mut self, sockets: &[Socket], mark: Mark) {
        let more = self.conntrack.mark_connections(sockets, mark, self.told);
        self.written.add(more);
    }

    fn finish(mut self) {
        for (mark, sockets) in std::mem::take(&mut self.batches) {
            self.send(&sockets, mark);
        }
    }
}
