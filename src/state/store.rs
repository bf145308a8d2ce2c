//! The last known good document, a document that the guard holds, and the small state files.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StateFile;
use super::file::{self, Sound};
use crate::source::Validators;
use crate::types::SyncToken;

pub use super::error::{ReadError, WriteError};

/// A place for one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The document in force.
    LastKnownGood,
    /// A newer one that the guard holds until the operator or time accepts it.
    Held,
}

impl Slot {
    fn file(self) -> StateFile {
        match self {
            Slot::LastKnownGood => StateFile::LastKnownGood,
            Slot::Held => StateFile::Held,
        }
    }
}

/// Where a stored document came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The source, as configured but without credentials: for the operator's eyes.
    pub url: String,
    /// For the next conditional request.
    pub validators: Option<Validators>,
    /// When a source last gave it, in seconds since the epoch.
    pub fetched_at: u64,
    /// Its `syncToken`, where already parsed.
    pub sync_token: Option<SyncToken>,
}

/// A document as stored, its digest checked.
#[derive(Debug, Clone)]
pub struct Stored(Sound<Meta>);

impl Stored {
    /// Where it came from.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// The document, byte for byte as it was fetched.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }
}

/// A confirmation is written down at most this often, in seconds: an age is read in hours.
const CONFIRMED_EVERY: u64 = 60;

#[derive(Serialize, Deserialize)]
struct Confirmed {
    /// In seconds since the epoch.
    at: u64,
}

/// The state directory.
///
/// Reading never writes, not even the directory: a dry run leaves no trace. Who writes holds the
/// pass lock: a write clears away the temporary files of others, as those of a crashed run.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    sync: bool,
}

impl Store {
    /// Names the directory; it need not exist before the first write.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Store {
            directory: directory.into(),
            sync: true,
        }
    }

    /// Whether writes reach the disk before they return. Off only in benchmarks: without it a
    /// power cut can leave an empty file in place of the last known good.
    pub fn with_sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a slot lies.
    pub fn path_of(&self, slot: Slot) -> PathBuf {
        self.directory.join(slot.file().name())
    }

    /// Creates the directory (0750) where it is missing.
    ///
    /// # Errors
    /// [`WriteError`] when it can't.
    pub fn create_directory(&self) -> Result<(), WriteError> {
        file::create_directory(&self.directory, self.sync).map(drop)
    }

    /// Reads a document, its length and digest checked.
    ///
    /// # Errors
    /// [`ReadError`], which tells "never written" from "cannot be read" from "damaged".
    pub fn read(&self, slot: Slot) -> Result<Stored, ReadError> {
        file::read(&self.directory, slot.file()).map(Stored)
    }

    /// Replaces a document as a whole.
    ///
    /// # Errors
    /// [`WriteError`]; the old document is then as it was.
    pub fn write(&self, slot: Slot, meta: &Meta, body: &[u8]) -> Result<(), WriteError> {
        file::write(&self.directory, slot.file(), meta, body, self.sync)
    }

    /// Removes a document; that it is already gone is a success.
    ///
    /// # Errors
    /// [`WriteError`] when it is there and stays.
    pub fn remove(&self, slot: Slot) -> Result<(), WriteError> {
        file::remove(&self.directory, slot.file(), self.sync)
    }

    /// Reads a small state file such as `guard.json`, its digest checked.
    ///
    /// # Errors
    /// As [`Store::read`]; content that is no `T` counts as damaged.
    pub fn read_json<T: DeserializeOwned>(&self, file: StateFile) -> Result<T, ReadError> {
        file::read::<T>(&self.directory, file).map(|sound| sound.meta)
    }

    /// Replaces a small state file as a whole.
    ///
    /// # Errors
    /// [`WriteError`]; the old file is then as it was.
    pub fn write_json<T: Serialize>(&self, file: StateFile, value: &T) -> Result<(), WriteError> {
        file::write(&self.directory, file, value, b"", self.sync)
    }

    /// When a source last said that the last known good is its newest document, in seconds since
    /// the epoch; `None` where that was never written down or can't be read.
    pub fn confirmed_at(&self) -> Option<u64> {
        let confirmed: Confirmed = self.read_json(StateFile::Confirmed).ok()?;
        Some(confirmed.at)
    }

    /// Writes down that a source says so at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// [`WriteError`]; the old time then stays.
    pub fn confirm(&self, now: u64) -> Result<(), WriteError> {
        // A clock that was set back makes the old time worthless.
        let known = self.confirmed_at().filter(|at| *at <= now);
        match known {
            Some(at) if now - at < CONFIRMED_EVERY => Ok(()),
            _ => self.write_json(StateFile::Confirmed, &Confirmed { at: now }),
        }
    }

    /// Removes a small state file; that it is already gone is a success.
    ///
    /// # Errors
    /// [`WriteError`] when it is there and stays.
    pub fn remove_json(&self, file: StateFile) -> Result<(), WriteError> {
        file::remove(&self.directory, file, self.sync)
    }
}

#[cfg(test)]
mod tests;
