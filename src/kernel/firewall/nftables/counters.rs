//! The counters of traffic by path: named objects of our table, one for each path and family.
//!
//! The kernel deletes a named counter together with its table, and each change of the policy
//! replaces the whole table. So the transaction creates the new counters with the numbers of the
//! old, read just before. Packets counted between reading and transaction are lost.

use super::message::{Message, TABLE, message};
use super::uapi::*;
use crate::firewall::{Path, PathTraffic, Traffic};
use crate::kernel::wire::{Attribute, Attributes, CREATE, NFGEN_LEN, attributes, find};
use crate::types::Family;

/// A named counter of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterState {
    pub(super) path: Path,
    pub(super) family: Family,
    pub(super) traffic: Traffic,
}

/// The name in the kernel, for example `bypass-ipv4`.
pub(super) fn name(path: Path, family: Family) -> String {
    format!("{}-{family}", path.as_str())
}

/// All counters, at zero.
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

/// Reads a 64-bit number in network order.
fn be64(list: &[Attribute<'_>], kind: u16) -> Option<u64> {
    let payload = find(list, kind)?.payload;
    Some(u64::from_be_bytes(payload.try_into().ok()?))
}

/// Reads a counter from the attributes of an object; `None` for objects of another type or name.
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

/// The message to create a counter with the numbers of `counter`.
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

/// The message unchanged, unless the message creates a counter that exists in `now`: then with the
/// present numbers of the counter.
pub(super) fn carried_on(message: &Message, now: &[CounterState]) -> Message {
    let present = || {
        let (_, list) = message.body.split_at_checked(NFGEN_LEN)?;
        let created = parse(&attributes(list).ok()?)?;
        now.iter()
            .find(|counter| (counter.path, counter.family) == (created.path, created.family))
    };
    if message.kind != msg::NEWOBJ {
        return message.clone();
    }
    present().map_or_else(|| message.clone(), |counter| new(TABLE, counter))
}

/// The sum by path and family; `None` without counters, so that "not counted" differs from zero.
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
    fn counter_is_read_back_from_its_message() {
        for known in all() {
            let known = counter(known.path, known.family, u64::MAX - 1);
            assert_eq!(made(&new(TABLE, &known)), Some(known));
        }
    }

    #[test]
    fn new_counter_starts_with_the_numbers_of_the_old() {
        let old = counter(Path::Egress, Family::Ipv6, 1 << 40);
        let other = counter(Path::Bypass, Family::Ipv6, 5);
        let at_zero = CounterState {
            traffic: Traffic::default(),
            ..old
        };
        let carried = carried_on(&new(TABLE, &at_zero), &[other, old]);
        assert_eq!(made(&carried), Some(old));
        // A counter missing in the kernel starts with the recorded number.
        let recorded = counter(Path::Bypass, Family::Ipv4, 9);
        let carried = carried_on(&new(TABLE, &recorded), &[other, old]);
        assert_eq!(made(&carried), Some(recorded));
    }

    #[test]
    fn other_object_types_and_names_are_ignored() {
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
    fn no_counters_is_none_and_not_zero() {
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
