//! Facts about the state in force for a restart: the start of the unbroken time in force, and the bypass
//! paths out of use.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::health::{Health, WayId};
use crate::state::StateFile;
use crate::state::diverted;
use crate::state::patience::in_time;
use crate::state::store::Store;
use crate::types::Family;

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

/// The facts of the last process: the last confirmation of its document, the start of the time in force, and
/// the health. None without an answer of the disk.
pub(super) fn before(state_dir: &Path) -> (Option<u64>, Option<i64>, Health) {
    let store = Store::open(state_dir);
    let now = jiff::Timestamp::now().as_second();
    let facts = move || (store.confirmed_at(), read(&store, now), health(&store));
    in_time(state_dir, facts).unwrap_or_default()
}

/// The stored start; `None` without one, and for one in the future.
fn read(store: &Store, now: i64) -> Option<i64> {
    let stored: Stored = store.read_json(StateFile::InForce).ok()?;
    (stored.since <= now).then_some(stored.since)
}

/// Stores the families whose bypass path is out of use. Without the file, a restart leads storage traffic to
/// a dead bypass path for the two seconds of the first probes.
pub(super) fn store_diverted(state_dir: &Path, families: BTreeSet<Family>) {
    let store = Store::open(state_dir);
    let written = in_time(state_dir, move || diverted::write(&store, &families));
    if let Ok(Err(error)) = written {
        tracing::debug!("{error}");
    }
}

/// The health as of the last process.
fn health(store: &Store) -> Health {
    let diverted = diverted::read(store).unwrap_or_else(|error| {
        tracing::debug!("{error}");
        BTreeSet::new()
    });
    Health::without(diverted.into_iter().map(WayId::Bypass))
}
