//! Messages of the kernel about links, addresses and nexthop objects.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::kernel::fuzzing::link(bytes));
