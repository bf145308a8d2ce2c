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
use crate::judge::{Counts, Displacement, KeptPath, Lookup, Pins, RouteDecision};
use crate::kernel::flows::{FlowError, IdleFlows, PinnedFlow, each_pinned};
use crate::kernel::lookup::lookup;
use crate::kernel::netlink::{NetlinkError, NetlinkSocket};
use crate::types::{Family, IfIndex};

/// Bound of the remembered answers of the kernel, some hundred bytes each.
const REMEMBERED: usize = 4096;

/// `errno.h`.
const EPERM: i32 = 1;

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
    /// This process may not read conntrack's table.
    #[error(
        "pinned flows are unknown: reading conntrack needs CAP_NET_ADMIN in this network namespace: run as root"
    )]
    NotPermitted,
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
            FlowError::Failed { source, .. } if source.errno() == Some(EPERM) => {
                PinnedError::NotPermitted
            }
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
    let mut decisions = Decisions::open(pins.are_of_nat())?;
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

/// Counts the pinned flows, and gives the idle displaced ones of this host's sockets more time: an
/// entry that conntrack forgets takes the pin along.
///
/// # Errors
/// As [`each_flow`]; the kernel refuses the change of an entry.
pub fn count_and_keep(pins: &Pins) -> Result<Counts, PinnedError> {
    let mut counts = Counts::none(pins);
    let mut idle = IdleFlows::default();
    each_flow(pins, |flow, kept, displaced| {
        let family = Family::of(flow.destination.ip());
        counts.add(family, kept, displaced.is_some());
        if displaced.is_some() {
            idle.add(flow);
        }
    })?;
    let kept = idle.keep()?;
    if kept > 0 {
        tracing::debug!("{kept} idle flows on their former path stay in conntrack");
    }
    Ok(counts)
}

/// The kernel's routing decisions for new flows, each asked once in bounded memory.
struct Decisions {
    socket: NetlinkSocket,
    /// NAT role: our rules select forwarded packets by their interface.
    forwarded: bool,
    known: BTreeMap<(IpAddr, Transport, Option<IpAddr>), RouteDecision>,
    /// The interface towards each source.
    inputs: BTreeMap<IpAddr, Option<IfIndex>>,
}

impl Decisions {
    fn open(forwarded: bool) -> Result<Decisions, NetlinkError> {
        Ok(Decisions {
            socket: NetlinkSocket::open()?,
            forwarded,
            known: BTreeMap::new(),
            inputs: BTreeMap::new(),
        })
    }

    fn about(&mut self, flow: &PinnedFlow) -> Result<&RouteDecision, NetlinkError> {
        let all = Transport::ALL.into_iter();
        let mut same = all.filter(|transport| transport.number() == flow.protocol);
        let transport = same.next().unwrap_or(Transport::Tcp);
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        let input = if self.forwarded {
            self.input(source)?
        } else {
            None
        };
        let source = input.map(|_| source);
        make_room(&mut self.known);
        match self.known.entry((destination, transport, source)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let question = Lookup {
                    transport,
                    source,
                    input,
                    ..Lookup::from_socket(destination)
                };
                let decision = lookup(&mut self.socket, &question)?;
                Ok(unknown.insert(decision))
            }
        }
    }

    /// The interface by which packets of a client come in; `None` for a source of this host.
    fn input(&mut self, source: IpAddr) -> Result<Option<IfIndex>, NetlinkError> {
        if let Some(known) = self.inputs.get(&source) {
            return Ok(*known);
        }
        let input = match lookup(&mut self.socket, &Lookup::from_socket(source))? {
            RouteDecision::Route(route) => route.target.legs().first().map(|leg| leg.via.device),
            RouteDecision::Errno(_) => None,
        };
        make_room(&mut self.inputs);
        self.inputs.insert(source, input);
        Ok(input)
    }
}

fn make_room<K: Ord, V>(known: &mut BTreeMap<K, V>) {
    if known.len() >= REMEMBERED {
        known.clear();
    }
}
