//! Reads and writes conntrack entries over netlink (linux/netfilter/nfnetlink_conntrack.h).

use std::net::{IpAddr, SocketAddr};

use super::sockets::{AF_INET, AF_INET6, Socket, state};
use super::{Ends, FlowError, failed};
use crate::kernel::wire::{
    ACK, Attributes, CREATE, DUMP, EXCL, NFGEN_LEN, REQUEST, Wire, WireError, attributes, find,
    push_message,
};
use crate::types::Mark;

const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_CTNETLINK` in the high byte, `IPCTNL_MSG_CT_NEW`, `…_GET` and `…_DELETE` in the
/// low one.
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
/// `IPCTNL_MSG_CT_GET_STATS`: totals of the namespace.
const CT_GET_STATS: u16 = (1 << 8) | 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
const IPPROTO_TCP: u8 = 6;

/// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED` (linux/netfilter/nf_conntrack_common.h): both
/// sides have spoken, and a full table doesn't throw it out first.
const STATUS: u32 = SEEN_REPLY | (1 << 2) | (1 << 3);
/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;
/// `IP_CT_TCP_FLAG_BE_LIBERAL` (linux/netfilter/nf_conntrack_tcp.h): an inserted entry knows
/// neither sequence numbers nor window scaling, and must not call packets invalid for it.
const BE_LIBERAL: u8 = 0x08;

/// The host's own timeout of an established connection, in seconds.
const ESTABLISHED_TIMEOUT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
/// The kernel's default of it: 5 days (net/netfilter/nf_conntrack_proto_tcp.c).
const FIVE_DAYS: u32 = 432_000;

/// `AF_UNSPEC` (linux/socket.h): both families.
const AF_UNSPEC: u8 = 0;

/// Messages in one datagram: were each refused, the answers still fit the default receive buffer.
const MESSAGES_A_DATAGRAM: usize = 200;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) protocol: u8,
    pub(super) original: Ends,
    pub(super) reply: Ends,
    pub(super) mark: u32,
    /// Whether anybody has ever answered.
    pub(super) answered: bool,
    /// What tells it from a later entry of the same ends.
    pub(super) id: Option<u32>,
    /// `CTA_TUPLE_ORIG` as the kernel gave it: ports, or what other protocols have instead.
    pub(super) tuple: Vec<u8>,
    pub(super) zone: Option<u16>,
}

/// What came of the writing.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) updated: u32,
    pub(super) inserted: u32,
    pub(super) gone: u32,
    pub(super) failure: Option<FlowError>,
}

/// An open conversation with conntrack.
pub(super) struct Conntrack(Wire);

fn body(family: u8, attributes: Attributes) -> Vec<u8> {
    let mut body = vec![0; NFGEN_LEN];
    body[0] = family;
    body.extend(attributes.into_bytes());
    body
}

fn unavailable(error: &WireError) -> Option<FlowError> {
    // EINVAL: nobody answers for this subsystem. EPROTONOSUPPORT: no netfilter over netlink.
    matches!(error.errno(), Some(22 | 93 | 95)).then(|| FlowError::Unavailable {
        reason: error.to_string(),
    })
}

fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, FlowError> {
        let wire = Wire::open(NETLINK_NETFILTER).map_err(WireError::from);
        wire.map(Conntrack).map_err(|error| {
            unavailable(&error).unwrap_or_else(|| failed("open a netfilter socket")(error))
        })
    }

    /// All entries of both families. The kernel walks its whole table of all namespaces for it
    /// (often 262,144 buckets), so it isn't asked twice, nor when it says itself that this
    /// namespace has none.
    pub(super) fn read(&mut self) -> Result<Vec<Tracked>, FlowError> {
        let mut tracked = Vec::new();
        let refused = |error: WireError| {
            unavailable(&error).unwrap_or_else(|| failed("list the open flows")(error))
        };
        if self.entry_count().map_err(refused)? == Some(0) {
            return Ok(tracked);
        }
        let request = body(AF_UNSPEC, Attributes::new());
        self.0
            .ask(CT_GET, DUMP, &request, |frame| {
                tracked.push(parse(frame.body)?);
                Ok(())
            })
            .map_err(refused)?;
        Ok(tracked)
    }

    /// How many entries this namespace has; `None` where the kernel doesn't say. Asked over
    /// netlink and not read from /proc, which tells everybody: who may not list the flows must
    /// hear so, not that there are none.
    fn entry_count(&mut self) -> Result<Option<u32>, WireError> {
        let mut count = None;
        let request = body(AF_UNSPEC, Attributes::new());
        self.0.ask(CT_GET_STATS, 0, &request, |frame| {
            let list = attributes(frame.body.get(NFGEN_LEN..).unwrap_or(&[]))?;
            count = find(&list, CTA_STATS_GLOBAL_ENTRIES).and_then(|entries| entries.be32());
            Ok(())
        })?;
        Ok(count)
    }

    /// Marks what is known, inserts what isn't. What ended meanwhile is `gone`.
    pub(super) fn write(
        &mut self,
        updates: &[&Tracked],
        inserts: &[&Socket],
        mark: Mark,
    ) -> Written {
        let mut written = Written::default();
        let bodies: Vec<_> = updates.iter().map(|flow| update(flow, mark)).collect();
        let describe = |index: usize| match updates.get(index) {
            Some(flow) => format!(
                "mark the flow {} → {}",
                flow.original.source, flow.original.target
            ),
            None => "mark flows".to_owned(),
        };
        let answers = self.send((CT_NEW, 0), &bodies, describe, &mut written);
        for errno in answers {
            match errno {
                0 => written.updated += 1,
                ENOENT => written.gone += 1,
                _ => {}
            }
        }
        let timeout = established_timeout();
        let bodies: Vec<_> = inserts
            .iter()
            .map(|socket| insert(socket, mark, timeout))
            .collect();
        let describe = |index: usize| match inserts.get(index) {
            Some(socket) => format!(
                "insert the flow {} → {}",
                socket.ends.source, socket.ends.target
            ),
            None => "insert flows".to_owned(),
        };
        let kind = (CT_NEW, CREATE | EXCL);
        let answers = self.send(kind, &bodies, describe, &mut written);
        // Conntrack has come to know some of them since it was read.
        let mut known = Vec::new();
        for (errno, socket) in answers.into_iter().zip(inserts) {
            match errno {
                0 => written.inserted += 1,
                EEXIST => known.push(*socket),
                _ => {}
            }
        }
        self.mark_known(&known, mark, &mut written);
        written
    }

    /// Deletes entries: the next packet makes another one. `updated` counts them.
    pub(super) fn forget(&mut self, flows: &[&Tracked]) -> Written {
        let mut written = Written::default();
        let bodies: Vec<_> = flows.iter().map(|flow| deletion(flow)).collect();
        let describe = |index: usize| match flows.get(index) {
            Some(flow) => format!(
                "forget the flow {} → {}",
                flow.original.source, flow.original.target
            ),
            None => "forget flows".to_owned(),
        };
        for errno in self.send((CT_DELETE, 0), &bodies, describe, &mut written) {
            match errno {
                0 => written.updated += 1,
                ENOENT => written.gone += 1,
                _ => {}
            }
        }
        written
    }

    /// Marks entries that appeared meanwhile, whichever way round they are.
    fn mark_known(&mut self, sockets: &[&Socket], mark: Mark, written: &mut Written) {
        for socket in sockets {
            let either = [socket.ends, socket.ends.reversed()].map(|ends| {
                let list = Attributes::new().nest(CTA_TUPLE_ORIG, tuple(ends));
                body(family_of(ends.source.ip()), marked(list, mark))
            });
            let describe = |_| {
                format!(
                    "mark the flow {} → {}",
                    socket.ends.source, socket.ends.target
                )
            };
            let sent = self.send((CT_NEW, 0), &either, describe, written);
            match sent.as_slice() {
                answers if answers.contains(&0) => written.updated += 1,
                _ => written.gone += 1,
            }
        }
    }

    /// Sends messages; the answer to each is 0, or an errno. Errors other than "gone" and
    /// "exists" are kept in `written`, the first of them.
    fn send(
        &mut self,
        (kind, flags): (u16, u16),
        bodies: &[Vec<u8>],
        describe: impl Fn(usize) -> String,
        written: &mut Written,
    ) -> Vec<i32> {
        let mut answers = Vec::with_capacity(bodies.len());
        for chunk in bodies.chunks(MESSAGES_A_DATAGRAM) {
            let mut bytes = Vec::new();
            let mut sequences = Vec::with_capacity(chunk.len());
            for (index, body) in chunk.iter().enumerate() {
                let sequence = self.0.next_sequence();
                let ack = if index + 1 == chunk.len() { ACK } else { 0 };
                push_message(&mut bytes, kind, REQUEST | flags | ack, sequence, body);
                sequences.push(sequence);
            }
            let last = sequences.last().copied().unwrap_or_default();
            let settled = self.0.send(&bytes).and_then(|()| self.0.settle(last, None));
            let refusals = match settled {
                Ok(refusals) => refusals,
                Err(error) => {
                    let operation = describe(answers.len());
                    written
                        .failure
                        .get_or_insert_with(|| failed(operation)(error));
                    return answers;
                }
            };
            let first = answers.len();
            answers.resize(first + chunk.len(), 0);
            for refusal in refusals {
                let WireError::Kernel {
                    errno, sequence, ..
                } = &refusal
                else {
                    continue;
                };
                let Some(index) = sequences.iter().position(|s| s == sequence) else {
                    continue;
                };
                answers[first + index] = *errno;
                if ![ENOENT, EEXIST].contains(errno) {
                    let operation = describe(first + index);
                    written
                        .failure
                        .get_or_insert_with(|| failed(operation)(refusal));
                }
            }
        }
        answers
    }
}

fn established_timeout() -> u32 {
    // The entry gets this timeout anyway with its first packet.
    std::fs::read_to_string(ESTABLISHED_TIMEOUT)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(FIVE_DAYS)
}

/// Conntrack's state for a socket's, and how many seconds it may stay without a packet. A closing
/// connection gets the kernel's defaults for its state (nf_conntrack_proto_tcp.c): it must not
/// lie in the table for days when its last packet was the last.
fn tcp_state(socket: u8, established: u32) -> (u8, u32) {
    match socket {
        state::SYN_RECV => (2, 60),
        state::FIN_WAIT1 | state::CLOSING => (4, 120),
        state::FIN_WAIT2 | state::CLOSE_WAIT => (5, 60),
        state::LAST_ACK => (6, 30),
        _ => (3, established),
    }
}

fn update(flow: &Tracked, mark: Mark) -> Vec<u8> {
    let family = family_of(flow.original.source.ip());
    body(family, marked(named(flow), mark))
}

fn deletion(flow: &Tracked) -> Vec<u8> {
    let mut list = named(flow);
    if let Some(id) = flow.id {
        list = list.put_be32(CTA_ID, id);
    }
    body(family_of(flow.original.source.ip()), list)
}

fn named(flow: &Tracked) -> Attributes {
    let list = Attributes::new().put(CTA_TUPLE_ORIG, &flow.tuple);
    match flow.zone {
        Some(zone) => list.put(CTA_ZONE, &zone.to_be_bytes()),
        None => list,
    }
}

fn insert(socket: &Socket, mark: Mark, established: u32) -> Vec<u8> {
    let (tcp, timeout) = tcp_state(socket.state, established);
    let liberal = [BE_LIBERAL, BE_LIBERAL];
    let info = Attributes::new()
        .put(CTA_PROTOINFO_TCP_STATE, &[tcp])
        .put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &liberal)
        .put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &liberal);
    let list = Attributes::new()
        .nest(CTA_TUPLE_ORIG, tuple(socket.ends))
        .nest(CTA_TUPLE_REPLY, tuple(socket.ends.reversed()))
        .put_be32(CTA_STATUS, STATUS)
        .put_be32(CTA_TIMEOUT, timeout)
        .nest(
            CTA_PROTOINFO,
            Attributes::new().nest(CTA_PROTOINFO_TCP, info),
        );
    body(family_of(socket.ends.source.ip()), marked(list, mark))
}

fn marked(list: Attributes, mark: Mark) -> Attributes {
    list.put_be32(CTA_MARK, mark.value)
        .put_be32(CTA_MARK_MASK, mark.mask)
}

fn tuple(ends: Ends) -> Attributes {
    let addresses = match (ends.source.ip(), ends.target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Attributes::new()
            .put(CTA_IP_V4_SRC, &source.octets())
            .put(CTA_IP_V4_DST, &target.octets()),
        (source, target) => Attributes::new()
            .put(CTA_IP_V6_SRC, &six(source))
            .put(CTA_IP_V6_DST, &six(target)),
    };
    let ports = Attributes::new()
        .put(CTA_PROTO_NUM, &[IPPROTO_TCP])
        .put(CTA_PROTO_SRC_PORT, &ends.source.port().to_be_bytes())
        .put(CTA_PROTO_DST_PORT, &ends.target.port().to_be_bytes());
    Attributes::new()
        .nest(CTA_TUPLE_IP, addresses)
        .nest(CTA_TUPLE_PROTO, ports)
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn parse(body: &[u8]) -> Result<Tracked, WireError> {
    const ODD: WireError = WireError::Malformed("a flow without its addresses");
    let list = attributes(body.get(NFGEN_LEN..).ok_or(ODD)?)?;
    let tuple = find(&list, CTA_TUPLE_ORIG).ok_or(ODD)?.payload;
    let (protocol, original) = parse_tuple(tuple)?.ok_or(ODD)?;
    let reply = find(&list, CTA_TUPLE_REPLY).ok_or(ODD)?.payload;
    let (_, reply) = parse_tuple(reply)?.ok_or(ODD)?;
    let number = |kind| find(&list, kind).and_then(|number| number.be32());
    let zone = find(&list, CTA_ZONE).and_then(|zone| zone.payload.try_into().ok());
    Ok(Tracked {
        protocol,
        original,
        reply,
        mark: number(CTA_MARK).unwrap_or(0),
        // An entry of unknown state counts as in use.
        answered: number(CTA_STATUS).is_none_or(|status| status & SEEN_REPLY != 0),
        id: number(CTA_ID),
        tuple: tuple.to_vec(),
        zone: zone.map(u16::from_be_bytes),
    })
}

/// Protocol and ends; ports are 0 where the protocol has none.
fn parse_tuple(payload: &[u8]) -> Result<Option<(u8, Ends)>, WireError> {
    let list = attributes(payload)?;
    let nested = |kind| find(&list, kind).map_or(&[][..], |nested| nested.payload);
    let addresses = attributes(nested(CTA_TUPLE_IP))?;
    let ports = attributes(nested(CTA_TUPLE_PROTO))?;
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(found) = find(&addresses, v4) {
            return Some(IpAddr::from(<[u8; 4]>::try_from(found.payload).ok()?));
        }
        let found = find(&addresses, v6)?;
        Some(IpAddr::from(<[u8; 16]>::try_from(found.payload).ok()?))
    };
    let port = |kind| {
        let bytes = find(&ports, kind).and_then(|port| port.payload.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    let parsed = || {
        let source = address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?;
        let target = address(CTA_IP_V4_DST, CTA_IP_V6_DST)?;
        let ends = Ends {
            source: SocketAddr::new(source, port(CTA_PROTO_SRC_PORT)),
            target: SocketAddr::new(target, port(CTA_PROTO_DST_PORT)),
        };
        Some((*find(&ports, CTA_PROTO_NUM)?.payload.first()?, ends))
    };
    Ok(parsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_come_back_as_they_went_in() {
        for (source, target) in [
            ("192.0.2.1:1000", "10.0.0.1:22"),
            ("[2001:db8::9]:1000", "[2001:db8::1]:22"),
        ] {
            let ends = Ends {
                source: source.parse().unwrap(),
                target: target.parse().unwrap(),
            };
            let bytes = tuple(ends).into_bytes();
            assert_eq!(parse_tuple(&bytes).unwrap(), Some((IPPROTO_TCP, ends)));
        }
    }

    #[test]
    fn a_closing_connection_does_not_stay_for_days() {
        assert_eq!(tcp_state(state::ESTABLISHED, FIVE_DAYS), (3, FIVE_DAYS));
        for closing in [
            state::SYN_RECV,
            state::FIN_WAIT2,
            state::CLOSE_WAIT,
            state::LAST_ACK,
        ] {
            assert!(tcp_state(closing, FIVE_DAYS).1 <= 120);
        }
    }
}
