//! The journal: what each pass was about to do, and what came of it.
//!
//! One JSON line an event in `journal.jsonl` of the state dir. A pass that changes something
//! writes `begin` before it and `end` after it, each on disk before the pass goes on: a crash in
//! between shows as a `begin` without an `end`. A pass that has to do more, since somebody undid
//! what it did, writes another `begin` with the steps of all attempts. A pass that changes nothing
//! may write its `end` alone.

mod history;
mod store;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use history::{Damage, History, PassRecord, history_json, history_text};
pub use store::{DEFAULT_MAX_BYTES, Journal};

/// How many steps, and how many verdicts, one line lists; the totals tell the rest. A first
/// installation has thousands of steps, and the first of them say what kind of change it was.
pub const MAX_LISTED: usize = 256;

/// Longest error text of a line, in bytes. A failure of thousands of steps repeats itself.
const MAX_ERROR_BYTES: usize = 8192;

/// Names a pass: the same in its `begin` and its `end`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PassId(pub String);

impl PassId {
    /// The id of a pass that starts now: the time in microseconds and the process, since two
    /// machines never share a journal and one process starts no two passes in a microsecond.
    pub fn new(at: Timestamp) -> PassId {
        PassId(format!("{}-{}", at.as_microsecond(), std::process::id()))
    }
}

impl std::fmt::Display for PassId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Which half of a pass a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Before the apply stage: what it is about to do.
    Begin,
    /// After it: what came of it.
    End,
}

/// One line. Fields are only ever added to: `history` of a newer version reads older lines, and
/// an older one ignores what it doesn't know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Which pass.
    pub pass: PassId,
    /// Which half.
    pub event: Event,
    /// The process, to tell a running pass from an interrupted one.
    pub pid: u32,
    /// Why the pass ran: a command (`reconcile`, `flush`), later also `timer`, `drift`, ….
    pub cause: String,
    /// The document in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_token: Option<u64>,
    /// The guard's verdicts (`guard`, `level`, `message`), at most [`MAX_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Value>,
    /// How many verdicts there were.
    #[serde(default)]
    pub verdicts_total: usize,
    /// The steps as in the plan's JSON, at most [`MAX_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
    /// How many steps there were.
    #[serde(default)]
    pub steps_total: usize,
    /// `in_sync`, `changed`, `held`, `rolled_back`, `failed`; in an `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// From the start of the pass to this line; in an `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// The line before apply.
    pub fn begin(at: Timestamp, pass: PassId, cause: &str) -> Record {
        Record {
            at: format!("{at:.3}"),
            pass,
            event: Event::Begin,
            pid: std::process::id(),
            cause: cause.to_owned(),
            sync_token: None,
            verdicts: Vec::new(),
            verdicts_total: 0,
            steps: Vec::new(),
            steps_total: 0,
            outcome: None,
            duration_ms: None,
            error: None,
        }
    }

    /// The line after it.
    pub fn end(
        at: Timestamp,
        pass: PassId,
        cause: &str,
        outcome: &str,
        duration: std::time::Duration,
    ) -> Record {
        Record {
            event: Event::End,
            outcome: Some(outcome.to_owned()),
            duration_ms: Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            ..Record::begin(at, pass, cause)
        }
    }

    /// With the document's sync token.
    pub fn with_sync_token(mut self, token: Option<u64>) -> Record {
        self.sync_token = token;
        self
    }

    /// With the guard's verdicts, of which at most [`MAX_LISTED`] are kept.
    pub fn with_verdicts(mut self, verdicts: impl IntoIterator<Item = Value>) -> Record {
        (self.verdicts, self.verdicts_total) = listed(verdicts);
        self
    }

    /// With the steps, of which at most [`MAX_LISTED`] are kept. Give a lazy iterator: what
    /// isn't kept is then counted, not built.
    pub fn with_steps(mut self, steps: impl IntoIterator<Item = Value>) -> Record {
        (self.steps, self.steps_total) = listed(steps);
        self
    }

    /// With the steps' total where only the first of them were made into values.
    pub fn with_first_steps(mut self, first: Vec<Value>, total: usize) -> Record {
        self.steps = first;
        self.steps.truncate(MAX_LISTED);
        self.steps_total = total;
        self
    }

    /// With what failed.
    pub fn with_error(mut self, error: Option<String>) -> Record {
        self.error = error.map(|mut text| {
            if text.len() > MAX_ERROR_BYTES {
                let mut end = MAX_ERROR_BYTES;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push_str(" … (cut)");
            }
            text
        });
        self
    }
}

fn listed(values: impl IntoIterator<Item = Value>) -> (Vec<Value>, usize) {
    let mut values = values.into_iter();
    let kept: Vec<Value> = values.by_ref().take(MAX_LISTED).collect();
    let total = kept.len() + values.count();
    (kept, total)
}

#[cfg(test)]
mod tests;
