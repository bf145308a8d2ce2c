//! Route messages of the kernel.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::kernel::fuzzing::route(bytes));
