//! The counters: named objects of our table, one for each path or reason of a drop, and each family.
//!
//! The kernel deletes a named counter together with its table, and each change of the policy
//! replaces the whole table. So the transaction creates the new counters with the numbers of the
//! old, read just before. Packets counted between reading and transaction are lost.

use super::message::{Message, message};
use super::uapi::*;
use crate::firewall::{DropReason, Path, PathTraffic, Traffic};
use crate::kernel::wire::{Attribute, Attributes, CREATE, NFGEN_LEN, attributes, find};
use crate::types::Family;

/// The packets of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Path(Path),
    Dropped(DropReason),
}

/// A named counter of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterState {
    pub(super) what: Counted,
    pub(super) family: Family,
    pub(super) traffic: Traffic,
}

/// The name in the kernel, for example `bypass-ipv4` or `dropped-outside-ipv6`.
pub(super) fn name(what: Counted, family: Family) -> String {
    match what {
        Counted::Path(path) => format!("{}-{family}", path.as_str()),
        Counted::Dropped(reason) => format!("dropped-{}-{family}", reason.as_str()),
    }
}

/// The counters by path, at zero.
pub(super) fn of_paths() -> Vec<CounterState> {
    of_both_families(Path::ALL.map(Counted::Path))
}

/// The counters of dropped packets, at zero.
pub(super) fn of_drops(reasons: &[DropReason]) -> Vec<CounterState> {
    of_both_families(reasons.iter().copied().map(Counted::Dropped))
}

/// Every counter, at zero.
fn of_all() -> impl Iterator<Item = CounterState> {
    of_paths().into_iter().chain(of_drops(&DropReason::ALL))
}

fn of_both_families(all: impl IntoIterator<Item = Counted>) -> Vec<CounterState> {
    all.into_iter()
        .flat_map(|what| {
            Family::ALL.map(|family| CounterState {
                what,
                family,
                traffic: Traffic::default(),
            })
        })
        .collect()
}

/// Reads a 64-bit number in network order.
pub(super) fn be64(list: &[Attribute<'_>], kind: u16) -> Option<u64> {
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
    of_all()
        .find(|known| name(known.what, known.family) == found)
        .map(|known| CounterState { traffic, ..known })
}

/// The message to create a counter with the numbers of `counter`.
pub(super) fn new(table: &str, counter: &CounterState) -> Message {
    let name = name(counter.what, counter.family);
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
pub(super) fn carried_on(table: &str, message: &Message, now: &[CounterState]) -> Message {
    let present = || {
        let (_, list) = message.body.split_at_checked(NFGEN_LEN)?;
        let created = parse(&attributes(list).ok()?)?;
        now.iter()
            .find(|counter| (counter.what, counter.family) == (created.what, created.family))
    };
    if message.kind != msg::NEWOBJ {
        return message.clone();
    }
    present().map_or_else(|| message.clone(), |counter| new(table, counter))
}

/// The sum by path and family; `None` without counters, so that "not counted" differs from zero.
pub(super) fn sum(counters: &[CounterState]) -> Option<PathTraffic> {
    let mut sum = PathTraffic::default();
    for counter in counters {
        let families = match counter.what {
            Counted::Path(path) => sum.of_mut(path),
            Counted::Dropped(reason) => sum.dropped.of_mut(reason),
        };
        *families.get_mut(counter.family) += counter.traffic;
    }
    (!counters.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::firewall::nftables::message::TABLE;

    fn counter(path: Path, family: Family, bytes: u64) -> CounterState {
        CounterState {
            what: Counted::Path(path),
            family,
            traffic: Traffic { packets: 7, bytes },
        }
    }

    fn made(message: &Message) -> Option<CounterState> {
        parse(&attributes(&message.body[NFGEN_LEN..]).unwrap())
    }

    #[test]
    fn counter_is_read_back_from_its_message() {
        for mut known in of_all() {
            known.traffic.bytes = u64::MAX - 1;
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
        let carried = carried_on(TABLE, &new(TABLE, &at_zero), &[other, old]);
        assert_eq!(made(&carried), Some(old));
        // A counter missing in the kernel starts with the recorded number.
        let recorded = counter(Path::Bypass, Family::Ipv4, 9);
        let carried = carried_on(TABLE, &new(TABLE, &recorded), &[other, old]);
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
