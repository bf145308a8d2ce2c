//! The guard's inputs.

use ipnet::IpNet;

use super::screen::Environment;
use super::state::GuardState;
use crate::config::GuardConfig;
use crate::ranges::{BadRow, Document, Group, Groups, Selection, Selector};
use crate::types::{PerFamily, SyncToken};

/// The outcome of this pass's fetch.
#[derive(Debug, Clone)]
pub enum Fetch<'a> {
    /// The bytes of the last known good, or a 304 to its validators.
    Unchanged,
    /// The bytes of the held candidate, or a 304 to its validators.
    SameAsHeld,
    Document(&'a Document<'a>),
    /// The source answered without a document: a status other than 200 or 304, an answer over
    /// `max_bytes`, or a [`crate::ranges::DocumentError`].
    Rejected(String),
    Failed(String),
    /// No fetch: the pass uses the document in force.
    NotAsked,
}

/// The last accepted document.
#[derive(Debug, Clone)]
pub enum LastGood<'a> {
    /// No document was ever accepted, or the state dir is new.
    Absent,
    /// Damaged, or without permission to read; with the reason.
    Unreadable(String),
    Document(&'a Document<'a>),
    /// The selection alone. The document may lack its rows if there is no candidate to compare
    /// the rows with.
    Selected {
        document: &'a Document<'a>,
        /// Both from [`crate::ranges::select_lenient`], under the selector of these inputs.
        selection: &'a Selection,
        bad: &'a [BadRow],
    },
}

/// The guard's inputs: a judgement depends on nothing else.
#[derive(Debug, Clone)]
pub struct GuardInputs<'a> {
    pub fetch: Fetch<'a>,
    /// The source of the fetched document, else of the held one, for messages.
    pub source: Option<&'a str>,
    /// The document held by an earlier pass. Needed whatever the outcome of the fetch: the
    /// document's additions are in force.
    pub held: Option<&'a Document<'a>>,
    pub last_good: LastGood<'a>,
    /// The memory of the last judgement, corrected for changes of the wall clock
    /// ([`GuardState::rebase`]).
    pub state: &'a GuardState,
    /// The state file exists but can't be read (`state` is then the default): no route is deleted
    /// only because the hold-down entries are missing.
    pub state_unreadable: bool,
    /// Wall clock, seconds since the epoch: the same reading as in `state`
    /// ([`GuardState::present`]).
    pub now: i64,
    pub config: &'a GuardConfig,
    pub selector: &'a Selector,
    pub include: &'a [IpNet],
    pub exclude: &'a [IpNet],
    /// Addresses outside the reach of any document.
    pub environment: &'a Environment,
    pub accept: Option<SyncToken>,
    /// The destinations of our own routes in the bypass table. Used only if the last known good
    /// or the state can't be read.
    pub kernel_prefixes: &'a PerFamily<Vec<IpNet>>,
}

impl GuardInputs<'_> {
    /// True if the settings of the last judgement selected the group too. A group selected since
    /// was never in force: it has nothing to lose, and no withdrawn prefix keeps a route.
    pub(super) fn was_selected(&self, group: &Group) -> bool {
        let before = self.state.selector.as_ref();
        before.is_none_or(|before| before.wants(group))
    }

    /// The groups that were in force under the settings of the last judgement.
    pub(super) fn known_groups(&self, groups: &Groups) -> Groups {
        let known = groups.iter().filter(|(group, _)| self.was_selected(group));
        known
            .map(|(group, prefixes)| (group.clone(), prefixes.clone()))
            .collect()
    }

    /// The source of the candidate at the start of a message.
    pub(super) fn origin(&self) -> String {
        self.source
            .map_or_else(String::new, |source| format!("{source}: "))
    }
}
