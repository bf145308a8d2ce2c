//! The open flows that keep their path, compared with the path of a new flow.
//!
//! ```text
//! conntrack ─▶ flow with a mark ─▶ kept path ─────┐
//! kernel ────▶ look-up of its destination ────────┴▶ displaced, and why
//! ```
//!
//! Flows are handed on one by one, so that the memory in use doesn't grow with conntrack's table.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use thiserror::Error;

use crate::judge::ordinary::Transport;
use crate::judge::{Displacement, KeptPath, Lookup, Pins, RouteDecision};
use crate::kernel::flows::{FlowError, PinnedFlow, each_pinned};
use crate::kernel::lookup::lookup;
use crate::kernel::netlink::{NetlinkError, NetlinkSocket};
use crate::types::{Family, PerFamily};

/// Bound of the remembered answers of the kernel, some hundred bytes each.
const REMEMBERED: usize = 4096;

/// The pinned flows could not be read.
#[derive(Debug, Error)]
pub enum PinnedError {
    /// The kernel has no connection tracking over netlink.
    #[error(
        "connection tracking is not available ({reason}): pinned flows are unknown; load nf_conntrack_netlink"
    )]
    Unavailable {
        /// The kernel's answer.
        reason: String,
    },
    /// The kernel refused the list, or the exchange failed.
    #[error("pinned flows are unknown: {0}")]
    Flows(FlowError),
    /// The kernel gives no routing decision.
    #[error("the paths of new flows are unknown: {0}")]
    Lookup(#[from] NetlinkError),
}

impl From<FlowError> for PinnedError {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Unavailable { reason } => PinnedError::Unavailable { reason },
            other => PinnedError::Flows(other),
        }
    }
}

/// Hands on each pinned flow with its path, and with the difference to the path of a new flow.
///
/// Blocks; works on the network namespace of the calling thread. Needs CAP_NET_ADMIN.
///
/// # Errors
/// The kernel refuses the list or a look-up; the flows handed on before are a part of the list.
pub fn each_flow(
    pins: &Pins,
    mut take: impl FnMut(&PinnedFlow, KeptPath<'_>, Option<Displacement>),
) -> Result<(), PinnedError> {
    let mut decisions = Decisions::open()?;
    let mut failure = None;
    each_pinned(pins.marks(), |flow| {
        let family = Family::of(flow.destination.ip());
        let Some(kept) = pins.kept(family, flow.slot) else {
            return;
        };
        if failure.is_some() {
            return;
        }
        match decisions.about(&flow) {
            Ok(decision) => {
                let displaced = pins.displacement(kept, decision);
                take(&flow, kept, displaced);
            }
            Err(error) => failure = Some(error),
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// The number of pinned flows on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowCount {
    pub pinned: u64,
    /// Those that would take another path as new flows.
    pub displaced: u64,
}

/// The numbers of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathCounts {
    pub bypass: FlowCount,
    pub egress: FlowCount,
}

/// The numbers of pinned flows; `None` for a family without pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts(pub PerFamily<Option<PathCounts>>);

impl Counts {
    /// No flow, in the families with pins.
    pub fn none(pins: &Pins) -> Counts {
        let count = |family| pins.are_in(family).then(PathCounts::default);
        Counts(PerFamily::from_fn(count))
    }

    /// Counts a flow.
    pub fn add(&mut self, family: Family, kept: KeptPath<'_>, displaced: bool) {
        let counts = self.0.get_mut(family).get_or_insert_default();
        let count = match kept {
            KeptPath::Bypass(_) => &mut counts.bypass,
            KeptPath::Gateway(_) => &mut counts.egress,
        };
        count.pinned += 1;
        count.displaced += u64::from(displaced);
    }
}

/// Counts the pinned flows.
///
/// # Errors
/// As [`each_flow`].
pub fn count(pins: &Pins) -> Result<Counts, PinnedError> {
    let mut counts = Counts::none(pins);
    each_flow(pins, |flow, kept, displaced| {
        let family = Family::of(flow.destination.ip());
        counts.add(family, kept, displaced.is_some());
    })?;
    Ok(counts)
}

/// The kernel's routing decisions for new flows, each asked once in bounded memory.
struct Decisions {
    socket: NetlinkSocket,
    known: BTreeMap<(IpAddr, Transport), RouteDecision>,
}

impl Decisions {
    fn open() -> Result<Decisions, NetlinkError> {
        Ok(Decisions {
            socket: NetlinkSocket::open()?,
            known: BTreeMap::new(),
        })
    }

    fn about(&mut self, flow: &PinnedFlow) -> Result<&RouteDecision, NetlinkError> {
        let all = Transport::ALL.into_iter();
        let mut same = all.filter(|transport| transport.number() == flow.protocol);
        let transport = same.next().unwrap_or(Transport::Tcp);
        let key = (flow.destination.ip(), transport);
        if !self.known.contains_key(&key) && self.known.len() == REMEMBERED {
            self.known.clear();
        }
        match self.known.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let question = Lookup {
                    transport,
                    ..Lookup::from_socket(key.0)
                };
                let decision = lookup(&mut self.socket, &question)?;
                Ok(unknown.insert(decision))
            }
        }
    }
}
