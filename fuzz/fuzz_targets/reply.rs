//! An agent's reply, shown by `status`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::status::fuzzing::reply(bytes));
