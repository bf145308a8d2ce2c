//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::{foreign, marks, rule, save, script, tool};
use crate::types::Family;

/// The output of `iptables-save`, of `iptables -S` and of `iptables --version`.
pub fn listing(text: &str) {
    let _saved = save::parse(text);
    for family in Family::ALL {
        let _chains = foreign::parse(text, family);
    }
    let _marks = marks::parse(text, "iptables");
    let _canonical = rule::canonical(text);
    let _comments = rule::comments(text);
    let _version = tool::Version::parse(text);
    let _reason = script::explain(text, text);
}
