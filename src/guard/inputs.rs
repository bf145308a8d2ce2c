//! Everything that the judgement depends on.

use ipnet::IpNet;

use super::screen::Environment;
use super::state::GuardState;
use crate::config::GuardConfig;
use crate::ranges::{BadRow, Document, Selection, Selector};
use crate::types::{PerFamily, SyncToken};

/// What the source said in this pass.
#[derive(Debug, Clone)]
pub enum Fetch<'a> {
    /// The bytes of the last known good, or a 304 to its validators.
    Unchanged,
    /// The bytes of the held candidate, or a 304 to its validators.
    SameAsHeld,
    /// Another document.
    Document(&'a Document<'a>),
    /// It answered with something that is no document: not 200 or 304, over `max_bytes`, or
    /// the text of a [`crate::ranges::DocumentError`].
    Rejected(String),
    /// It didn't answer.
    Failed(String),
    /// Nobody asked it: what is in force is looked at as it is.
    NotAsked,
}

/// The document that was last accepted.
#[derive(Debug, Clone)]
pub enum LastGood<'a> {
    /// There never was one, or the state dir is new.
    Absent,
    /// There is one, but it can't be read: damaged, or its digest is wrong. Says why.
    Unreadable(String),
    /// Here it is.
    Document(&'a Document<'a>),
    /// Here is what the selector finds in it. The document may come without its rows where there
    /// is no candidate to compare them with.
    Selected {
        /// The document.
        document: &'a Document<'a>,
        /// Of [`crate::ranges::select_lenient`], under the selector of these inputs.
        selection: &'a Selection,
        /// Of the same.
        bad: &'a [BadRow],
    },
}

/// Everything that the judgement depends on.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// What the source said.
    pub fetch: Fetch<'a>,
    /// The candidate that an earlier pass held, from the cache slot that [`super::Decision`] speaks
    /// of. Needed whatever the fetch said: what it added is in force.
    pub held: Option<&'a Document<'a>>,
    /// The last known good.
    pub last_good: LastGood<'a>,
    /// What the last judgement left, moved along with the wall clock
    /// ([`GuardState::rebase`]).
    pub state: &'a GuardState,
    /// The state file is there but can't be read (`state` is the default then): nothing is
    /// deleted for want of the hold-down entries in it.
    pub state_unreadable: bool,
    /// Wall clock, seconds since the epoch.
    pub now: i64,
    /// `[guard]`
    pub config: &'a GuardConfig,
    /// `[select]`, with regions resolved.
    pub selector: &'a Selector,
    /// `[select] include`
    pub include: &'a [IpNet],
    /// `[select] exclude`
    pub exclude: &'a [IpNet],
    /// What no document may take.
    pub environment: &'a Environment,
    /// `--accept TOKEN`
    pub accept: Option<SyncToken>,
    /// The destinations of our own routes in the bypass table. Looked at only when the last
    /// known good or the state can't be read.
    pub kernel_prefixes: &'a PerFamily<Vec<IpNet>>,
}
