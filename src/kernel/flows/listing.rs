//! The open flows that keep their path, one by one, for people and counts.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::conntrack::Conntrack;
use super::entry::{self, Tracked};
use super::error::FlowError;
use super::filter::Filter;
use super::request::{CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_TIMEOUT};
use super::sockets::TCP;
use crate::kernel::wire::{Attribute, NFGEN_LEN, WireError, attributes, find};
use crate::types::{PinMarks, Slot};

// linux/netfilter/nfnetlink_conntrack.h.
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_TIMESTAMP: u16 = 20;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TIMESTAMP_START: u16 = 1;

/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE` (linux/netfilter/nf_conntrack_tcp.h): the
/// connection has ended, and the entry stays for up to two minutes.
const ENDED: [u8; 2] = [7, 8];

/// An open flow whose mark names its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedFlow {
    /// The slot of the flow's gateway; 0 for the bypass path.
    pub slot: Slot,
    /// IP protocol number.
    pub protocol: u8,
    /// The sender of the first packet; port 0 for protocols without ports.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Bytes of both directions; `None` without `nf_conntrack_acct` at the first packet.
    pub bytes: Option<u64>,
    /// Time since the first packet; `None` without `nf_conntrack_timestamp` at that time.
    pub age: Option<Duration>,
    /// Time until conntrack forgets the flow, unless packets follow.
    pub timeout: Option<Duration>,
}

/// Hands on each open flow with the mark of the bypass path or of a slot. The memory in use doesn't
/// grow with the table. Connections that have ended are left out, although conntrack remembers them.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the kernel's refusal.
pub fn each_pinned(marks: PinMarks, mut take: impl FnMut(PinnedFlow)) -> Result<(), FlowError> {
    let mut conntrack = Conntrack::open()?;
    let now = SystemTime::now();
    // The kernel compares one value: the bypass path, then every gateway.
    for mark in [marks.bypass_flow(), marks.egress_flow()] {
        let filter = Filter::marked(mark);
        conntrack.each_entry(filter, |body| {
            let flow = entry::parse(body)?;
            // The kernel ignores a filter that it doesn't know.
            if filter.accepts(&flow)
                && let Some(slot) = slot_of(marks, flow.mark)
            {
                let more = attributes(body.get(NFGEN_LEN..).unwrap_or_default())?;
                if !has_ended(&flow, &more)? {
                    take(pinned(&flow, slot, &more, now)?);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn slot_of(marks: PinMarks, mark: u32) -> Option<Slot> {
    let bypass = marks.bypass_flow();
    if mark & bypass.mask == bypass.value {
        Some(0)
    } else {
        marks.slot_of(mark)
    }
}

fn pinned(
    flow: &Tracked,
    slot: Slot,
    more: &[Attribute<'_>],
    now: SystemTime,
) -> Result<PinnedFlow, WireError> {
    let sent = number(more, CTA_COUNTERS_ORIG, CTA_COUNTERS_BYTES)?;
    let received = number(more, CTA_COUNTERS_REPLY, CTA_COUNTERS_BYTES)?;
    let began = number(more, CTA_TIMESTAMP, CTA_TIMESTAMP_START)?;
    let began = began.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(at)));
    let timeout = find(more, CTA_TIMEOUT).and_then(|seconds| seconds.be32());
    Ok(PinnedFlow {
        slot,
        protocol: flow.protocol,
        source: flow.original.source,
        destination: flow.original.target,
        bytes: sent
            .zip(received)
            .map(|(sent, received)| sent.saturating_add(received)),
        // Somebody may have set the clock back.
        age: began.map(|began| now.duration_since(began).unwrap_or_default()),
        timeout: timeout.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

/// True for a TCP connection that has ended.
fn has_ended(flow: &Tracked, more: &[Attribute<'_>]) -> Result<bool, WireError> {
    Ok(tcp_state(flow, more)?.is_some_and(|state| ENDED.contains(&state)))
}

/// Conntrack's state of a TCP connection (linux/netfilter/nf_conntrack_tcp.h); `None` for other
/// protocols, and for an entry without a state.
pub(super) fn tcp_state(flow: &Tracked, more: &[Attribute<'_>]) -> Result<Option<u8>, WireError> {
    if flow.protocol != TCP {
        return Ok(None);
    }
    let Some(info) = find(more, CTA_PROTOINFO) else {
        return Ok(None);
    };
    let info = attributes(info.payload)?;
    let Some(tcp) = find(&info, CTA_PROTOINFO_TCP) else {
        return Ok(None);
    };
    let state = find(&attributes(tcp.payload)?, CTA_PROTOINFO_TCP_STATE);
    state.map(|state| state.u8()).transpose()
}

/// A 64-bit number in network order inside a nested list.
fn number(list: &[Attribute<'_>], outer: u16, inner: u16) -> Result<Option<u64>, WireError> {
    let Some(nested) = find(list, outer) else {
        return Ok(None);
    };
    let found = find(&attributes(nested.payload)?, inner);
    let bytes = found.and_then(|number| number.payload.try_into().ok());
    Ok(bytes.map(u64::from_be_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::flows::ends::Ends;
    use crate::kernel::wire::Attributes;
    use crate::types::PathMask;

    fn tracked(protocol: u8) -> Tracked {
        let ends = Ends {
            source: "10.0.1.11:40000".parse().unwrap(),
            target: "192.0.2.9:443".parse().unwrap(),
        };
        Tracked {
            protocol,
            original: ends,
            reply: ends.reversed(),
            mark: 0x10,
            answered: true,
            id: None,
            tuple: Vec::new(),
            zone: None,
        }
    }

    fn counters(bytes: u64) -> Attributes {
        Attributes::new().put(CTA_COUNTERS_BYTES, &bytes.to_be_bytes())
    }

    #[test]
    fn bytes_and_age_are_absent_unless_the_kernel_counts_them() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let list = Attributes::new().put_be32(CTA_TIMEOUT, 30).into_bytes();
        let plain = pinned(&tracked(17), 0, &attributes(&list).unwrap(), now).unwrap();
        assert_eq!((plain.bytes, plain.age), (None, None));
        assert_eq!(plain.timeout, Some(Duration::from_secs(30)));
        let start = 90_000_000_000_u64.to_be_bytes();
        let list = Attributes::new()
            .nest(CTA_COUNTERS_ORIG, counters(40))
            .nest(CTA_COUNTERS_REPLY, counters(2))
            .nest(
                CTA_TIMESTAMP,
                Attributes::new().put(CTA_TIMESTAMP_START, &start),
            )
            .into_bytes();
        let counted = pinned(&tracked(17), 0, &attributes(&list).unwrap(), now).unwrap();
        assert_eq!(counted.bytes, Some(42));
        assert_eq!(counted.age, Some(Duration::from_secs(10)));
    }

    #[test]
    fn an_ended_connection_is_no_open_flow() {
        let with_state = |state: u8| {
            let tcp = Attributes::new().put(CTA_PROTOINFO_TCP_STATE, &[state]);
            let info = Attributes::new().nest(CTA_PROTOINFO_TCP, tcp);
            Attributes::new().nest(CTA_PROTOINFO, info).into_bytes()
        };
        for (protocol, state, ended) in [(6, 3, false), (6, 7, true), (6, 8, true), (17, 7, false)]
        {
            let list = with_state(state);
            let list = attributes(&list).unwrap();
            assert_eq!(has_ended(&tracked(protocol), &list).unwrap(), ended);
        }
        assert!(!has_ended(&tracked(6), &[]).unwrap());
    }

    #[test]
    fn marks_name_the_bypass_path_or_a_slot() {
        let marks = PinMarks::new(PathMask(0x30), 0xe);
        for (mark, slot) in [
            (0x10, Some(0)),
            (0x8000_0010, Some(0)),
            (0x22, Some(1)),
            (0x20, None),
            (0x30, None),
            (0, None),
        ] {
            assert_eq!(slot_of(marks, mark), slot, "{mark:#x}");
        }
    }
}
