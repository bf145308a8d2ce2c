//! Conditions on the routing type of a destination, which a firewall asks the routing tables for.

use super::chain::{Condition, Field, Test};

/// The destination has one of the types (`RTN_*`, linux/rtnetlink.h).
pub fn of_type(types: impl IntoIterator<Item = u32>, negated: bool) -> Condition {
    let types = types.into_iter().map(|kind| kind.to_ne_bytes().to_vec());
    Condition {
        field: Field::DestinationType,
        mask: Vec::new(),
        test: Test::InRanges(types.map(|kind| (kind.clone(), kind)).collect()),
        negated,
    }
}
