//! The record of dropped packets: from which address, to which address, how often, since when.

use std::net::IpAddr;
use std::time::Duration;

use super::{DropReason, DroppedTraffic, Traffic};
use crate::types::Family;

/// Dropped packets with the same addresses, protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockedEntry {
    pub reason: DropReason,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The number of the protocol (IANA), for example 6 for TCP.
    pub protocol: u8,
    /// The destination port; `None` for a protocol without ports, and for a fragment.
    pub port: Option<u16>,
    pub traffic: Traffic,
    /// The time since the first packet; `None` if the list of first packets had no free place.
    pub first: Option<Duration>,
    /// The time since the last packet.
    pub last: Duration,
}

/// The record in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockedRecord {
    /// The entries with most packets first.
    pub entries: Vec<BlockedEntry>,
    /// The reasons and families with a list.
    pub lists: Vec<(DropReason, Family)>,
    /// The reasons and families whose list has no free place: packets to further destinations are
    /// dropped and counted, and not listed.
    pub full: Vec<(DropReason, Family)>,
    /// The packets dropped since the counters started; `None` without a rule that drops.
    pub dropped: Option<DroppedTraffic>,
}
