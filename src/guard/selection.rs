//! Selections that the documents do not fulfil: an empty selection must not look like success.

use super::inputs::GuardInputs;
use crate::degraded::{Degradation, Part};
use crate::ranges::{Hint, RangeSet};

/// The missing parts of the selection: unknown names, and a selection without any prefix.
pub(super) fn missing(
    inputs: &GuardInputs<'_>,
    hints: &[Hint],
    ranges: &RangeSet,
) -> Vec<Degradation> {
    let mut missing: Vec<Degradation> = hints.iter().filter_map(unknown_name).collect();
    let aggregated = ranges.aggregated();
    let selector = inputs.selector;
    let asks_for_nothing =
        selector.services.is_empty() || selector.regions.is_empty() || selector.families.is_empty();
    if aggregated.ipv4 + aggregated.ipv6 > 0 || asks_for_nothing || !missing.is_empty() {
        return missing;
    }
    let (reason, advice) = if ranges.origins.values().any(|prefixes| !prefixes.is_empty()) {
        (
            "[select] exclude covers all selected prefixes: no storage traffic takes the bypass path",
            "check [select] exclude",
        )
    } else {
        (
            "the document lists no prefix of the selected services, regions and families: no storage traffic takes the bypass path",
            "check [select], and the document of the source",
        )
    };
    missing.push(Degradation::new(Part::Selection, None, reason).with_advice(advice));
    missing
}

fn unknown_name(hint: &Hint) -> Option<Degradation> {
    let (reason, nearest) = match hint {
        Hint::UnknownService { service, nearest } => (
            format!("the document knows no service `{service}`"),
            nearest,
        ),
        Hint::UnknownRegion { region, nearest } => {
            (format!("the document knows no region `{region}`"), nearest)
        }
        // Not every service exists in every region.
        Hint::NothingThere { .. } => return None,
    };
    let advice = match nearest {
        Some(name) => format!("did you mean `{name}`? Names are case-sensitive"),
        None => "correct the name in [select]; names are case-sensitive".to_owned(),
    };
    Some(Degradation::new(Part::Selection, None, reason).with_advice(advice))
}
