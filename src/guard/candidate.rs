//! The documents of a pass: the last known good, and the candidate for its place.

use super::figures;
use super::inputs::{Fetch, GuardInputs, LastGood};
use super::objections;
use super::outcome::{AcceptError, Whose};
use super::screen::{Rejects, Screen};
use super::verdict::{Level, Verdict};
use crate::ranges::{Document, Groups, Selection, Selector, select, select_lenient};
use crate::types::SyncToken;

/// A document with its selection, before and after the prefix rejects.
pub(super) struct Judged<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) selection: Selection,
    pub(super) groups: Groups,
    pub(super) rejects: Rejects,
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

/// A document with no reason for rejection, newer than the last known good.
pub(super) struct Candidate<'a> {
    pub(super) judged: Judged<'a>,
    pub(super) whose: Whose,
    /// The source has published the document, as of this pass.
    pub(super) confirmed: bool,
}

/// The result of the checks of a whole document.
enum Checked<'a> {
    Candidate(Judged<'a>),
    /// The last known good in other bytes.
    Same,
    Rejected(Verdict),
}

pub(super) fn last_known_good<'a>(
    inputs: &GuardInputs<'a>,
    screen: &Screen,
    verdicts: &mut Vec<Verdict>,
) -> Option<Judged<'a>> {
    // The config may have selected other rows when the document was accepted: a bad row among
    // the rows selected now does not reject the whole document.
    let (document, selection, bad) = match inputs.last_good {
        LastGood::Absent | LastGood::Unreadable(_) => return None,
        LastGood::Document(document) => {
            let (selection, bad) = select_lenient(document, inputs.selector);
            (document, selection, bad)
        }
        LastGood::Selected {
            document,
            selection,
            bad,
        } => (document, selection.clone(), bad.to_vec()),
    };
    if !bad.is_empty() {
        verdicts.push(Verdict::reject(
            "bad-row",
            format!(
                "the last known good has bad rows among the selected rows, left out: {}",
                figures::first_few(&bad)
            ),
        ));
    }
    Some(Judged::new(document, selection, screen))
}

pub(super) fn find_candidate<'a>(
    inputs: &GuardInputs<'a>,
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
                message: format!("{}{}; {}", inputs.origin(), verdict.message, stays()),
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
        Fetch::NotAsked => {}
    }
    // No new candidate. The document held by an earlier pass remains the candidate, so that its
    // additions stay in force.
    match check(inputs.held?, inputs, last, screen) {
        Checked::Candidate(judged) => Some(Candidate {
            judged,
            whose: Whose::Held,
            confirmed,
        }),
        Checked::Same => None,
        Checked::Rejected(verdict) => {
            verdicts.push(Verdict {
                message: format!(
                    "the document that the guard held back is discarded: {}",
                    verdict.message
                ),
                ..verdict
            });
            None
        }
    }
}

fn check<'a>(
    document: &'a Document<'a>,
    inputs: &GuardInputs<'a>,
    last: Option<&Judged<'a>>,
    screen: &Screen,
) -> Checked<'a> {
    let in_force = last.map(|last| last.document);
    if is_same(document, in_force) {
        return Checked::Same;
    }
    if let Some(verdict) = misplaced(document, in_force, inputs.accept) {
        return Checked::Rejected(verdict);
    }
    match usable_selection(document, inputs.selector) {
        Ok(selection) => Checked::Candidate(Judged::new(document, selection, screen)),
        Err(verdict) => Checked::Rejected(verdict),
    }
}

/// True for the document in force itself.
fn is_same(document: &Document<'_>, in_force: Option<&Document<'_>>) -> bool {
    in_force.is_some_and(|in_force| {
        document.sync_token == in_force.sync_token && document.same_rows(in_force)
    })
}

/// The reason to ask the next source: the guard would reject this document, or would hold the
/// document because its sync token lies in the future. `None` for a usable document.
pub fn refusal(
    document: &Document<'_>,
    in_force: Option<&Document<'_>>,
    selector: &Selector,
    accept: Option<SyncToken>,
    now: i64,
) -> Option<String> {
    if is_same(document, in_force) {
        return None;
    }
    let verdict = misplaced(document, in_force, accept)
        .or_else(|| usable_selection(document, selector).err())
        .map(|verdict| verdict.message);
    let future = || {
        let objection = objections::future_token(document.sync_token, now);
        objection.filter(|_| accept != Some(document.sync_token))
    };
    verdict.or_else(|| future().map(|objection| objection.message))
}

/// A token that doesn't follow the one in force. `--accept` is the operator's way out of a token
/// in the future that was accepted by mistake, and of a document altered under its true token.
fn misplaced(
    document: &Document<'_>,
    in_force: Option<&Document<'_>>,
    accept: Option<SyncToken>,
) -> Option<Verdict> {
    let last = in_force.filter(|_| accept != Some(document.sync_token))?;
    let in_force = last.sync_token;
    if document.sync_token < in_force {
        return Some(Verdict::reject(
            "older-token",
            format!(
                "sync token {} is older than the one in force, {}; to accept the older document, run \
                 `trailblazer reconcile --accept {}`",
                figures::token(document.sync_token),
                figures::token(in_force),
                document.sync_token,
            ),
        ));
    }
    (document.sync_token == in_force).then(|| {
        Verdict::reject(
            "same-token",
            format!(
                "sync token {} is the one in force, but with other rows ({} instead of {}): the \
                 document was altered; to accept the altered document, run `trailblazer reconcile \
                 --accept {}`",
                figures::token(in_force),
                document.rows.len(),
                last.rows.len(),
                document.sync_token,
            ),
        )
    })
}

fn usable_selection(document: &Document<'_>, selector: &Selector) -> Result<Selection, Verdict> {
    select(document, selector).map_err(|error| {
        Verdict::reject(
            "bad-row",
            format!(
                "a selected row of {} can't be used: {error}; check the source",
                figures::document(document)
            ),
        )
    })
}

/// True if `--accept` names the candidate, or the document in force.
pub(super) fn check_accept(
    inputs: &GuardInputs<'_>,
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
