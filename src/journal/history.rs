//! The journal's lines put together to passes, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Event, PassId, Record};
use crate::columns::aligned;

/// The outcome of a pass whose `end` is missing.
const INTERRUPTED: &str = "interrupted";
/// The outcome of a pass whose `end` is still to come.
const RUNNING: &str = "running";

/// One pass, from its lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassRecord {
    /// Its id.
    pub pass: PassId,
    /// When its first line was written, RFC 3339 in UTC.
    pub at: String,
    /// When it ended; `None` where it didn't.
    pub ended_at: Option<String>,
    /// Its process.
    pub pid: u32,
    /// Why it ran.
    pub cause: String,
    /// The document in force.
    pub sync_token: Option<u64>,
    /// The guard's verdicts, capped.
    pub verdicts: Vec<Value>,
    /// How many there were.
    pub verdicts_total: usize,
    /// Its steps, capped.
    pub steps: Vec<Value>,
    /// How many there were.
    pub steps_total: usize,
    /// How it ended; `interrupted` without an `end`, `running` while it still may.
    pub outcome: String,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// What failed.
    pub error: Option<String>,
}

/// A line that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Everything the journal tells.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct History {
    /// The passes, the newest last.
    pub passes: Vec<PassRecord>,
    /// Lines that can't be read.
    pub damaged: Vec<Damage>,
}

impl History {
    /// Marks the unfinished passes of a process that holds the pass lock as running.
    pub fn with_running(mut self, pid: Option<u32>) -> History {
        // Only its last pass: one process runs many, one after the other.
        let last = self
            .passes
            .iter_mut()
            .rev()
            .find(|pass| Some(pass.pid) == pid);
        if let Some(pass) = last.filter(|pass| pass.outcome == INTERRUPTED) {
            pass.outcome = RUNNING.to_owned();
        }
        self
    }

    /// The last passes only.
    pub fn last(mut self, count: usize) -> History {
        let extra = self.passes.len().saturating_sub(count);
        self.passes.drain(..extra);
        self
    }
}

/// Puts lines together, in the order in which they were written.
#[derive(Default)]
pub(super) struct Collector {
    history: History,
    places: BTreeMap<PassId, usize>,
}

impl Collector {
    /// Takes one line, with its newline if it has one.
    pub(super) fn line(&mut self, file: &Path, number: usize, line: &[u8]) {
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        match serde_json::from_slice::<Record>(text) {
            Ok(record) => self.record(record),
            Err(error) => {
                let reason = if line.ends_with(b"\n") && !error.is_eof() {
                    format!("not a line of this journal: {error}")
                } else {
                    "torn: the writer was stopped in the middle of it".to_owned()
                };
                self.history.damaged.push(Damage {
                    file: file.to_owned(),
                    line: number,
                    reason,
                });
            }
        }
    }

    fn record(&mut self, record: Record) {
        let place = match self.places.get(&record.pass) {
            Some(place) => *place,
            None => {
                let place = self.history.passes.len();
                self.places.insert(record.pass.clone(), place);
                self.history.passes.push(PassRecord {
                    pass: record.pass.clone(),
                    at: record.at.clone(),
                    ended_at: None,
                    pid: record.pid,
                    cause: record.cause.clone(),
                    sync_token: None,
                    verdicts: Vec::new(),
                    verdicts_total: 0,
                    steps: Vec::new(),
                    steps_total: 0,
                    outcome: INTERRUPTED.to_owned(),
                    duration_ms: None,
                    error: None,
                });
                place
            }
        };
        let pass = &mut self.history.passes[place];
        // The end repeats only what it knows better.
        if record.sync_token.is_some() {
            pass.sync_token = record.sync_token;
        }
        if record.verdicts_total > 0 {
            pass.verdicts = record.verdicts;
            pass.verdicts_total = record.verdicts_total;
        }
        if record.steps_total > 0 {
            pass.steps = record.steps;
            pass.steps_total = record.steps_total;
        }
        if record.error.is_some() {
            pass.error = record.error;
        }
        if record.event == Event::End {
            pass.ended_at = Some(record.at);
            pass.duration_ms = record.duration_ms;
            pass.outcome = record.outcome.unwrap_or_else(|| "unknown".to_owned());
        }
    }

    pub(super) fn finish(self) -> History {
        self.history
    }
}

/// `history -o json`: `passes` and `damaged`, as they are.
pub fn history_json(history: &History) -> Value {
    serde_json::json!(history)
}

/// `history -o text`: a table, the newest last, with what failed below its pass.
pub fn history_text(history: &History) -> String {
    let mut rows = vec![["WHEN", "CAUSE", "OUTCOME", "TOKEN", "STEPS", "TOOK"].map(str::to_owned)];
    for pass in &history.passes {
        let token = pass
            .sync_token
            .map_or_else(|| "-".to_owned(), |token| token.to_string());
        let took = pass.duration_ms.map_or_else(|| "-".to_owned(), took);
        rows.push([
            pass.at.clone(),
            pass.cause.clone(),
            pass.outcome.clone(),
            token,
            pass.steps_total.to_string(),
            took,
        ]);
    }
    let mut out = String::new();
    for (index, line) in aligned(&rows, 4).iter().enumerate() {
        out.push_str(line);
        out.push('\n');
        let Some(pass) = index.checked_sub(1).map(|index| &history.passes[index]) else {
            continue;
        };
        for text in details(pass) {
            let _ = writeln!(out, "  {text}");
        }
    }
    if history.passes.is_empty() {
        out = "no pass yet\n".to_owned();
    }
    for damage in &history.damaged {
        let _ = writeln!(
            out,
            "note: {} line {}: {}",
            damage.file.display(),
            damage.line,
            damage.reason
        );
    }
    out
}

/// What stands below a pass: its verdicts worth reading, its error, what an interruption means.
fn details(pass: &PassRecord) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in &pass.verdicts {
        let part = |name: &str| verdict.get(name).and_then(Value::as_str).unwrap_or("");
        if part("level") != "note" {
            lines.push(format!(
                "{} ({}): {}",
                part("level"),
                part("guard"),
                part("message")
            ));
        }
    }
    if let Some(error) = &pass.error {
        lines.extend(error.lines().map(str::to_owned));
    }
    if pass.outcome == INTERRUPTED {
        lines.push(format!(
            "stopped before its end (process {}): the next pass repairs what it left",
            pass.pid
        ));
    }
    lines
}

fn took(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{:.1} s", milliseconds as f64 / 1_000.0),
        _ => format!("{} min", milliseconds / 60_000),
    }
}
