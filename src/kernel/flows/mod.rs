//! Marks the flows that were opened from outside before our rules knew of them.
//!
//! A connection opened from outside keeps the path that it would have without us: its flow
//! carries the inbound mark. Rules can mark the flows that they see begin; those that are open
//! when the rules go in must carry the mark already. Else the next packet of the host itself
//! makes conntrack take the flow for one of the host's, the answer leaves through the NAT with
//! another source address, and the peer resets the connection.
//!
//! Two sources tell what is open: conntrack, where somebody's rules had it switched on before,
//! and the TCP sockets themselves, where nobody had.

mod conntrack;
mod select;
mod sockets;

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use ipnet::IpNet;

use crate::kernel::wire::WireError;
use crate::types::Mark;

/// What was done. All counts are flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backfilled {
    /// Known to conntrack, now marked.
    pub updated: u32,
    /// Open TCP connections that conntrack didn't know, now known and marked.
    pub inserted: u32,
    /// Opened from outside and left as they are: they carry the mark already, or ended meanwhile.
    pub skipped: u32,
    /// Why the sockets couldn't be asked, where the kernel can't say (no `tcp_diag`): connections
    /// that conntrack doesn't know are missing then.
    pub sockets_unread: Option<String>,
}

/// Why flows couldn't be marked.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The kernel has no connection tracking that can be written to.
    #[error(
        "connection tracking can't be had ({reason}): connections that are open from outside \
         can't be marked, and may break when rules go in; load nf_conntrack_netlink"
    )]
    Unavailable {
        /// The kernel's answer.
        reason: String,
    },
    /// The kernel refused, or the exchange failed.
    #[error("{operation}: {source}")]
    Failed {
        /// What was attempted, with its object.
        operation: String,
        /// The answer.
        #[source]
        source: WireError,
    },
}

fn failed(operation: impl Into<String>) -> impl FnOnce(WireError) -> FlowError {
    let operation = operation.into();
    move |source| FlowError::Failed { operation, source }
}

/// Both ends of a flow in the direction of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    source: SocketAddr,
    target: SocketAddr,
}

impl Ends {
    fn reversed(self) -> Ends {
        Ends {
            source: self.target,
            target: self.source,
        }
    }
}

/// Writes `mark` to every open flow of both families that was opened from outside and doesn't
/// carry it yet; other bits stay. To be called before the rules go in.
///
/// `own_addresses` are the host's addresses; loopback ones are ignored. Opened from outside is a
/// flow towards one of them (or one that conntrack translates to one of them) from an address
/// that isn't, and a TCP connection at a port on which something listens.
///
/// Blocking; for the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the first refusal, after
/// everything else was done.
pub fn backfill_inbound(mark: Mark, own_addresses: &[IpAddr]) -> Result<Backfilled, FlowError> {
    // Sockets first: what opens in between is then found by conntrack or by the rules.
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

/// Forgets the flows from `sources` that began while nobody translated them, and that nobody has
/// answered: conntrack translates a flow at its first packet or never, so that a client that goes
/// on asking, or comes back with the same port, would stay without an answer. `private` are
/// targets that aren't translated anyway. To be called after the rules went in; how many.
///
/// Blocking; for the network namespace of the calling thread. Needs CAP_NET_ADMIN.
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
