//! Lists of prefixes as anonymous sets.

use ipnet::IpNet;

use super::expression::{Expressions, destination_of, octets};
use super::table::SetState;
use super::uapi::*;
use crate::kernel::wire::Attributes;
use crate::types::Family;

/// Matches destinations inside the prefixes, or outside if `inverted`, with a new set in `sets`.
pub(super) fn destination_set(
    expressions: Expressions,
    prefixes: &[IpNet],
    family: Family,
    sets: &mut Vec<SetState>,
    inverted: bool,
) -> Expressions {
    let name = format!("__set{}", sets.len());
    let key_type = match family {
        Family::Ipv4 => TYPE_IPADDR,
        Family::Ipv6 => TYPE_IP6ADDR,
    };
    let attributes = Attributes::new()
        .put_text(NFTA_SET_NAME, &name)
        .put_be32(
            NFTA_SET_FLAGS,
            NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL,
        )
        .put_be32(NFTA_SET_KEY_TYPE, key_type)
        .put_be32(NFTA_SET_KEY_LEN, u32::from(family.bits()) / 8);
    let expressions = expressions
        .network_header(NFT_REG_1, destination_of(family))
        .lookup(&name, inverted);
    sets.push(SetState {
        name,
        attributes: attributes.into_bytes(),
        elements: intervals(prefixes),
    });
    expressions
}

/// Matches a number in register 1 inside the list, with a new set in `sets`.
pub(super) fn number_set(
    expressions: Expressions,
    numbers: &[u32],
    sets: &mut Vec<SetState>,
) -> Expressions {
    let name = format!("__set{}", sets.len());
    let attributes = Attributes::new()
        .put_text(NFTA_SET_NAME, &name)
        .put_be32(NFTA_SET_FLAGS, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT)
        .put_be32(NFTA_SET_KEY_TYPE, TYPE_INTEGER)
        .put_be32(NFTA_SET_KEY_LEN, 4);
    let element = |number: &u32| {
        let value = Attributes::new().put(NFTA_DATA_VALUE, &number.to_ne_bytes());
        Attributes::new()
            .nest(NFTA_SET_ELEM_KEY, value)
            .into_bytes()
    };
    let expressions = expressions.lookup(&name, false);
    let mut elements: Vec<Vec<u8>> = numbers.iter().map(element).collect();
    super::read::sort_elements(&mut elements);
    sets.push(SetState {
        name,
        attributes: attributes.into_bytes(),
        elements,
    });
    expressions
}

/// The prefixes as half-open intervals. Adjacent prefixes become one interval, since the kernel
/// would store the end and the start at the shared address as two elements with the same key.
fn intervals(prefixes: &[IpNet]) -> Vec<Vec<u8>> {
    let mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    for prefix in prefixes {
        let first = octets(prefix.network());
        let after = successor(octets(prefix.broadcast()));
        match ranges.last_mut() {
            Some((_, end)) if *end == Some(first.clone()) => *end = after,
            _ => ranges.push((first, after)),
        }
    }
    let element = |key: &[u8], flags: u32| {
        let value = Attributes::new().put(NFTA_DATA_VALUE, key);
        let mut attributes = Attributes::new().nest(NFTA_SET_ELEM_KEY, value);
        if flags != 0 {
            attributes = attributes.put_be32(NFTA_SET_ELEM_FLAGS, flags);
        }
        attributes.into_bytes()
    };
    let mut elements = Vec::with_capacity(2 * ranges.len());
    for (first, after) in ranges {
        elements.push(element(&first, 0));
        // An interval up to the highest address has no end element.
        elements.extend(after.map(|key| element(&key, NFT_SET_ELEM_INTERVAL_END)));
    }
    elements
}

/// The next address, or `None` after the highest.
fn successor(mut octets: Vec<u8>) -> Option<Vec<u8>> {
    for octet in octets.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            return Some(octets);
        }
    }
    None
}
