//! Pinned flows on the page.

use super::figures::span;
use super::lines::Lines;
use crate::status::snapshot::{PathCounts, PinnedStatus};
use crate::types::Family;
use crate::words::counted;

/// The line of the flows that keep their path.
pub(super) fn pinned(status: &PinnedStatus, lines: &mut Lines) {
    let mut displaced = false;
    let families = Family::ALL.map(|family| {
        let Some(counts) = status.flows.get(family) else {
            return format!("{family} none: no pins");
        };
        let PathCounts { bypass, egress } = counts;
        let flows = counted(bypass.pinned + egress.pinned, "flow");
        let away = bypass.displaced + egress.displaced;
        displaced |= away > 0;
        format!("{family} {flows}, {away} displaced")
    });
    let list = if displaced {
        "; `trailblazer flows` lists them"
    } else {
        ""
    };
    let ago = span(status.age_s);
    let text = format!("{} (counted {ago} ago){list}", families.join("; "));
    lines.calm("pinned", &text);
}
