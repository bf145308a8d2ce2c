//! The targets of iptables that write marks and zones.

use super::super::rule::Opt;
use crate::judge::marks::{MarkOf, MarkValue, MarkWrite, Write, Zone};

/// The options of the targets `MARK`, `CONNMARK` and `CT` in the output of `iptables -S`.
pub(super) fn is_write(option: &str) -> bool {
    matches!(
        option,
        "--notrack"
            | "--set-xmark"
            | "--save-mark"
            | "--restore-mark"
            | "--nfmask"
            | "--ctmask"
            | "--zone"
            | "--zone-orig"
            | "--zone-reply"
            | "--left-shift-mark"
            | "--right-shift-mark"
    )
}

/// Adds the write of an option of a target, or changes the write before: masks follow their operation.
pub(super) fn write(target: &str, option: &Opt, value: &str, writes: &mut Vec<Write>) {
    let mark = |of, value| Write::Mark(MarkWrite { of, value });
    let all = |keep, take, xor| Some(MarkValue { keep, take, xor });
    let zone = |original, reply| {
        let id = value.parse().ok();
        Write::Zone(id.map(|id| Zone::new(id, original, reply)))
    };
    match option.name.as_str() {
        "--notrack" => writes.push(Write::Untrack),
        "--zone" => writes.push(zone(true, true)),
        "--zone-orig" => writes.push(zone(true, false)),
        "--zone-reply" => writes.push(zone(false, true)),
        "--save-mark" => writes.push(mark(MarkOf::Flow, all(0, u32::MAX, 0))),
        "--restore-mark" => writes.push(mark(MarkOf::Packet, all(0, u32::MAX, 0))),
        "--nfmask" | "--ctmask" => {
            if let Some(Write::Mark(before)) = writes.last_mut() {
                before.value = before.value.zip(number(value)).map(|(known, mask)| {
                    with_mask(known, before.of, option.name == "--nfmask", mask)
                });
            }
        }
        // Shifted marks.
        "--left-shift-mark" | "--right-shift-mark" => {
            if let Some(Write::Mark(before)) = writes.last_mut() {
                before.value = None;
            }
        }
        _ => {
            let value = masked(value).map(|(mark, mask)| MarkValue {
                keep: !mask,
                take: 0,
                xor: mark,
            });
            let of = match target {
                "CONNMARK" => MarkOf::Flow,
                _ => MarkOf::Packet,
            };
            writes.push(mark(of, value));
        }
    }
}

/// The mask of the packet's mark (`nfmask`) or of the flow's: the mask of the written mark selects the
/// bits that change, the other mask the bits that are read (`connmark_tg_shift`,
/// net/netfilter/xt_connmark.c).
fn with_mask(known: MarkValue, of: MarkOf, of_packet: bool, mask: u32) -> MarkValue {
    if of_packet == (of == MarkOf::Packet) {
        MarkValue {
            keep: !mask,
            ..known
        }
    } else {
        MarkValue {
            take: mask,
            ..known
        }
    }
}

/// `0x1`, `0x4000/0x4000`.
pub(super) fn masked(value: &str) -> Option<(u32, u32)> {
    let (mark, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
    number(mark).zip(number(mask))
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
