//! The journal, shown by `history`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::journal::fuzzing::journal(bytes));
