//! The pass and the state dir. No fault of the disk holds up a change to the kernel: a lock file,
//! journal or document that cannot be written is a degradation of its own.

use super::documents::Documents;
use super::pass::Pass;
use super::persist::store_documents;
use super::{LOCK_WAIT, Mode, PassError};
use crate::state::error::StateError;
use crate::state::lock::PassLock;

impl Pass<'_> {
    /// Takes the half of the lock that needs no disk.
    ///
    /// # Errors
    /// Another pass holds the lock.
    pub(super) fn exclude_others(&self) -> Result<Option<PassLock>, PassError> {
        let options = self.job.options;
        if !options.mode.writes() {
            return Ok(None);
        }
        let directory = &self.job.config.source.state_dir;
        let lock = PassLock::exclude(directory, options.cause.as_str(), LOCK_WAIT)?;
        Ok(Some(lock))
    }

    /// Takes the other half of the lock. Returns false if the disk is silent: a further access may
    /// never return.
    ///
    /// # Errors
    /// Another pass holds the lock, or the pass is for the state dir alone.
    pub(super) fn lock_state_dir(
        &mut self,
        lock: Option<&mut PassLock>,
    ) -> Result<bool, PassError> {
        let Some(lock) = lock else {
            return Ok(true);
        };
        lock.lock_file(LOCK_WAIT)?;
        self.report.notes.extend(lock.warning().map(str::to_owned));
        let failure = lock.failure();
        let silent = failure.is_some_and(StateError::is_silent);
        self.locked = !silent;
        match failure {
            Some(failure) if self.job.options.mode.documents_only() => {
                Err(PassError::NoStateDir(failure.to_string()))
            }
            Some(failure) => {
                self.degrade_state(failure);
                Ok(!silent)
            }
            None => Ok(true),
        }
    }

    /// Stores the documents. Returns false if the record of withdrawn prefixes is not on disk.
    ///
    /// # Errors
    /// The disk refuses, and the pass is for the state dir alone.
    pub(super) fn persist(&mut self, documents: &Documents) -> Result<bool, PassError> {
        if let Some(unreadable) = &documents.on_disk.unreadable {
            self.degrade_state(unreadable);
            return Ok(false);
        }
        if !self.job.options.mode.writes() {
            return Ok(true);
        }
        let stored = store_documents(&self.store, documents).map(|notes| self.note(notes));
        self.tolerate(stored)
    }

    /// Notes a failure to write, except where the files are the purpose. Returns true without one.
    pub(super) fn tolerate(&mut self, written: Result<(), StateError>) -> Result<bool, PassError> {
        match written {
            Ok(()) => Ok(true),
            Err(error) if self.job.options.mode == Mode::Apply => {
                self.degrade_state(&error);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn degrade_state(&mut self, fault: &dyn std::fmt::Display) {
        self.report.degrade_state(fault);
    }
}
