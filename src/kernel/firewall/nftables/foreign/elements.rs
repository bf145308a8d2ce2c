//! Elements of foreign sets and maps.

use super::TableKey;
use crate::judge::chain::Effect;
use crate::kernel::firewall::iptables::CHAIN_PREFIX;
use crate::kernel::firewall::nftables::read::{ENOENT, body, element_key, list, text};
use crate::kernel::firewall::nftables::uapi::*;
use crate::kernel::wire::{Attribute, Attributes, DUMP, Wire, WireError, attributes, find};

const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_CATCHALL: u32 = 2;

/// The verdict in an `NFTA_DATA_VERDICT`.
pub(super) fn verdict(payload: &[u8]) -> Option<Effect> {
    let outer = attributes(payload).ok()?;
    let inner = attributes(find(&outer, NFTA_DATA_VERDICT)?.payload).ok()?;
    let chain = text(&inner, NFTA_VERDICT_CHAIN);
    // The NFT_… verdicts are negative numbers (linux/netfilter/nf_tables.h).
    Some(
        match (
            find(&inner, NFTA_VERDICT_CODE)?.be32()?.cast_signed(),
            chain,
        ) {
            (0, _) => Effect::Drop,
            (1, _) => Effect::Accept,
            (-5, _) => Effect::Return,
            (-3 | -4, Some(chain)) if chain.starts_with(CHAIN_PREFIX) => Effect::Ours,
            (-3, Some(chain)) => Effect::Jump(chain),
            (-4, Some(chain)) => Effect::Goto(chain),
            _ => Effect::Continue,
        },
    )
}

/// The elements of a set or map as closed ranges, with the verdicts of a map.
pub(super) fn elements(
    wire: &mut Wire,
    table: &TableKey,
    set: &str,
) -> Result<Vec<Range>, WireError> {
    let request = body(
        table.family,
        Attributes::new()
            .put_text(NFTA_SET_ELEM_LIST_TABLE, &table.name)
            .put_text(NFTA_SET_ELEM_LIST_SET, set),
    );
    // Key, end of an interval, verdict.
    let mut found: Vec<(Vec<u8>, bool, Effect)> = Vec::new();
    let mut joined: Vec<Range> = Vec::new();
    let mut otherwise: Option<Range> = None;
    let answer = wire.ask(msg::GETSETELEM, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        let Some(all) = find(&list, NFTA_SET_ELEM_LIST_ELEMENTS) else {
            return Ok(());
        };
        for element in attributes(all.payload)? {
            let parts = attributes(element.payload)?;
            let flags = find(&parts, NFTA_SET_ELEM_FLAGS)
                .and_then(|flags| flags.be32())
                .unwrap_or(0);
            let effect = find(&parts, NFTA_SET_ELEM_DATA).and_then(|data| verdict(data.payload));
            let effect = effect.unwrap_or(Effect::Continue);
            let key = element_key(element.payload);
            if flags & NFT_SET_ELEM_CATCHALL != 0 {
                otherwise = Some((Vec::new(), Vec::new(), effect));
            } else if let Some(last) = key_end(&parts) {
                joined.push((key, last, effect));
            } else {
                found.push((key, flags & NFT_SET_ELEM_INTERVAL_END != 0, effect));
            }
        }
        Ok(())
    });
    match answer {
        Ok(()) => {}
        // Anonymous sets of a rule deleted meanwhile.
        Err(WireError::Kernel { errno: ENOENT, .. }) => return Err(WireError::Interrupted),
        Err(error) => return Err(error),
    }
    joined.append(&mut ranges(found));
    // The element for all other keys comes last.
    joined.extend(otherwise);
    Ok(joined)
}

/// The last key of an element in a set of joined ranges.
fn key_end(parts: &[Attribute<'_>]) -> Option<Vec<u8>> {
    let end = attributes(find(parts, NFTA_SET_ELEM_KEY_END)?.payload).ok()?;
    Some(find(&end, NFTA_DATA_VALUE)?.payload.to_vec())
}

/// The first key, the last key, and the effect.
type Range = (Vec<u8>, Vec<u8>, Effect);

/// Joins starts and ends of intervals. The kernel reports the end as the first key outside.
fn ranges(mut found: Vec<(Vec<u8>, bool, Effect)>) -> Vec<Range> {
    let intervals = found.iter().any(|(_, end, _)| *end);
    if !intervals {
        let single = |(key, _, effect): (Vec<u8>, bool, Effect)| (key.clone(), key, effect);
        return found.into_iter().map(single).collect();
    }
    found.sort_by(|one, other| (&one.0, !one.1).cmp(&(&other.0, !other.1)));
    let mut joined = Vec::new();
    let mut start: Option<(Vec<u8>, Effect)> = None;
    for (key, end, effect) in found {
        if end {
            if let Some((first, effect)) = start.take() {
                joined.push((first, before(key), effect));
            }
        } else {
            start = Some((key, effect));
        }
    }
    if let Some((first, effect)) = start {
        let last = vec![0xff; first.len()];
        joined.push((first, last, effect));
    }
    joined
}

/// The greatest key below a key of the same length.
fn before(mut key: Vec<u8>) -> Vec<u8> {
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_become_closed_ranges() {
        let key = |last: u8| vec![10, 0, last, 0];
        let found = vec![
            (key(4), true, Effect::Continue),
            (key(1), false, Effect::Accept),
            (key(2), true, Effect::Continue),
            (key(3), false, Effect::Drop),
            (key(9), false, Effect::Reject),
        ];
        assert_eq!(
            ranges(found),
            [
                (key(1), vec![10, 0, 1, 255], Effect::Accept),
                (key(3), vec![10, 0, 3, 255], Effect::Drop),
                (key(9), vec![255; 4], Effect::Reject),
            ]
        );
    }

    #[test]
    fn keys_of_a_plain_set_stand_for_themselves() {
        let found = vec![(vec![1], false, Effect::Continue)];
        assert_eq!(ranges(found), [(vec![1], vec![1], Effect::Continue)]);
    }
}
