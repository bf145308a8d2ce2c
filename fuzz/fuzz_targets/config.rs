//! The config file, with every message about a fault.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trailblazer::config::{Overrides, parse, parse_readable_part};

fuzz_target!(|text: &str| {
    if let Err(error) = parse(text, "fuzzed.toml") {
        assert!(!error.to_string().is_empty());
    }
    let _readable = parse_readable_part(text, &Overrides::default());
});
