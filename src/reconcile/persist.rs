//! State files that a pass writes.

use super::Options;
use super::documents::{Answer, Documents};
use super::report::FetchOutcome;
use super::sources::SilencesSeen;
use super::stored::read_optional;
use super::view::View;
use crate::clock;
use crate::config::Config;
use crate::guard::{Decision, Whose};
use crate::notes::Notes;
use crate::ownership::{Numbers, Ownership};
use crate::state::StateFile;
use crate::state::error::{ReadError, StateError};
use crate::state::store::{Meta, Slot, Store};

/// Stores the result of the guard. Returns notes about failures without consequences.
///
/// The state of the guard comes first: after a crash between the two writes the next judgement
/// prunes surplus entries, while missing ones would delete routes too early.
pub(super) fn store_documents(store: &Store, documents: &Documents) -> Result<Notes, StateError> {
    let mut notes = Notes::default();
    store.create_directory()?;
    let (state, before) = (&documents.judgement.state, &documents.on_disk.guard);
    if state.differs_from(before) {
        store.write_json(StateFile::Guard, state)?;
    } else if state.needs_new_anchor(before)
        && let Err(error) = store.write_json(StateFile::Guard, state)
    {
        // A reboot now would cost the guard some minutes of its clock, no more.
        notes.push(error.to_string());
    }
    let held = documents.on_disk.held.as_ref();
    let mut forgets_held = held.is_some();
    match documents.judgement.decision {
        Decision::Accept(Whose::Fetched) => {
            if let Answer::Document(meta, bytes) = &documents.answer {
                store.write(Slot::LastKnownGood, meta, bytes)?;
            }
        }
        Decision::Accept(Whose::Held) => {
            if let Some(stored) = held {
                store.write(Slot::LastKnownGood, stored.meta(), stored.body())?;
            }
        }
        Decision::Keep => {
            if let Answer::Unchanged(Some(meta)) = &documents.answer
                && let Some(stored) = documents.on_disk.last_good.stored()
            {
                let meta = Meta {
                    sync_token: stored.meta().sync_token,
                    ..meta.clone()
                };
                store.write(Slot::LastKnownGood, &meta, stored.body())?;
            }
        }
        Decision::HoldAll(Whose::Fetched) | Decision::HoldWithdrawals(Whose::Fetched) => {
            if let Answer::Document(meta, bytes) = &documents.answer {
                store.write(Slot::Held, meta, bytes)?;
            }
            forgets_held = false;
        }
        Decision::HoldAll(Whose::Held) | Decision::HoldWithdrawals(Whose::Held) => {
            forgets_held = false;
        }
    }
    if forgets_held {
        store.remove(Slot::Held)?;
    }
    let is_newest = matches!(
        documents.fetch,
        FetchOutcome::Unchanged | FetchOutcome::Changed
    );
    if is_newest && let Err(error) = store.confirm(clock::unix_seconds()) {
        notes.push(format!(
            "the time of the document's confirmation was not stored: {error}"
        ));
    }
    Ok(notes)
}

/// Stores which sources asked for silence. Returns a note about a failure: the next pass would ask
/// those sources too early, no more.
pub(super) fn store_silences(store: &Store, silences: &SilencesSeen) -> Notes {
    if silences.now == silences.before {
        return Notes::default();
    }
    let stored = store
        .create_directory()
        .and_then(|()| store.write_json(StateFile::Silences, &silences.now));
    let mut notes = Notes::default();
    notes.extend(stored.err().map(|error| error.to_string()));
    notes
}

/// The content of `numbers.json`: the numbers (tables, priorities, protocol) that a later pass must
/// know to find all our objects. Only the holder of the lock writes the file.
#[derive(Debug, Default)]
pub(super) struct StoredNumbers(Option<Vec<Numbers>>);

impl StoredNumbers {
    /// Reads the file. Returns notes.
    pub fn read(&mut self, store: &Store, options: &Options) -> Result<Notes, ReadError> {
        let (stored, notes) = read_optional(store, StateFile::Numbers, options)?;
        self.0 = stored;
        Ok(notes)
    }

    /// Objects are ours by the numbers of the settings and by the stored ones.
    pub fn ownership(&self, config: &Config) -> Ownership {
        Ownership::new(Numbers::of(config), self.0.iter().flatten().copied())
    }

    /// Stores the numbers of the settings and the earlier ones. Once the pass is `done`, earlier
    /// numbers without an object are dropped; a family without a gateway or a document still keeps
    /// objects under old numbers.
    pub fn store(&mut self, store: &Store, view: &View, done: bool) -> Result<(), StateError> {
        let ownership = &view.ownership;
        let mut numbers = vec![ownership.current];
        if done {
            numbers.extend(view.observed.earlier_numbers_in_use(ownership));
        } else {
            numbers.extend(ownership.earlier.iter().copied());
        }
        if self.0.as_ref() != Some(&numbers) {
            store.write_json(StateFile::Numbers, &numbers)?;
            self.0 = Some(numbers);
        }
        Ok(())
    }
}
