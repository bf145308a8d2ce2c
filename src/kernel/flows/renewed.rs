//! Open flows while the bits of our marks change.
//!
//! A pin is a mark in the bits of one config. Under another config the flow would be a new one, on
//! another path perhaps. So each flow gets its mark in the new bits too before the new rules come in,
//! and loses the mark in the former bits after the last rule with those is gone.

use super::conntrack::Conntrack;
use super::error::FlowError;
use super::filter::Filter;
use crate::types::{Mark, PinMarks};

/// Gives each flow with a mark in the bits of `former` the same mark in the bits of `new`, and returns
/// the number of flows. Both must have no bit in common. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the first refusal, after all other
/// flows were marked.
pub fn renew_marks(former: PinMarks, new: PinMarks) -> Result<u32, FlowError> {
    change(former, |mark| new.like(former, mark))
}

/// Takes the marks in the bits of `former` away, and returns the number of flows. Needs CAP_NET_ADMIN.
///
/// # Errors
/// As [`renew_marks`].
pub fn forget_marks(former: PinMarks, new: PinMarks) -> Result<u32, FlowError> {
    // A mark of another program in the same bits was ours for the firewall of the former config too.
    change(former, |mark| {
        let has_both = new.like(former, mark)?;
        (mark & has_both.mask == has_both.value).then(|| former.clear())
    })
}

fn change(
    former: PinMarks,
    mut mark_of: impl FnMut(u32) -> Option<Mark>,
) -> Result<u32, FlowError> {
    let mut conntrack = Conntrack::open()?;
    let mut updated = 0;
    for path in former.paths() {
        let written = conntrack.mark_each(Filter::marked(path), |flow| mark_of(flow.mark))?;
        if let Some(failure) = written.failure {
            return Err(failure);
        }
        updated += written.updated;
    }
    Ok(updated)
}
