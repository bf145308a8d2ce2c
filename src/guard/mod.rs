//! Judges data from outside before it reaches the kernel. Pure.
//!
//! A document is compared with the last known good for each (service, region, family), in
//! addresses: counts of rows mislead, since Amazon renumbers blocks without losing an address.
//! The level of each verdict is *reject* (ignored), *hold* (the document waits for the operator or
//! for `accept_after`) or *note*.
//!
//! ```text
//!  fetch, held candidate ─▶ document rejects ─▶ prefix rejects ─▶ holds ─▶ decision
//!  last known good ───────────────────────────▶ prefix rejects ─┘            │
//!  hold-down, include, exclude, kernel ──────────────────────────────▶ RangeSet in force
//! ```

mod anchor;
mod candidate;
mod changes;
pub mod figures;
mod hold_down;
mod inputs;
mod objections;
mod outcome;
mod screen;
mod selection;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

use crate::ranges::{Document, Groups, Hint, Origin, PrefixSet, RangeSet, bad_rows_outside};
use crate::types::SyncToken;
use candidate::{Candidate, Judged};
use hold_down::Origins;
use objections::{Objection, Scope};
use screen::{Rejects, Screen};

pub use anchor::{Anchor, RENEW_AFTER};
pub use candidate::refusal;
pub use changes::{HeldChange, Share};
pub use inputs::{Fetch, GuardInputs, LastGood};
pub use outcome::{AcceptError, Decision, Judgement, Whose};
pub use screen::Environment;
pub use state::{GuardState, Hold, HoldDown, Kept};
pub use verdict::{Level, Verdict};

/// The name of the guard that reports a service or region missing in the document.
pub const SELECTION: &str = "selection";

/// Judges the outcome of the fetch and computes the prefixes to put in force.
///
/// # Errors
/// `--accept` with another token than the candidate's. The pass must then change nothing.
pub fn judge(inputs: &GuardInputs<'_>) -> Result<Judgement, AcceptError> {
    let screen = Screen::new(inputs.environment, inputs.config);
    let mut verdicts = Vec::new();
    let last = candidate::last_known_good(inputs, &screen, &mut verdicts);
    let candidate = candidate::find_candidate(inputs, last.as_ref(), &screen, &mut verdicts);
    let accepted = candidate::check_accept(inputs, candidate.as_ref(), last.as_ref(), &verdicts)?;
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
    let hints = note_hints(decision, candidate.as_ref(), last.as_ref(), &mut verdicts);

    let listed_before = hold_down::in_force_before(inputs, decision, last.as_ref(), &screen);
    let mut rejects = Rejects::default();
    let (document, mut origins) = in_force(inputs, decision, candidate, last, &mut rejects);
    let kept = hold_down::apply(
        inputs,
        &screen,
        accepted,
        hold_down::Listed {
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
    let degraded = if document.is_some() {
        selection::missing(inputs, &hints, &ranges)
    } else {
        Vec::new()
    };
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
        degraded,
        ranges,
        state: GuardState {
            clock: inputs.state.clock.clone(),
            hold,
            hold_down: kept,
            selector: match document {
                Some(_) => Some(inputs.selector.clone()),
                None => inputs.state.selector.clone(),
            },
        },
    })
}

/// Notes the hints about the newest document. Returns those about the document in force.
fn note_hints(
    decision: Decision,
    candidate: Option<&Candidate<'_>>,
    last: Option<&Judged<'_>>,
    verdicts: &mut Vec<Verdict>,
) -> Vec<Hint> {
    let of = |judged: &Judged<'_>| judged.selection.hints.clone();
    let candidate = candidate.map(|candidate| of(&candidate.judged));
    let last = last.map(of);
    let newest = candidate.clone().or(last.clone()).unwrap_or_default();
    let hints = newest.iter().map(ToString::to_string);
    verdicts.extend(hints.map(|hint| Verdict::note(SELECTION, hint)));
    let keeps = matches!(decision, Decision::Keep | Decision::HoldAll(_));
    last.filter(|_| keeps).unwrap_or(newest)
}

fn decide(
    inputs: &GuardInputs<'_>,
    candidate: Option<&Candidate<'_>>,
    last: Option<&Judged<'_>>,
    accepted: bool,
    verdicts: &mut Vec<Verdict>,
) -> (Decision, Option<Hold>) {
    let Some(candidate) = candidate else {
        return (Decision::Keep, None);
    };
    let judged = &candidate.judged;
    let known = last.map(|last| inputs.known_groups(&last.groups));
    let found = objections::objections(
        inputs,
        judged.document.sync_token,
        &judged.groups,
        known.as_ref(),
    );
    if found.is_empty() {
        return (Decision::Accept(candidate.whose), None);
    }
    let mut hold = hold(inputs, candidate, &found);
    hold.changes = changes::changes(known.as_ref(), &judged.groups, hold.additions_in_force);
    let name = figures::document(judged.document);
    let ends = hold.ends(inputs.config);
    let never = !hold.ends_by_itself();
    let by_itself = candidate.confirmed && !hold.interrupted && ends <= inputs.now && !never;
    if accepted || by_itself {
        let why = if accepted {
            "the operator accepted it".to_owned()
        } else {
            let since = figures::time(hold.since);
            format!("every fetch has selected the same since {since} (`[guard] accept_after`)")
        };
        for objection in found {
            let message = format!("{name} is accepted: {why}, although {}", objection.message);
            verdicts.push(Verdict::note(objection.guard, message));
        }
        return (Decision::Accept(candidate.whose), None);
    }
    let ends = (!never).then_some(ends);
    let way_out = way_out(judged.document.sync_token, ends);
    for objection in &found {
        let what = match (objection.scope, last) {
            (Scope::Withdrawals, _) => {
                format!("the withdrawals of {name} are held, its additions are accepted")
            }
            (Scope::Everything, Some(last)) => format!(
                "{name} is held, {} stays in force",
                figures::document(last.document)
            ),
            (Scope::Everything, None) => format!("{name} is held, no document is in force"),
        };
        verdicts.push(Verdict::hold(
            objection.guard,
            format!(
                "{}{}; {what}; {way_out}",
                inputs.origin(),
                objection.message
            ),
        ));
    }
    let decision = if hold.additions_in_force {
        Decision::HoldWithdrawals(candidate.whose)
    } else {
        Decision::HoldAll(candidate.whose)
    };
    (decision, Some(hold))
}

/// How a hold ends, as the end of a sentence. `ends` is `None` for a hold without an end of its own.
fn way_out(token: SyncToken, ends: Option<i64>) -> String {
    let accept = format!("accept it with `trailblazer reconcile --accept {token}`");
    match ends {
        None => format!(
            "{accept}; otherwise the hold lasts until a source has a document with a sane token"
        ),
        Some(ends) => format!(
            "{accept}; otherwise it is accepted after {}, if every fetch selects the same until then",
            figures::time(ends)
        ),
    }
}

/// The hold to remember. Its clock goes on if the candidate selects the same prefixes as before.
fn hold(inputs: &GuardInputs<'_>, candidate: &Candidate<'_>, found: &[Objection]) -> Hold {
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
    // The time between two unanimous fetches counts only without a failed fetch in between.
    let broken = before.is_some_and(|before| before.interrupted);
    let failed = !candidate.confirmed && !matches!(inputs.fetch, Fetch::NotAsked);
    let since = before.map_or(inputs.now, |before| {
        let lost = if broken && candidate.confirmed {
            inputs.now.saturating_sub(before.last_seen).max(0)
        } else {
            0
        };
        before.since.saturating_add(lost)
    });
    let mut guards: Vec<String> = found.iter().map(|found| found.guard.to_owned()).collect();
    guards.sort();
    guards.dedup();
    Hold {
        // Setting the clock back must not lengthen the hold, even if the state has no anchor.
        since: since.min(inputs.now),
        interrupted: failed || (broken && !candidate.confirmed),
        last_seen: seen,
        digest,
        token: Some(candidate.judged.document.sync_token),
        guards,
        additions_in_force: found.iter().all(|found| found.scope == Scope::Withdrawals),
        changes: Vec::new(),
    }
}

/// A changed config applies at once, even beyond `max_prefixes`; the next document does not.
fn note_too_many(inputs: &GuardInputs<'_>, ranges: &RangeSet, verdicts: &mut Vec<Verdict>) {
    let aggregated = ranges.aggregated();
    let count = aggregated.ipv4 + aggregated.ipv6;
    if count > inputs.config.max_prefixes {
        verdicts.push(Verdict::note(
            "max-prefixes",
            format!(
                "{} are in force, more than `[guard] max_prefixes` = {}: the next document will \
                 be held; raise the bound if the selection is intended",
                figures::prefixes(count),
                inputs.config.max_prefixes
            ),
        ));
    }
}

fn note_bad_rows_outside(
    inputs: &GuardInputs<'_>,
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

/// The document in force after the decision, and its prefixes.
fn in_force<'a>(
    inputs: &GuardInputs<'_>,
    decision: Decision,
    candidate: Option<Candidate<'a>>,
    last: Option<Judged<'a>>,
    rejects: &mut Rejects,
) -> (Option<&'a Document<'a>>, Origins) {
    let selected = |groups: Groups| -> Origins {
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
                if !inputs.was_selected(&group) {
                    continue;
                }
                prefixes.retain(|prefix| !listed.covers(prefix));
                if !prefixes.is_empty() {
                    origins.insert(Origin::Held(group), prefixes);
                }
            }
            (Some(last.document), origins)
        }
        (Decision::HoldAll(_), Some(candidate), Some(mut last)) => {
            let listed: PrefixSet = candidate.judged.groups.values().flatten().collect();
            for (group, prefixes) in &mut last.groups {
                if !inputs.was_selected(group) {
                    prefixes.retain(|prefix| listed.covers(prefix));
                }
            }
            rejects.append(last.rejects);
            (Some(last.document), selected(last.groups))
        }
        (_, _, Some(last)) => {
            rejects.append(last.rejects);
            (Some(last.document), selected(last.groups))
        }
        (_, _, None) => (None, Origins::new()),
    }
}
