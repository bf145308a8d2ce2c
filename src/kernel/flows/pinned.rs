//! The flows that keep their path.

use std::collections::BTreeSet;

use super::conntrack::Conntrack;
use super::error::FlowError;
use super::filter::Filter;
use crate::types::{Family, FlowCounts, PerFamily, PinMarks, Slot};

/// Those of the slots whose mark an open flow carries. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the kernel's refusal.
pub fn slots_in_use(
    marks: PinMarks,
    slots: &BTreeSet<Slot>,
) -> Result<PerFamily<BTreeSet<Slot>>, FlowError> {
    let mut found: PerFamily<BTreeSet<Slot>> = PerFamily::default();
    if slots.is_empty() {
        return Ok(found);
    }
    let mut conntrack = Conntrack::open()?;
    for slot in slots {
        conntrack.each_listed(Filter::marked(marks.slot(*slot)), |flow| {
            let family = Family::of(flow.original.source.ip());
            // The kernel ignores a filter that it doesn't know.
            if marks.slot_of(flow.mark) == Some(*slot) {
                found.get_mut(family).insert(*slot);
            }
        })?;
    }
    Ok(found)
}

/// Counts the open flows of both paths. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the kernel's refusal.
pub fn flows_on_paths(marks: PinMarks) -> Result<FlowCounts, FlowError> {
    let mut found = FlowCounts::default();
    let mut conntrack = Conntrack::open()?;
    for mark in [marks.bypass_flow(), marks.egress_flow()] {
        let filter = Filter::marked(mark);
        conntrack.each_listed(filter, |flow| {
            // The kernel ignores a filter that it doesn't know.
            if filter.accepts(flow) {
                let family = Family::of(flow.original.source.ip());
                found.add(family, flow.mark & marks.mask());
            }
        })?;
    }
    Ok(found)
}
