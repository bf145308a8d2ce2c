//! Doors to private decoders, for the targets in `fuzz/` alone.

use std::path::Path;

use super::history::Collector;
use super::{history_json, history_text};

/// The content of a journal, shown as text and as JSON.
pub fn journal(bytes: &[u8]) {
    let mut collector = Collector::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        collector.line(Path::new("fuzzed"), index + 1, line);
    }
    let history = collector.finish();
    let _text = history_text(&history);
    let _json = history_json(&history);
}
