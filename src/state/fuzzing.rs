//! Doors to private decoders, for the targets in `fuzz/` alone.

use std::path::Path;

use serde_json::Value;

use super::file::{self, Sound};
use super::instance_facts::Cached;
use super::store::Meta;

/// The bytes of a state file, and the same bytes as the content of a file with a right digest.
pub fn file(bytes: &[u8]) {
    let path = Path::new("fuzzed");
    let _raw = file::parse::<Value>(path, bytes.to_vec());
    let value = serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
    let Ok(line) = file::first_line(&value, bytes) else {
        return;
    };
    let sealed = [line.as_bytes(), bytes].concat();
    if let Ok(sound) = file::parse::<Value>(path, sealed.clone()) {
        assert_eq!(sound.body(), bytes, "a file returns its content");
    }
    let _document: Result<Sound<Meta>, _> = file::parse(path, sealed.clone());
    let _facts: Result<Sound<Cached>, _> = file::parse(path, sealed);
}
