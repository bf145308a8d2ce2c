//! A held document on the page.

use super::figures::moment;
use super::lines::Lines;
use crate::status::snapshot::{HeldChangeStatus, HoldStatus};
use crate::words::counted;
use crate::words::first_few;

/// Groups to name.
const NAMED: usize = 5;

/// The lines of the hold, or `none`.
pub(crate) fn hold(hold: Option<&HoldStatus>, now: i64, lines: &mut Lines) {
    let Some(hold) = hold else {
        lines.calm("hold", "none");
        return;
    };
    let guards = hold.guards.join(", ");
    let (document, accept) = match hold.sync_token {
        Some(token) => (
            format!("document {token}"),
            format!("; accept it now: trailblazer reconcile --accept {token}"),
        ),
        None => ("a document".to_owned(), String::new()),
    };
    let text = format!(
        "HELD: {guards} holds {document} since {}",
        moment(hold.since, now)
    );
    lines.worrying("hold", &text);
    for change in hold.changes.iter().take(NAMED) {
        lines.worrying("", &effect(change));
    }
    let more = hold.changes.len().saturating_sub(NAMED);
    if more > 0 {
        lines.worrying("", &format!("and changes of {more} more groups"));
    }
    let end = if hold.ends_by_itself {
        format!("accepted automatically at {}", moment(hold.until, now))
    } else {
        "never accepted automatically".to_owned()
    };
    lines.worrying("", &format!("{end}{accept}"));
}

/// `S3 us-east-1 ipv4 would lose 25.0 % of its addresses, 1 prefix: 10.0.0.0/16`.
fn effect(change: &HeldChangeStatus) -> String {
    let part = |verb: &str, percent: f64, count: usize, first: &[ipnet::IpNet]| {
        let more = count.saturating_sub(first.len());
        let mut names = first_few(first, first.len(), ", ");
        if more > 0 {
            names.push_str(&format!(" and {more} more"));
        }
        let count = counted(count as u64, "prefix");
        // With nothing in force, a gain is no share of anything.
        if percent < 0.05 {
            return format!("{verb} {count}: {names}");
        }
        format!("{verb} {percent:.1} % of its addresses, {count}: {names}")
    };
    let HeldChangeStatus {
        service,
        region,
        family,
        ..
    } = change;
    let mut parts = Vec::new();
    if change.lost_prefixes > 0 {
        parts.push(part(
            "lose",
            change.lost_percent,
            change.lost_prefixes,
            &change.lost,
        ));
    }
    if change.gained_prefixes > 0 {
        parts.push(part(
            "gain",
            change.gained_percent,
            change.gained_prefixes,
            &change.gained,
        ));
    }
    format!(
        "{service} {region} {} would {}",
        family.as_str(),
        parts.join("; ")
    )
}
