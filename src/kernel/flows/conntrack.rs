//! Reads and writes conntrack entries over netlink.

use super::ends::Ends;
use super::entry::{self, Tracked};
use super::error::{FlowError, failed};
use super::filter::Filter;
use super::request::{self, FlowRequest};
use super::sockets::{Socket, TCP};
use super::written::{ENOENT, Written};
use crate::kernel::wire::{
    ACK, Attributes, CREATE, DUMP, EXCL, NFGEN_LEN, REQUEST, Wire, WireError, attributes, find,
    push_message,
};
use crate::types::Mark;

const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_CTNETLINK` in the high byte, `IPCTNL_MSG_CT_NEW`, `…_GET`, `…_DELETE`,
/// `…_GET_STATS_CPU` (counters of each processor) and `…_GET_STATS` (totals of the namespace) in
/// the low byte.
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CT_GET_STATS_CPU: u16 = (1 << 8) | 4;
const CT_GET_STATS: u16 = (1 << 8) | 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;
const CTA_STATS_INSERT_FAILED: u16 = 9;
const CTA_STATS_DROP: u16 = 10;
const CTA_STATS_EARLY_DROP: u16 = 11;

/// `AF_UNSPEC` (linux/socket.h): both families.
const AF_UNSPEC: u8 = 0;

/// Messages per datagram: if the kernel refuses all of them, the answers still fit the default
/// receive buffer.
const MESSAGES_A_DATAGRAM: usize = 200;

const EEXIST: i32 = 17;

/// The use of conntrack's table in this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableUse {
    pub entries: u64,
    /// The largest number of entries; `None` on kernels that don't tell.
    pub limit: Option<u64>,
    /// Flows that found no free place, such as a free port for a translation, since boot.
    pub insert_failed: u64,
    /// Packets dropped for want of an entry, since boot.
    pub dropped: u64,
    /// Entries removed early to make room, since boot.
    pub early_dropped: u64,
}

/// Open conversations with conntrack: one for the listing, one for the changes meanwhile.
///
/// A listing is handed on entry by entry, and the chosen entries are changed in batches, so that
/// the memory in use doesn't grow with the table.
pub(super) struct Conntrack {
    listing: Wire,
    changes: Wire,
}

fn unavailable(error: &WireError) -> Option<FlowError> {
    // EINVAL: the kernel has no conntrack subsystem. EPROTONOSUPPORT: no netfilter over netlink.
    matches!(error.errno(), Some(22 | 93 | 95)).then(|| FlowError::Unavailable {
        reason: error.to_string(),
    })
}

fn refused(error: WireError) -> FlowError {
    unavailable(&error).unwrap_or_else(|| failed("list the open flows")(error))
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, FlowError> {
        let wire = || {
            let wire = Wire::open(NETLINK_NETFILTER).map_err(WireError::from);
            wire.map_err(|error| {
                unavailable(&error).unwrap_or_else(|| failed("open a netfilter socket")(error))
            })
        };
        Ok(Conntrack {
            listing: wire()?,
            changes: wire()?,
        })
    }

    /// Marks the listed flows that `choose` accepts.
    pub(super) fn mark_listed(
        &mut self,
        filter: Filter,
        mark: Mark,
        choose: impl Fn(&Tracked) -> bool,
    ) -> Result<Written, FlowError> {
        self.change_listed(filter, CT_NEW, |flow| {
            choose(flow).then(|| request::mark(flow, mark))
        })
    }

    /// Marks each listed flow for which `mark_of` has a mark.
    pub(super) fn mark_each(
        &mut self,
        filter: Filter,
        mut mark_of: impl FnMut(&Tracked) -> Option<Mark>,
    ) -> Result<Written, FlowError> {
        self.change_listed(filter, CT_NEW, |flow| {
            mark_of(flow).map(|mark| request::mark(flow, mark))
        })
    }

    /// Deletes the entries of the listed flows that `choose` accepts, and counts them as updated:
    /// the next packet of a flow makes a new entry.
    pub(super) fn forget_listed(
        &mut self,
        filter: Filter,
        choose: impl Fn(&Tracked) -> bool,
    ) -> Result<Written, FlowError> {
        self.change_listed(filter, CT_DELETE, |flow| {
            choose(flow).then(|| request::delete(flow))
        })
    }

    /// Changes entries that are there.
    pub(super) fn change(&mut self, requests: &[FlowRequest]) -> Written {
        self.send_all(CT_NEW, requests)
    }

    /// Deletes entries.
    pub(super) fn delete(&mut self, requests: &[FlowRequest]) -> Written {
        self.send_all(CT_DELETE, requests)
    }

    fn send_all(&mut self, kind: u16, requests: &[FlowRequest]) -> Written {
        let mut written = Written::default();
        let answers = send(&mut self.changes, (kind, 0), requests, &mut written);
        written.count_updates(&answers);
        written
    }

    fn change_listed(
        &mut self,
        filter: Filter,
        kind: u16,
        mut change: impl FnMut(&Tracked) -> Option<FlowRequest>,
    ) -> Result<Written, FlowError> {
        let mut written = Written::default();
        // For a dump the kernel walks its table of all namespaces (often 262,144 buckets), so a
        // namespace without entries is not dumped.
        if self.totals().map_err(refused)?.0 == Some(0) {
            return Ok(written);
        }
        let mut batch = Vec::with_capacity(MESSAGES_A_DATAGRAM);
        let Conntrack { listing, changes } = self;
        let mut flush = |batch: &mut Vec<FlowRequest>| {
            let answers = send(changes, (kind, 0), batch, &mut written);
            written.count_updates(&answers);
            batch.clear();
        };
        let request = request::body(AF_UNSPEC, filter.attributes());
        listing
            .ask(CT_GET, DUMP, &request, |frame| {
                let flow = entry::parse(frame.body)?;
                // The kernel ignores a filter that it doesn't know.
                if filter.accepts(&flow) {
                    batch.extend(change(&flow));
                }
                if batch.len() == MESSAGES_A_DATAGRAM {
                    flush(&mut batch);
                }
                Ok(())
            })
            .map_err(refused)?;
        flush(&mut batch);
        Ok(written)
    }

    /// The entry of a connection.
    pub(super) fn find(&mut self, ends: Ends) -> Result<Option<Tracked>, FlowError> {
        self.known(TCP, ends).map_err(refused)
    }

    /// Hands on each listed flow.
    pub(super) fn each_listed(
        &mut self,
        filter: Filter,
        mut take: impl FnMut(&Tracked),
    ) -> Result<(), FlowError> {
        self.each_entry(filter, |body| {
            take(&entry::parse(body)?);
            Ok(())
        })
    }

    /// Hands on the message of each listed flow.
    pub(super) fn each_entry(
        &mut self,
        filter: Filter,
        mut take: impl FnMut(&[u8]) -> Result<(), WireError>,
    ) -> Result<(), FlowError> {
        if self.totals().map_err(refused)?.0 == Some(0) {
            return Ok(());
        }
        let request = request::body(AF_UNSPEC, filter.attributes());
        let listed = self
            .listing
            .ask(CT_GET, DUMP, &request, |frame| take(frame.body));
        listed.map_err(refused)
    }

    /// The counters of the table.
    pub(super) fn table_use(&mut self) -> Result<TableUse, FlowError> {
        let (entries, limit) = self.totals().map_err(refused)?;
        let mut found = TableUse {
            entries: entries.unwrap_or(0).into(),
            limit: limit.map(u64::from),
            ..TableUse::default()
        };
        let request = request::body(AF_UNSPEC, Attributes::new());
        let counted = self.listing.ask(CT_GET_STATS_CPU, DUMP, &request, |frame| {
            let list = attributes(frame.body.get(NFGEN_LEN..).unwrap_or(&[]))?;
            let counter = |kind| find(&list, kind).and_then(|it| it.be32()).unwrap_or(0);
            found.insert_failed += u64::from(counter(CTA_STATS_INSERT_FAILED));
            found.dropped += u64::from(counter(CTA_STATS_DROP));
            found.early_dropped += u64::from(counter(CTA_STATS_EARLY_DROP));
            Ok(())
        });
        counted.map_err(refused)?;
        Ok(found)
    }

    /// The number of entries in this namespace, and its limit; `None` if the kernel doesn't say.
    /// /proc has the number too, but for every process: a process that may not list flows must get
    /// an error instead of "none".
    fn totals(&mut self) -> Result<(Option<u32>, Option<u32>), WireError> {
        let mut totals = (None, None);
        let request = request::body(AF_UNSPEC, Attributes::new());
        self.listing.ask(CT_GET_STATS, 0, &request, |frame| {
            let list = attributes(frame.body.get(NFGEN_LEN..).unwrap_or(&[]))?;
            let number = |kind| find(&list, kind).and_then(|number| number.be32());
            totals = (
                number(CTA_STATS_GLOBAL_ENTRIES),
                number(CTA_STATS_GLOBAL_MAX_ENTRIES),
            );
            Ok(())
        })?;
        Ok(totals)
    }

    /// Marks the flows of sockets, and inserts entries for those unknown to conntrack. Flows with any of
    /// the bits `told` keep their mark.
    pub(super) fn mark_connections(
        &mut self,
        sockets: &[Socket],
        mark: Mark,
        told: u32,
    ) -> Written {
        let mut written = Written::default();
        let mut updates = Vec::new();
        let mut unknown = Vec::new();
        for socket in sockets {
            let is_told =
                |flow: &Tracked| flow.mark & told != 0 || flow.mark & mark.mask == mark.value;
            match self.known(socket.protocol, socket.ends) {
                Ok(Some(flow)) if is_told(&flow) => written.marked += 1,
                Ok(Some(flow)) => updates.push(request::mark(&flow, mark)),
                Ok(None) => unknown.push(socket),
                Err(error) => {
                    written.fail(None, error);
                    return written;
                }
            }
        }
        let answers = send(&mut self.changes, (CT_NEW, 0), &updates, &mut written);
        written.count_updates(&answers);
        let timeout = request::established_timeout();
        let inserts: Vec<_> = unknown
            .iter()
            .map(|socket| request::insert(socket, mark, timeout))
            .collect();
        let flags = (CT_NEW, CREATE | EXCL);
        let answers = send(&mut self.changes, flags, &inserts, &mut written);
        for (errno, socket) in answers.into_iter().zip(unknown) {
            match errno {
                0 => written.inserted += 1,
                // Conntrack saw a packet of the connection meanwhile.
                EEXIST => self.mark_known(socket, mark, &mut written),
                _ => {}
            }
        }
        written
    }

    /// The entry of a connection. Conntrack switched on in the middle of a connection may have
    /// swapped the directions, and the socket of a translated connection knows the ends of the
    /// reply only: a look-up compares both directions of an entry.
    fn known(&mut self, protocol: u8, ends: Ends) -> Result<Option<Tracked>, WireError> {
        for ends in [ends, ends.reversed()] {
            let mut found = None;
            let request = request::by_ends(protocol, ends);
            let answer = self.listing.ask(CT_GET, 0, &request, |frame| {
                found = Some(entry::parse(frame.body)?);
                Ok(())
            });
            match answer {
                Ok(()) if found.is_some() => return Ok(found),
                Ok(()) | Err(WireError::Kernel { errno: ENOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Marks the entry of a connection, whose direction is unknown.
    fn mark_known(&mut self, socket: &Socket, mark: Mark, written: &mut Written) {
        let either = [socket.ends, socket.ends.reversed()]
            .map(|ends| request::mark_by_ends(socket.protocol, ends, mark));
        let answers = send(&mut self.changes, (CT_NEW, 0), &either, written);
        if answers.contains(&0) {
            written.updated += 1;
        } else {
            written.gone += 1;
        }
    }
}

/// Sends requests and returns an answer for each: 0 or an errno. After a failed exchange the
/// answers end early.
fn send(
    wire: &mut Wire,
    (kind, flags): (u16, u16),
    requests: &[FlowRequest],
    written: &mut Written,
) -> Vec<i32> {
    let mut answers = Vec::with_capacity(requests.len());
    for chunk in requests.chunks(MESSAGES_A_DATAGRAM) {
        let mut bytes = Vec::new();
        let mut sequences = Vec::with_capacity(chunk.len());
        for (index, request) in chunk.iter().enumerate() {
            let sequence = wire.next_sequence();
            let ack = if index + 1 == chunk.len() { ACK } else { 0 };
            let flags = REQUEST | flags | ack;
            push_message(&mut bytes, kind, flags, sequence, &request.body);
            sequences.push(sequence);
        }
        let last = sequences.last().copied().unwrap_or_default();
        let settled = wire.send(&bytes).and_then(|()| wire.settle(last, None));
        let refusals = match settled {
            Ok(refusals) => refusals,
            Err(error) => {
                written.fail(chunk.first(), error);
                return answers;
            }
        };
        let first = answers.len();
        answers.resize(first + chunk.len(), 0);
        for refusal in refusals {
            let WireError::Kernel {
                errno, sequence, ..
            } = refusal
            else {
                continue;
            };
            let Some(index) = sequences.iter().position(|s| *s == sequence) else {
                continue;
            };
            answers[first + index] = errno;
            if ![ENOENT, EEXIST].contains(&errno) {
                written.fail(chunk.get(index), refusal);
            }
        }
    }
    answers
}
