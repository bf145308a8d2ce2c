//! The counters: named objects of our table, one for each path, direction of a way, or reason of a drop,
//! and each family.
//!
//! The kernel deletes a named counter together with its table, and each change of the policy
//! replaces the whole table. So the transaction creates the new counters with the numbers of the
//! old, read just before. Packets counted between reading and transaction are lost. The numbers of a
//! way without a counter in the new table go to the counter of the path.

use std::collections::BTreeSet;

use super::message::{Message, message};
use super::uapi::*;
use crate::firewall::{Direction, DropReason, Path, PathTraffic, Statement, Traffic, WaysTraffic};
use crate::kernel::wire::{Attribute, Attributes, CREATE, NFGEN_LEN, attributes, find};
use crate::types::{Family, PIN_TABLES, Slot};

/// The packets of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Packets of a path that belong to no way with a counter.
    Path(Path),
    /// Packets of the flows of a slot, 0 for the bypass path.
    Way(Slot, Direction),
    Dropped(DropReason),
}

/// The path of the flows of a slot.
fn path_of(slot: Slot) -> Path {
    if slot == 0 {
        Path::Bypass
    } else {
        Path::Egress
    }
}

/// A named counter of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterState {
    pub(super) what: Counted,
    pub(super) family: Family,
    pub(super) traffic: Traffic,
}

/// The name in the kernel, for example `bypass-ipv4`, `egress-2-back-ipv4` or `dropped-outside-ipv6`.
pub(super) fn name(what: Counted, family: Family) -> String {
    match what {
        Counted::Way(0, direction) => format!("bypass-{direction}-{family}"),
        Counted::Way(slot, direction) => format!("egress-{slot}-{direction}-{family}"),
        Counted::Path(path) => format!("{}-{family}", path.as_str()),
        Counted::Dropped(reason) => format!("dropped-{}-{family}", reason.as_str()),
    }
}

/// The counters by path, at zero.
fn of_paths() -> Vec<CounterState> {
    of_both_families(Path::ALL.map(Counted::Path))
}

/// The counters of dropped packets, at zero.
pub(super) fn of_drops(reasons: &[DropReason]) -> Vec<CounterState> {
    of_both_families(reasons.iter().copied().map(Counted::Dropped))
}

/// The counters by path and way that these statements need, each with the family of its rule. All counters
/// of paths, so that the numbers of a family survive a policy without a rule for the family.
pub(super) fn of_rules(statements: &[(&Statement, Option<Family>)]) -> Vec<CounterState> {
    let mut all = statements.iter();
    let counts = all.any(|(statement, _)| matches!(statement, Statement::Count(_)));
    let ways = statements.iter().filter_map(|counted| match counted {
        (Statement::CountWay(slot, _), Some(family)) => Some((*slot, *family)),
        _ => None,
    });
    let ways: BTreeSet<(Slot, Family)> = ways.collect();
    let mut counters = if counts { of_paths() } else { Vec::new() };
    counters.extend(of_ways(ways));
    counters
}

/// The counters of ways, at zero.
fn of_ways(ways: impl IntoIterator<Item = (Slot, Family)>) -> impl Iterator<Item = CounterState> {
    let both = |(slot, family)| {
        Direction::ALL.map(|direction| CounterState {
            what: Counted::Way(slot, direction),
            family,
            traffic: Traffic::default(),
        })
    };
    ways.into_iter().flat_map(both)
}

/// Every counter, at zero.
fn of_all() -> impl Iterator<Item = CounterState> {
    let slots = (0..PIN_TABLES).flat_map(|slot| Family::ALL.map(|family| (slot, family)));
    let of_paths = of_paths().into_iter().chain(of_ways(slots));
    of_paths.chain(of_drops(&DropReason::ALL))
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

/// The counter that a message creates.
fn created(message: &Message) -> Option<CounterState> {
    let (_, list) = message.body.split_at_checked(NFGEN_LEN)?;
    let creates = message.kind == msg::NEWOBJ;
    parse(&attributes(list).ok()?).filter(|_| creates)
}

/// The message unchanged, unless the message creates a counter that exists in `now`: then with the
/// present numbers of the counter.
pub(super) fn carried_on(table: &str, message: &Message, now: &[CounterState]) -> Message {
    let present = || {
        let created = created(message)?;
        now.iter()
            .find(|counter| (counter.what, counter.family) == (created.what, created.family))
    };
    present().map_or_else(|| message.clone(), |counter| new(table, counter))
}

/// The counters of the present table, for a table with the counters that `messages` create: the numbers of
/// a way without a counter go to the counter of its path.
pub(super) fn moved(now: Vec<CounterState>, messages: &[Message]) -> Vec<CounterState> {
    let new: Vec<CounterState> = messages.iter().filter_map(created).collect();
    let mut moved: Vec<CounterState> = Vec::new();
    for counter in now {
        let stays = |it: &CounterState| (it.what, it.family) == (counter.what, counter.family);
        let what = match counter.what {
            Counted::Way(slot, _) if !new.iter().any(stays) => Counted::Path(path_of(slot)),
            what => what,
        };
        let mut moved_before = moved.iter_mut();
        match moved_before.find(|it| (it.what, it.family) == (what, counter.family)) {
            Some(known) => known.traffic += counter.traffic,
            None => moved.push(CounterState { what, ..counter }),
        }
    }
    moved
}

/// The traffic of pinned flows by way.
pub(super) fn ways(counters: &[CounterState]) -> WaysTraffic {
    let mut ways = WaysTraffic::new();
    for counter in counters {
        if let Counted::Way(slot, direction) = counter.what {
            let way = ways.entry((counter.family, slot)).or_default();
            *way.of_mut(direction) += counter.traffic;
        }
    }
    ways
}

/// The sum by path and family; `None` without counters, so that "not counted" differs from zero.
pub(super) fn sum(counters: &[CounterState]) -> Option<PathTraffic> {
    let mut sum = PathTraffic::default();
    for counter in counters {
        let families = match counter.what {
            Counted::Path(path) => sum.of_mut(path),
            Counted::Way(slot, _) => sum.of_mut(path_of(slot)),
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
    fn numbers_of_a_way_without_a_counter_go_to_its_path() {
        let way = |slot, bytes| CounterState {
            what: Counted::Way(slot, Direction::Back),
            ..counter(Path::Egress, Family::Ipv4, bytes)
        };
        let now = vec![
            counter(Path::Egress, Family::Ipv4, 1),
            counter(Path::Egress, Family::Ipv6, 2),
            way(1, 10),
            way(2, 100),
            way(0, 1000),
        ];
        let messages = [
            new(TABLE, &counter(Path::Egress, Family::Ipv4, 0)),
            new(TABLE, &way(2, 0)),
        ];
        let moved = moved(now.clone(), &messages);
        assert_eq!(sum(&moved), sum(&now));
        let bytes: Vec<u64> = moved.iter().map(|it| it.traffic.bytes).collect();
        // The last one has moved to the bypass path.
        assert_eq!(bytes, [11, 2, 100, 1000]);
        assert_eq!(moved[3].what, Counted::Path(Path::Bypass));
        let way = ways(&moved)[&(Family::Ipv4, 2)];
        assert_eq!((way.out.bytes, way.back.bytes), (0, 100));
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
