//! The counters of traffic by path: named objects of our table, one a path and family.
//!
//! A named counter belongs to the table and goes with it, and we replace whole tables. So each
//! transaction that makes our table makes its counters with what they had just before; what is
//! counted between that look and the transaction is lost.

use super::message::{Message, TABLE, message};
use super::uapi::*;
use crate::firewall::{Path, PathTraffic, Traffic};
use crate::kernel::wire::{Attribute, Attributes, CREATE, attributes, find};
use crate::types::Family;

/// One counter of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterState {
    pub(super) path: Path,
    pub(super) family: Family,
    /// What it has counted; no part of the policy.
    pub(super) traffic: Traffic,
}

/// `bypass-ipv4` and so on, as `nft list counters` shows it.
pub(super) fn name(path: Path, family: Family) -> String {
    format!("{}-{family}", path.as_str())
}

/// All that there are, at zero.
pub(super) fn all() -> Vec<CounterState> {
    Path::ALL
        .into_iter()
        .flat_map(|path| {
            Family::ALL.map(|family| CounterState {
                path,
                family,
                traffic: Traffic::default(),
            })
        })
        .collect()
}

/// The 64-bit number in network order.
fn be64(list: &[Attribute<'_>], kind: u16) -> Option<u64> {
    let payload = find(list, kind)?.payload;
    Some(u64::from_be_bytes(payload.try_into().ok()?))
}

/// A counter of ours, from the attributes of an object; none for what is something else.
pub(super) fn parse(list: &[Attribute<'_>]) -> Option<CounterState> {
    if find(list, NFTA_OBJ_TYPE)?.be32()? != NFT_OBJECT_COUNTER {
        return None;
    }
    let found = find(list, NFTA_OBJ_NAME)?.text();
    let data = attributes(find(list, NFTA_OBJ_DATA)?.payload).ok()?;
    let traffic = Traffic {
        packets: be64(&data, NFTA_COUNTER_PACKETS)?,
        bytes: be64(&data, NFTA_COUNTER_BYTES)?,
    };
    all()
        .into_iter()
        .find(|known| name(known.path, known.family) == found)
        .map(|known| CounterState { traffic, ..known })
}

/// What creates it, beginning with what it counted.
pub(super) fn new(table: &str, counter: &CounterState) -> Message {
    let name = name(counter.path, counter.family);
    let data = Attributes::new()
        .put(NFTA_COUNTER_BYTES, &counter.traffic.bytes.to_be_bytes())
        .put(NFTA_COUNTER_PACKETS, &counter.traffic.packets.to_be_bytes());
    let attributes = Attributes::new()
        .put_text(NFTA_OBJ_TABLE, table)
        .put_text(NFTA_OBJ_NAME, &name)
        .put_be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER)
        .nest(NFTA_OBJ_DATA, data);
    let what = format!("add counter {name}");
    message(msg::NEWOBJ, CREATE, attributes, what)
}

/// The message, and if it makes a counter that is there now: beginning with what that one has.
pub(super) fn carried_on(message: &Message, now: &[CounterState]) -> Message {
    let made = || {
        let (_, list) = message
            .body
            .split_at_checked(crate::kernel::wire::NFGEN_LEN)?;
        parse(&attributes(list).ok()?)
    };
    if message.kind != msg::NEWOBJ {
        return message.clone();
    }
    made()
        .and_then(|made| {
            now.iter()
                .find(|known| (known.path, known.family) == (made.path, made.family))
        })
        .map_or_else(|| message.clone(), |known| new(TABLE, known))
}

/// As the status shows it; none where nothing counts.
pub(super) fn sum(counters: &[CounterState]) -> Option<PathTraffic> {
    let mut sum = PathTraffic::default();
    for counter in counters {
        *sum.of_mut(counter.path).get_mut(counter.family) += counter.traffic;
    }
    (!counters.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::wire::NFGEN_LEN;

    fn counter(path: Path, family: Family, bytes: u64) -> CounterState {
        CounterState {
            path,
            family,
            traffic: Traffic { packets: 7, bytes },
        }
    }

    fn made(message: &Message) -> Option<CounterState> {
        parse(&attributes(&message.body[NFGEN_LEN..]).unwrap())
    }

    #[test]
    fn a_counter_survives_its_message() {
        for known in all() {
            let known = counter(known.path, known.family, u64::MAX - 1);
            assert_eq!(made(&new(TABLE, &known)), Some(known));
        }
    }

    #[test]
    fn a_new_counter_carries_on_what_the_old_one_has() {
        let old = counter(Path::Egress, Family::Ipv6, 1 << 40);
        let other = counter(Path::Bypass, Family::Ipv6, 5);
        let at_zero = CounterState {
            traffic: Traffic::default(),
            ..old
        };
        let carried = carried_on(&new(TABLE, &at_zero), &[other, old]);
        assert_eq!(made(&carried), Some(old));
        // What isn't there any more begins with what the record says.
        let recorded = counter(Path::Bypass, Family::Ipv4, 9);
        let carried = carried_on(&new(TABLE, &recorded), &[other, old]);
        assert_eq!(made(&carried), Some(recorded));
    }

    #[test]
    fn what_is_something_else_is_no_counter_of_ours() {
        let object = |name: &str, kind: u32, data: Attributes| {
            let bytes = Attributes::new()
                .put_text(NFTA_OBJ_TABLE, TABLE)
                .put_text(NFTA_OBJ_NAME, name)
                .put_be32(NFTA_OBJ_TYPE, kind)
                .nest(NFTA_OBJ_DATA, data)
                .into_bytes();
            parse(&attributes(&bytes).unwrap())
        };
        let data = || {
            Attributes::new()
                .put(NFTA_COUNTER_BYTES, &1u64.to_be_bytes())
                .put(NFTA_COUNTER_PACKETS, &1u64.to_be_bytes())
        };
        assert!(object("bypass-ipv4", NFT_OBJECT_COUNTER, data()).is_some());
        assert!(object("bypass-ipv5", NFT_OBJECT_COUNTER, data()).is_none());
        // 2 is a quota (NFT_OBJECT_QUOTA).
        assert!(object("bypass-ipv4", 2, data()).is_none());
        assert!(object("bypass-ipv4", NFT_OBJECT_COUNTER, Attributes::new()).is_none());
    }

    #[test]
    fn nothing_that_counts_is_no_traffic_and_not_zero() {
        assert_eq!(sum(&[]), None);
        let counters = [
            counter(Path::Bypass, Family::Ipv4, 3),
            counter(Path::Egress, Family::Ipv6, 4),
        ];
        let sum = sum(&counters).unwrap();
        assert_eq!((sum.bypass.ipv4.bytes, sum.egress.ipv6.bytes), (3, 4));
        assert_eq!(sum.bypass.ipv6, Traffic::default());
    }
}
