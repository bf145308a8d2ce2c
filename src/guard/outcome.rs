//! The guard's decision.

use super::state::GuardState;
use super::verdict::Verdict;
use crate::degraded::Degradation;
use crate::ranges::RangeSet;
use crate::types::SyncToken;

/// The document of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Fetched,
    Held,
}

/// The fate of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The document becomes the last known good; the slot `held` is emptied.
    Accept(Whose),
    /// The last known good, if any, stays; the slot `held` is emptied.
    Keep,
    /// The last known good stays; the document goes to (or stays in) the slot `held`.
    HoldAll(Whose),
    /// As [`Decision::HoldAll`], with the document's additions already in force.
    HoldWithdrawals(Whose),
}

/// The outcome of a judgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Rejects first, notes last.
    pub verdicts: Vec<Verdict>,
    /// Missing parts of the selection.
    pub degraded: Vec<Degradation>,
    pub decision: Decision,
    /// The prefixes to put in force.
    pub ranges: RangeSet,
    /// To be stored before the documents. After a crash between the two writes, the next
    /// judgement prunes surplus entries; missing entries would delete routes too early.
    pub state: GuardState,
    /// True if any verdict has [`super::Level::Hold`]: exit code 3.
    pub held: bool,
    /// No document is in force, before or after the judgement: exit code 1 unless held. `ranges`
    /// then contains the prefixes found in the kernel, and `include`.
    pub nothing_in_force: bool,
}

/// `--accept` names a token without a matching document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error(
        "--accept {asked}: the candidate's sync token is {offered}; review the candidate with \
         `trailblazer reconcile --dry-run` and accept that token"
    )]
    AnotherCandidate {
        asked: SyncToken,
        offered: SyncToken,
    },
    #[error("--accept {asked}: {reason}")]
    Unusable { asked: SyncToken, reason: String },
    #[error(
        "--accept {asked}: no document waits to be accepted{}; nothing was changed",
        in_force.map_or_else(String::new, |token| format!(" (in force is {token})"))
    )]
    NoCandidate {
        asked: SyncToken,
        in_force: Option<SyncToken>,
    },
}
