//! The last known good document, the held document, and the small state files.

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
    LastKnownGood,
    /// A newer document, waiting for the operator or for `accept_after`.
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

/// The origin of a stored document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The source as configured, without credentials.
    pub url: String,
    /// For the next conditional request.
    pub validators: Option<Validators>,
    /// The last fetch of the document, in seconds since the epoch.
    pub fetched_at: u64,
    /// `None` in files from before the first parse.
    pub sync_token: Option<SyncToken>,
}

/// A stored document with the right digest.
#[derive(Debug, Clone)]
pub struct Stored(Sound<Meta>);

impl Stored {
    /// A document that is not on disk.
    pub fn in_memory(meta: Meta, body: Vec<u8>) -> Stored {
        Stored(Sound::in_memory(meta, body))
    }

    /// The document's origin.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// The document, byte for byte as fetched.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }
}

/// The least time between two stored confirmations, in seconds: readers count the age in hours.
const CONFIRMED_EVERY: u64 = 60;

#[derive(Serialize, Deserialize)]
struct Confirmed {
    /// In seconds since the epoch.
    at: u64,
}

/// The state directory.
///
/// A read never creates anything, not even the directory: a dry run leaves no trace. Writers of the
/// same file need the pass lock, since a write removes the other's temporary file.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    sync: bool,
}

impl Store {
    /// Names the directory; the first write creates a missing directory.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Store {
            directory: directory.into(),
            sync: true,
        }
    }

    /// With `false`, writes do not wait for the disk. For benchmarks only: without the wait, a power cut can
    /// leave an empty file in place of the last known good.
    pub fn with_sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a slot, for messages.
    pub fn path_of(&self, slot: Slot) -> PathBuf {
        self.directory.join(slot.file().name())
    }

    /// Creates a missing directory, with mode 0750.
    ///
    /// # Errors
    /// [`WriteError`] if the creation fails.
    pub fn create_directory(&self) -> Result<(), WriteError> {
        file::create_directory(&self.directory, self.sync).map(drop)
    }

    /// Reads a document and checks length and digest.
    ///
    /// # Errors
    /// [`ReadError`], which distinguishes absent, unreadable and damaged files.
    pub fn read(&self, slot: Slot) -> Result<Stored, ReadError> {
        file::read(&self.directory, slot.file()).map(Stored)
    }

    /// Replaces a document as a whole.
    ///
    /// # Errors
    /// [`WriteError`]; the old document then stays.
    pub fn write(&self, slot: Slot, meta: &Meta, body: &[u8]) -> Result<(), WriteError> {
        file::write(&self.directory, slot.file(), meta, body, self.sync)
    }

    /// Removes a document; a missing document is a success.
    ///
    /// # Errors
    /// [`WriteError`] if the document stays.
    pub fn remove(&self, slot: Slot) -> Result<(), WriteError> {
        file::remove(&self.directory, slot.file(), self.sync)
    }

    /// Reads a small state file such as `guard.json` and checks the digest.
    ///
    /// # Errors
    /// As [`Store::read`]; content of another type than `T` counts as damaged.
    pub fn read_json<T: DeserializeOwned>(&self, file: StateFile) -> Result<T, ReadError> {
        file::read::<T>(&self.directory, file).map(|sound| sound.meta)
    }

    /// Replaces a small state file as a whole.
    ///
    /// # Errors
    /// [`WriteError`]; the old file then stays.
    pub fn write_json<T: Serialize>(&self, file: StateFile, value: &T) -> Result<(), WriteError> {
        file::write(&self.directory, file, value, b"", self.sync)
    }

    /// The last time at which a source confirmed the last known good as its newest document, in
    /// seconds since the epoch; `None` if never stored or unreadable.
    pub fn confirmed_at(&self) -> Option<u64> {
        let confirmed: Confirmed = self.read_json(StateFile::Confirmed).ok()?;
        Some(confirmed.at)
    }

    /// Stores a confirmation of the last known good at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// [`WriteError`]; the old time then stays.
    pub fn confirm(&self, now: u64) -> Result<(), WriteError> {
        // After a clock was set back, the old time is worthless.
        let known = self.confirmed_at().filter(|at| *at <= now);
        match known {
            Some(at) if now - at < CONFIRMED_EVERY => Ok(()),
            _ => self.write_json(StateFile::Confirmed, &Confirmed { at: now }),
        }
    }

    /// Removes a small state file; a missing file is a success.
    ///
    /// # Errors
    /// [`WriteError`] if the file stays.
    pub fn remove_json(&self, file: StateFile) -> Result<(), WriteError> {
        file::remove(&self.directory, file, self.sync)
    }
}

#[cfg(test)]
mod tests;
