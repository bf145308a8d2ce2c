//! What the guard decides.

use super::state::GuardState;
use super::verdict::Verdict;
use crate::ranges::RangeSet;
use crate::types::SyncToken;

/// Which document a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The one of [`super::Fetch::Document`].
    Fetched,
    /// [`super::Inputs::held`].
    Held,
}

/// What becomes of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It becomes the last known good; the slot `held` is emptied.
    Accept(Whose),
    /// The last known good stays, if there is one; the slot `held` is emptied.
    Keep,
    /// The last known good stays; the document goes to (or stays in) the slot `held`.
    HoldAll(Whose),
    /// As [`Decision::HoldAll`], but what the document adds is in force already.
    HoldWithdrawals(Whose),
}

/// The outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Everything there is to say, rejects first.
    pub verdicts: Vec<Verdict>,
    /// What becomes of the documents.
    pub decision: Decision,
    /// The prefixes to put in force.
    pub ranges: RangeSet,
    /// To be persisted before the documents: after a crash between the two, entries too many
    /// are pruned by the next judgement, while entries too few would be routes deleted early.
    pub state: GuardState,
    /// Any verdict is a hold: exit code 3.
    pub held: bool,
    /// No document is in force, before or after this: exit code 1 unless held. `ranges` then
    /// holds what the kernel has already, and `include`.
    pub nothing_in_force: bool,
}

/// `--accept` names a token that isn't there to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The source says something newer than what the operator looked at.
    #[error(
        "--accept {asked}: the candidate's sync token is {offered}; look at that one with \
         `trailblazer reconcile --dry-run` and accept it by its own token"
    )]
    AnotherCandidate {
        /// The operator's token.
        asked: SyncToken,
        /// The candidate's.
        offered: SyncToken,
    },
    /// It is there, but can't be used whatever the operator says.
    #[error("--accept {asked}: {reason}")]
    Unusable {
        /// The operator's token.
        asked: SyncToken,
        /// Why.
        reason: String,
    },
    /// Nothing waits.
    #[error(
        "--accept {asked}: no document waits to be accepted{}; nothing was changed",
        in_force.map_or_else(String::new, |token| format!(" (in force is {token})"))
    )]
    NoCandidate {
        /// The operator's token.
        asked: SyncToken,
        /// The last known good's.
        in_force: Option<SyncToken>,
    },
}
