//! Answers of EC2's API.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trailblazer::vpc::ec2::fuzzing::answer(bytes));
