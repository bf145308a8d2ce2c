//! Messages of conntrack and of the socket list.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::kernel::fuzzing::flow(bytes));
