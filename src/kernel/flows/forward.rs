//! Ends the flows that this host forwards on a way that is down.

use super::conntrack::Conntrack;
use super::ending::Ended;
use super::entry::Tracked;
use super::error::FlowError;
use super::filter::Filter;
use crate::types::{Family, Mark};

/// Forgets the flows of a family with a mark: the ways of both families have the same marks. No socket of this host is theirs: the next
/// packet of a client begins a new entry on another way, with the address of that way. The server does
/// not know the connection and resets it, so that the client opens another one.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// The kernel lists no flows, or refuses a change.
pub fn forget_flows(family: Family, mark: Mark) -> Result<Ended, FlowError> {
    let filter = Filter::marked(mark);
    // The kernel ignores a filter that it doesn't know.
    let chosen =
        |flow: &Tracked| filter.accepts(flow) && Family::of(flow.original.source.ip()) == family;
    let written = Conntrack::open()?.forget_listed(filter, chosen)?;
    let ended = Ended {
        begun_anew: written.updated,
        ..Ended::default()
    };
    written.failure.map_or(Ok(ended), Err)
}
