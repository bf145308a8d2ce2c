//! Lines of the agent in the journal beside those of its passes.

use std::path::Path;
use std::time::Duration;

use crate::journal::{Journal, Record};
use crate::state::error::StateError;
use crate::state::lock::PassLock;
use crate::state::patience::in_time;

/// Longest wait for the lock before a line of the journal: the next pass waits behind it.
const WRITE_WAITS: Duration = Duration::from_secs(1);

/// Writes a line to the journal, with the lock held like a pass. The journal is for people: a fault
/// is a warning. `locked` is called with true once the lock is held, and with false before its release.
pub(super) fn write(state_dir: &Path, record: Box<Record>, locked: impl Fn(bool)) {
    let lock = match PassLock::acquire(state_dir, &record.cause, WRITE_WAITS) {
        Ok(lock) if lock.failure().is_some_and(StateError::is_silent) => return,
        Ok(lock) => lock,
        Err(error) => return tracing::warn!("cannot write the journal: {error}"),
    };
    locked(true);
    let journal = Journal::new(state_dir);
    let written = in_time(state_dir, move || journal.append(&record));
    locked(false);
    drop(lock);
    if let Err(error) = written.and_then(|written| written) {
        tracing::warn!("{error}");
    }
}
