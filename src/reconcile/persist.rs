//! What a pass leaves in the state dir of the documents that it has judged.

use super::documents::Documents;
use super::{Pass, PassError};
use crate::guard::{Decision, Whose};
use crate::state::StateFile;
use crate::state::store::{Meta, Slot, Stored};

impl Pass<'_> {
    /// Stores what the guard decided: its own state first, as its entries are pruned later while
    /// missing ones would be routes deleted too early.
    pub(super) fn keep_documents(&mut self, documents: &Documents) -> Result<(), PassError> {
        self.store.create_directory()?;
        let (state, before) = (&documents.judgement.state, &documents.state_before);
        if state.differs_from(before) {
            self.store.write_json(StateFile::Guard, state)?;
        } else if state.needs_new_anchor(before)
            && let Err(error) = self.store.write_json(StateFile::Guard, state)
        {
            // Costs no more than some minutes of a clock, should the machine boot now.
            self.report.notes.push(error.to_string());
        }
        let fetched = documents.fetched.as_ref();
        let held = documents.held.as_ref();
        match documents.judgement.decision {
            Decision::Accept(Whose::Fetched) => {
                if let Some((meta, bytes)) = fetched {
                    self.store.write(Slot::LastKnownGood, meta, bytes)?;
                }
                self.forget_held(held)?;
            }
            Decision::Accept(Whose::Held) => {
                if let Some(stored) = held {
                    self.store
                        .write(Slot::LastKnownGood, stored.meta(), stored.body())?;
                }
                self.forget_held(held)?;
            }
            Decision::Keep => {
                if let (Some(meta), Some(stored)) = (&documents.revalidated, &documents.last_good) {
                    let token = stored.meta().sync_token;
                    let meta = Meta {
                        sync_token: token,
                        ..meta.clone()
                    };
                    self.store
                        .write(Slot::LastKnownGood, &meta, stored.body())?;
                }
                self.forget_held(held)?;
            }
            Decision::HoldAll(Whose::Fetched) | Decision::HoldWithdrawals(Whose::Fetched) => {
                if let Some((meta, bytes)) = fetched {
                    self.store.write(Slot::Held, meta, bytes)?;
                }
            }
            Decision::HoldAll(Whose::Held) | Decision::HoldWithdrawals(Whose::Held) => {}
        }
        if documents.confirmed
            && let Err(error) = self.store.confirm(super::now())
        {
            self.report.notes.push(format!(
                "that the source confirms the document was not written down: {error}"
            ));
        }
        Ok(())
    }

    fn forget_held(&self, held: Option<&Stored>) -> Result<(), PassError> {
        if held.is_some() {
            self.store.remove(Slot::Held)?;
        }
        Ok(())
    }
}
