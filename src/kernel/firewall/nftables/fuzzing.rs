//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::foreign::{self, TableKey};
use super::message::RuleState;
use super::table::{self, ChainState, SetState, TableState};
use super::{counters, marks, read, text, uapi};
use crate::kernel::wire::{Wire, attributes};

/// A rule's expressions, which also serve as the attributes of every other object. Without a
/// socket, the foreign rule is left out, since the elements of its sets come from the kernel.
pub fn rule(expressions: &[u8], wire: Option<&mut Wire>) {
    let _marks = marks::of_rule(expressions, "a rule");
    if let Ok(list) = attributes(expressions) {
        let _counter = counters::parse(&list);
    }
    let _list = read::list(expressions);
    let table = TableState {
        chains: vec![ChainState {
            name: "chain".to_owned(),
            attributes: expressions.to_vec(),
            rules: vec![RuleState {
                expressions: expressions.to_vec(),
                userdata: expressions.to_vec(),
            }],
        }],
        sets: vec![SetState {
            name: "set".to_owned(),
            attributes: expressions.to_vec(),
            elements: vec![expressions.to_vec()],
        }],
        ..TableState::default()
    };
    let _lines = text::lines(&table);
    let _messages = table::replay("trailblazer", expressions);
    if let Some(wire) = wire {
        let key = TableKey {
            family: uapi::NFPROTO_INET,
            name: "fuzzed".to_owned(),
        };
        let _rule = foreign::rule(wire, &key, expressions);
    }
}
