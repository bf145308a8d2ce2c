//! Random cases of five writers: documents, the order of calls, deaths and delays.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use crate::world::many;

pub const WRITERS: usize = 5;
const BLOCKS: usize = 8;

/// One turn: some calls of a writer, and perhaps its death.
#[derive(Debug, Clone)]
pub struct Turn {
    pub writer: usize,
    pub calls: usize,
    pub death: Death,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Death {
    None,
    /// Before the last call of the turn leaves.
    BeforeCall,
    /// After EC2 took the last call of the turn, before the writer has the answer.
    AfterCall,
}

#[derive(Debug, Clone)]
pub struct Case {
    /// The blocks of prefixes in each document, from the oldest on; each has the first block.
    pub documents: Vec<u8>,
    /// The document in force before; `None`: no list exists.
    pub before: Option<u8>,
    /// Prefixes in a block: a change of few prefixes is one call, one of many is several.
    pub width: usize,
    pub turns: Vec<Turn>,
    pub lag: usize,
    pub progress_reads: usize,
}

fn turn() -> impl Strategy<Value = Turn> {
    let death = prop_oneof![
        20 => Just(Death::None),
        1 => Just(Death::BeforeCall),
        1 => Just(Death::AfterCall),
    ];
    (0..WRITERS, 1..9_usize, death).prop_map(|(writer, calls, death)| Turn {
        writer,
        calls,
        death,
    })
}

pub fn case() -> impl Strategy<Value = Case> {
    (
        proptest::collection::vec(any::<u8>(), WRITERS),
        proptest::option::of(any::<u8>()),
        prop_oneof![Just(1_usize), Just(40)],
        proptest::collection::vec(turn(), 5..40),
        prop_oneof![2 => Just(0_usize), 1 => 1..6_usize],
        prop_oneof![2 => Just(0_usize), 1 => 1..4_usize],
    )
        .prop_map(
            |(documents, before, width, turns, lag, progress_reads)| Case {
                documents,
                before,
                width,
                turns,
                lag,
                progress_reads,
            },
        )
}

/// The prefixes of a document.
pub fn selection(case: &Case, blocks: u8) -> BTreeSet<IpNet> {
    let all = many(BLOCKS * case.width, 0);
    let chosen = all.chunks(case.width).enumerate();
    chosen
        .filter(|(block, _)| (blocks | 1) & (1 << block) != 0)
        .flat_map(|(_, prefixes)| prefixes.iter().copied())
        .collect()
}
