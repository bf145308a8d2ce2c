//! The marks that the first packet of a flow decides.

use super::Pins;
use crate::firewall::{Match, Path};
use crate::types::{Mark, PathMask, Slot};

/// The mark that the first packet gives to its flow.
pub(in crate::desired) struct FirstPacket {
    pub(in crate::desired) mark: Mark,
    /// Flows with any of these bits keep their mark.
    pub(in crate::desired) absent: u32,
}

impl Pins {
    /// The mark of a flow whose first packet matches these conditions.
    pub(in crate::desired) fn first(&self, conditions: &[Match], path: Path) -> FirstPacket {
        let all = self.marks.mask();
        if path == Path::Bypass {
            return FirstPacket {
                mark: self.marks.bypass_flow(),
                absent: all,
            };
        }
        let slot = self.slots.iter().find(|(slot, gateway)| {
            let own = self.through(**slot, **gateway);
            conditions.contains(&own)
        });
        let egress = self.marks.slot(slot.map_or(self.other, |(slot, _)| *slot));
        FirstPacket {
            mark: egress,
            // The mark without a slot: the flow began before its path was pinned.
            absent: all & !self.marks.slot(0).value,
        }
    }

    /// The marks of pinned flows, each with its slot, 0 for the bypass path.
    pub(in crate::desired) fn flow_marks(&self) -> Vec<(Mark, Slot)> {
        let marks = self.of_flows().map(|(flow, ..)| flow);
        let slot = |flow: Mark| self.marks.slot_of(flow.value).unwrap_or(0);
        marks.map(|flow| (flow, slot(flow))).collect()
    }

    /// The bits of a packet's mark that keep the packet out of the flows. Probes carry the mark of their
    /// way: without them the counters of a way show the traffic of others alone. Packets that a NAT
    /// forwards carry the mark of their path.
    pub(in crate::desired) fn foreign_bits(&self, path: PathMask) -> u32 {
        if self.other == 0 {
            self.marks.mask()
        } else {
            path.packet().mask
        }
    }
}
