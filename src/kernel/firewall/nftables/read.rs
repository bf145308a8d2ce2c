//! Reads our table from the kernel as a consistent whole.

use super::counters::{self, CounterState};
use super::message::{GUARD_TABLE, RuleState, nfgen};
use super::table::{ChainState, SetState, TableState};
use super::uapi::*;
use crate::kernel::wire::{Attribute, Attributes, DUMP, NFGEN_LEN, Wire, WireError};
use crate::kernel::wire::{attributes, find};

/// The number of attempts at a reading that foreign transactions keep interrupting.
const ATTEMPTS: u32 = 5;
/// The pause between two attempts.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(3);
pub(super) const ENOENT: i32 = 2;

/// The table, and the generation of the whole nf_tables state at the time of reading.
#[derive(Debug)]
pub(super) struct ReadTable {
    pub(super) table: Option<TableState>,
    pub(super) generation: u32,
}

pub(super) fn body(family: u8, attributes: Attributes) -> Vec<u8> {
    let mut body = nfgen(family).to_vec();
    body.extend(attributes.into_bytes());
    body
}

/// The attributes after the `nfgenmsg`.
pub(super) fn list(body: &[u8]) -> Result<Vec<Attribute<'_>>, WireError> {
    let (_, list) = body
        .split_at_checked(NFGEN_LEN)
        .ok_or(WireError::Malformed("a message without its nfgenmsg"))?;
    attributes(list)
}

/// The generation (`NFTA_GEN_ID`): a number that each transaction on any table increments.
pub(super) fn generation(wire: &mut Wire) -> Result<u32, WireError> {
    let mut found = None;
    let request = body(NFPROTO_UNSPEC, Attributes::new());
    wire.ask(msg::GETGEN, 0, &request, |frame| {
        found = find(&list(frame.body)?, NFTA_GEN_ID).and_then(|id| id.be32());
        Ok(())
    })?;
    found.ok_or(WireError::Malformed("no generation id"))
}

/// Repeats `read` until the generation is the same before and after.
pub(super) fn consistently<T>(
    wire: &mut Wire,
    read: impl Fn(&mut Wire) -> Result<T, WireError>,
) -> Result<(T, u32), WireError> {
    let mut before = generation(wire)?;
    for _ in 0..ATTEMPTS {
        let outcome = read(wire);
        let after = generation(wire)?;
        match outcome {
            Err(WireError::Interrupted) => {}
            // The change may have caused an error: a table that vanished during the reading.
            _ if before != after => {}
            Ok(value) => return Ok((value, after)),
            Err(error) => return Err(error),
        }
        before = after;
        // A foreign transaction ends within milliseconds.
        std::thread::sleep(PAUSE);
    }
    Err(WireError::Interrupted)
}

pub(super) fn whole(wire: &mut Wire, name: &str) -> Result<ReadTable, WireError> {
    let (table, generation) = consistently(wire, |wire| read_whole(wire, name))?;
    Ok(ReadTable { table, generation })
}

/// Our table without objects: enough to check the mark of ownership.
pub(super) fn head(wire: &mut Wire, name: &str) -> Result<ReadTable, WireError> {
    let (table, generation) = consistently(wire, |wire| read_head(wire, name))?;
    let table = table.map(|(table, _)| table);
    Ok(ReadTable { table, generation })
}

/// Our counters, with the table to check the mark of ownership; `None` without a table.
pub(super) fn counted(
    wire: &mut Wire,
    name: &str,
) -> Result<Option<(TableState, Vec<CounterState>)>, WireError> {
    let read = |wire: &mut Wire| {
        let Some((table, _)) = read_head(wire, name)? else {
            return Ok(None);
        };
        Ok(Some((table, read_counters(wire, name)?)))
    };
    Ok(consistently(wire, read)?.0)
}

/// The table without objects, and the number of objects in the kernel.
pub(super) fn read_head(
    wire: &mut Wire,
    name: &str,
) -> Result<Option<(TableState, u32)>, WireError> {
    let request = body(
        NFPROTO_INET,
        Attributes::new().put_text(NFTA_TABLE_NAME, name),
    );
    let mut found = None;
    let answer = wire.ask(msg::GETTABLE, 0, &request, |frame| {
        let list = list(frame.body)?;
        let number = |kind| find(&list, kind).and_then(|value| value.be32());
        let userdata = find(&list, NFTA_TABLE_USERDATA);
        let table = TableState {
            name: name.to_owned(),
            flags: number(NFTA_TABLE_FLAGS).unwrap_or(0),
            owner: number(NFTA_TABLE_OWNER),
            userdata: userdata.map_or_else(Vec::new, |data| data.payload.to_vec()),
            ..TableState::default()
        };
        found = Some((table, number(NFTA_TABLE_USE).unwrap_or(0)));
        Ok(())
    });
    match answer {
        Ok(()) => found
            .map(Some)
            .ok_or(WireError::Malformed("a table without its attributes")),
        Err(WireError::Kernel { errno: ENOENT, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_whole(wire: &mut Wire, name: &str) -> Result<Option<TableState>, WireError> {
    let Some((mut table, objects)) = read_head(wire, name)? else {
        return Ok(None);
    };
    table.counters = read_counters(wire, name)?;
    table.chains = read_chains(wire, name)?;
    read_rules(wire, name, &mut table.chains)?;
    table.sets = read_sets(wire, name)?;
    for set in table.sets.iter_mut().filter(|set| !set.is_dynamic()) {
        set.elements = read_elements(wire, name, &set.name)?;
    }
    // The kernel's number excludes anonymous sets (nf_tables_commit subtracts each).
    let sets = table.sets.iter().filter(|set| !set.is_anonymous()).count();
    let known = table.chains.len() + sets + table.counters.len();
    let counted = u32::try_from(known).unwrap_or(u32::MAX);
    table.further = objects.saturating_sub(counted);
    Ok(Some(table))
}

pub(super) fn read_counters(wire: &mut Wire, name: &str) -> Result<Vec<CounterState>, WireError> {
    let request = body(
        NFPROTO_INET,
        Attributes::new()
            .put_text(NFTA_OBJ_TABLE, name)
            .put_be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER),
    );
    let mut found = Vec::new();
    wire.ask(msg::GETOBJ, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        if text(&list, NFTA_OBJ_TABLE).as_deref() == Some(name) {
            found.extend(counters::parse(&list));
        }
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn text(list: &[Attribute<'_>], kind: u16) -> Option<String> {
    find(list, kind).map(|attribute| attribute.text())
}

/// The attributes except the types in `dropped`.
fn without(list: &[Attribute<'_>], dropped: &[u16]) -> Vec<u8> {
    list.iter()
        .filter(|attribute| !dropped.contains(&attribute.kind))
        .fold(Attributes::new(), |kept, attribute| {
            kept.put(attribute.kind, attribute.payload)
        })
        .into_bytes()
}

fn read_chains(wire: &mut Wire, name: &str) -> Result<Vec<ChainState>, WireError> {
    let dropped = [
        NFTA_CHAIN_TABLE,
        NFTA_CHAIN_HANDLE,
        NFTA_CHAIN_USE,
        NFTA_CHAIN_COUNTERS,
        NFTA_CHAIN_PAD,
    ];
    let mut chains = Vec::new();
    let request = body(NFPROTO_INET, Attributes::new());
    // GETCHAIN has no filter by table.
    wire.ask(msg::GETCHAIN, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        if text(&list, NFTA_CHAIN_TABLE).as_deref() == Some(name) {
            chains.push(ChainState {
                name: text(&list, NFTA_CHAIN_NAME).unwrap_or_default(),
                attributes: without(&list, &dropped),
                rules: Vec::new(),
            });
        }
        Ok(())
    })?;
    Ok(chains)
}

fn read_rules(wire: &mut Wire, name: &str, chains: &mut [ChainState]) -> Result<(), WireError> {
    let request = body(
        NFPROTO_INET,
        Attributes::new().put_text(NFTA_RULE_TABLE, name),
    );
    wire.ask(msg::GETRULE, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        if text(&list, NFTA_RULE_TABLE).as_deref() != Some(name) {
            return Ok(());
        }
        let chain = text(&list, NFTA_RULE_CHAIN).unwrap_or_default();
        let expressions = match find(&list, NFTA_RULE_EXPRESSIONS) {
            Some(expressions) => without_counts(expressions.payload)?,
            None => Vec::new(),
        };
        let userdata = find(&list, NFTA_RULE_USERDATA);
        // An unknown chain belongs to a later generation: repeat the reading.
        let mut chains = chains.iter_mut();
        let known = chains.find(|known| known.name == chain);
        known.ok_or(WireError::Interrupted)?.rules.push(RuleState {
            expressions,
            userdata: userdata.map_or_else(Vec::new, |data| data.payload.to_vec()),
        });
        Ok(())
    })
}

fn without_counts(expressions: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut kept = Attributes::new();
    for expression in attributes(expressions)? {
        let list = attributes(expression.payload)?;
        kept = match text(&list, NFTA_EXPR_NAME).as_deref() {
            Some("counter") => kept.nest(
                NFTA_LIST_ELEM,
                Attributes::new()
                    .put_text(NFTA_EXPR_NAME, "counter")
                    .nest(NFTA_EXPR_DATA, Attributes::new()),
            ),
            _ => kept.nest(NFTA_LIST_ELEM, Attributes::new().raw(expression.payload)),
        };
    }
    Ok(kept.into_bytes())
}

pub(super) fn read_sets(wire: &mut Wire, name: &str) -> Result<Vec<SetState>, WireError> {
    let dropped = [
        NFTA_SET_TABLE,
        NFTA_SET_HANDLE,
        NFTA_SET_ID,
        NFTA_SET_PAD,
        NFTA_SET_TYPE,
        NFTA_SET_COUNT,
    ];
    let mut sets = Vec::new();
    let request = body(
        NFPROTO_INET,
        Attributes::new().put_text(NFTA_SET_TABLE, name),
    );
    wire.ask(msg::GETSET, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        if text(&list, NFTA_SET_TABLE).as_deref() == Some(name) {
            sets.push(SetState {
                name: text(&list, NFTA_SET_NAME).unwrap_or_default(),
                attributes: without(&list, &dropped),
                elements: Vec::new(),
            });
        }
        Ok(())
    })?;
    Ok(sets)
}

pub(super) fn read_elements(
    wire: &mut Wire,
    table: &str,
    set: &str,
) -> Result<Vec<Vec<u8>>, WireError> {
    let request = body(
        NFPROTO_INET,
        Attributes::new()
            .put_text(NFTA_SET_ELEM_LIST_TABLE, table)
            .put_text(NFTA_SET_ELEM_LIST_SET, set),
    );
    let mut elements = Vec::new();
    wire.ask(msg::GETSETELEM, DUMP, &request, |frame| {
        if let Some(found) = find(&list(frame.body)?, NFTA_SET_ELEM_LIST_ELEMENTS) {
            elements.extend(
                attributes(found.payload)?
                    .iter()
                    .map(|e| e.payload.to_vec()),
            );
        }
        Ok(())
    })?;
    sort_elements(&mut elements);
    Ok(elements)
}

/// Sorts elements by key, and at the same key the end of an interval before the start of the next:
/// the order that the kernel accepts in a transaction.
pub(super) fn sort_elements(elements: &mut [Vec<u8>]) {
    elements.sort_by_cached_key(|element| {
        let flags = attributes(element)
            .ok()
            .and_then(|list| find(&list, NFTA_SET_ELEM_FLAGS)?.be32())
            .unwrap_or(0);
        (element_key(element), flags & NFT_SET_ELEM_INTERVAL_END == 0)
    });
}

/// The bytes of the key; empty if the key isn't plain bytes.
pub(super) fn element_key(element: &[u8]) -> Vec<u8> {
    let key = || {
        let list = attributes(element).ok()?;
        let value = attributes(find(&list, NFTA_SET_ELEM_KEY)?.payload).ok()?;
        Some(find(&value, NFTA_DATA_VALUE)?.payload.to_vec())
    };
    key().unwrap_or_default()
}

/// True if any table of any family has a chain with a name that starts with `prefix`: the chains of
/// iptables-nft lie in nf_tables. True also for our table beside iptables.
pub(super) fn any_chain_begins_with(wire: &mut Wire, prefix: &str) -> Result<bool, WireError> {
    let mut found = false;
    let request = body(NFPROTO_UNSPEC, Attributes::new());
    for _ in 0..ATTEMPTS {
        let outcome = wire.ask(msg::GETCHAIN, DUMP, &request, |frame| {
            let list = list(frame.body)?;
            let ours = text(&list, NFTA_CHAIN_TABLE).as_deref() == Some(GUARD_TABLE);
            let name = text(&list, NFTA_CHAIN_NAME);
            found |= ours || name.is_some_and(|name| name.starts_with(prefix));
            Ok(())
        });
        match outcome {
            Ok(()) => return Ok(found),
            Err(WireError::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(WireError::Interrupted)
}
