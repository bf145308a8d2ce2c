//! The commands beside `reconcile`, in the lab: text, JSON and exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "commands/check.rs"]
mod check;
#[path = "commands/escapes.rs"]
mod escapes;
#[path = "commands/explain.rs"]
mod explain;
#[path = "commands/flush.rs"]
mod flush;
#[path = "commands/history.rs"]
mod history;
#[path = "commands/json.rs"]
mod json;
#[path = "commands/ranges.rs"]
mod ranges;
#[path = "commands/setup.rs"]
mod setup;
#[path = "commands/source.rs"]
mod source;
