//! Documents and guard state, as read from the state dir.

use super::memory::{FileId, Memory, Unstored};
use super::{Asking, Mode, Options};
use crate::guard::GuardState;
use crate::notes::Notes;
use crate::ranges::Selector;
use crate::source::Validators;
use crate::state::StateFile;
use crate::state::error::{ReadError, StateFault};
use crate::state::store::{Slot, Store, Stored};
use crate::types::SyncToken;

/// Documents read before the pass has the lock. Each counts only while its file is unchanged.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    held: Option<(FileId, Stored)>,
    last_good: Option<(FileId, Stored)>,
}

impl ReadAhead {
    /// Reads both slots. Errors are left to the pass, which reads such a file again.
    pub fn read(store: &Store) -> ReadAhead {
        let read = |slot| {
            // Before the content: a file put in place meanwhile must not pass for this one.
            let file = FileId::of(&store.path_of(slot))?;
            Some((file, store.read(slot).ok()?))
        };
        ReadAhead {
            held: read(Slot::Held),
            last_good: read(Slot::LastKnownGood),
        }
    }

    /// The validators of the newest document, for a conditional request.
    pub fn validators(&self) -> Option<Validators> {
        self.newest()?.meta().validators.clone()
    }

    fn newest(&self) -> Option<&Stored> {
        let (_, newest) = self.held.as_ref().or(self.last_good.as_ref())?;
        Some(newest)
    }

    /// The token of the newest document.
    pub fn newest_token(&self) -> Option<SyncToken> {
        self.newest()?.meta().sync_token
    }

    /// The token of the last known good, as stored with the document.
    pub fn last_good_token(&self) -> Option<SyncToken> {
        self.last_good.as_ref()?.1.meta().sync_token
    }

    /// The bytes of the last known good.
    pub fn last_good(&self) -> Option<&[u8]> {
        self.last_good.as_ref().map(|(_, stored)| stored.body())
    }

    /// The document with these bytes, if one of the two has them.
    pub fn find(&self, bytes: &[u8]) -> Option<&Stored> {
        let known = self.held.iter().chain(&self.last_good);
        let mut known = known.map(|(_, stored)| stored);
        known.find(|stored| stored.body() == bytes)
    }

    /// The document of a slot, read from the disk only if the file was replaced since.
    fn take(&mut self, slot: Slot, store: &Store) -> Result<Stored, ReadError> {
        let ahead = match slot {
            Slot::Held => self.held.take(),
            Slot::LastKnownGood => self.last_good.take(),
        };
        match ahead {
            Some((file, stored)) if FileId::of(&store.path_of(slot)).as_ref() == Some(&file) => {
                Ok(stored)
            }
            _ => store.read(slot),
        }
    }
}

pub(super) enum LastKnownGood {
    Absent,
    /// Not read: the agent's memory knows the selection of this very file.
    Remembered,
    Unreadable(String),
    Read(Stored),
}

impl LastKnownGood {
    /// The document, if it was read.
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            LastKnownGood::Read(stored) => Some(stored),
            _ => None,
        }
    }
}

/// Documents and guard state of the state dir.
pub(super) struct OnDisk {
    pub last_good: LastKnownGood,
    /// Identity of the last known good's file, taken before reading.
    pub file: Option<FileId>,
    pub held: Option<Stored>,
    pub guard: GuardState,
    /// The held document or the guard state exists but can't be read. The guard then deletes no
    /// route, since the missing record may be the reason for a route.
    pub incomplete: bool,
    /// The failure to read the guard state: writing would destroy a record that may still be
    /// readable later.
    pub unreadable: Option<StateFault>,
    /// A document comes from memory, since an earlier write failed: the state dir lacks it.
    pub unstored: bool,
}

impl OnDisk {
    /// The validators of the newest document.
    pub fn validators(&self) -> Option<&Validators> {
        let newest = self.held.as_ref().or(self.last_good.stored())?;
        newest.meta().validators.as_ref()
    }

    /// Reads the state dir. Returns the content and notes. `memory` is an agent's; with an `answer`
    /// of a source at hand the documents are read all the same, to be compared with the answer.
    ///
    /// # Errors
    /// The guard state can't be read.
    pub fn read(
        store: &Store,
        options: &Options,
        mut ahead: ReadAhead,
        (memory, selector, answered): (Option<&Memory>, &Selector, bool),
    ) -> Result<(OnDisk, Notes), ReadError> {
        let mut notes = Notes::default();
        let mut on_disk = OnDisk {
            last_good: LastKnownGood::Absent,
            file: None,
            held: None,
            guard: GuardState::default(),
            incomplete: false,
            unreadable: None,
            unstored: false,
        };
        if options.asking == Asking::SourceAlone {
            return Ok((on_disk, notes));
        }
        on_disk.file = FileId::of(&store.path_of(Slot::LastKnownGood));
        let unstored = memory.and_then(|memory| memory.unstored(on_disk.file.as_ref()));
        on_disk.unstored = unstored.is_some();
        let remembered = memory.filter(|_| !answered && !on_disk.unstored);
        let remembered = remembered.is_some_and(|memory| {
            holds_nothing(store) && memory.recall(on_disk.file.as_ref(), selector).is_some()
        });
        on_disk.last_good = if let Some(Unstored {
            last_good: Some(document),
            ..
        }) = unstored
        {
            LastKnownGood::Read(document.clone())
        } else if remembered {
            LastKnownGood::Remembered
        } else {
            match ahead.take(Slot::LastKnownGood, store) {
                Ok(stored) => LastKnownGood::Read(stored),
                Err(error) if error.is_absent() => LastKnownGood::Absent,
                Err(error) if is_tolerated(options, &error) => {
                    notes.push(error.to_string());
                    LastKnownGood::Absent
                }
                Err(error) => LastKnownGood::Unreadable(error.to_string()),
            }
        };
        match ahead.take(Slot::Held, store) {
            _ if on_disk.unstored => on_disk.held = unstored.and_then(|it| it.held.clone()),
            Ok(stored) => on_disk.held = Some(stored),
            Err(error) if error.is_absent() => {}
            Err(error) => {
                on_disk.incomplete = !is_tolerated(options, &error);
                notes.push(error.to_string());
            }
        }
        match store.read_json(StateFile::Guard) {
            Ok(state) => on_disk.guard = state,
            Err(error) if error.is_absent() || is_tolerated(options, &error) => {}
            Err(error) if error.is_damaged() => {
                on_disk.incomplete = true;
                notes.push(error.to_string());
            }
            Err(error) if options.mode == Mode::Apply => {
                on_disk.incomplete = true;
                on_disk.unreadable = Some((&error).into());
            }
            Err(error) => return Err(error),
        }
        if let Some(state) = unstored.and_then(|it| it.guard.clone()) {
            on_disk.guard = state;
            on_disk.incomplete = false;
        }
        Ok((on_disk, notes))
    }
}

/// True if there is no held document, not even an unreadable one.
fn holds_nothing(store: &Store) -> bool {
    std::fs::symlink_metadata(store.path_of(Slot::Held))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// A dry run by an unprivileged user goes on without the files that this user may not read.
fn is_tolerated(options: &Options, error: &ReadError) -> bool {
    !options.mode.writes() && error.is_denied()
}

/// Reads a small state file. An absent file is `None`; so are a damaged one, which the next write
/// replaces, and one that a dry run may not read, both with a note.
///
/// # Errors
/// Any other failure to read.
pub(super) fn read_optional<T: serde::de::DeserializeOwned>(
    store: &Store,
    file: StateFile,
    options: &Options,
) -> Result<(Option<T>, Notes), ReadError> {
    match store.read_json(file) {
        Ok(value) => Ok((Some(value), Notes::default())),
        Err(error) if error.is_absent() => Ok((None, Notes::default())),
        Err(error) if error.is_damaged() || is_tolerated(options, &error) => {
            Ok((None, Notes::from(error.to_string())))
        }
        Err(error) => Err(error),
    }
}
