//! Assembles the lines of the journal into passes, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use super::names::name_of;
use super::{Boundary, PassId, Record, WayChange};
use crate::columns::aligned;
use crate::degraded::Degradation;
use crate::printable::indented;
use crate::words::first_few;

/// The outcome of a pass without an `end`.
const INTERRUPTED: &str = "interrupted";
/// The outcome of a pass in progress.
const RUNNING: &str = "running";
/// The outcome of a pass whose steps were executed.
const CHANGED: &str = "changed";
/// The outcome of a pass before the first document.
const WAITING: &str = "waiting";
/// The name of the verdicts about changes by other programs.
const DRIFT: &str = "drift";
/// The outcome of a pass with a held document.
const HELD: &str = "held";

/// One pass, assembled from the lines with the same id.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassRecord {
    pub pass: PassId,
    /// The time of the first line, RFC 3339 in UTC.
    pub at: String,
    /// `None` without an `end`.
    pub ended_at: Option<String>,
    pub pid: u32,
    pub cause: String,
    pub sync_token: Option<u64>,
    pub verdicts: Vec<Value>,
    pub verdicts_total: usize,
    pub steps: Vec<Value>,
    pub steps_total: usize,
    /// As in the `end` line; `interrupted` without an `end`, `running` while in progress.
    pub outcome: String,
    pub duration_ms: Option<u64>,
    /// The missing parts (`part`, `family`, `reason`, `advice`).
    pub degraded: Vec<Value>,
    pub error: Option<String>,
    /// The digest of the held selection.
    pub hold: Option<String>,
    /// The changes of the use of ways (`at`, `way`, `change`, `why`) that led to the pass.
    pub ways: Vec<WayChange>,
    /// Further passes without a change that met the same hold.
    pub repeats: usize,
    /// The end of the last of these.
    pub last_at: Option<String>,
}

impl PassRecord {
    /// True if a later pass found the same hold and changed nothing.
    fn is_repeated_by(&self, later: &PassRecord) -> bool {
        self.hold.is_some()
            && self.hold == later.hold
            && self.outcome == HELD
            && later.outcome == HELD
            && later.steps_total == 0
            && later.ways.is_empty()
            && later.error == self.error
            && later.degraded == self.degraded
            && guards(self) == guards(later)
    }
}

/// The guards behind the verdicts of a pass, without notes.
fn guards(pass: &PassRecord) -> Vec<&Value> {
    let verdicts = pass.verdicts.iter();
    let verdicts = verdicts.filter(|verdict| verdict["level"] != "note");
    verdicts.map(|verdict| &verdict["guard"]).collect()
}

/// An unreadable line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub file: PathBuf,
    /// Counted from 1; 0 for the whole file.
    pub line: usize,
    pub reason: String,
}

/// The contents of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct History {
    /// The newest pass is last.
    pub passes: Vec<PassRecord>,
    pub damaged: Vec<Damage>,
}

impl History {
    /// Marks the unfinished pass of the process that holds the pass lock as running.
    pub fn with_running(mut self, pid: Option<u32>) -> History {
        // Only the last pass: a process runs its passes one after the other.
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

    /// Keeps only the passes that ended at `since` or later, and those without an end.
    pub fn since(mut self, since: Timestamp) -> History {
        self.passes.retain(|pass| {
            let last = pass.last_at.as_ref().or(pass.ended_at.as_ref());
            let at = last.unwrap_or(&pass.at);
            // A time that nobody can read is no reason to hide a pass.
            at.parse::<Timestamp>().map_or(true, |at| at >= since)
        });
        self
    }

    /// Keeps only the last passes.
    pub fn last(mut self, count: usize) -> History {
        let extra = self.passes.len().saturating_sub(count);
        self.passes.drain(..extra);
        self
    }
}

/// Assembles lines in the order of writing.
#[derive(Default)]
pub(super) struct Collector {
    history: History,
    places: BTreeMap<PassId, usize>,
}

impl Collector {
    /// Records an unreadable line; line 0 stands for the whole file.
    pub(super) fn damaged(&mut self, file: &Path, line: usize, reason: &dyn std::fmt::Display) {
        self.history.damaged.push(Damage {
            file: file.to_owned(),
            line,
            reason: reason.to_string(),
        });
    }

    /// Adds one line, including the newline if there is one.
    pub(super) fn line(&mut self, file: &Path, number: usize, line: &[u8]) {
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        match serde_json::from_slice::<Record>(text) {
            Ok(record) => self.record(record),
            Err(error) => {
                let reason = if line.ends_with(b"\n") && !error.is_eof() {
                    format!("not a journal line: {error}")
                } else {
                    "incomplete: the writer was stopped while writing the line".to_owned()
                };
                self.damaged(file, number, &reason);
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
                    degraded: Vec::new(),
                    error: None,
                    hold: None,
                    ways: Vec::new(),
                    repeats: 0,
                    last_at: None,
                });
                place
            }
        };
        let pass = &mut self.history.passes[place];
        // Later lines override only the fields that are set.
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
        if record.event == Boundary::End {
            pass.ended_at = Some(record.at);
            pass.duration_ms = record.duration_ms;
            pass.degraded = record.degraded;
            pass.hold = record.hold;
            pass.ways = record.ways;
            pass.outcome = record.outcome.unwrap_or_else(|| "unknown".to_owned());
        }
    }

    /// The passes; those that only repeat a hold are counted at the first one.
    pub(super) fn finish(self) -> History {
        let mut history = self.history;
        let passes = std::mem::take(&mut history.passes);
        for pass in passes {
            match history.passes.last_mut() {
                Some(last) if last.is_repeated_by(&pass) => {
                    last.repeats += 1;
                    last.last_at = pass.ended_at;
                }
                _ => history.passes.push(pass),
            }
        }
        history
    }
}

/// `history -o json`: the fields `passes` and `damaged`.
pub fn history_json(history: &History) -> Value {
    serde_json::json!(history)
}

/// `history -o text`: a table, the newest pass last, with errors below each pass.
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
            let _ = writeln!(out, "  {}", indented(&text, 4));
        }
    }
    if history.passes.is_empty() {
        out = "no pass yet\n".to_owned();
    }
    for damage in &history.damaged {
        let file = damage.file.display();
        let place = match damage.line {
            0 => file.to_string(),
            line => format!("{file} line {line}"),
        };
        let note = format!("note: {place}: {}", damage.reason);
        let _ = writeln!(out, "{}", indented(&note, 2));
    }
    out
}

/// The lines below a pass: drift, verdicts other than notes, missing parts, the error, the remedy for an
/// interruption.
fn details(pass: &PassRecord) -> Vec<String> {
    let mut lines: Vec<String> = pass.ways.iter().map(WayChange::to_string).collect();
    lines.extend(changes(pass));
    for verdict in &pass.verdicts {
        let part = |name: &str| verdict.get(name).and_then(Value::as_str).unwrap_or("");
        if part("guard") == DRIFT {
            let fate = match verdict.get("repaired").and_then(Value::as_bool) {
                Some(true) => "repaired",
                // From an older version.
                None if pass.outcome == CHANGED => "repaired",
                Some(false) if pass.outcome == HELD => "held",
                _ => "not repaired",
            };
            lines.push(format!("drift, {fate}: {}", part("message")));
        } else if part("level") != "note" {
            lines.push(format!(
                "{} ({}): {}",
                part("level"),
                part("guard"),
                part("message")
            ));
        }
    }
    if let (repeats @ 1.., Some(last)) = (pass.repeats, &pass.last_at) {
        lines.push(format!(
            "held on in {repeats} more passes, the last at {last}"
        ));
    }
    let missing = pass.degraded.iter();
    let missing = missing.filter_map(|value| Degradation::deserialize(value).ok());
    lines.extend(missing.map(|missing| format!("degraded: {missing}")));
    if let Some(error) = &pass.error {
        lines.extend(error.lines().map(str::to_owned));
    }
    if pass.outcome == INTERRUPTED {
        lines.push(format!(
            "interrupted (process {}): the next pass completes the changes",
            pass.pid
        ));
    }
    lines
}

/// One line for the objects with the same action and kind: their number and the first names.
fn changes(pass: &PassRecord) -> Vec<String> {
    const NAMED: usize = 4;
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    // The steps of any other pass were planned, and perhaps executed in part.
    let executed = [CHANGED, HELD, WAITING].contains(&pass.outcome.as_str());
    for step in &pass.steps {
        let part = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or("");
        let action = match part("action") {
            "add" if executed => "added",
            "replace" if executed => "replaced",
            "delete" if executed => "deleted",
            action => action,
        };
        let title = format!("{action} {}", part("object"));
        let name = name_of(step);
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, names)) => names.push(name),
            None => groups.push((title, vec![name])),
        }
    }
    let mut lines: Vec<String> = groups
        .into_iter()
        .map(|(title, names)| format!("{title}: {}", first_few(names, NAMED, ", ")))
        .collect();
    let unlisted = pass.steps_total.saturating_sub(pass.steps.len());
    if unlisted > 0 {
        lines.push(format!("{unlisted} more steps"));
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
