//! The journal: the planned steps and the outcome of each pass.
//!
//! `journal.jsonl` in the state dir has one JSON line for each event. A pass with changes writes
//! `begin` before and `end` after the changes, each synced to disk before the pass continues: a
//! crash in between leaves a `begin` without an `end`. A pass with another attempt, after another
//! program undid steps, writes a further `begin` with the steps of all attempts. A pass without
//! changes may write only `end`.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod names;
mod store;
mod ways;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::degraded::Degradation;

pub use history::{Damage, History, PassRecord, history_json, history_text};
pub use store::{DEFAULT_MAX_BYTES, Journal};
pub use ways::WayChange;

/// At most this many steps, and as many verdicts, are listed in a line beside the totals. A first
/// installation has thousands of steps, and the first ones show the kind of the change.
pub const MAX_LISTED: usize = 256;

/// The longest error text of a line, in bytes: thousands of failed steps repeat the same error.
const MAX_ERROR_BYTES: usize = 8192;

/// Identifies a pass, in the `begin` and in the `end` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PassId(pub String);

impl PassId {
    /// The id of a pass that starts now: the time in microseconds and the process id. The id is
    /// unique: machines share no journal, and a process starts no two passes in a microsecond.
    pub fn new(at: Timestamp) -> PassId {
        PassId(format!("{}-{}", at.as_microsecond(), std::process::id()))
    }
}

impl std::fmt::Display for PassId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The moment in a pass that a line records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// Before the apply stage: the planned steps.
    Begin,
    /// After the apply stage: the outcome.
    End,
}

/// One line. Fields are added, never changed: a newer version reads older lines, and an older
/// version ignores unknown fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339 in UTC.
    pub at: String,
    pub pass: PassId,
    pub event: Boundary,
    /// The process id, which tells a running pass from an interrupted one.
    pub pid: u32,
    /// The trigger of the pass: a command (`reconcile`, `flush`), or `timer`, `drift`, ….
    pub cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_token: Option<u64>,
    /// The guard's verdicts (`guard`, `level`, `message`), at most [`MAX_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Value>,
    #[serde(default)]
    pub verdicts_total: usize,
    /// The steps as in the plan's JSON, at most [`MAX_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
    #[serde(default)]
    pub steps_total: usize,
    /// `in_sync`, `changed`, `held`, `waiting`, `rolled_back`, `failed`; in an `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// From the start of the pass to the `end` line; in an `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The missing parts (`part`, `family`, `reason`, `advice`); in an `end` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The digest of the held selection; in an `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The changes of the use of ways since the last pass; in an `end` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<WayChange>,
}

impl Record {
    /// The line before the apply stage.
    pub fn begin(at: Timestamp, pass: PassId, cause: &str) -> Record {
        Record {
            at: format!("{at:.3}"),
            pass,
            event: Boundary::Begin,
            pid: std::process::id(),
            cause: cause.to_owned(),
            sync_token: None,
            verdicts: Vec::new(),
            verdicts_total: 0,
            steps: Vec::new(),
            steps_total: 0,
            outcome: None,
            duration_ms: None,
            degraded: Vec::new(),
            error: None,
            hold: None,
            ways: Vec::new(),
        }
    }

    /// The line after the apply stage.
    pub fn end(
        at: Timestamp,
        pass: PassId,
        cause: &str,
        outcome: &str,
        duration: std::time::Duration,
    ) -> Record {
        Record {
            event: Boundary::End,
            outcome: Some(outcome.to_owned()),
            duration_ms: Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            ..Record::begin(at, pass, cause)
        }
    }

    /// Sets the digest of the held selection.
    pub fn with_hold(mut self, digest: Option<String>) -> Record {
        self.hold = digest;
        self
    }

    /// Sets the changes of the use of ways.
    pub fn with_ways(mut self, ways: Vec<WayChange>) -> Record {
        self.ways = ways;
        self
    }

    /// Sets the missing parts.
    pub fn with_degraded(mut self, degraded: &[Degradation]) -> Record {
        self.degraded = values(degraded).collect();
        self
    }

    /// Sets the document's sync token.
    pub fn with_sync_token(mut self, token: Option<u64>) -> Record {
        self.sync_token = token;
        self
    }

    /// Sets the guard's verdicts; keeps at most [`MAX_LISTED`].
    pub fn with_verdicts(mut self, verdicts: impl IntoIterator<Item = Value>) -> Record {
        (self.verdicts, self.verdicts_total) = listed(verdicts);
        self
    }

    /// Sets the steps; keeps at most [`MAX_LISTED`]. A lazy iterator saves building the values
    /// beyond the limit, which are only counted.
    pub fn with_steps(mut self, steps: impl IntoIterator<Item = Value>) -> Record {
        (self.steps, self.steps_total) = listed(steps);
        self
    }

    /// Sets the first steps and the number of all steps.
    pub fn with_first_steps(mut self, first: Vec<Value>, total: usize) -> Record {
        self.steps = first;
        self.steps.truncate(MAX_LISTED);
        self.steps_total = total;
        self
    }

    /// Sets the error, cut to a maximal length.
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

/// Values as JSON.
pub fn values<T: Serialize>(items: &[T]) -> impl Iterator<Item = Value> {
    items.iter().filter_map(|it| serde_json::to_value(it).ok())
}

fn listed(values: impl IntoIterator<Item = Value>) -> (Vec<Value>, usize) {
    let mut values = values.into_iter();
    let kept: Vec<Value> = values.by_ref().take(MAX_LISTED).collect();
    let total = kept.len() + values.count();
    (kept, total)
}

#[cfg(test)]
mod tests;
