//! State files that a pass writes.

use std::borrow::Cow;

use super::Options;
use super::documents::{Answer, Documents};
use super::memory::Unstored;
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
use crate::state::store::{Meta, Slot, Store, Stored};

/// Stores the result of the guard. Returns notes about failures without consequences.
///
/// The state of the guard comes first: after a crash between the two writes the next judgement
/// prunes surplus entries, while missing ones would delete routes too early.
pub(super) fn store_documents(store: &Store, documents: &Documents) -> Result<Notes, StateError> {
    let mut notes = Notes::default();
    store.create_directory()?;
    let (state, before) = (&documents.judgement.state, &documents.on_disk.guard);
    if documents.on_disk.unstored || state.differs_from(before) {
        store.write_json(StateFile::Guard, state)?;
    } else if state.needs_new_anchor(before)
        && let Err(error) = store.write_json(StateFile::Guard, state)
    {
        // A reboot now would cost the guard some minutes of its clock, no more.
        notes.push(error.to_string());
    }
    if let Some((meta, body)) = documents.next_last_good() {
        store.write(Slot::LastKnownGood, &meta, body)?;
    }
    let on_disk = &documents.on_disk;
    match documents.next_held() {
        Some((meta, body)) => store.write(Slot::Held, &meta, body)?,
        None if on_disk.held.is_none() && !on_disk.unstored => {}
        None if documents.holds() => {}
        None => store.remove(Slot::Held)?,
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

/// A document, and a description for the state dir.
type Described<'d> = (Cow<'d, Meta>, &'d [u8]);

fn described(stored: &Stored) -> Described<'_> {
    (Cow::Borrowed(stored.meta()), stored.body())
}

fn in_memory((meta, body): Described<'_>) -> Stored {
    Stored::in_memory(meta.into_owned(), body.to_vec())
}

impl Documents {
    /// The copy for memory of documents that the state dir has refused.
    pub(super) fn unstored(&self) -> Option<Unstored> {
        let last_good = self.next_last_good();
        let held = self.next_held();
        if last_good.is_none() && held.is_none() {
            return None;
        }
        let before = self.on_disk.held.as_ref().filter(|_| self.holds());
        Some(Unstored {
            file: self.on_disk.file.clone(),
            last_good: last_good.map(in_memory),
            held: held.map(in_memory).or_else(|| before.cloned()),
            guard: (self.on_disk.unreadable.is_none()).then(|| self.judgement.state.clone()),
        })
    }

    /// True if a document waits after the judgement.
    fn holds(&self) -> bool {
        let decision = self.judgement.decision;
        matches!(
            decision,
            Decision::HoldAll(_) | Decision::HoldWithdrawals(_)
        )
    }

    fn fetched(&self) -> Option<Described<'_>> {
        match &self.answer {
            Answer::Document(meta, bytes) => Some((Cow::Borrowed(meta), bytes)),
            _ => None,
        }
    }

    /// The last known good after the judgement. `None` if the state dir has the document.
    fn next_last_good(&self) -> Option<Described<'_>> {
        let on_disk = &self.on_disk;
        let last_good = on_disk.last_good.stored();
        match (self.judgement.decision, &self.answer) {
            (Decision::Accept(Whose::Fetched), _) => self.fetched(),
            (Decision::Accept(Whose::Held), _) => on_disk.held.as_ref().map(described),
            (Decision::Keep, Answer::Unchanged(Some(meta))) => {
                let stored = last_good?;
                let meta = Meta {
                    sync_token: stored.meta().sync_token,
                    ..meta.clone()
                };
                Some((Cow::Owned(meta), stored.body()))
            }
            _ => last_good.filter(|_| on_disk.unstored).map(described),
        }
    }

    /// The held document after the judgement. `None` if there is none, or if the state dir has the
    /// document.
    fn next_held(&self) -> Option<Described<'_>> {
        let on_disk = &self.on_disk;
        match self.judgement.decision {
            Decision::HoldAll(Whose::Fetched) | Decision::HoldWithdrawals(Whose::Fetched) => {
                self.fetched()
            }
            Decision::HoldAll(Whose::Held) | Decision::HoldWithdrawals(Whose::Held) => {
                let held = on_disk.held.as_ref();
                held.filter(|_| on_disk.unstored).map(described)
            }
            Decision::Accept(_) | Decision::Keep => None,
        }
    }
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
