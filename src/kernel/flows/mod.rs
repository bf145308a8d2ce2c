//! Marks flows that were opened from outside before our rules existed.
//!
//! A connection opened from outside must keep its path without Trailblazer: its flow carries the
//! inbound mark. Rules mark the flows that begin after the rules were added; older flows must
//! carry the mark before. Otherwise conntrack, switched on by our rules, counts the host's next
//! packet as the first packet of a flow of the host, the packet leaves through the NAT with
//! another source address, and the peer resets the connection.
//!
//! The list of open flows has two sources: conntrack, if other rules had switched conntrack on,
//! and otherwise the TCP sockets themselves.

mod backfill;
mod clients;
mod conntrack;
mod destroyer;
mod ending;
mod ends;
mod entry;
mod error;
mod filter;
mod forward;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod lasting;
mod listing;
mod pinned;
mod renewed;
mod request;
mod select;
mod sockets;
mod usage;
mod written;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::firewall::Ports;
use crate::types::Mark;
use clients::Clients;
use conntrack::Conntrack;
use error::failed;
use filter::Filter;
use select::OwnAddresses;
use sockets::Socket;
use written::Written;

pub use backfill::{Outgoing, backfill_outgoing};
pub use conntrack::TableUse;
pub use ending::{Ended, end_flows};
pub use error::FlowError;
pub use forward::forget_flows;
pub use lasting::{IdleFlows, lasting_interval};
pub use listing::{PinnedFlow, each_pinned};
pub use pinned::{flows_on_paths, slots_in_use};
pub use renewed::{forget_marks, renew_marks};
pub use usage::{PortUse, busiest_ports, source_seen, table_use};

/// The number of connections handled at once.
const BATCH: usize = 200;

/// The result of marking open flows; all counts are flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backfilled {
    /// Flows known to conntrack, now marked.
    pub updated: u32,
    /// Open TCP connections unknown to conntrack, now inserted with the mark.
    pub inserted: u32,
    /// Connections opened from outside and left alone: marked before, or ended meanwhile.
    pub skipped: u32,
    /// The reason if the kernel can't list TCP sockets (no `tcp_diag`): connections unknown to
    /// conntrack were left out.
    pub sockets_unread: Option<String>,
}

/// Writes `mark` to every unmarked open flow of both families that was opened from outside; other
/// bits of the mark stay. Call before the rules are added.
///
/// `own_addresses` are the host's addresses; loopback addresses are ignored. A flow counts as
/// opened from outside if a foreign source sends to one of these addresses (directly, or translated
/// by conntrack), and a TCP connection if a process listens at its local port. Conntrack takes the
/// next packet of a flow that it has forgotten for the first one, perhaps an answer to this host: a
/// TCP flow to one of `local_ports`, the ports of flows that this host opens, is an answer unless a
/// server listens at the port, and a UDP flow if it comes from a port of a service or to a connected
/// socket. `None` while the main table decides about all flows: the mark then keeps each on its path.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN. The memory in
/// use grows with the listening TCP sockets and the connected UDP sockets alone: flows and
/// connections are handled in batches while the kernel sends them.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the first refusal, after all
/// other flows were marked.
pub fn backfill_inbound(
    mark: Mark,
    own_addresses: &[IpAddr],
    local_ports: Option<Ports>,
) -> Result<Backfilled, FlowError> {
    let own = OwnAddresses::new(own_addresses);
    let mut conntrack = Conntrack::open()?;
    let mut written = Written::default();
    let mut clients = Clients::new(local_ports);
    let sockets_unread = match connections(&mut conntrack, &own, mark, &mut written, &mut clients) {
        Ok(()) => None,
        Err(error) if sockets::is_absent(&error) => {
            Some(format!("the kernel can't list sockets: {error}"))
        }
        Err(error) => return Err(failed("list sockets")(error)),
    };
    // The connections above are marked now, so the filter of the kernel leaves them out.
    let unmarked = Filter::marked(Mark { value: 0, ..mark });
    written.add(conntrack.mark_listed(unmarked, mark, |flow| {
        own.is_opened_from_outside(flow) && !clients.are_answered_by(flow)
    })?);
    let done = Backfilled {
        updated: written.updated,
        inserted: written.inserted,
        skipped: written.marked + written.gone,
        sockets_unread,
    };
    written.failure.map_or(Ok(done), Err)
}

/// Marks the TCP connections that a listening socket has accepted, and learns the sockets of clients.
fn connections(
    conntrack: &mut Conntrack,
    own: &OwnAddresses,
    mark: Mark,
    written: &mut Written,
    clients: &mut Clients,
) -> Result<(), crate::kernel::wire::WireError> {
    let listeners = clients.listeners.insert(sockets::listeners()?);
    let mut batch: Vec<Socket> = Vec::with_capacity(BATCH);
    sockets::each_connection(|socket| {
        if own.is_accepted(&socket, listeners) {
            batch.push(socket);
        }
        if batch.len() == BATCH {
            written.add(conntrack.mark_connections(&batch, mark, 0));
            batch.clear();
        }
    })?;
    written.add(conntrack.mark_connections(&batch, mark, 0));
    sockets::each_connected_udp(|socket| clients.add_udp(socket.ends))
}

/// Forgets the untranslated and unanswered flows from `sources`, and returns their number.
/// Conntrack translates a flow at its first packet or never, so that a client that repeats a
/// request, or reuses a port, would never get an answer. `private` are targets without translation.
/// Call after the rules were added.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// As [`backfill_inbound`].
pub fn forget_untranslated(sources: &[IpNet], private: &[IpNet]) -> Result<u32, FlowError> {
    let filter = Filter::unanswered_untranslated();
    let chosen = |flow: &entry::Tracked| select::is_untranslated(flow, sources, private);
    forgotten(Conntrack::open()?.forget_listed(filter, chosen)?)
}

/// Forgets the flows from `sources` whose source was translated to an address outside `kept`, and
/// returns their number. Such a flow keeps the dead address for as long as its client sends; a new
/// entry gets an address that exists. `marks` are the marks of our paths: translations by other
/// programs stay.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// As [`backfill_inbound`].
pub fn forget_dead(
    marks: &[Mark],
    sources: &[IpNet],
    kept: &BTreeSet<IpAddr>,
) -> Result<u32, FlowError> {
    let mut conntrack = Conntrack::open()?;
    let mut written = Written::default();
    for mark in marks {
        let chosen = |flow: &entry::Tracked| select::is_dead(flow, *mark, sources, kept);
        written.add(conntrack.forget_listed(Filter::translated(*mark), chosen)?);
    }
    forgotten(written)
}

fn forgotten(written: Written) -> Result<u32, FlowError> {
    written.failure.map_or(Ok(written.updated), Err)
}
