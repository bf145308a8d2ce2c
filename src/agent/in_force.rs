//! The start of the unbroken time in force, for a restart that finds everything in sync.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::state::StateFile;
use crate::state::patience::in_time;
use crate::state::store::Store;

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// In seconds since the epoch.
    since: i64,
}

/// Stores the start, or removes the file. The value is for people: a fault of the disk costs only
/// the value, and a pass reports the fault.
pub(super) fn store(state_dir: &Path, since: Option<i64>) {
    let store = Store::open(state_dir);
    let written = in_time(state_dir, move || match since {
        Some(since) => store.write_json(StateFile::InForce, &Stored { since }),
        None => store.remove_json(StateFile::InForce),
    });
    if let Ok(Err(error)) = written {
        tracing::debug!("{error}");
    }
}

/// The stored start; `None` without one, and for one in the future.
pub(super) fn read(store: &Store, now: i64) -> Option<i64> {
    let stored: Stored = store.read_json(StateFile::InForce).ok()?;
    (stored.since <= now).then_some(stored.since)
}
