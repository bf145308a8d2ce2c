//! The commands beside `reconcile`, in the lab: text, JSON and exit codes.

mod lab;

#[path = "commands/flush.rs"]
mod flush;
#[path = "commands/history.rs"]
mod history;
#[path = "commands/setup.rs"]
mod setup;
