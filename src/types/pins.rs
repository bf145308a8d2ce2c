//! The marks of pinned flows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Family, Mark, PathMask};

/// The marks of flows and packets whose path stays, in the bits of the path and of the gateway.
///
/// A *slot* is the number of a gateway in a mark. The values of the gateway's bits, besides 0 for no
/// gateway, are the slots from 1 on, and the last three: two for look-ups of the firewall, and one for
/// packets of the bypass path. Packets of a bypass flow can't carry the flow's mark: its bit means
/// "past our rules" on packets ([`PathMask::packet`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinMarks {
    path: PathMask,
    gateway: u32,
}

/// The number of tables of pinned flows: the bypass path, and the slots of three bits of the mark.
pub const PIN_TABLES: u32 = 8;

/// The number of a gateway in a mark, from 1 on.
pub type Slot = u32;

impl PinMarks {
    /// The marks in the bits of these masks. The gateway's bits are adjacent (config validation).
    pub fn new(path: PathMask, gateway: u32) -> Self {
        PinMarks { path, gateway }
    }

    /// False for masks that no config can have, such as those of a damaged file.
    pub fn are_sound(self) -> bool {
        let adjacent = |mask: u32| {
            mask != 0
                && (mask >> mask.trailing_zeros())
                    .wrapping_add(1)
                    .is_power_of_two()
        };
        let PinMarks { path, gateway } = self;
        adjacent(path.0) && path.0.count_ones() == 2 && adjacent(gateway) && path.0 & gateway == 0
    }

    /// True if a bit belongs to both.
    pub fn overlap(self, other: PinMarks) -> bool {
        self.mask() & other.mask() != 0
    }

    /// The marks of flows on each path, whatever their gateway, and of flows from outside.
    pub fn paths(self) -> [Mark; 3] {
        [self.path.bypass(), self.path.egress(), self.path.inbound()]
    }

    /// The mark in our bits that means the same as a flow's mark in the bits of `former`; `None` for
    /// flows without one, and for a slot that we lack.
    pub fn like(self, former: PinMarks, mark: u32) -> Option<Mark> {
        let path = former
            .paths()
            .iter()
            .position(|path| mark & path.mask == path.value)?;
        let number = (mark & former.gateway) >> former.gateway.trailing_zeros().min(31);
        if number > self.slots() {
            return None;
        }
        let path = self.paths()[path];
        Some(Mark {
            value: path.value | number << self.gateway.trailing_zeros().min(31),
            mask: self.mask(),
        })
    }

    fn last(self) -> u32 {
        self.gateway >> self.gateway.trailing_zeros().min(31)
    }

    /// The number of slots.
    pub fn slots(self) -> Slot {
        self.last().saturating_sub(3).min(PIN_TABLES - 1)
    }

    /// All bits of path and gateway.
    pub fn mask(self) -> u32 {
        self.path.0 | self.gateway
    }

    fn egress(self, number: u32) -> Mark {
        Mark {
            value: self.path.egress().value | number << self.gateway.trailing_zeros().min(31),
            mask: self.mask(),
        }
    }

    /// The mark of flows through the gateway of a slot, and of their packets that would take another
    /// way.
    pub fn slot(self, slot: Slot) -> Mark {
        self.egress(slot)
    }

    /// The slot of a flow's mark; `None` for other flows and for a flow without a slot.
    pub fn slot_of(self, mark: u32) -> Option<Slot> {
        (1..=self.slots()).find(|slot| {
            let of_slot = self.slot(*slot);
            mark & of_slot.mask == of_slot.value
        })
    }

    /// The mark of flows on the bypass path.
    pub fn bypass_flow(self) -> Mark {
        self.path.bypass()
    }

    /// The mark of flows on the egress path, whatever their gateway.
    pub fn egress_flow(self) -> Mark {
        self.path.egress()
    }

    /// The mark of packets of bypass flows that would take another way.
    pub fn bypass_packet(self) -> Mark {
        self.egress(self.last())
    }

    /// The mark of look-ups that find no route for any destination. No packet that leaves carries the
    /// mark.
    pub fn lookup_none(self) -> Mark {
        self.egress(self.last() - 2)
    }

    /// The mark of open flows that the agent has ended: their next packet gets a reset. No flow
    /// carries the mark of a look-up ([`PinMarks::lookup_none`]), which is a mark of packets.
    pub fn ended_flow(self) -> Mark {
        self.lookup_none()
    }

    /// The mark of look-ups in the bypass table alone. No packet that leaves carries the mark.
    pub fn lookup_bypass(self) -> Mark {
        self.egress(self.last() - 1)
    }

    /// A packet or a flow without any of the bits.
    pub fn clear(self) -> Mark {
        Mark {
            value: 0,
            mask: self.mask(),
        }
    }
}

/// The open flows of both paths, counted by family and by the bits of path and gateway in the mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowCounts(BTreeMap<(Family, u32), u64>);

impl FlowCounts {
    /// Adds a flow with these bits of a mark.
    pub fn add(&mut self, family: Family, bits: u32) {
        *self.0.entry((family, bits)).or_default() += 1;
    }

    /// The number of flows of a family with the mark.
    pub fn with(&self, family: Family, mark: Mark) -> u64 {
        let all = self.0.iter();
        let with = all.filter(|((of, bits), _)| *of == family && bits & mark.mask == mark.value);
        with.map(|(_, flows)| flows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_differ_and_none_passes_over_our_rules() {
        for (path, gateway) in [(0x30, 0xe), (0x3000, 0x70), (0xc000_0000, 0x3), (0x30, 0xf)] {
            let path = PathMask(path);
            let marks = PinMarks::new(path, gateway);
            let mut values: Vec<u32> = (1..=marks.slots())
                .map(|slot| marks.slot(slot).value)
                .collect();
            values.extend(
                [
                    marks.bypass_packet(),
                    marks.lookup_none(),
                    marks.lookup_bypass(),
                ]
                .map(|mark| mark.value),
            );
            for value in &values {
                assert_eq!(value & path.packet().mask, 0, "{value:#x}");
                assert_ne!(*value, path.egress().value, "a flow without a slot");
                assert_eq!(value & !marks.mask(), 0);
            }
            let count = values.len();
            values.sort_unstable();
            values.dedup();
            assert_eq!(values.len(), count);
        }
    }

    #[test]
    fn marks_in_other_bits_mean_the_same() {
        let former = PinMarks::new(PathMask(0x30), 0xe);
        let new = PinMarks::new(PathMask(0x3000), 0x700);
        assert!(!new.overlap(former));
        for (mark, like) in [
            (0x10, Some(0x1000)),
            (0x20, Some(0x2000)),
            (0x30, Some(0x3000)),
            (0x22, Some(0x2100)),
            (0x8000_0028, Some(0x2400)),
            (0x2a, None),
            (0x2, None),
            (0, None),
        ] {
            let found = new.like(former, mark);
            assert_eq!(found.map(|mark| mark.value), like, "{mark:#x}");
            assert!(found.is_none_or(|mark| mark.mask == 0x3700));
        }
        assert!(new.overlap(PinMarks::new(PathMask(0x300), 0x30)));
        for (path, gateway) in [
            (0, 0xe),
            (0x50, 0xe),
            (0x30, 0),
            (0x30, 0x5),
            (0x30, 0x70),
            (u32::MAX, 0xe),
        ] {
            assert!(
                !PinMarks::new(PathMask(path), gateway).are_sound(),
                "{path:#x} {gateway:#x}"
            );
        }
        assert!(PinMarks::new(PathMask(0xc000_0000), 0x3000_0000).are_sound());
    }

    #[test]
    fn a_slot_is_read_back_from_a_mark() {
        let marks = PinMarks::new(PathMask(0x30), 0xe);
        assert_eq!(marks.slots(), 4);
        assert_eq!(marks.slot(1).value, 0x22);
        assert_eq!(marks.slot_of(0x8000_0026), Some(3));
        for other in [0, 0x10, 0x20, 0x30, 0x2a, 0x2c, 0x2e] {
            assert_eq!(marks.slot_of(other), None, "{other:#x}");
        }
    }
}
