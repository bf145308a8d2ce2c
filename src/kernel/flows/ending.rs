//! Ends the flows that stand still on a way that is down, so that applications open new ones at once.
//!
//! A flow of datagrams loses its entry: the next packet begins a new flow on another way, and the
//! application notices nothing.
//!
//! A connection that is being opened begins anew with the repetition of its SYN. A slow gateway may still
//! deliver the answer to an earlier SYN. Without an entry this answer would reach the client, whose next
//! packet would take another gateway, and the server would reset the connection. So the entry stays with a
//! mark of its own: the firewall drops answers to the SYN, and the next SYN clears the mark. The entry of a
//! translated connection is deleted: without the entry no answer reaches the client, and a translation may
//! be wrong for another way.
//!
//! An open connection loses its socket: the application gets an error at once. Its entry stays, so that
//! packets under way go to the gateway that is down instead of another one, whose NAT does not know the
//! connection.
//!
//! An open connection that this host forwards, of a container or a guest, has no socket here. Its entry
//! gets the same mark, and a rule of the firewall answers the next packet with a reset: both ends of the
//! packet are known then, and the sequence number too, which no table of the kernel shows. A client that
//! sends nothing gets no reset.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::conntrack::Conntrack;
use super::destroyer::{ALIVE_WITHIN, Activity, destroy};
use super::ends::Ends;
use super::entry::{self, Tracked};
use super::error::{FlowError, failed};
use super::filter::Filter;
use super::listing::tcp_state;
use super::request::{self, CTA_TIMEOUT, FlowRequest};
use super::sockets::TCP;
use super::written::Written;
use crate::health::Stuck;
use crate::kernel::wire::{Attribute, NFGEN_LEN, WireError, attributes, find};
use crate::types::{Family, Mark};

/// Conntrack's states of a connection that is being opened: `TCP_CONNTRACK_SYN_SENT` and `…_SYN_RECV`
/// (linux/netfilter/nf_conntrack_tcp.h).
const OPENING: [u8; 2] = [1, 2];
const ESTABLISHED: u8 = 3;
/// Those of an open one: `…_ESTABLISHED`, `…_FIN_WAIT` and `…_CLOSE_WAIT`, which may still carry data.
const OPEN: [u8; 3] = [ESTABLISHED, 4, 5];

/// The kernel's default for connections with unacknowledged data, in seconds
/// (nf_conntrack_tcp_timeout_unacknowledged, net/netfilter/nf_conntrack_proto_tcp.c).
const UNANSWERED: u32 = 300;

/// The time without any packet from the server after which data counts as unanswered in later rounds: three
/// repetitions on a path with a short round trip.
const UNANSWERED_FOR: Duration = Duration::from_secs(2);

/// The flows of each kind that are ended together, some 10 MB of memory: the listing waits meanwhile. Each
/// batch of open connections costs a listing of the sockets.
const BATCH: usize = 65_536;

/// The ended flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Connections that were being opened, and flows of datagrams.
    pub begun_anew: u32,
    /// Open connections of this host whose sockets were destroyed.
    pub connections: u32,
    /// Open connections that this host forwards: their next packet gets a reset.
    pub forwarded: u32,
    /// Open connections that still receive packets, and go on.
    pub alive: u32,
    /// Open connections about which this round has not asked, or that wait for nothing.
    pub others: u32,
    /// Open connections whose socket the kernel cannot destroy, or that no rule resets.
    pub left: u32,
}

impl Ended {
    /// True if no flow was ended.
    pub fn is_none(&self) -> bool {
        self.begun_anew == 0 && self.connections == 0 && self.forwarded == 0
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended {
            begun_anew,
            connections,
            forwarded,
            alive,
            left,
            others: _,
        } = self;
        write!(
            f,
            "{connections} open connections ended, {begun_anew} flows begin anew on another way"
        )?;
        if *forwarded > 0 {
            write!(
                f,
                ", {forwarded} forwarded connections get a reset at their next packet"
            )?;
        }
        if *alive > 0 {
            write!(f, ", {alive} connections still receive packets and go on")?;
        }
        if *left > 0 {
            write!(
                f,
                ", {left} connections are left: a kernel without INET_DIAG_DESTROY, or forwarded ones without nf_tables"
            )?;
        }
        Ok(())
    }
}

/// Ends these flows of a family with a mark, if they stand still: the gateways of both families have the
/// same marks. Connections that are being opened, and forwarded ones, get the mark `ended`: the firewall
/// lets the former begin anew, and resets the latter. `None` without such rules.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// The kernel lists no flows, or refuses a change.
pub fn end_flows(
    family: Family,
    mark: Mark,
    flows: Stuck,
    ended: Option<Mark>,
) -> Result<Ended, FlowError> {
    let filter = Filter::marked(mark);
    let mut ending = Ending::new(family, filter, flows, ended)?;
    Conntrack::open()?.each_entry(filter, |body| ending.take(body))?;
    ending.end_batch();
    ending.failure.map_or(Ok(ending.ended), Err)
}

/// Flows that are being ended, batch by batch, so that the memory in use doesn't grow with the table.
struct Ending {
    family: Family,
    filter: Filter,
    flows: Stuck,
    /// The mark of ended flows.
    mark: Option<Mark>,
    fresh: Fresh,
    changes: Conntrack,
    /// The requests that delete entries.
    forgotten: Vec<FlowRequest>,
    /// Open connections.
    open: HashMap<Ends, Tracked>,
    /// Those of them whose entries show a fresh answer.
    moving: HashSet<Ends>,
    ended: Ended,
    /// The first failure, after which no flow is ended.
    failure: Option<FlowError>,
}

impl Ending {
    fn new(
        family: Family,
        filter: Filter,
        flows: Stuck,
        mark: Option<Mark>,
    ) -> Result<Ending, FlowError> {
        Ok(Ending {
            family,
            filter,
            flows,
            mark,
            fresh: Fresh::now(),
            changes: Conntrack::open()?,
            forgotten: Vec::new(),
            open: HashMap::new(),
            moving: HashSet::new(),
            ended: Ended::default(),
            failure: None,
        })
    }

    /// Takes a listed flow.
    fn take(&mut self, body: &[u8]) -> Result<(), WireError> {
        let flow = entry::parse(body)?;
        // The kernel ignores a filter that it doesn't know.
        let is_wanted =
            self.filter.accepts(&flow) && Family::of(flow.original.source.ip()) == self.family;
        if !is_wanted || self.failure.is_some() {
            return Ok(());
        }
        let more = attributes(body.get(NFGEN_LEN..).unwrap_or_default())?;
        let state = tcp_state(&flow, &more)?;
        let opening = state.is_some_and(|state| OPENING.contains(&state));
        let all = self.flows == Stuck::All;
        let is_open = state.is_some_and(|state| OPEN.contains(&state));
        let is_translated = flow.reply != flow.original.reversed();
        if let Some(ended) = self.mark.filter(|_| opening && !is_translated) {
            self.begin_anew(&flow, ended);
        } else if opening || (all && flow.protocol != TCP) {
            self.forgotten.push(request::delete(&flow));
        } else if is_open && self.flows == Stuck::Opening {
            self.ended.others += 1;
        } else if is_open {
            let goes_on = match self.flows {
                Stuck::All => self.fresh.is_answered(&more),
                Stuck::Opening | Stuck::Unanswered => !self.fresh.is_unanswered(&more),
            };
            // A half-closed connection ends within two minutes, and its lifetime tells nothing.
            if state != Some(ESTABLISHED) || goes_on {
                self.moving.insert(flow.original);
            }
            self.open.insert(flow.original, flow);
        }
        if self.forgotten.len() >= BATCH || self.open.len() >= BATCH {
            self.end_batch();
        }
        Ok(())
    }

    /// Marks a connection that is being opened. An answer between the listing and the mark would open a
    /// connection whose next packet has lost its way: no mark waits for others.
    fn begin_anew(&mut self, flow: &Tracked, ended: Mark) {
        let written = self.changes.change(&[request::mark(flow, ended)]);
        self.ended.begun_anew += written.updated;
        self.failure = written.failure;
    }

    fn end_batch(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let written = self.changes.delete(&std::mem::take(&mut self.forgotten));
        self.ended.begun_anew += written.updated;
        let ended = match written.failure {
            Some(failure) => Err(failure),
            None => self.end_open(),
        };
        self.failure = ended.err();
    }

    fn end_open(&mut self) -> Result<(), FlowError> {
        let mut open = std::mem::take(&mut self.open);
        let moving = std::mem::take(&mut self.moving);
        let sockets = match self.flows {
            Stuck::All => destroy(&open, Activity::is_alive),
            Stuck::Opening | Stuck::Unanswered => destroy(&open, |socket| {
                !socket.waits || socket.received < UNANSWERED_FOR
            }),
        };
        let sockets = sockets.map_err(failed("destroy the sockets of open connections"))?;
        let all = count(open.len());
        open.retain(|ends, _| !sockets.of_host.contains(ends));
        let forwarded = open.len();
        open.retain(|ends, _| !moving.contains(ends));
        let alive = sockets.alive + count(forwarded - open.len());
        let mut written = Written::default();
        if let Some(ended) = self.mark.filter(|_| !sockets.is_partial) {
            let marked: Vec<_> = open
                .values()
                .map(|flow| request::mark(flow, ended))
                .collect();
            written = self.changes.change(&marked);
        }
        let left = all.saturating_sub(sockets.destroyed + written.updated + alive);
        self.ended.connections += sockets.destroyed;
        self.ended.forwarded += written.updated;
        match self.flows {
            Stuck::All => self.ended.alive += alive,
            Stuck::Opening | Stuck::Unanswered => self.ended.others += alive,
        }
        self.ended.left += left;
        written.failure.map_or(Ok(()), Err)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The lifetime of an entry of an open connection, which tells whether the last packet was an answer.
///
/// Conntrack shortens the lifetime to [`UNANSWERED`] while data of either side waits for its
/// acknowledgement, and sets the whole lifetime with each other packet.
struct Fresh {
    established: u32,
}

impl Fresh {
    fn now() -> Fresh {
        Fresh {
            established: request::established_timeout(),
        }
    }

    fn is_answered(&self, more: &[Attribute<'_>]) -> bool {
        let left = find(more, CTA_TIMEOUT).and_then(|seconds| seconds.be32());
        let least = self
            .established
            .saturating_sub(ALIVE_WITHIN.as_secs() as u32);
        left.is_some_and(|left| left > UNANSWERED && left >= least)
    }

    /// True if data waits for its acknowledgement, and no packet has passed for some time. Never true where
    /// an idle connection has such a lifetime too.
    fn is_unanswered(&self, more: &[Attribute<'_>]) -> bool {
        let left = find(more, CTA_TIMEOUT).and_then(|seconds| seconds.be32());
        let most = UNANSWERED - UNANSWERED_FOR.as_secs() as u32;
        self.established > UNANSWERED && left.is_some_and(|left| left <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::wire::Attributes;

    #[test]
    fn connection_is_alive_only_with_a_fresh_and_whole_lifetime() {
        let fresh = Fresh {
            established: 432_000,
        };
        for (left, alive) in [
            (432_000, true),
            (431_999, true),
            (431_990, false),
            (300, false),
            (299, false),
        ] {
            let list = Attributes::new().put_be32(CTA_TIMEOUT, left).into_bytes();
            let list = attributes(&list).unwrap();
            assert_eq!(fresh.is_answered(&list), alive, "{left}");
        }
        assert!(!fresh.is_answered(&[]), "unknown");
        assert!(!fresh.is_unanswered(&[]), "unknown");
        for (left, unanswered) in [(432_000, false), (300, false), (299, false), (298, true)] {
            let list = Attributes::new().put_be32(CTA_TIMEOUT, left).into_bytes();
            let list = attributes(&list).unwrap();
            assert_eq!(fresh.is_unanswered(&list), unanswered, "{left}");
        }
        let short = Fresh { established: 300 };
        let list = Attributes::new().put_be32(CTA_TIMEOUT, 300).into_bytes();
        assert!(!short.is_answered(&attributes(&list).unwrap()));
        let list = Attributes::new().put_be32(CTA_TIMEOUT, 200).into_bytes();
        assert!(!short.is_unanswered(&attributes(&list).unwrap()), "idle");
    }
}
