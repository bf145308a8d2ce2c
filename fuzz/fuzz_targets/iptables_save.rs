//! Listings of iptables.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trailblazer::kernel::firewall::fuzzing::listing(text));
