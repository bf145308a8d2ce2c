//! Prefixes that keep their route although no document in force lists them: withdrawn prefixes for
//! the time of `hold_down`, and prefixes found only in the kernel.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::candidate::Judged;
use super::figures;
use super::inputs::{GuardInputs, LastGood};
use super::outcome::Decision;
use super::screen::{Rejects, Screen};
use super::state::{self, HoldDown, Kept};
use super::verdict::Verdict;
use crate::ranges::{Group, Groups, Origin, PrefixSet, select_lenient};

/// Prefixes in force, by the source that lists them.
pub(super) type Origins = BTreeMap<Origin, Vec<IpNet>>;

/// The prefixes of the documents, before and after the decision.
pub(super) struct Listed<'l> {
    pub(super) before: &'l Groups,
    pub(super) now: &'l mut Origins,
    pub(super) document_in_force: bool,
}

/// The prefixes in force before this judgement, under the current config, as far as the decision
/// may remove them: those of a replaced last known good, and the additions of a held candidate
/// with only its withdrawals waiting.
pub(super) fn in_force_before(
    inputs: &GuardInputs<'_>,
    decision: Decision,
    last: Option<&Judged<'_>>,
    screen: &Screen,
) -> Groups {
    // A last known good that stays in force loses no prefix.
    let mut groups = match (decision, last) {
        (Decision::Accept(_), Some(last)) => inputs.known_groups(&last.groups),
        _ => Groups::new(),
    };
    let additions = inputs
        .state
        .hold
        .as_ref()
        .is_some_and(|hold| hold.additions_in_force);
    if let (true, Some(held)) = (additions, inputs.held) {
        let (selection, _) = select_lenient(held, inputs.selector);
        // Rejected prefixes were never in force: no verdict.
        let held = screen.apply_groups(&selection.groups, &mut Rejects::default());
        for (group, mut prefixes) in held {
            groups.entry(group).or_default().append(&mut prefixes);
        }
    }
    groups
}

/// Adds the prefixes in hold-down to the origins, and returns the entries to remember.
pub(super) fn apply(
    inputs: &GuardInputs<'_>,
    screen: &Screen,
    accepted: bool,
    listed: Listed<'_>,
    rejects: &mut Rejects,
    verdicts: &mut Vec<Verdict>,
) -> Vec<HoldDown> {
    if !listed.document_in_force {
        retain_kernel(inputs, screen, listed.now, rejects, verdicts);
        // While no document is in force, the kernel is the only memory: a running clock would let
        // routes expire before any document could explain them.
        return inputs.state.hold_down.clone();
    }
    if listed.before.is_empty()
        && inputs.state.hold_down.is_empty()
        && lost_memory(inputs).is_none()
    {
        return Vec::new();
    }
    let set: PrefixSet = listed.now.values().flatten().collect();
    let mut entries = state::prune(&inputs.state.hold_down, &set, inputs.config, inputs.now);
    if accepted {
        entries.retain(|entry| entry.kept == Kept::Withdrawn);
    }
    entries.append(&mut withdrawn(inputs, listed.before, &set));
    if !accepted {
        entries.append(&mut only_in_kernel(inputs, &set, &entries));
    }
    let wanted: Vec<&HoldDown> = entries
        .iter()
        .filter(|entry| entry.is_wanted(inputs.selector))
        .collect();
    explain(inputs, &wanted, verdicts);
    for entry in wanted {
        let origin = match &entry.group {
            Some(group) => Origin::HoldDown(group.clone()),
            None => Origin::Kernel,
        };
        let mut kept = screen.apply(&[entry.prefix], &origin, rejects);
        if !kept.is_empty() {
            listed.now.entry(origin).or_default().append(&mut kept);
        }
    }
    entries
}

/// New entries for the addresses that were in force and are now in no list.
fn withdrawn(inputs: &GuardInputs<'_>, before: &Groups, now: &PrefixSet) -> Vec<HoldDown> {
    if inputs.config.hold_down.is_zero() {
        return Vec::new();
    }
    let entry = |group: &Group, prefix| HoldDown {
        prefix,
        group: Some(group.clone()),
        since: inputs.now,
        kept: Kept::Withdrawn,
    };
    before
        .iter()
        .filter(|(_, prefixes)| !prefixes.iter().all(|prefix| now.covers(prefix)))
        .flat_map(|(group, prefixes)| {
            let gone = prefixes.iter().collect::<PrefixSet>().subtract(now);
            gone.all_prefixes()
                .into_iter()
                .map(move |prefix| entry(group, prefix))
        })
        .collect()
}

/// The kernel's prefixes of the selected families, without prefixes named in the config.
fn kernel_set(inputs: &GuardInputs<'_>) -> PrefixSet {
    let families = &inputs.selector.families;
    let kernel: PrefixSet = families
        .iter()
        .flat_map(|family| inputs.kernel_prefixes.get(*family))
        .collect();
    let named: PrefixSet = inputs.include.iter().chain(inputs.exclude).collect();
    kernel.subtract(&named)
}

/// The reason for missing memory, if any, and whether the reason is a failure.
fn lost_memory(inputs: &GuardInputs<'_>) -> Option<(Kept, String)> {
    match &inputs.last_good {
        LastGood::Unreadable(reason) => Some((
            Kept::Unexplained,
            format!("the last known good is unreadable ({reason})"),
        )),
        _ if inputs.state_unreadable => Some((
            Kept::Unexplained,
            "the guard's state is unreadable".to_owned(),
        )),
        LastGood::Absent => Some((
            Kept::FoundInKernel,
            "there is no last known good".to_owned(),
        )),
        LastGood::Document(_) | LastGood::Selected { .. } => None,
    }
}

/// If our memory is unreadable, adopts the prefixes found in the kernel as hold-down entries, so
/// that no route is deleted.
fn only_in_kernel(
    inputs: &GuardInputs<'_>,
    listed: &PrefixSet,
    entries: &[HoldDown],
) -> Vec<HoldDown> {
    let Some((kept, _)) = lost_memory(inputs) else {
        return Vec::new();
    };
    let explained: PrefixSet = entries.iter().map(|entry| &entry.prefix).collect();
    let alone = kernel_set(inputs).subtract(listed).subtract(&explained);
    alone
        .all_prefixes()
        .into_iter()
        .map(|prefix| HoldDown {
            prefix,
            group: None,
            since: inputs.now,
            kept,
        })
        .collect()
}

/// Without any document, all prefixes in the kernel stay.
fn retain_kernel(
    inputs: &GuardInputs<'_>,
    screen: &Screen,
    origins: &mut Origins,
    rejects: &mut Rejects,
    verdicts: &mut Vec<Verdict>,
) {
    let found = kernel_set(inputs).all_prefixes();
    let kept = screen.apply(&found, &Origin::Kernel, rejects);
    let Some((why, reason)) = lost_memory(inputs) else {
        return;
    };
    let message = if kept.is_empty() {
        format!("{reason}, and no document is in force")
    } else {
        format!(
            "{reason}, and no document is in force; the bypass table keeps {} until one is",
            figures::prefixes(kept.len())
        )
    };
    if !kept.is_empty() {
        origins.insert(Origin::Kernel, kept);
    }
    verdicts.push(match why {
        Kept::Unexplained => Verdict::hold("last-known-good", message),
        Kept::Withdrawn | Kept::FoundInKernel => Verdict::note("last-known-good", message),
    });
}

fn explain(inputs: &GuardInputs<'_>, entries: &[&HoldDown], verdicts: &mut Vec<Verdict>) {
    let of = |kept: Kept| -> (Vec<IpNet>, i64) {
        let of_kind = entries.iter().filter(|entry| entry.kept == kept);
        let until = of_kind
            .clone()
            .map(|entry| entry.until(inputs.config))
            .max()
            .unwrap_or(inputs.now);
        (of_kind.map(|entry| entry.prefix).collect(), until)
    };
    let listed = |prefixes: &[IpNet], until: i64| {
        format!(
            "{}, the last until {}: {}",
            figures::prefixes(prefixes.len()),
            figures::time(until),
            figures::few_prefixes(prefixes)
        )
    };
    let (withdrawn, until) = of(Kept::Withdrawn);
    if !withdrawn.is_empty() {
        let message = format!(
            "withdrawn, but kept for `[guard] hold_down` = {}: {}",
            figures::duration(inputs.config.hold_down),
            listed(&withdrawn, until)
        );
        verdicts.push(Verdict::note("hold-down", message));
    }
    let (found, until) = of(Kept::FoundInKernel);
    if !found.is_empty() {
        let message = format!(
            "found in the bypass table without a last known good to explain them, kept: {}",
            listed(&found, until)
        );
        verdicts.push(Verdict::note("last-known-good", message));
    }
    let (unexplained, until) = of(Kept::Unexplained);
    if !unexplained.is_empty() {
        let message = format!(
            "found in the bypass table when the last known good or the guard's state was \
             unreadable, and not in the document, kept: {}; `trailblazer reconcile --accept \
             TOKEN` with the token in force removes them",
            listed(&unexplained, until)
        );
        verdicts.push(Verdict::hold("last-known-good", message));
    } else if let Some((Kept::Unexplained, reason)) = lost_memory(inputs) {
        let message = format!("{reason}; nothing was lost: the document explains every route");
        verdicts.push(Verdict::note("last-known-good", message));
    }
}
