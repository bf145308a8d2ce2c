//! The record of dropped packets: read for people, and carried over into a new table.

use std::net::IpAddr;
use std::time::Duration;

use super::counters::{self, Counted};
use super::message::{GUARD_TABLE, Message, TABLE, message};
use super::read;
use super::register::address;
use super::table::SetState;
use super::traces::{Dropped, MOST_BLOCKED};
use super::uapi::*;
use crate::firewall::{BlockedEntry, BlockedRecord, Traffic};
use crate::kernel::wire::{Attribute, Attributes, CREATE, NFGEN_LEN, Wire, WireError};
use crate::kernel::wire::{attributes, find};

/// The limit of elements in a message: an attribute has at most 64 KiB, and an element of IPv6 with its
/// counter takes 120 bytes.
const ELEMENTS_A_MESSAGE: usize = 256;

/// An element of a set with a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    key: Vec<u8>,
    /// The rest of the element's time.
    left: Duration,
    traffic: Option<Traffic>,
}

impl Element {
    /// `None` for an element without a time, and for one whose time is over.
    fn parse(bytes: &[u8]) -> Option<Element> {
        let list = attributes(bytes).ok()?;
        let left = counters::be64(&list, NFTA_SET_ELEM_EXPIRATION).filter(|left| *left > 0)?;
        Some(Element {
            key: read::element_key(bytes),
            left: Duration::from_millis(left),
            traffic: find(&list, NFTA_SET_ELEM_EXPR).and_then(counted),
        })
    }

    fn into_attributes(self) -> Attributes {
        let key = Attributes::new().put(NFTA_DATA_VALUE, &self.key);
        let left = u64::try_from(self.left.as_millis()).unwrap_or(u64::MAX);
        let element = Attributes::new()
            .nest(NFTA_SET_ELEM_KEY, key)
            .put(NFTA_SET_ELEM_EXPIRATION, &left.to_be_bytes());
        let Some(Traffic { packets, bytes }) = self.traffic else {
            return element;
        };
        let numbers = Attributes::new()
            .put(NFTA_COUNTER_BYTES, &bytes.to_be_bytes())
            .put(NFTA_COUNTER_PACKETS, &packets.to_be_bytes());
        let counter = Attributes::new()
            .put_text(NFTA_EXPR_NAME, "counter")
            .nest(NFTA_EXPR_DATA, numbers);
        element.nest(NFTA_SET_ELEM_EXPR, counter)
    }
}

/// The numbers of an element's counter.
fn counted(expression: Attribute<'_>) -> Option<Traffic> {
    let list = attributes(expression.payload).ok()?;
    let numbers = attributes(find(&list, NFTA_EXPR_DATA)?.payload).ok()?;
    Some(Traffic {
        packets: counters::be64(&numbers, NFTA_COUNTER_PACKETS)?,
        bytes: counters::be64(&numbers, NFTA_COUNTER_BYTES)?,
    })
}

/// A set of a record: its elements, and the time of a new element.
struct Recorded {
    elements: Vec<Element>,
    timeout: Duration,
}

fn read_set(
    wire: &mut Wire,
    table: &str,
    sets: &[SetState],
    name: &str,
) -> Result<Option<Recorded>, WireError> {
    let Some(set) = sets.iter().find(|set| set.name == name) else {
        return Ok(None);
    };
    let timeout = counters::be64(&attributes(&set.attributes)?, NFTA_SET_TIMEOUT);
    let elements = read::read_elements(wire, table, name)?;
    Ok(Some(Recorded {
        elements: elements
            .iter()
            .filter_map(|it| Element::parse(it))
            .collect(),
        timeout: Duration::from_millis(timeout.unwrap_or(0)),
    }))
}

/// The record of both our tables; `None` without a table of ours.
pub(super) fn read(wire: &mut Wire) -> Result<Option<BlockedRecord>, WireError> {
    let mut found: Option<BlockedRecord> = None;
    for table in [TABLE, GUARD_TABLE] {
        let (Some(record), _) = read::consistently(wire, |wire| read_table(wire, table))? else {
            continue;
        };
        let sum = found.get_or_insert_default();
        sum.entries.extend(record.entries);
        sum.lists.extend(record.lists);
        sum.full.extend(record.full);
        sum.dropped = sum.dropped.or(record.dropped);
    }
    if let Some(record) = &mut found {
        let order = |entry: &BlockedEntry| (entry.traffic.packets, entry.traffic.bytes);
        record
            .entries
            .sort_by_key(|entry| (std::cmp::Reverse(order(entry)), entry.last));
    }
    Ok(found)
}

fn read_table(wire: &mut Wire, table: &str) -> Result<Option<BlockedRecord>, WireError> {
    match read::read_head(wire, table)? {
        Some((head, _)) if head.is_ours() => {}
        _ => return Ok(None),
    }
    let mut counters = read::read_counters(wire, table)?;
    counters.retain(|counter| matches!(counter.what, Counted::Dropped(_)));
    let mut record = BlockedRecord {
        dropped: counters::sum(&counters).map(|sum| sum.dropped),
        ..BlockedRecord::default()
    };
    let sets = read::read_sets(wire, table)?;
    for dropped in Dropped::all() {
        let Some(blocked) = read_set(wire, table, &sets, &dropped.blocked())? else {
            continue;
        };
        let first = read_set(wire, table, &sets, &dropped.first())?;
        let list = (dropped.reason, dropped.family);
        record.lists.push(list);
        if blocked.elements.len() >= MOST_BLOCKED as usize {
            record.full.push(list);
        }
        record
            .entries
            .extend(entries(dropped, &blocked, first.as_ref()));
    }
    Ok(Some(record))
}

fn entries<'r>(
    dropped: Dropped,
    blocked: &'r Recorded,
    first: Option<&'r Recorded>,
) -> impl Iterator<Item = BlockedEntry> + 'r {
    blocked.elements.iter().filter_map(move |element| {
        let since = first.and_then(|first| {
            let place = first
                .elements
                .binary_search_by(|other| other.key.cmp(&element.key));
            let found = first.elements.get(place.ok()?)?;
            Some(first.timeout.saturating_sub(found.left))
        });
        let (source, destination, protocol, port) = parts(dropped, &element.key)?;
        Some(BlockedEntry {
            reason: dropped.reason,
            source,
            destination,
            protocol,
            port,
            traffic: element.traffic.unwrap_or_default(),
            first: since,
            last: blocked.timeout.saturating_sub(element.left),
        })
    })
}

/// Source, destination, protocol and port of a key.
fn parts(dropped: Dropped, key: &[u8]) -> Option<(IpAddr, IpAddr, u8, Option<u16>)> {
    if key.len() != dropped.key_length() as usize {
        return None;
    }
    let (addresses, rest) = key.split_at(key.len() - 8);
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let [protocol, _, _, _, high, low, _, _] = *rest else {
        return None;
    };
    let port = u16::from_be_bytes([high, low]);
    Some((
        address(source)?,
        address(destination)?,
        protocol,
        (port != 0).then_some(port),
    ))
}

/// The messages that add the present elements to the sets of the new table. Empty if the elements are
/// unreadable: a new record begins.
pub(super) fn carried_on(wire: &mut Wire, table: &str, messages: &[Message]) -> Vec<Message> {
    let created: Vec<String> = messages.iter().filter_map(created_set).collect();
    let kept = Dropped::all().filter(|dropped| created.contains(&dropped.blocked()));
    let kept: Vec<Dropped> = kept.collect();
    if kept.is_empty() {
        return Vec::new();
    }
    let Ok(sets) = read::read_sets(wire, table) else {
        return Vec::new();
    };
    let mut carried = Vec::new();
    for dropped in kept {
        let mut keys = Vec::new();
        for name in [dropped.blocked(), dropped.first()] {
            let Ok(Some(set)) = read_set(wire, table, &sets, &name) else {
                continue;
            };
            let mut elements = set.elements;
            if keys.is_empty() {
                keys = elements.iter().map(|it| it.key.clone()).collect();
            }
            // The first packet of an element that has gone is of no use.
            elements.retain(|it| keys.binary_search(&it.key).is_ok());
            carried.extend(additions(table, &name, elements));
        }
    }
    carried
}

/// The name of the set that a message creates.
fn created_set(message: &Message) -> Option<String> {
    let (_, list) = message.body.split_at_checked(NFGEN_LEN)?;
    let name = find(&attributes(list).ok()?, NFTA_SET_NAME)?.text();
    (message.kind == msg::NEWSET).then_some(name)
}

fn additions(table: &str, set: &str, elements: Vec<Element>) -> Vec<Message> {
    let list = |elements: &[Element]| {
        elements.iter().fold(Attributes::new(), |list, element| {
            list.nest(NFTA_LIST_ELEM, element.clone().into_attributes())
        })
    };
    let chunks = elements.chunks(ELEMENTS_A_MESSAGE);
    let message = |elements: &[Element]| {
        let attributes = Attributes::new()
            .put_text(NFTA_SET_ELEM_LIST_TABLE, table)
            .put_text(NFTA_SET_ELEM_LIST_SET, set)
            .nest(NFTA_SET_ELEM_LIST_ELEMENTS, list(elements));
        let what = format!("carry the elements of set {set} over");
        message(msg::NEWSETELEM, CREATE, attributes, what)
    };
    chunks.map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::DropReason;
    use crate::types::Family;

    fn element(key: &[u8], left: u64) -> Element {
        Element {
            key: key.to_vec(),
            left: Duration::from_millis(left),
            traffic: Some(Traffic {
                packets: 3,
                bytes: 1 << 40,
            }),
        }
    }

    #[test]
    fn element_is_read_back_from_its_attributes() {
        for traffic in [None, Some(Traffic::default()), element(&[], 0).traffic] {
            let known = Element {
                traffic,
                ..element(&[7; 16], 3_599_999)
            };
            let bytes = known.clone().into_attributes().into_bytes();
            assert_eq!(Element::parse(&bytes), Some(known));
        }
        let over = element(&[7; 16], 0).into_attributes().into_bytes();
        assert_eq!(Element::parse(&over), None);
    }

    #[test]
    fn key_is_addresses_protocol_and_port() {
        let closed = Dropped::new(DropReason::Closed, Family::Ipv4);
        let key = |rest: [u8; 8]| [&[10, 0, 1, 11, 93, 184, 216, 34][..], &rest].concat();
        let (source, destination) = (
            "10.0.1.11".parse().unwrap(),
            "93.184.216.34".parse().unwrap(),
        );
        for (rest, protocol, port) in [
            ([6, 0, 0, 0, 1, 0xbb, 0, 0], 6, Some(443)),
            ([1, 0, 0, 0, 0, 0, 0, 0], 1, None),
        ] {
            let expected = Some((source, destination, protocol, port));
            assert_eq!(parts(closed, &key(rest)), expected);
        }
        let six = Dropped::new(DropReason::Closed, Family::Ipv6);
        assert_eq!(parts(six, &key([0; 8])), None, "a key of the other family");
        assert_eq!(parts(closed, &[]), None);
    }

    #[test]
    fn times_of_first_and_last_packet_come_from_the_time_left() {
        let set = |timeout, elements| Recorded {
            elements,
            timeout: Duration::from_secs(timeout),
        };
        let (a, b) = ([1; 16], [2; 16]);
        let blocked = set(3_600, vec![element(&a, 3_590_000), element(&b, 3_600_000)]);
        let first = set(1_000_000, vec![element(&b, 999_000_000)]);
        let closed = Dropped::new(DropReason::Closed, Family::Ipv4);
        let found: Vec<_> = entries(closed, &blocked, Some(&first))
            .map(|entry| (entry.first, entry.last))
            .collect();
        let seconds = Duration::from_secs;
        let expected = [(None, seconds(10)), (Some(seconds(1_000)), seconds(0))];
        assert_eq!(found, expected);
    }
}
