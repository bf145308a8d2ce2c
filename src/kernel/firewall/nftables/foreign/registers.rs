//! The registers of a foreign rule, and the keys of sets and maps in them.

use std::collections::BTreeMap;

use crate::judge::chain::{Condition, Field, Test};
use crate::judge::marks::{MarkOf, MarkValue};

/// A field inside a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// In bytes; each field begins at a multiple of four.
    pub(super) offset: usize,
    pub(super) field: Field,
    pub(super) mask: Vec<u8>,
}

/// The conditions of an element between two keys, one for each field of the key. An element without
/// a key matches every packet.
pub(super) fn key_conditions(parts: &[Part], first: &[u8], last: &[u8]) -> Vec<Condition> {
    let inside = parts.iter().filter(|part| part.offset < first.len());
    let is_known = first.is_empty() || parts.first().is_some_and(|part| part.offset == 0);
    let unknown = (!is_known).then(Condition::unknown);
    let fields = inside.map(|part| {
        let width = match part.field {
            // The key of one field may be shorter than the field.
            field if part.offset == 0 => field.width().min(first.len()),
            field => field.width(),
        };
        let cut = |key: &[u8]| {
            key.get(part.offset..part.offset + width)
                .map(<[u8]>::to_vec)
        };
        match cut(first).zip(cut(last)) {
            Some(ends) if part.field != Field::Unknown => Condition {
                field: part.field,
                mask: part.mask.clone(),
                test: Test::InRanges(vec![ends]),
                negated: false,
            },
            _ => Condition::unknown(),
        }
    });
    fields.chain(unknown).collect()
}

#[derive(Debug, Clone)]
enum Content {
    Loaded {
        field: Field,
        mask: Vec<u8>,
    },
    Data(Vec<u8>),
    /// A mark behind a mask and an exclusive or.
    Mixed {
        field: Field,
        value: MarkValue,
    },
}

impl Content {
    /// A mark, as its own bits behind a mask and an exclusive or.
    fn mark(&self) -> Option<(Field, MarkValue)> {
        let own = |keep| MarkValue {
            keep,
            ..MarkValue::default()
        };
        match self {
            Content::Loaded { field, mask } if matches!(field, Field::Mark | Field::FlowMark) => {
                let keep = match mask.first_chunk() {
                    Some(mask) => u32::from_ne_bytes(*mask),
                    None => u32::MAX,
                };
                Some((*field, own(keep)))
            }
            Content::Mixed { field, value } => Some((*field, *value)),
            Content::Loaded { .. } | Content::Data(_) => None,
        }
    }
}

/// The contents of the registers, by place (see [`place`]).
#[derive(Debug, Default)]
pub(super) struct Registers(BTreeMap<u32, Content>);

impl Registers {
    /// A load of a part of the packet.
    pub(super) fn load(&mut self, register: u32, field: Field, mask: Vec<u8>) {
        self.0
            .insert(place(register), Content::Loaded { field, mask });
    }

    /// A load of data.
    pub(super) fn set(&mut self, register: u32, bytes: Vec<u8>) {
        self.0.insert(place(register), Content::Data(bytes));
    }

    fn get(&self, register: Option<u32>) -> Option<&Content> {
        self.0.get(&place(register?))
    }

    /// The part of the packet in a register, with the bits that count.
    pub(super) fn loaded(&self, register: Option<u32>) -> (Field, Vec<u8>) {
        match self.get(register) {
            Some(Content::Loaded { field, mask }) => (*field, mask.clone()),
            Some(Content::Data(_) | Content::Mixed { .. }) | None => (Field::Unknown, Vec::new()),
        }
    }

    /// `to = from & mask ^ xor`. Marks keep both; of other fields the bits that count are known without
    /// an exclusive or alone.
    pub(super) fn mix(
        &mut self,
        from: Option<u32>,
        to: u32,
        mask: Option<Vec<u8>>,
        xor: Option<Vec<u8>>,
    ) {
        let bits = |bytes: Option<&Vec<u8>>| bytes?.first_chunk().map(|it| u32::from_ne_bytes(*it));
        let plain = xor.as_ref().is_none_or(|xor| xor.iter().all(|b| *b == 0));
        let of_mark = self.get(from).and_then(Content::mark);
        let content = match (of_mark, bits(mask.as_ref()), mask) {
            (Some((field, value)), Some(bits_kept), _) if !plain || value.xor != 0 => {
                let xor = bits(xor.as_ref()).unwrap_or(0);
                let value = value.mixed(bits_kept, xor);
                Content::Mixed { field, value }
            }
            (_, _, Some(mask)) if plain => {
                let (field, _) = self.loaded(from);
                Content::Loaded { field, mask }
            }
            _ => Content::Loaded {
                field: Field::Unknown,
                mask: Vec::new(),
            },
        };
        self.0.insert(place(to), content);
    }

    /// The value of a register, written to the mark of `of`; `None` for a value outside our
    /// knowledge.
    pub(super) fn mark(&self, register: Option<u32>, of: MarkOf) -> Option<MarkValue> {
        let content = self.get(register)?;
        if let Content::Data(bytes) = content {
            let xor = u32::from_ne_bytes(*bytes.first_chunk()?);
            return Some(MarkValue {
                xor,
                ..MarkValue::default()
            });
        }
        let (field, value) = content.mark()?;
        let is_own = field == Field::Mark && of == MarkOf::Packet
            || field == Field::FlowMark && of == MarkOf::Flow;
        let (keep, take) = if is_own {
            (value.keep, 0)
        } else {
            (0, value.keep)
        };
        Some(MarkValue {
            keep,
            take,
            xor: value.xor,
        })
    }

    /// The data in a register; empty without data.
    pub(super) fn data(&self, register: Option<u32>) -> &[u8] {
        match self.get(register) {
            Some(Content::Data(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The fields in the registers from one on: a key that joins several fields takes one after the
    /// other.
    pub(super) fn key_parts(&self, register: Option<u32>) -> Vec<Part> {
        let Some(start) = register.map(place) else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        // A longer field covers what earlier expressions loaded into the registers behind it.
        let mut end = 0;
        for (place, content) in self.0.range(start..) {
            let offset = 4 * usize::try_from(place - start).unwrap_or(usize::MAX / 4);
            let (field, mask) = match content {
                Content::Loaded { field, mask } => (*field, mask.clone()),
                Content::Data(_) | Content::Mixed { .. } => (Field::Unknown, Vec::new()),
            };
            if offset >= end {
                end = offset + field.width();
                parts.push(Part {
                    offset,
                    field,
                    mask,
                });
            }
        }
        parts
    }
}

/// The place of a register in units of four bytes. The numbers 1 to 4 (`NFT_REG_1`) name registers
/// of 16 bytes, those from 8 on (`NFT_REG32_00`) the quarters of the same registers.
fn place(register: u32) -> u32 {
    match register {
        0..8 => register.saturating_sub(1) * 4,
        quarter => quarter - 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_keys_have_a_condition_for_each_field() {
        let part = |offset, field| Part {
            offset,
            field,
            mask: Vec::new(),
        };
        let parts = [
            part(0, Field::Source(crate::types::Family::Ipv4)),
            part(4, Field::DestinationPort),
            part(8, Field::Unknown),
            part(12, Field::Protocol),
        ];
        let first = [10, 0, 0, 0, 1, 187, 0, 0, 9, 9, 9, 9];
        let last = [10, 0, 255, 255, 1, 187, 0, 0, 9, 9, 9, 9];
        let found = key_conditions(&parts, &first, &last);
        assert_eq!(found.len(), 3, "{found:?}");
        let test = |first: &[u8], last: &[u8]| Test::InRanges(vec![(first.into(), last.into())]);
        assert_eq!(found[0].test, test(&[10, 0, 0, 0], &[10, 0, 255, 255]));
        assert_eq!(found[1].test, test(&[1, 187], &[1, 187]));
        assert_eq!(found[2], Condition::unknown());
        assert!(key_conditions(&parts, &[], &[]).is_empty());
        assert_eq!(key_conditions(&[], &[1], &[1]), [Condition::unknown()]);
    }

    #[test]
    fn mixed_marks_are_values_of_marks_alone() {
        let bytes = |word: u32| Some(word.to_ne_bytes().to_vec());
        let mut registers = Registers::default();
        registers.load(1, Field::Mark, Vec::new());
        registers.mix(Some(1), 1, bytes(0xffff_ff0f), bytes(0x50));
        assert_eq!(registers.loaded(Some(1)).0, Field::Unknown);
        let value = |keep, take, xor| Some(MarkValue { keep, take, xor });
        let own = registers.mark(Some(1), MarkOf::Packet);
        assert_eq!(own, value(0xffff_ff0f, 0, 0x50));
        let other = registers.mark(Some(1), MarkOf::Flow);
        assert_eq!(other, value(0, 0xffff_ff0f, 0x50));
        registers.mix(Some(1), 2, bytes(0xf0), None);
        assert_eq!(registers.mark(Some(2), MarkOf::Packet), value(0, 0, 0x50));
        registers.load(1, Field::SourcePort, Vec::new());
        registers.mix(Some(1), 1, bytes(1), bytes(1));
        assert_eq!(registers.mark(Some(1), MarkOf::Packet), None);
    }

    #[test]
    fn longer_field_covers_the_registers_behind_it() {
        let mut registers = Registers::default();
        registers.load(9, Field::Protocol, Vec::new());
        registers.load(1, Field::InputName, Vec::new());
        registers.load(2, Field::DestinationPort, Vec::new());
        let found = registers.key_parts(Some(1));
        let found: Vec<_> = found.iter().map(|part| (part.offset, part.field)).collect();
        let expected = [(0, Field::InputName), (16, Field::DestinationPort)];
        assert_eq!(found, expected);
    }
}
