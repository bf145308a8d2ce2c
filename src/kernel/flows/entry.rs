//! A conntrack entry on the wire (linux/netfilter/nfnetlink_conntrack.h).

use std::net::{IpAddr, SocketAddr};

use super::ends::Ends;
use crate::kernel::wire::{Attributes, NFGEN_LEN, WireError, attributes, find};

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_MARK: u16 = 8;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `IPS_SEEN_REPLY` (linux/netfilter/nf_conntrack_common.h).
pub(super) const SEEN_REPLY: u32 = 1 << 1;

/// A flow that conntrack knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) protocol: u8,
    pub(super) original: Ends,
    pub(super) reply: Ends,
    pub(super) mark: u32,
    /// True once the target has answered.
    pub(super) answered: bool,
    /// Distinguishes the entry from a later entry with the same ends.
    pub(super) id: Option<u32>,
    /// `CTA_TUPLE_ORIG` as received, with the fields of protocols without ports.
    pub(super) tuple: Vec<u8>,
    pub(super) zone: Option<u16>,
}

pub(super) fn tuple(protocol: u8, ends: Ends) -> Attributes {
    let addresses = match (ends.source.ip(), ends.target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Attributes::new()
            .put(CTA_IP_V4_SRC, &source.octets())
            .put(CTA_IP_V4_DST, &target.octets()),
        (source, target) => Attributes::new()
            .put(CTA_IP_V6_SRC, &six(source))
            .put(CTA_IP_V6_DST, &six(target)),
    };
    let ports = Attributes::new()
        .put(CTA_PROTO_NUM, &[protocol])
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

pub(super) fn parse(body: &[u8]) -> Result<Tracked, WireError> {
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
        // An entry of unknown state counts as answered.
        answered: number(CTA_STATUS).is_none_or(|status| status & SEEN_REPLY != 0),
        id: number(CTA_ID),
        tuple: tuple.to_vec(),
        zone: zone.map(u16::from_be_bytes),
    })
}

/// Reads protocol and ends of a tuple; the ports of a protocol without ports are 0.
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
    use super::super::sockets::{TCP, UDP};
    use super::*;

    #[test]
    fn tuples_round_trip() {
        for (source, target) in [
            ("192.0.2.1:1000", "10.0.0.1:22"),
            ("[2001:db8::9]:1000", "[2001:db8::1]:22"),
        ] {
            let ends = Ends {
                source: source.parse().unwrap(),
                target: target.parse().unwrap(),
            };
            for protocol in [TCP, UDP] {
                let bytes = tuple(protocol, ends).into_bytes();
                assert_eq!(parse_tuple(&bytes).unwrap(), Some((protocol, ends)));
            }
        }
    }
}
