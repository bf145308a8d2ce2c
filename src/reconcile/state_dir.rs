//! The pass and the state dir. No fault of the disk holds up a change to the kernel: a lock file,
//! journal or document that cannot be written is a degradation of its own.

use std::time::Duration;

use super::documents::Documents;
use super::pass::Pass;
use super::persist::store_documents;
use super::{FILE_WAIT, LOCK_WAIT, Mode, PassError};
use crate::apply::Interposer;
use crate::kernel::Kernel;
use crate::state::error::{StateError, StateFault};
use crate::state::lock::{LockError, PassLock};
use crate::state::patience::exists_in_time;

impl Pass<'_> {
    /// Takes the half of the lock that needs no disk.
    ///
    /// # Errors
    /// Another pass holds the lock.
    pub(super) fn exclude_others(&self) -> Result<Option<PassLock>, LockError> {
        let options = self.job.options;
        if !options.mode.writes() {
            return Ok(None);
        }
        let directory = &self.job.config.source.state_dir;
        PassLock::exclude(directory, options.cause.as_str(), LOCK_WAIT).map(Some)
    }

    /// Takes the other half of the lock. Returns false if the disk is silent: a further access may
    /// never return. A file in other hands is a fault of the state dir, since no other pass changes
    /// this kernel.
    ///
    /// # Errors
    /// Another pass holds the lock, or the pass is for the state dir alone.
    pub(super) fn lock_state_dir(
        &mut self,
        lock: Option<&mut PassLock>,
        kernel: &mut Kernel,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<bool, PassError> {
        let Some(lock) = lock else {
            return Ok(self.state_dir_answers());
        };
        if self.job.options.mode.documents_only() || !lock.excludes() {
            lock.lock_file(LOCK_WAIT)?;
        } else if lock.lock_file(Duration::ZERO).is_err() {
            self.egress_alone(kernel, interposer)?;
            if let Err(held) = lock.lock_file(FILE_WAIT) {
                self.degrade_state(StateFault {
                    reason: held.to_string(),
                    advice: "",
                });
                return Ok(true);
            }
        }
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

    /// Returns false if the disk is silent, which is degraded.
    pub(super) fn state_dir_answers(&mut self) -> bool {
        let silent = exists_in_time(&self.job.config.source.state_dir).err();
        if let Some(error) = &silent {
            self.degrade_state(error);
        }
        silent.is_none()
    }

    /// Stores the documents. Returns false if the record of withdrawn prefixes is not on disk.
    ///
    /// # Errors
    /// The disk refuses, and the pass is for the state dir alone.
    pub(super) fn persist(&mut self, documents: &Documents) -> Result<bool, PassError> {
        let stored = if let Some(unreadable) = &documents.on_disk.unreadable {
            self.degrade_state(unreadable.clone());
            false
        } else if self.writes_state() {
            let stored = store_documents(&self.store, documents).map(|notes| self.note(notes));
            self.tolerate(stored)?
        } else {
            !self.job.options.mode.writes()
        };
        if let Some(memory) = &mut self.memory {
            memory.keep_unstored(if stored { None } else { documents.unstored() });
        }
        Ok(stored)
    }

    /// True if the pass may write to the state dir.
    pub(super) fn writes_state(&self) -> bool {
        self.job.options.mode.writes() && self.locked
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

    pub(super) fn degrade_state(&mut self, fault: impl Into<StateFault>) {
        self.report.degrade_state(fault);
    }
}
