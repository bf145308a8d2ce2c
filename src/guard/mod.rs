//! Judges data from outside before it reaches the kernel. Pure.
//!
//! A document is measured against the last known good, per (service, region, family), in
//! addresses: rows mislead, since Amazon renumbers blocks without losing one. Each
//! verdict says *reject* (ignored), *hold* (waits for the operator or for `accept_after`) or
//! *note*.
//!
//! ```text
//!  fetch, held candidate ─▶ document rejects ─▶ prefix rejects ─▶ holds ─▶ decision
//!  last known good ───────────────────────────▶ prefix rejects ─┘            │
//!  hold-down, include, exclude, kernel ──────────────────────────────▶ RangeSet in force
//! ```

mod figures;
mod holds;
mod keep;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::GuardConfig;
use crate::ranges::{
    Document, Group, Origin, PrefixSet, RangeSet, Selection, Selector, bad_rows_outside, select,
    select_lenient,
};
use crate::types::{PerFamily, SyncToken};
use holds::{Finding, Scope};
use screen::{Rejects, Screen};

pub use screen::Environment;
pub use state::{GuardState, Hold, HoldDown, Kept};
pub use verdict::{Level, Verdict};

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
}

/// Everything that the judgement depends on.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// What the source said.
    pub fetch: Fetch<'a>,
    /// The candidate that an earlier pass held, from the cache slot that [`Decision`] speaks
    /// of. Needed whatever the fetch said: what it added is in force.
    pub held: Option<&'a Document<'a>>,
    /// The last known good.
    pub last_good: LastGood<'a>,
    /// What the last judgement left.
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

/// Which document a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The one of [`Fetch::Document`].
    Fetched,
    /// [`Inputs::held`].
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

/// A document with its selection, before and after the prefix rejects.
struct Judged<'a> {
    document: &'a Document<'a>,
    selection: Selection,
    groups: BTreeMap<Group, Vec<IpNet>>,
    rejects: Rejects,
}

impl<'a> Judged<'a> {
    fn new(document: &'a Document<'a>, selection: Selection, screen: &Screen) -> Self {
        let mut rejects = Rejects::default();
        let groups = screen.apply_groups(&selection.groups, &mut rejects);
        Judged {
            document,
            selection,
            groups,
            rejects,
        }
    }
}

/// A document that may replace the last known good.
struct Candidate<'a> {
    judged: Judged<'a>,
    whose: Whose,
    /// The source said so in this pass.
    confirmed: bool,
}

/// What one document turned out to be.
enum Checked<'a> {
    Candidate(Judged<'a>),
    /// The last known good in other bytes.
    Same,
    Rejected(Verdict),
}

/// Judges what the source said and computes the prefixes to put in force.
///
/// # Errors
/// `--accept` with a token that isn't the candidate's. Nothing may be changed then.
pub fn judge(inputs: &Inputs<'_>) -> Result<Judgement, AcceptError> {
    let screen = Screen::new(inputs.environment);
    let mut verdicts = Vec::new();
    let last = last_known_good(inputs, &screen, &mut verdicts);
    let candidate = find_candidate(inputs, last.as_ref(), &screen, &mut verdicts);
    let accepted = check_accept(inputs, candidate.as_ref(), last.as_ref(), &verdicts)?;
    let (decision, hold) = decide(
        inputs,
        candidate.as_ref(),
        last.as_ref(),
        accepted,
        &mut verdicts,
    );
    if let Some(candidate) = &candidate
        && candidate.whose == Whose::Fetched
    {
        note_bad_rows_outside(inputs, candidate.judged.document, &mut verdicts);
    }
    let hints = candidate
        .as_ref()
        .map(|candidate| &candidate.judged)
        .or(last.as_ref())
        .map(|judged| judged.selection.hints.clone());
    for hint in hints.into_iter().flatten() {
        verdicts.push(Verdict::note("selection", hint.to_string()));
    }

    let listed_before = keep::in_force_before(inputs, decision, last.as_ref(), &screen);
    let mut rejects = Rejects::default();
    let (document, mut origins) = in_force(decision, candidate, last, &mut rejects);
    let kept = keep::keep(
        inputs,
        &screen,
        accepted,
        keep::Listed {
            before: &listed_before,
            now: &mut origins,
            document_in_force: document.is_some(),
        },
        &mut rejects,
        &mut verdicts,
    );
    if !inputs.include.is_empty() {
        origins.insert(Origin::Include, inputs.include.to_vec());
    }
    let ranges = RangeSet::build(
        document.map(|document| document.sync_token),
        document.map_or_else(String::new, |document| {
            document.create_date.clone().into_owned()
        }),
        origins,
        inputs.exclude,
    );
    if decision == Decision::Keep {
        note_too_many(inputs, &ranges, &mut verdicts);
    }
    verdicts.append(&mut rejects.into_verdicts());
    verdicts.sort_by_key(|verdict| verdict.level);
    Ok(Judgement {
        decision,
        held: verdicts.iter().any(|verdict| verdict.level == Level::Hold),
        nothing_in_force: document.is_none(),
        verdicts,
        ranges,
        state: GuardState {
            hold,
            hold_down: kept,
        },
    })
}

fn last_known_good<'a>(
    inputs: &Inputs<'a>,
    screen: &Screen,
    verdicts: &mut Vec<Verdict>,
) -> Option<Judged<'a>> {
    let LastGood::Document(document) = inputs.last_good else {
        return None;
    };
    // It was accepted when the config may have selected other rows: what is bad in it now
    // can't unmake it.
    let (selection, bad) = select_lenient(document, inputs.selector);
    if !bad.is_empty() {
        verdicts.push(Verdict::reject(
            "bad-row",
            format!(
                "the last known good has bad rows among the selected; they are left out: {}",
                figures::first_few(&bad)
            ),
        ));
    }
    Some(Judged::new(document, selection, screen))
}

fn find_candidate<'a>(
    inputs: &Inputs<'a>,
    last: Option<&Judged<'a>>,
    screen: &Screen,
    verdicts: &mut Vec<Verdict>,
) -> Option<Candidate<'a>> {
    let stays = || match last {
        Some(last) => format!("{} stays in force", figures::document(last.document)),
        None => "no document is in force".to_owned(),
    };
    let mut confirmed = false;
    match &inputs.fetch {
        Fetch::Unchanged => return None,
        Fetch::SameAsHeld => confirmed = true,
        Fetch::Document(document) => match check(document, inputs, last, screen) {
            Checked::Candidate(judged) => {
                return Some(Candidate {
                    judged,
                    whose: Whose::Fetched,
                    confirmed: true,
                });
            }
            Checked::Same => return None,
            Checked::Rejected(verdict) => verdicts.push(Verdict {
                message: format!("{}; {}", verdict.message, stays()),
                ..verdict
            }),
        },
        Fetch::Rejected(reason) => {
            verdicts.push(Verdict::reject(
                "document",
                format!("{reason}; {}", stays()),
            ));
        }
        Fetch::Failed(reason) => {
            verdicts.push(Verdict::note("source", format!("{reason}; {}", stays())));
        }
    }
    // Nothing new that counts. What an earlier pass held still does, so that its additions
    // stay in force.
    match check(inputs.held?, inputs, last, screen) {
        Checked::Candidate(judged) => Some(Candidate {
            judged,
            whose: Whose::Held,
            confirmed,
        }),
        Checked::Same => None,
        Checked::Rejected(verdict) => {
            verdicts.push(Verdict {
                message: format!("the document held so far is dropped: {}", verdict.message),
                ..verdict
            });
            None
        }
    }
}

fn check<'a>(
    document: &'a Document<'a>,
    inputs: &Inputs<'a>,
    last: Option<&Judged<'a>>,
    screen: &Screen,
) -> Checked<'a> {
    // The operator's word is the way back from a bad token in the future, and from a document
    // that was altered under its true token.
    let meant = inputs.accept == Some(document.sync_token);
    if let Some(last) = last {
        let in_force = last.document.sync_token;
        if document.sync_token < in_force && !meant {
            return Checked::Rejected(Verdict::reject(
                "older-token",
                format!(
                    "sync token {} is older than the one in force, {}; if it is the true one, \
                     `trailblazer reconcile --accept {}`",
                    figures::token(document.sync_token),
                    figures::token(in_force),
                    document.sync_token,
                ),
            ));
        }
        if document.sync_token == in_force {
            if document.same_rows(last.document) {
                return Checked::Same;
            }
            if !meant {
                return Checked::Rejected(Verdict::reject(
                    "same-token",
                    format!(
                        "sync token {} is the one in force, but with other rows ({} instead of \
                         {}): somebody altered the document; if this is the true one, \
                         `trailblazer reconcile --accept {}`",
                        figures::token(in_force),
                        document.rows.len(),
                        last.document.rows.len(),
                        document.sync_token,
                    ),
                ));
            }
        }
    }
    match select(document, inputs.selector) {
        Ok(selection) => Checked::Candidate(Judged::new(document, selection, screen)),
        Err(error) => Checked::Rejected(Verdict::reject(
            "bad-row",
            format!(
                "a selected row of {} can't be used: {error}; check the source",
                figures::document(document)
            ),
        )),
    }
}

/// Whether the operator accepted something: the candidate, or what is in force anyway.
fn check_accept(
    inputs: &Inputs<'_>,
    candidate: Option<&Candidate<'_>>,
    last: Option<&Judged<'_>>,
    verdicts: &[Verdict],
) -> Result<bool, AcceptError> {
    let Some(asked) = inputs.accept else {
        return Ok(false);
    };
    let in_force = last.map(|last| last.document.sync_token);
    let offered = match (candidate, &inputs.fetch) {
        (Some(candidate), _) => candidate.judged.document.sync_token,
        _ if in_force == Some(asked) => return Ok(true),
        (None, Fetch::Document(document)) if Some(document.sync_token) != in_force => {
            document.sync_token
        }
        (None, _) => return Err(AcceptError::NoCandidate { asked, in_force }),
    };
    if offered != asked {
        return Err(AcceptError::AnotherCandidate { asked, offered });
    }
    if candidate.is_some() {
        return Ok(true);
    }
    let reject = verdicts
        .iter()
        .find(|verdict| verdict.level == Level::Reject);
    Err(AcceptError::Unusable {
        asked,
        reason: reject.map_or_else(String::new, |verdict| verdict.message.clone()),
    })
}

fn decide(
    inputs: &Inputs<'_>,
    candidate: Option<&Candidate<'_>>,
    last: Option<&Judged<'_>>,
    accepted: bool,
    verdicts: &mut Vec<Verdict>,
) -> (Decision, Option<Hold>) {
    let Some(candidate) = candidate else {
        return (Decision::Keep, None);
    };
    let judged = &candidate.judged;
    let found = holds::findings(
        judged.document,
        &judged.groups,
        last.map(|last| &last.groups),
        inputs.config,
        inputs.now,
    );
    if found.is_empty() {
        return (Decision::Accept(candidate.whose), None);
    }
    let hold = hold(inputs, candidate, &found);
    let name = figures::document(judged.document);
    let ends = state::later(hold.since, inputs.config.accept_after);
    let by_itself = candidate.confirmed && ends <= inputs.now;
    if accepted || by_itself {
        let why = if accepted {
            "the operator accepted it".to_owned()
        } else {
            let since = figures::time(hold.since);
            format!("every fetch has said the same since {since} (`[guard] accept_after`)")
        };
        for finding in found {
            let message = format!("{name} goes in: {why}, although {}", finding.message);
            verdicts.push(Verdict::note(finding.guard, message));
        }
        return (Decision::Accept(candidate.whose), None);
    }
    let way_out = format!(
        "accept it with `trailblazer reconcile --accept {}`, or it goes in after {} if every \
         fetch says the same until then",
        judged.document.sync_token,
        figures::time(ends),
    );
    for finding in &found {
        let what = match (finding.scope, last) {
            (Scope::Withdrawals, _) => {
                format!("the withdrawals of {name} are held, its additions go in")
            }
            (Scope::Everything, Some(last)) => format!(
                "{name} is held, {} stays in force",
                figures::document(last.document)
            ),
            (Scope::Everything, None) => format!("{name} is held, no document is in force"),
        };
        verdicts.push(Verdict::hold(
            finding.guard,
            format!("{}; {what}; {way_out}", finding.message),
        ));
    }
    let decision = if hold.additions_in_force {
        Decision::HoldWithdrawals(candidate.whose)
    } else {
        Decision::HoldAll(candidate.whose)
    };
    (decision, Some(hold))
}

/// The hold to remember. Its clock goes on if the candidate says the same as before.
fn hold(inputs: &Inputs<'_>, candidate: &Candidate<'_>, found: &[Finding]) -> Hold {
    let digest = state::digest(&candidate.judged.selection);
    let before = inputs
        .state
        .hold
        .as_ref()
        .filter(|before| before.digest == digest);
    let seen = if candidate.confirmed {
        inputs.now
    } else {
        before.map_or(inputs.now, |before| before.last_seen)
    };
    let mut guards: Vec<String> = found.iter().map(|found| found.guard.to_owned()).collect();
    guards.sort();
    guards.dedup();
    Hold {
        // A clock that was set back must not lengthen the hold.
        since: before.map_or(inputs.now, |before| before.since.min(inputs.now)),
        last_seen: seen,
        digest,
        token: Some(candidate.judged.document.sync_token),
        guards,
        additions_in_force: found.iter().all(|found| found.scope == Scope::Withdrawals),
    }
}

/// A changed config applies at once, even beyond its own bound; the next document won't.
fn note_too_many(inputs: &Inputs<'_>, ranges: &RangeSet, verdicts: &mut Vec<Verdict>) {
    let aggregated = ranges.aggregated();
    let count = aggregated.ipv4 + aggregated.ipv6;
    if count > inputs.config.max_prefixes {
        verdicts.push(Verdict::note(
            "max-prefixes",
            format!(
                "{} are in force, more than `[guard] max_prefixes` = {}: the next document will \
                 be held; raise that if the selection is meant",
                figures::prefixes(count),
                inputs.config.max_prefixes
            ),
        ));
    }
}

fn note_bad_rows_outside(
    inputs: &Inputs<'_>,
    document: &Document<'_>,
    verdicts: &mut Vec<Verdict>,
) {
    let bad = bad_rows_outside(document, inputs.selector);
    if !bad.is_empty() {
        verdicts.push(Verdict::note(
            "bad-row-outside",
            format!(
                "bad rows outside the selection, ignored ({}): {}",
                bad.len(),
                figures::first_few(&bad)
            ),
        ));
    }
}

type Origins = BTreeMap<Origin, Vec<IpNet>>;

/// The document in force after the decision, and what it puts there.
fn in_force<'a>(
    decision: Decision,
    candidate: Option<Candidate<'a>>,
    last: Option<Judged<'a>>,
    rejects: &mut Rejects,
) -> (Option<&'a Document<'a>>, Origins) {
    let selected = |groups: BTreeMap<Group, Vec<IpNet>>| -> Origins {
        groups
            .into_iter()
            .map(|(group, prefixes)| (Origin::Selected(group), prefixes))
            .collect()
    };
    match (decision, candidate, last) {
        (Decision::Accept(_), Some(candidate), _) => {
            rejects.append(candidate.judged.rejects);
            (
                Some(candidate.judged.document),
                selected(candidate.judged.groups),
            )
        }
        (Decision::HoldWithdrawals(_), Some(candidate), Some(last)) => {
            rejects.append(candidate.judged.rejects);
            rejects.append(last.rejects);
            let listed: PrefixSet = candidate.judged.groups.values().flatten().collect();
            let mut origins = selected(candidate.judged.groups);
            for (group, mut prefixes) in last.groups {
                prefixes.retain(|prefix| !listed.covers(prefix));
                if !prefixes.is_empty() {
                    origins.insert(Origin::Held(group), prefixes);
                }
            }
            (Some(last.document), origins)
        }
        (_, _, Some(last)) => {
            rejects.append(last.rejects);
            (Some(last.document), selected(last.groups))
        }
        (_, _, None) => (None, Origins::new()),
    }
}
