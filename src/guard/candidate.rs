//! The documents of a pass: the last known good, and the one that may replace it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::figures;
use super::inputs::{Fetch, Inputs, LastGood};
use super::outcome::{AcceptError, Whose};
use super::screen::{Rejects, Screen};
use super::verdict::{Level, Verdict};
use crate::ranges::{Document, Group, Selection, select, select_lenient};

/// A document with its selection, before and after the prefix rejects.
pub(super) struct Judged<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) selection: Selection,
    pub(super) groups: BTreeMap<Group, Vec<IpNet>>,
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

/// A document that may replace the last known good.
pub(super) struct Candidate<'a> {
    pub(super) judged: Judged<'a>,
    pub(super) whose: Whose,
    /// The source said so in this pass.
    pub(super) confirmed: bool,
}

/// What one document turned out to be.
enum Checked<'a> {
    Candidate(Judged<'a>),
    /// The last known good in other bytes.
    Same,
    Rejected(Verdict),
}

pub(super) fn last_known_good<'a>(
    inputs: &Inputs<'a>,
    screen: &Screen,
    verdicts: &mut Vec<Verdict>,
) -> Option<Judged<'a>> {
    // It was accepted when the config may have selected other rows: what is bad in it now
    // can't unmake it.
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
                "the last known good has bad rows among the selected; they are left out: {}",
                figures::first_few(&bad)
            ),
        ));
    }
    Some(Judged::new(document, selection, screen))
}

pub(super) fn find_candidate<'a>(
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
        Fetch::NotAsked => {}
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
pub(super) fn check_accept(
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
