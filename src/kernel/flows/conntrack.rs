//! Reads and writes conntrack entries over netlink.

use super::entry::{self, Tracked};
use super::error::{FlowError, failed};
use super::request::{self, Request};
use super::sockets::Socket;
use crate::kernel::wire::{
    ACK, Attributes, CREATE, DUMP, EXCL, NFGEN_LEN, REQUEST, Wire, WireError, attributes, find,
    push_message,
};
use crate::types::Mark;

const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_CTNETLINK` in the high byte, `IPCTNL_MSG_CT_NEW`, `…_GET`, `…_DELETE` and
/// `…_GET_STATS` (totals of the namespace) in the low byte.
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CT_GET_STATS: u16 = (1 << 8) | 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

/// `AF_UNSPEC` (linux/socket.h): both families.
const AF_UNSPEC: u8 = 0;

/// Messages per datagram: if the kernel refuses all of them, the answers still fit the default
/// receive buffer.
const MESSAGES_A_DATAGRAM: usize = 200;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// The result of changing entries; all counts are flows.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) updated: u32,
    pub(super) inserted: u32,
    /// Ended meanwhile.
    pub(super) gone: u32,
    /// The first error other than "gone" and "exists".
    pub(super) failure: Option<FlowError>,
}

impl Written {
    fn count_updates(&mut self, answers: &[i32]) {
        for errno in answers {
            match *errno {
                0 => self.updated += 1,
                ENOENT => self.gone += 1,
                _ => {}
            }
        }
    }

    fn fail(&mut self, request: Option<&Request>, error: WireError) {
        let operation = request.map_or_else(|| "change flows".to_owned(), Request::operation);
        self.failure.get_or_insert_with(|| failed(operation)(error));
    }
}

/// An open conversation with conntrack.
pub(super) struct Conntrack(Wire);

fn unavailable(error: &WireError) -> Option<FlowError> {
    // EINVAL: the kernel has no conntrack subsystem. EPROTONOSUPPORT: no netfilter over netlink.
    matches!(error.errno(), Some(22 | 93 | 95)).then(|| FlowError::Unavailable {
        reason: error.to_string(),
    })
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, FlowError> {
        let wire = Wire::open(NETLINK_NETFILTER).map_err(WireError::from);
        wire.map(Conntrack).map_err(|error| {
            unavailable(&error).unwrap_or_else(|| failed("open a netfilter socket")(error))
        })
    }

    /// Reads all entries of both families. For a dump the kernel walks its table of all namespaces
    /// (often 262,144 buckets), so that a namespace without entries is not dumped.
    pub(super) fn read(&mut self) -> Result<Vec<Tracked>, FlowError> {
        let mut tracked = Vec::new();
        let refused = |error: WireError| {
            unavailable(&error).unwrap_or_else(|| failed("list the open flows")(error))
        };
        if self.entry_count().map_err(refused)? == Some(0) {
            return Ok(tracked);
        }
        let request = request::body(AF_UNSPEC, Attributes::new());
        self.0
            .ask(CT_GET, DUMP, &request, |frame| {
                tracked.push(entry::parse(frame.body)?);
                Ok(())
            })
            .map_err(refused)?;
        Ok(tracked)
    }

    /// The number of entries in this namespace; `None` if the kernel doesn't say. /proc has the
    /// number too, but for every process: a process that may not list flows must get an error
    /// instead of "none".
    fn entry_count(&mut self) -> Result<Option<u32>, WireError> {
        let mut count = None;
        let request = request::body(AF_UNSPEC, Attributes::new());
        self.0.ask(CT_GET_STATS, 0, &request, |frame| {
            let list = attributes(frame.body.get(NFGEN_LEN..).unwrap_or(&[]))?;
            count = find(&list, CTA_STATS_GLOBAL_ENTRIES).and_then(|entries| entries.be32());
            Ok(())
        })?;
        Ok(count)
    }

    /// Marks known flows and inserts unknown ones.
    pub(super) fn write(
        &mut self,
        updates: &[&Tracked],
        inserts: &[&Socket],
        mark: Mark,
    ) -> Written {
        let mut written = Written::default();
        let requests: Vec<_> = updates
            .iter()
            .map(|flow| request::mark(flow, mark))
            .collect();
        let answers = self.send((CT_NEW, 0), &requests, &mut written);
        written.count_updates(&answers);
        let timeout = request::established_timeout();
        let requests: Vec<_> = inserts
            .iter()
            .map(|socket| request::insert(socket, mark, timeout))
            .collect();
        let answers = self.send((CT_NEW, CREATE | EXCL), &requests, &mut written);
        for (errno, socket) in answers.into_iter().zip(inserts) {
            match errno {
                0 => written.inserted += 1,
                // Conntrack saw a packet of the connection since the entries were read.
                EEXIST => self.mark_known(socket, mark, &mut written),
                _ => {}
            }
        }
        written
    }

    /// Deletes entries and counts them as updated: the next packet of a flow makes a new entry.
    pub(super) fn forget(&mut self, flows: &[&Tracked]) -> Written {
        let mut written = Written::default();
        let requests: Vec<_> = flows.iter().map(|flow| request::delete(flow)).collect();
        let answers = self.send((CT_DELETE, 0), &requests, &mut written);
        written.count_updates(&answers);
        written
    }

    /// Marks the entry of a connection, whose direction is unknown.
    fn mark_known(&mut self, socket: &Socket, mark: Mark, written: &mut Written) {
        let either =
            [socket.ends, socket.ends.reversed()].map(|ends| request::mark_by_ends(ends, mark));
        let answers = self.send((CT_NEW, 0), &either, written);
        if answers.contains(&0) {
            written.updated += 1;
        } else {
            written.gone += 1;
        }
    }

    /// Sends requests and returns an answer for each: 0 or an errno. After a failed exchange the
    /// answers end early.
    fn send(
        &mut self,
        (kind, flags): (u16, u16),
        requests: &[Request],
        written: &mut Written,
    ) -> Vec<i32> {
        let mut answers = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(MESSAGES_A_DATAGRAM) {
            let mut bytes = Vec::new();
            let mut sequences = Vec::with_capacity(chunk.len());
            for (index, request) in chunk.iter().enumerate() {
                let sequence = self.0.next_sequence();
                let ack = if index + 1 == chunk.len() { ACK } else { 0 };
                let flags = REQUEST | flags | ack;
                push_message(&mut bytes, kind, flags, sequence, &request.body);
                sequences.push(sequence);
            }
            let last = sequences.last().copied().unwrap_or_default();
            let settled = self.0.send(&bytes).and_then(|()| self.0.settle(last, None));
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
}
