//! Requests that change conntrack entries.

use super::ends::Ends;
use super::entry::{
    CTA_ID, CTA_MARK, CTA_STATUS, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, SEEN_REPLY, Tracked,
    tuple,
};
use super::sockets::{Socket, TCP, state};
use crate::kernel::route::family_number;
use crate::kernel::wire::{Attributes, NFGEN_LEN};
use crate::types::{Family, Mark};

// linux/netfilter/nfnetlink_conntrack.h.
pub(super) const CTA_PROTOINFO: u16 = 4;
pub(super) const CTA_TIMEOUT: u16 = 7;
pub(super) const CTA_MARK_MASK: u16 = 21;
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED` (linux/netfilter/nf_conntrack_common.h): both
/// sides have sent packets, and a full table evicts other entries first.
const STATUS: u32 = SEEN_REPLY | (1 << 2) | (1 << 3);
/// `IP_CT_TCP_FLAG_BE_LIBERAL` (linux/netfilter/nf_conntrack_tcp.h): an inserted entry knows
/// neither sequence numbers nor window scaling, and conntrack must not call packets invalid for
/// lack of them.
const BE_LIBERAL: u8 = 0x08;

/// The host's own timeout of an established connection, in seconds.
const ESTABLISHED_TIMEOUT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
/// The kernel's default for datagrams in both directions, in seconds
/// (net/netfilter/nf_conntrack_proto_udp.c).
const DATAGRAMS_TIMEOUT: u32 = 120;
/// The kernel's default of that timeout: 5 days (net/netfilter/nf_conntrack_proto_tcp.c).
pub(super) const FIVE_DAYS: u32 = 432_000;

pub(super) struct FlowRequest {
    pub(super) body: Vec<u8>,
    /// The verb for error messages.
    action: &'static str,
    ends: Ends,
}

impl FlowRequest {
    fn new(action: &'static str, ends: Ends, attributes: Attributes) -> Self {
        FlowRequest {
            body: body(family_number(Family::of(ends.source.ip())), attributes),
            action,
            ends,
        }
    }

    pub(super) fn operation(&self) -> String {
        let Ends { source, target } = self.ends;
        format!("{} the flow {source} → {target}", self.action)
    }
}

pub(super) fn body(family: u8, attributes: Attributes) -> Vec<u8> {
    let mut body = vec![0; NFGEN_LEN];
    body[0] = family;
    body.extend(attributes.into_bytes());
    body
}

pub(super) fn mark(flow: &Tracked, mark: Mark) -> FlowRequest {
    FlowRequest::new("mark", flow.original, marked(named(flow), mark))
}

/// Marks a flow of unknown zone, by its ends.
pub(super) fn mark_by_ends(protocol: u8, ends: Ends, mark: Mark) -> FlowRequest {
    let list = Attributes::new().nest(CTA_TUPLE_ORIG, tuple(protocol, ends));
    FlowRequest::new("mark", ends, marked(list, mark))
}

/// Sets the lifetime of an entry in seconds, by the ends of the flow.
pub(super) fn prolong(protocol: u8, ends: Ends, seconds: u32) -> FlowRequest {
    let list = Attributes::new()
        .nest(CTA_TUPLE_ORIG, tuple(protocol, ends))
        .put_be32(CTA_TIMEOUT, seconds);
    FlowRequest::new("keep", ends, list)
}

/// Asks for the entry of a flow, by its ends.
pub(super) fn by_ends(protocol: u8, ends: Ends) -> Vec<u8> {
    let list = Attributes::new().nest(CTA_TUPLE_ORIG, tuple(protocol, ends));
    body(family_number(Family::of(ends.source.ip())), list)
}

pub(super) fn delete(flow: &Tracked) -> FlowRequest {
    let mut list = named(flow);
    if let Some(id) = flow.id {
        list = list.put_be32(CTA_ID, id);
    }
    FlowRequest::new("forget", flow.original, list)
}

/// Inserts the entry of an open socket. `established` is the timeout of an established TCP connection.
pub(super) fn insert(socket: &Socket, mark: Mark, established: u32) -> FlowRequest {
    if socket.protocol != TCP {
        let list = between(socket).put_be32(CTA_TIMEOUT, DATAGRAMS_TIMEOUT);
        return FlowRequest::new("insert", socket.ends, marked(list, mark));
    }
    let (tcp, timeout) = tcp_state(socket.state, established);
    let liberal = [BE_LIBERAL, BE_LIBERAL];
    let info = Attributes::new()
        .put(CTA_PROTOINFO_TCP_STATE, &[tcp])
        .put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &liberal)
        .put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &liberal);
    let list = between(socket).put_be32(CTA_TIMEOUT, timeout).nest(
        CTA_PROTOINFO,
        Attributes::new().nest(CTA_PROTOINFO_TCP, info),
    );
    FlowRequest::new("insert", socket.ends, marked(list, mark))
}

fn between(socket: &Socket) -> Attributes {
    let Socket { protocol, ends, .. } = *socket;
    Attributes::new()
        .nest(CTA_TUPLE_ORIG, tuple(protocol, ends))
        .nest(CTA_TUPLE_REPLY, tuple(protocol, ends.reversed()))
        .put_be32(CTA_STATUS, STATUS)
}

fn named(flow: &Tracked) -> Attributes {
    let list = Attributes::new().put(CTA_TUPLE_ORIG, &flow.tuple);
    match flow.zone {
        Some(zone) => list.put(CTA_ZONE, &zone.to_be_bytes()),
        None => list,
    }
}

fn marked(list: Attributes, mark: Mark) -> Attributes {
    list.put_be32(CTA_MARK, mark.value)
        .put_be32(CTA_MARK_MASK, mark.mask)
}

/// The timeout of an established connection. The first packet sets the same value anyway.
pub(super) fn established_timeout() -> u32 {
    std::fs::read_to_string(ESTABLISHED_TIMEOUT)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(FIVE_DAYS)
}

/// Conntrack's state for a socket's state, and the entry's lifetime without packets in seconds. A
/// closing connection gets the kernel's default for its state (nf_conntrack_proto_tcp.c): after
/// the last packet of the connection, the entry must not stay for days.
fn tcp_state(socket: u8, established: u32) -> (u8, u32) {
    match socket {
        state::SYN_RECV => (2, 60),
        state::FIN_WAIT1 | state::CLOSING => (4, 120),
        state::FIN_WAIT2 | state::CLOSE_WAIT => (5, 60),
        state::LAST_ACK => (6, 30),
        _ => (3, established),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
