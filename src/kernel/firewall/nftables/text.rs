//! Our table as canonical text: one line per object, without counts and handles.

use std::net::IpAddr;

use ipnet::IpNet;

use super::counters;
use super::decode;
use super::message::{PROTECTED, userdata_comment};
use super::register::{address, hex};
use super::table::{ChainState, SetState, TableState};
use super::traces::key_type;
use super::uapi::*;
use crate::kernel::wire::{Attribute, WireError, attributes, find};

/// The lines. Chains and sets are sorted by name, since their order has no meaning; rules keep
/// the order of the kernel.
pub(super) fn lines(table: &TableState) -> Result<Vec<String>, WireError> {
    let mut lines = vec![table_line(table)];
    let counters = table.counters.iter();
    let mut names: Vec<_> = counters.map(|c| counters::name(c.what, c.family)).collect();
    names.sort();
    lines.extend(names.iter().map(|name| format!("  counter {name}")));
    let mut chains: Vec<_> = table.chains.iter().collect();
    chains.sort_by_key(|chain| &chain.name);
    for chain in chains {
        lines.push(format!("  {}", chain_line(chain)?));
        for rule in &chain.rules {
            lines.push(format!("    {}", decode::rule(rule)));
        }
    }
    let mut sets: Vec<_> = table.sets.iter().collect();
    sets.sort_by_key(|set| &set.name);
    for set in sets {
        set_lines(set, &mut lines)?;
    }
    Ok(lines)
}

fn table_line(table: &TableState) -> String {
    let mut line = format!("table inet {}", table.name);
    if table.flags & NFT_TABLE_F_DORMANT != 0 {
        line.push_str(" flags dormant");
    }
    if table.flags & PROTECTED == PROTECTED {
        line.push_str(" flags owner,persist");
    }
    if table.flags & !(NFT_TABLE_F_DORMANT | PROTECTED) != 0 {
        line.push_str(&format!(" flags {:#x}", table.flags));
    }
    match userdata_comment(&table.userdata, UDATA_TABLE_COMMENT) {
        Some(comment) => line.push_str(&format!(" comment {comment:?}")),
        None => line.push_str(&format!(" userdata 0x{}", hex(&table.userdata))),
    }
    if table.further != 0 {
        line.push_str(&format!(" with {} foreign objects", table.further));
    }
    line
}

/// Unknown attributes in hexadecimal.
fn rest(list: &[Attribute<'_>], known: &[u16]) -> String {
    list.iter()
        .filter(|attribute| !known.contains(&attribute.kind))
        .map(|attribute| format!(" attribute-{} 0x{}", attribute.kind, hex(attribute.payload)))
        .collect()
}

fn chain_line(chain: &ChainState) -> Result<String, WireError> {
    let list = attributes(&chain.attributes)?;
    let number = |kind| find(&list, kind).and_then(|attribute| attribute.be32());
    let mut line = format!("chain {}", chain.name);
    if let Some(kind) = find(&list, NFTA_CHAIN_TYPE) {
        line.push_str(&format!(" type {}", kind.text()));
    }
    if let Some(hook) = find(&list, NFTA_CHAIN_HOOK) {
        let hook = attributes(hook.payload)?;
        // NF_INET_… (linux/netfilter.h).
        let names = ["prerouting", "input", "forward", "output", "postrouting"];
        match find(&hook, NFTA_HOOK_HOOKNUM).and_then(|number| number.be32()) {
            Some(number) => match names.get(number as usize) {
                Some(name) => line.push_str(&format!(" hook {name}")),
                None => line.push_str(&format!(" hook {number}")),
            },
            None => line.push_str(" hook unknown"),
        }
        if let Some(priority) = find(&hook, NFTA_HOOK_PRIORITY).and_then(|found| found.be32()) {
            line.push_str(&format!(" priority {}", priority.cast_signed()));
        }
        line.push_str(&rest(&hook, &[NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY]));
    }
    match number(NFTA_CHAIN_POLICY) {
        Some(NF_ACCEPT) => line.push_str(" policy accept"),
        Some(NF_DROP) => line.push_str(" policy drop"),
        Some(other) => line.push_str(&format!(" policy {other}")),
        None => {}
    }
    let flags = number(NFTA_CHAIN_FLAGS).unwrap_or(0) & !NFT_CHAIN_BASE;
    if flags != 0 {
        line.push_str(&format!(" flags {flags:#x}"));
    }
    let known = [
        NFTA_CHAIN_NAME,
        NFTA_CHAIN_HOOK,
        NFTA_CHAIN_POLICY,
        NFTA_CHAIN_TYPE,
        NFTA_CHAIN_FLAGS,
    ];
    line.push_str(&rest(&list, &known));
    Ok(line)
}

fn set_lines(set: &SetState, lines: &mut Vec<String>) -> Result<(), WireError> {
    let list = attributes(&set.attributes)?;
    let number = |kind| find(&list, kind).and_then(|attribute| attribute.be32());
    let kind = match number(NFTA_SET_KEY_TYPE) {
        Some(TYPE_INTEGER) => "integer".to_owned(),
        Some(TYPE_IPADDR) => "ipv4_addr".to_owned(),
        Some(TYPE_IP6ADDR) => "ipv6_addr".to_owned(),
        Some(it) if it == key_type(TYPE_IPADDR) => recorded("ipv4_addr"),
        Some(it) if it == key_type(TYPE_IP6ADDR) => recorded("ipv6_addr"),
        other => format!("{other:?}"),
    };
    let flags = number(NFTA_SET_FLAGS).unwrap_or(0);
    let mut names: Vec<_> = (0..u32::BITS)
        .filter(|bit| flags & (1 << bit) != 0)
        .map(|bit| match SET_FLAG_NAMES.get(bit as usize) {
            Some(name) => (*name).to_owned(),
            None => format!("flag-{bit}"),
        })
        .collect();
    names.sort();
    // nft stores user data and size for its own use.
    let known = [
        NFTA_SET_NAME,
        NFTA_SET_KEY_TYPE,
        NFTA_SET_KEY_LEN,
        NFTA_SET_FLAGS,
        NFTA_SET_DESC,
        NFTA_SET_USERDATA,
    ];
    let length = number(NFTA_SET_KEY_LEN).unwrap_or(0) as usize;
    let further = match dynamic_limits(&list).filter(|_| set.is_dynamic()) {
        Some(limits) => limits,
        None => rest(&list, &known),
    };
    let flag_names = names.join(",");
    lines.push(format!(
        "  set {} type {kind} flags {flag_names}{further}",
        set.name
    ));
    let plain = flags == flags & (NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL)
        && flags & NFT_SET_INTERVAL != 0
        && further.is_empty()
        && [4, 16].contains(&length);
    let numbers = flags == NFT_SET_ANONYMOUS | NFT_SET_CONSTANT
        && number(NFTA_SET_KEY_TYPE) == Some(TYPE_INTEGER)
        && further.is_empty();
    if let Some(line) = number_line(set).filter(|_| numbers) {
        lines.push(format!("    {line}"));
        return Ok(());
    }
    match interval_lines(set, length).filter(|_| plain) {
        Some(intervals) => lines.extend(intervals.into_iter().map(|line| format!("    {line}"))),
        None => {
            let raw = set.elements.iter().map(|element| hex(element));
            lines.extend(raw.map(|element| format!("    element 0x{element}")));
        }
    }
    Ok(())
}

/// The type of the keys in a record of packets.
fn recorded(address: &str) -> String {
    format!("{address} . {address} . inet_proto . inet_service")
}

/// The time and the number of elements that rules add.
fn dynamic_limits(list: &[Attribute<'_>]) -> Option<String> {
    let timeout = find(list, NFTA_SET_TIMEOUT)?.payload.try_into().ok()?;
    let timeout = u64::from_be_bytes(timeout);
    let size = attributes(find(list, NFTA_SET_DESC)?.payload).ok()?;
    let size = find(&size, NFTA_SET_DESC_SIZE)?.be32()?;
    let known = [
        NFTA_SET_NAME,
        NFTA_SET_KEY_TYPE,
        NFTA_SET_KEY_LEN,
        NFTA_SET_FLAGS,
        NFTA_SET_TIMEOUT,
        NFTA_SET_DESC,
        NFTA_SET_USERDATA,
    ];
    let further = rest(list, &known);
    Some(format!(" timeout {timeout}ms size {size}{further}"))
}

/// Key and flags of an element without further attributes.
fn plain_element(element: &[u8]) -> Option<(Vec<u8>, u32)> {
    let list = attributes(element).ok()?;
    let known = [
        NFTA_SET_ELEM_KEY,
        NFTA_SET_ELEM_FLAGS,
        NFTA_SET_ELEM_USERDATA,
    ];
    if !list.iter().all(|attribute| known.contains(&attribute.kind)) {
        return None;
    }
    let flags = match find(&list, NFTA_SET_ELEM_FLAGS) {
        Some(flags) => flags.be32()?,
        None => 0,
    };
    Some((super::read::element_key(element), flags))
}

/// The elements of a set of numbers, in ascending order.
fn number_line(set: &SetState) -> Option<String> {
    let number = |element: &Vec<u8>| {
        let (key, flags) = plain_element(element)?;
        let number = u32::from_ne_bytes(key.try_into().ok()?);
        (flags == 0).then_some(number)
    };
    let mut numbers: Vec<u32> = set.elements.iter().map(number).collect::<Option<_>>()?;
    numbers.sort_unstable();
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    Some(words.join(", "))
}

/// The elements, in the order of [`super::read::sort_elements`], as prefixes and ranges.
fn interval_lines(set: &SetState, length: usize) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for element in &set.elements {
        let (key, flags) = plain_element(element)?;
        if key.len() != length || flags & !NFT_SET_ELEM_INTERVAL_END != 0 {
            return None;
        }
        match (open.take(), flags == NFT_SET_ELEM_INTERVAL_END) {
            (None, false) => open = Some(key),
            (Some(first), true) => lines.push(range_text(&first, predecessor(key)?)?),
            // nft starts a set with an end element at zero, for the gap before the first interval.
            (None, true) if lines.is_empty() && key.iter().all(|byte| *byte == 0) => {}
            (None, true) | (Some(_), false) => return None,
        }
    }
    if let Some(first) = open {
        lines.push(range_text(&first, vec![0xff; length])?);
    }
    Some(lines)
}

fn predecessor(mut octets: Vec<u8>) -> Option<Vec<u8>> {
    for octet in octets.iter_mut().rev() {
        *octet = octet.wrapping_sub(1);
        if *octet != 0xff {
            return Some(octets);
        }
    }
    None
}

fn range_text(first: &[u8], last: Vec<u8>) -> Option<String> {
    let (first, last) = (address(first)?, address(&last)?);
    if first == last {
        return Some(first.to_string());
    }
    let common = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    let prefix = IpNet::new(first, u8::try_from(common).ok()?).ok()?;
    if prefix.network() == first && prefix.broadcast() == last {
        return Some(prefix.to_string());
    }
    Some(format!("{first}-{last}"))
}
