//! Counts of packets, by path or by the reason of a drop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Family, PerFamily, Slot};

/// The reason to drop a packet that leaves with another address than the promised one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// A client outside `[nat] sources`, and nothing has translated its packet.
    Outside,
    /// A client of `[nat] sources`, translated by another program or not at all.
    Sources,
    /// Host role: a packet to the internet on neither path.
    Closed,
}

words!(DropReason { Outside => "outside", Sources => "sources", Closed => "closed" });

impl DropReason {
    /// The reasons of the NAT role.
    pub const OF_NAT: [DropReason; 2] = [DropReason::Outside, DropReason::Sources];
    /// The reasons of the host role.
    pub const OF_HOST: [DropReason; 1] = [DropReason::Closed];
}

/// The traces of a dropped packet beside the count, in nf_tables alone. A kernel may refuse either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traces {
    /// A line in the kernel's log, at a bounded rate.
    pub log: bool,
    /// The addresses, the protocol and the port, in a bounded list.
    pub record: bool,
}

impl Traces {
    /// Every trace.
    pub const ALL: Traces = Traces {
        log: true,
        record: true,
    };

    /// No trace.
    pub const NONE: Traces = Traces {
        log: false,
        record: false,
    };
}

/// A path of the traffic counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// To the VPC router, past the NAT.
    Bypass,
    /// Through the NAT, to the egress gateway.
    Egress,
}

words!(Path { Bypass => "bypass", Egress => "egress" });

/// The direction of packets of a flow that this host or a client behind it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Out,
    /// The answers.
    Back,
}

words!(Direction { Out => "out", Back => "back" });

/// Traffic of pinned flows on one way, by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WayTraffic {
    pub out: Traffic,
    pub back: Traffic,
}

impl WayTraffic {
    /// The traffic in one direction, for a change.
    pub fn of_mut(&mut self, direction: Direction) -> &mut Traffic {
        match direction {
            Direction::Out => &mut self.out,
            Direction::Back => &mut self.back,
        }
    }

    /// The traffic since an earlier reading; `None` if the counters have started again.
    pub fn since(&self, earlier: &WayTraffic) -> Option<WayTraffic> {
        let since = |now: Traffic, earlier: Traffic| {
            Some(Traffic {
                packets: now.packets.checked_sub(earlier.packets)?,
                bytes: now.bytes.checked_sub(earlier.bytes)?,
            })
        };
        Some(WayTraffic {
            out: since(self.out, earlier.out)?,
            back: since(self.back, earlier.back)?,
        })
    }
}

/// Traffic by family and slot; slot 0 is the bypass path.
pub type WaysTraffic = BTreeMap<(Family, Slot), WayTraffic>;

/// Traffic of one path and family, both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub packets: u64,
    /// Measured at the IP layer.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Traffic by path and family, since the counters started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathTraffic {
    pub bypass: PerFamily<Traffic>,
    pub egress: PerFamily<Traffic>,
    /// NAT role: packets dropped after all translation.
    #[serde(default)]
    pub dropped: DroppedTraffic,
}

/// Packets dropped for a wrong address, by reason and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DroppedTraffic {
    pub outside: PerFamily<Traffic>,
    pub sources: PerFamily<Traffic>,
    #[serde(default)]
    pub closed: PerFamily<Traffic>,
}

impl DroppedTraffic {
    /// The packets of one reason.
    pub fn of(&self, reason: DropReason) -> &PerFamily<Traffic> {
        match reason {
            DropReason::Outside => &self.outside,
            DropReason::Sources => &self.sources,
            DropReason::Closed => &self.closed,
        }
    }

    /// True if a counter is less than in an earlier reading: all counters started again.
    pub fn restarted_since(&self, earlier: &DroppedTraffic) -> bool {
        DropReason::ALL.into_iter().any(|reason| {
            let packets = |counts: &DroppedTraffic, family| counts.of(reason).get(family).packets;
            let mut families = Family::ALL.into_iter();
            families.any(|family| packets(self, family) < packets(earlier, family))
        })
    }

    /// The packets of one reason, for a change.
    pub fn of_mut(&mut self, reason: DropReason) -> &mut PerFamily<Traffic> {
        match reason {
            DropReason::Outside => &mut self.outside,
            DropReason::Sources => &mut self.sources,
            DropReason::Closed => &mut self.closed,
        }
    }
}

impl PathTraffic {
    /// Traffic of one path.
    pub fn of(&self, path: Path) -> &PerFamily<Traffic> {
        match path {
            Path::Bypass => &self.bypass,
            Path::Egress => &self.egress,
        }
    }

    /// Traffic of one path, for a change.
    pub fn of_mut(&mut self, path: Path) -> &mut PerFamily<Traffic> {
        match path {
            Path::Bypass => &mut self.bypass,
            Path::Egress => &mut self.egress,
        }
    }
}
