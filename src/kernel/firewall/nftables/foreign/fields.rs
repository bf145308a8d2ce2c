//! The parts of a packet that an expression loads.

use crate::judge::chain::Field;
use crate::kernel::firewall::nftables::uapi::*;
use crate::kernel::wire::{Attribute, number};
use crate::types::Family;

const NFT_META_PROTOCOL: u32 = 1;
const NFT_META_SKUID: u32 = 10;
const NFT_PAYLOAD_LL_HEADER: u32 = 0;

/// The field behind a key of `meta`.
pub(super) fn meta(key: Option<u32>) -> Field {
    match key {
        Some(NFT_META_IIFNAME) => Field::InputName,
        Some(NFT_META_OIFNAME) => Field::OutputName,
        Some(NFT_META_IIF) => Field::InputIndex,
        Some(NFT_META_OIF) => Field::OutputIndex,
        Some(NFT_META_PROTOCOL) => Field::EtherType,
        Some(NFT_META_NFPROTO) => Field::Family,
        Some(NFT_META_L4PROTO) => Field::Protocol,
        Some(NFT_META_MARK) => Field::Mark,
        Some(NFT_META_SKUID) => Field::User,
        _ => Field::Unknown,
    }
}

/// The field behind a key of `ct`.
pub(super) fn flow(key: Option<u32>) -> Field {
    match key {
        Some(NFT_CT_STATE) => Field::FlowState,
        Some(NFT_CT_STATUS) => Field::FlowStatus,
        Some(NFT_CT_MARK) => Field::FlowMark,
        _ => Field::Unknown,
    }
}

/// The routing type of the destination; the look-ups of the other kinds are outside our knowledge.
pub(super) fn routing(list: &[Attribute<'_>]) -> Field {
    let plain = number(list, NFTA_FIB_FLAGS) == Some(NFTA_FIB_F_DADDR);
    if plain && number(list, NFTA_FIB_RESULT) == Some(NFT_FIB_RESULT_ADDRTYPE) {
        Field::DestinationType
    } else {
        Field::Unknown
    }
}

/// The addresses in the IP headers, or their first bytes.
pub(super) fn payload(list: &[Attribute<'_>]) -> Field {
    let base = number(list, NFTA_PAYLOAD_BASE);
    let place = number(list, NFTA_PAYLOAD_OFFSET).zip(number(list, NFTA_PAYLOAD_LEN));
    match (base, place) {
        (Some(NFT_PAYLOAD_NETWORK_HEADER), Some((offset, length))) => match (offset, length) {
            (9, 1) => Field::Protocol,
            (12, 1..=4) => Field::Source(Family::Ipv4),
            (16, 1..=4) => Field::Destination(Family::Ipv4),
            (8, 1..=16) => Field::Source(Family::Ipv6),
            (24, 1..=16) => Field::Destination(Family::Ipv6),
            _ => Field::Unknown,
        },
        (Some(NFT_PAYLOAD_TRANSPORT_HEADER), Some((0, 2))) => Field::SourcePort,
        (Some(NFT_PAYLOAD_TRANSPORT_HEADER), Some((2, 2))) => Field::DestinationPort,
        (Some(NFT_PAYLOAD_LL_HEADER), Some((12, 2))) => Field::EtherType,
        _ => Field::Unknown,
    }
}
