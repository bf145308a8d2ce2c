//! The lines of the vpc role: lists, tables, holds and requests to EC2.

use super::figures::{moment, span};
use super::lines::Lines;
use crate::status::snapshot::{Snapshot, VpcStatus};
use crate::vpc::summary::{ListSummary, TableSummary};
use crate::words::counted;

/// Writes the lines in the place of those about the kernel.
pub(super) fn vpc(vpc: &VpcStatus, snapshot: &Snapshot, now: i64, lines: &mut Lines) {
    let next = match vpc.next_pass_in_s {
        0 => "a pass is running or due".to_owned(),
        seconds => format!("next pass in {}", span(seconds)),
    };
    let region = vpc.region.as_deref().unwrap_or("unknown");
    lines.calm("vpc", &format!("region {region}; {next}"));
    if let Some(since) = vpc.failing_since {
        let text = format!(
            "since {}: {}",
            moment(since, now),
            counted(u64::from(vpc.failures), "pass")
        );
        lines.worrying("failing", &text);
    }
    for (index, list) in vpc.lists.iter().enumerate() {
        lines.calm(if index == 0 { "lists" } else { "" }, &list_text(list));
    }
    if vpc.tables.is_empty() {
        lines.worrying("tables", "none seen");
    }
    for (index, table) in vpc.tables.iter().enumerate() {
        let label = if index == 0 { "tables" } else { "" };
        let worrying = table.routes.iter().any(|route| !route.active);
        lines.line(worrying, label, &table_text(table));
    }
    for hold in &vpc.holds {
        lines.worrying("held", hold);
    }
    for conflict in &snapshot.conflicts {
        lines.worrying("conflict", conflict);
    }
    let requests = &vpc.requests;
    let text = format!(
        "{} reads, {} changes, {} throttled since the start",
        requests.reads, requests.changes, requests.throttled
    );
    lines.calm("requests", &text);
}

fn list_text(list: &ListSummary) -> String {
    let version = list
        .version
        .map_or_else(|| "none".to_owned(), |it| it.to_string());
    let most = list
        .max_entries
        .map_or_else(String::new, |most| format!(" of at most {most}"));
    let token = list
        .sync_token
        .map_or_else(|| "no document".to_owned(), |it| format!("document {it}"));
    format!(
        "{} {} ({}), version {version}, {} entries{most}, {token}",
        list.family, list.id, list.name, list.entries
    )
}

fn table_text(table: &TableSummary) -> String {
    let routes = table.routes.iter().map(|route| {
        let target = route.target.as_deref().unwrap_or("an unknown target");
        let state = if route.active { "" } else { " (BLACKHOLE)" };
        let count = match route.routes {
            1 => String::new(),
            count => format!(" by {count} routes"),
        };
        format!("{} to {target}{count}{state}", route.family)
    });
    let routes: Vec<String> = routes.collect();
    let routes = if routes.is_empty() {
        "no route of ours".to_owned()
    } else {
        routes.join(", ")
    };
    format!("{} of {}: {routes}", table.id, table.vpc)
}
