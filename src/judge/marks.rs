//! The marks and the conntrack zone of a packet, and the writes of foreign rules.
//!
//! A rule with a condition outside our knowledge perhaps writes a mark, so that a packet may carry
//! one of several marks.

use std::collections::BTreeSet;

/// Bound of the pairs of marks followed for one packet.
const MOST_PAIRS: usize = 16;

/// The owner of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkOf {
    Packet,
    Flow,
}

/// A change of a packet by a rule, before the rule's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Mark(MarkWrite),
    /// conntrack ignores the packet: nothing translates the packet.
    Untrack,
    /// `None` for a zone outside our knowledge.
    Zone(Option<Zone>),
}

/// The conntrack zone of a packet, for each direction of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zone {
    pub original: u16,
    pub reply: u16,
}

impl Zone {
    /// A zone for both directions, or for one: the other direction stays in the zone 0.
    pub fn new(id: u16, original: bool, reply: bool) -> Zone {
        let of = |counts: bool| if counts { id } else { 0 };
        Zone {
            original: of(original),
            reply: of(reply),
        }
    }
}

/// A write of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkWrite {
    pub of: MarkOf,
    /// `None` for a value outside our knowledge.
    pub value: Option<MarkValue>,
}

/// The new mark: `own & keep ^ other & take ^ xor`, where `other` is the flow's mark for the packet,
/// and the packet's mark for the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MarkValue {
    pub keep: u32,
    pub take: u32,
    pub xor: u32,
}

impl MarkValue {
    /// The same value behind a mask and an exclusive or.
    pub fn mixed(self, mask: u32, xor: u32) -> MarkValue {
        MarkValue {
            keep: self.keep & mask,
            take: self.take & mask,
            xor: self.xor & mask ^ xor,
        }
    }
}

/// A mark, as far as its bits are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits {
    /// Zero outside `known`.
    pub value: u32,
    pub known: u32,
}

impl Bits {
    const UNKNOWN: Bits = Bits { value: 0, known: 0 };

    /// A mark known whole.
    pub fn whole(value: u32) -> Bits {
        Bits {
            value,
            known: u32::MAX,
        }
    }

    fn and(self, mask: u32) -> Bits {
        Bits {
            value: self.value & mask,
            known: self.known | !mask,
        }
    }

    fn xor(self, other: Bits) -> Bits {
        let known = self.known & other.known;
        Bits {
            value: (self.value ^ other.value) & known,
            known,
        }
    }
}

/// The marks of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    packet: Bits,
    flow: Bits,
}

/// The pairs of marks that a packet may have; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks(BTreeSet<Pair>);

impl Marks {
    /// No mark yet: the first packet of a flow. Our own firewall may have written `ours` into the
    /// flow's mark.
    pub fn none(ours: u32) -> Marks {
        Marks::one(
            Bits::whole(0),
            Bits {
                value: 0,
                known: !ours,
            },
        )
    }

    /// A packet without a mark, of a flow with an unknown mark.
    pub fn of_unknown_flow() -> Marks {
        Marks::one(Bits::whole(0), Bits::UNKNOWN)
    }

    fn one(packet: Bits, flow: Bits) -> Marks {
        Marks(BTreeSet::from([Pair { packet, flow }]))
    }

    /// The marks of a later packet of the flow, before the first chain.
    pub fn later(&self) -> Marks {
        let pairs = self.0.iter().map(|pair| Pair {
            packet: Bits::whole(0),
            ..*pair
        });
        Marks(pairs.collect())
    }

    /// The marks after a write; a write that is not certain leaves the old marks possible.
    pub fn written(&self, write: MarkWrite, certain: bool) -> Marks {
        let written = self.0.iter().map(|pair| pair.written(write));
        let mut all: BTreeSet<Pair> = written.collect();
        if !certain {
            all.extend(&self.0);
        }
        if all.len() > MOST_PAIRS {
            return Marks::one(Bits::UNKNOWN, Bits::UNKNOWN);
        }
        Marks(all)
    }

    /// The same marks of the packet, with the flow's marks of `other`.
    pub fn with_flow_of(&self, other: &Marks) -> Marks {
        if self == other {
            return self.clone();
        }
        let flows: BTreeSet<Bits> = other.0.iter().map(|pair| pair.flow).collect();
        let pairs = self.0.iter().flat_map(|pair| {
            let packet = pair.packet;
            flows.iter().map(move |flow| Pair {
                packet,
                flow: *flow,
            })
        });
        Marks(pairs.collect())
    }

    /// The packet's mark: the bits equal in all possible marks.
    pub fn of_packet(&self) -> Bits {
        common(self.0.iter().map(|pair| pair.packet))
    }

    /// The flow's mark: the bits equal in all possible marks.
    pub fn of_flow(&self) -> Bits {
        common(self.0.iter().map(|pair| pair.flow))
    }

    /// The possible marks of the packet.
    pub fn possible(&self) -> BTreeSet<Bits> {
        self.0.iter().map(|pair| pair.packet).collect()
    }
}

fn common(mut marks: impl Iterator<Item = Bits>) -> Bits {
    let first = marks.next().unwrap_or(Bits::UNKNOWN);
    marks.fold(first, |common, mark| {
        let known = common.known & mark.known & !(common.value ^ mark.value);
        Bits {
            value: common.value & known,
            known,
        }
    })
}

impl Pair {
    fn written(self, write: MarkWrite) -> Pair {
        let (own, other) = match write.of {
            MarkOf::Packet => (self.packet, self.flow),
            MarkOf::Flow => (self.flow, self.packet),
        };
        let new = write.value.map_or(Bits::UNKNOWN, |value| {
            let mixed = own.and(value.keep).xor(other.and(value.take));
            mixed.xor(Bits::whole(value.xor))
        });
        match write.of {
            MarkOf::Packet => Pair {
                packet: new,
                ..self
            },
            MarkOf::Flow => Pair { flow: new, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(of: MarkOf, keep: u32, take: u32, xor: u32) -> MarkWrite {
        let value = Some(MarkValue { keep, take, xor });
        MarkWrite { of, value }
    }

    #[test]
    fn flow_mark_is_saved_and_restored() {
        let set = write(MarkOf::Packet, 0, 0, 0x77);
        let save = write(MarkOf::Flow, 0, u32::MAX, 0);
        let restore = write(MarkOf::Packet, 0, u32::MAX, 0);
        let first = Marks::none(0).written(set, true).written(save, true);
        let whole = Bits::whole(0x77);
        assert_eq!((first.of_packet(), first.of_flow()), (whole, whole));
        let later = first.later();
        assert_eq!(later.of_packet(), Bits::whole(0));
        assert_eq!(later.written(restore, true).of_packet(), whole);
    }

    #[test]
    fn bits_of_our_own_in_the_flow_are_unknown() {
        let restore = write(MarkOf::Packet, 0, u32::MAX, 0);
        let found = Marks::none(0x30).written(restore, true).of_packet();
        let expected = Bits {
            value: 0,
            known: !0x30,
        };
        assert_eq!(found, expected);
        let masked = write(MarkOf::Packet, 0, 0xff00, 0x100);
        let found = Marks::none(0x30).written(masked, true).of_packet();
        assert_eq!(found, Bits::whole(0x100));
    }

    #[test]
    fn uncertain_write_leaves_both_marks_possible() {
        let set = write(MarkOf::Packet, !0xff, 0, 0x10);
        let marks = Marks::none(0).written(set, false);
        let expected = Bits {
            value: 0,
            known: !0x10,
        };
        assert_eq!(marks.of_packet(), expected);
        let both = [Bits::whole(0), Bits::whole(0x10)];
        assert_eq!(marks.possible(), BTreeSet::from(both));
        let unknown = MarkWrite {
            of: MarkOf::Packet,
            value: None,
        };
        let found = marks.written(unknown, true).possible();
        assert_eq!(found, BTreeSet::from([Bits::UNKNOWN]));
    }

    #[test]
    fn endless_possibilities_are_unknown() {
        let mut marks = Marks::none(0);
        for bit in 0..8 {
            marks = marks.written(write(MarkOf::Packet, !0, 0, 1 << bit), false);
        }
        assert_eq!(marks.possible(), BTreeSet::from([Bits::UNKNOWN]));
    }
}
