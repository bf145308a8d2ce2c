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

mod conntrack;
mod ends;
mod entry;
mod error;
mod request;
mod select;
mod sockets;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::Mark;
use error::failed;

pub use error::FlowError;

/// The result of marking open flows; all counts are flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backfilled {
    /// Flows known to conntrack, now marked.
    pub updated: u32,
    /// Open TCP connections unknown to conntrack, now inserted with the mark.
    pub inserted: u32,
    /// Flows opened from outside and left alone: marked before, or ended meanwhile.
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
/// by conntrack), and a TCP connection if a process listens at its local port.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the first refusal, after all
/// other flows were marked.
pub fn backfill_inbound(mark: Mark, own_addresses: &[IpAddr]) -> Result<Backfilled, FlowError> {
    // Sockets first: conntrack or the rules find a connection opened in between.
    let mut sockets_unread = None;
    let sockets = match sockets::read() {
        Ok(sockets) => sockets,
        Err(error) if sockets::is_absent(&error) => {
            sockets_unread = Some(format!("the kernel can't list TCP sockets: {error}"));
            sockets::Sockets::default()
        }
        Err(error) => return Err(failed("list TCP sockets")(error)),
    };
    let mut conntrack = conntrack::Conntrack::open()?;
    let tracked = conntrack.read()?;
    let chosen = select::inbound(&tracked, &sockets, own_addresses, mark);
    let mut done = Backfilled {
        skipped: chosen.marked,
        sockets_unread,
        ..Backfilled::default()
    };
    let outcome = conntrack.write(&chosen.updates, &chosen.inserts, mark);
    done.updated = outcome.updated;
    done.inserted = outcome.inserted;
    done.skipped += outcome.gone;
    match outcome.failure {
        None => Ok(done),
        Some(failure) => Err(failure),
    }
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
    let mut conntrack = conntrack::Conntrack::open()?;
    let tracked = conntrack.read()?;
    let forgotten = conntrack.forget(&select::untranslated(&tracked, sources, private));
    match forgotten.failure {
        None => Ok(forgotten.updated),
        Some(failure) => Err(failure),
    }
}
