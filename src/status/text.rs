//! The snapshot for people: an engineer on call reads the page at 3 a.m. First the state, then one
//! line per subject, last the passes.

mod config;
mod conntrack;
pub(crate) mod figures;
pub(crate) mod hold;
mod hops;
pub(crate) mod lines;
mod pinned;
mod vpc;

use std::fmt::Write as _;

use super::snapshot::{
    BreakerState, ConflictStatus, Freshness, PathTraffic, Snapshot, SourceStatus, State,
};
use crate::columns::Style;
use crate::columns::aligned;
use crate::firewall::DropReason;
use crate::printable::indented;
use crate::types::{Family, PerFamily};
use crate::words::counted;
use crate::words::first_few;
use figures::{bytes, moment, span};
use lines::{Lines, painted};

/// Most prefixes in hold-down to name.
const NAMED: usize = 5;

/// Most objects to name in the line of one culprit.
const NAMED_OBJECTS: usize = 3;

/// The page. `now` is in seconds since the epoch.
pub fn to_text(snapshot: &Snapshot, now: i64, style: Style) -> String {
    let mut lines = Lines::after(headline(snapshot, now, style), style);
    if let Some(refused) = snapshot
        .config
        .as_ref()
        .and_then(|it| config::refused(it, now))
    {
        lines.text.push_str(&painted(style, "31", "RELOAD REFUSED"));
        let _ = writeln!(lines.text, " {}", indented(&refused, 2));
    }
    lines.text.push('\n');
    for missing in &snapshot.degraded {
        lines.worrying("degraded", &missing.to_string());
    }
    agent(snapshot, now, &mut lines);
    if let Some(config) = &snapshot.config {
        config::file(config, now, &mut lines);
    }
    document(snapshot, &mut lines);
    source(&snapshot.source, &mut lines);
    hold::hold(snapshot.hold.as_ref(), now, &mut lines);
    hold_down(snapshot, now, &mut lines);
    prefixes(snapshot, &mut lines);
    match &snapshot.vpc {
        Some(plane) => vpc::vpc(plane, snapshot, now, &mut lines),
        None => routes(snapshot, &mut lines),
    }
    hops::gateways(&snapshot.gateways, &mut lines);
    hops::addresses(&snapshot.egress_addresses, &mut lines);
    drift(snapshot, now, &mut lines);
    if let Some(traffic) = &snapshot.traffic {
        traffic_lines(traffic, snapshot, &mut lines);
    }
    if let Some(table) = &snapshot.conntrack {
        conntrack::conntrack(table, &mut lines);
    }
    if let Some(flows) = &snapshot.pinned {
        pinned::pinned(flows, &mut lines);
    }
    let faults = |whose| snapshot.faults.get(whose).copied().unwrap_or(0);
    let (ours, others) = (faults("ours"), faults("others"));
    lines.calm("faults", &format!("ours {ours}, others {others}"));
    for note in &snapshot.notes {
        lines.calm("note", note);
    }
    lines.text.push_str(&passes(snapshot));
    lines.text
}

fn headline(snapshot: &Snapshot, now: i64, style: Style) -> String {
    let (colour, word, otherwise) = match snapshot.state {
        State::InForce => {
            let since = snapshot.in_force_since.unwrap_or(snapshot.started_at);
            ("32", "IN FORCE", format!("since {}", moment(since, now)))
        }
        State::Starting => ("31", "STARTING", "no pass has succeeded yet".to_owned()),
        State::Degraded => (
            "31",
            "DEGRADED",
            "some routes or rules may be missing".to_owned(),
        ),
        State::Paused => (
            "31",
            "PAUSED",
            "no pass runs until `trailblazer kick` or a restart".to_owned(),
        ),
        State::Stopping => ("31", "STOPPING", "the agent is stopping".to_owned()),
    };
    let reason = match (snapshot.state, &snapshot.reason) {
        (State::InForce, Some(reason)) => format!("{otherwise}: {reason}"),
        (_, Some(reason)) => reason.clone(),
        (_, None) => otherwise,
    };
    let reason = indented(&reason, 2);
    format!("{} {reason}\n", painted(style, colour, word))
}

fn agent(snapshot: &Snapshot, now: i64, lines: &mut Lines) {
    let started = moment(snapshot.started_at, now);
    let mut text = format!(
        "trailblazer {}, role {}, pid {}, started {started}",
        snapshot.version,
        snapshot.role.as_str(),
        snapshot.pid
    );
    if snapshot.uptime_s > 0.0 {
        let share = 100.0 * snapshot.in_force_s / snapshot.uptime_s;
        let _ = write!(text, ", in force {share:.2} % of this time");
    }
    lines.calm("agent", &text);
}

fn document(snapshot: &Snapshot, lines: &mut Lines) {
    let Some(document) = &snapshot.document else {
        lines.worrying("document", "none in force");
        return;
    };
    let (worrying, freshness) = match document.freshness {
        Freshness::Fresh => (false, "fresh"),
        Freshness::Warn => (true, "STALE: exceeds [agent] stale.warn"),
        Freshness::Alarm => (true, "STALE: exceeds [agent] stale.alarm"),
    };
    let text = format!(
        "sync token {}, published {}, confirmed {} ago ({freshness})",
        document.sync_token,
        document.create_date,
        span(document.age_s)
    );
    lines.line(worrying, "document", &text);
}

fn source(source: &SourceStatus, lines: &mut Lines) {
    let next = match source.next_fetch_in_s {
        0 => "a fetch is running".to_owned(),
        seconds => format!("next fetch in {}", span(seconds)),
    };
    let breaker = match source.breaker {
        BreakerState::Closed => "breaker closed",
        BreakerState::Open => "breaker OPEN: fetches pause after repeated failures",
        BreakerState::HalfOpen => "breaker half open: a trial fetch is running",
    };
    let fetches: Vec<String> = source
        .fetches
        .iter()
        .map(|(result, count)| format!("{count} {result}"))
        .collect();
    let fetches = if fetches.is_empty() {
        "no fetch yet".to_owned()
    } else {
        format!("fetches: {}", fetches.join(", "))
    };
    let worrying = source.breaker != BreakerState::Closed;
    lines.line(worrying, "source", &format!("{next}; {breaker}; {fetches}"));
    if let Some(error) = &source.last_error {
        let times = counted(source.failures_in_a_row.into(), "failure");
        lines.worrying("", &format!("{times} in a row, last error: {error}"));
    }
}

fn hold_down(snapshot: &Snapshot, now: i64, lines: &mut Lines) {
    if snapshot.hold_down_total == 0 {
        lines.calm("hold-down", "none");
        return;
    }
    let total = counted(snapshot.hold_down_total as u64, "withdrawn prefix");
    lines.calm(
        "hold-down",
        &format!("{total}, routes kept until the hold-down ends"),
    );
    for prefix in snapshot.hold_down.iter().take(NAMED) {
        let until = moment(prefix.until, now);
        lines.calm("", &format!("{} until {until}", prefix.prefix));
    }
    let named = snapshot.hold_down.len().min(NAMED);
    if snapshot.hold_down_total > named {
        let more = snapshot.hold_down_total - named;
        lines.calm("", &format!("and {more} more"));
    }
}

fn prefixes(snapshot: &Snapshot, lines: &mut Lines) {
    let mut groups: Vec<(&str, &str, PerFamily<usize>)> = Vec::new();
    for count in &snapshot.selection {
        let name = (&*count.service, &*count.region);
        let place = groups.iter().position(|(s, r, _)| (*s, *r) == name);
        let place = place.unwrap_or_else(|| {
            groups.push((name.0, name.1, PerFamily::default()));
            groups.len() - 1
        });
        *groups[place].2.get_mut(count.family) += count.prefixes;
    }
    let rows: Vec<[String; 4]> = groups
        .iter()
        .map(|(service, region, counts)| {
            [
                (*service).to_owned(),
                (*region).to_owned(),
                format!("ipv4 {}", counts.ipv4),
                format!("ipv6 {}", counts.ipv6),
            ]
        })
        .collect();
    if rows.is_empty() {
        lines.calm("prefixes", "none selected");
    }
    for (index, row) in aligned(&rows, 2).iter().enumerate() {
        lines.calm(if index == 0 { "prefixes" } else { "" }, row);
    }
}

fn routes(snapshot: &Snapshot, lines: &mut Lines) {
    let routes = format!(
        "ipv4 {}, ipv6 {} in the bypass table",
        snapshot.routes.ipv4, snapshot.routes.ipv6
    );
    lines.calm("routes", &routes);
    lines.calm("firewall", snapshot.firewall.as_deref().unwrap_or("none"));
}

fn drift(snapshot: &Snapshot, now: i64, lines: &mut Lines) {
    let drift = &snapshot.drift;
    let total: u64 = drift.mended.values().sum();
    let mut text = "none since the start".to_owned();
    if total > 0 {
        let kinds: Vec<String> = drift
            .mended
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let total = counted(total, "object");
        text = format!("{total} repaired since the start ({})", kinds.join(", "));
    }
    if drift.overruns > 0 {
        let times = counted(drift.overruns, "time");
        let _ = write!(text, "; the kernel dropped events {times}");
    }
    lines.calm("drift", &text);
    if let Some(at) = drift.last_at {
        let what = drift.last_what.as_deref().unwrap_or("");
        lines.calm("", &format!("last {}: {what}", moment(at, now)));
    }
    if drift.conflicts.is_empty() {
        lines.calm("conflicts", "none");
    }
    for (index, conflicts) in by_culprit(&drift.conflicts).iter().enumerate() {
        let label = if index == 0 { "conflicts" } else { "" };
        lines.worrying(label, &conflicts_text(conflicts));
    }
    let more = drift.conflicts_total.saturating_sub(drift.conflicts.len());
    if more > 0 {
        lines.worrying("", &format!("and {more} more"));
    }
}

/// The conflicts of each culprit, in the order of the first conflicts.
fn by_culprit(conflicts: &[ConflictStatus]) -> Vec<Vec<&ConflictStatus>> {
    let mut groups: Vec<Vec<&ConflictStatus>> = Vec::new();
    for conflict in conflicts {
        match groups.iter_mut().find(|group| group[0].by == conflict.by) {
            Some(group) => group.push(conflict),
            None => groups.push(vec![conflict]),
        }
    }
    groups
}

/// One line for all conflicts of a culprit.
fn conflicts_text(conflicts: &[&ConflictStatus]) -> String {
    let objects = conflicts.iter().map(|conflict| &conflict.object);
    let objects = first_few(objects, NAMED_OBJECTS, ", ");
    let by = conflicts.first().map_or("unknown", |first| &first.by);
    let repairs = conflicts.iter().map(|conflict| conflict.repairs).sum();
    let times = counted(repairs, "time");
    let next = match conflicts.iter().map(|conflict| conflict.paused_for_s).min() {
        None | Some(0) => "at once".to_owned(),
        Some(seconds) => format!("in {}", span(seconds)),
    };
    format!("{objects}: changed by {by}; repaired {times}, next repair {next}")
}

fn traffic_lines(traffic: &PathTraffic, snapshot: &Snapshot, lines: &mut Lines) {
    for (label, path, counts) in [
        ("traffic", "bypass", &traffic.bypass),
        ("", "egress", &traffic.egress),
    ] {
        let amount = |family| bytes(counts.get(family).bytes);
        let (ipv4, ipv6) = (amount(Family::Ipv4), amount(Family::Ipv6));
        lines.calm(label, &format!("{path}  ipv4 {ipv4}, ipv6 {ipv6}"));
    }
    if let Some(percent) = snapshot.bypass_percent {
        lines.calm(
            "share",
            &format!("{percent:.1} % of all bytes take the bypass"),
        );
    }
    for reason in DropReason::ALL {
        let packets = |family| traffic.dropped.of(reason).get(family).packets;
        let (ipv4, ipv6) = (packets(Family::Ipv4), packets(Family::Ipv6));
        let clients = match reason {
            DropReason::Sources => "of [nat] sources with another address than an egress address",
            DropReason::Outside => "of clients outside [nat] sources without translation",
            DropReason::Closed => "to the internet on neither path ([egress] enforce)",
        };
        if ipv4 + ipv6 > 0 {
            let text =
                format!("ipv4 {ipv4}, ipv6 {ipv6} packets {clients}: see `trailblazer blocked`");
            lines.worrying("dropped", &text);
        }
    }
    if let Some(dollars) = snapshot.saved_dollars {
        let text = format!("${dollars:.2}: NAT charges saved, by [agent] nat_price_per_gb");
        lines.calm("saved", &text);
    }
}

fn took(milliseconds: f64) -> String {
    if milliseconds < 1_000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.1} s", milliseconds / 1_000.0)
    }
}

/// The last passes, newest last as in `history`.
fn passes(snapshot: &Snapshot) -> String {
    if snapshot.passes.is_empty() {
        return "\nno pass yet\n".to_owned();
    }
    let header = ["WHEN", "CAUSE", "OUTCOME", "STEPS", "TOOK"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(snapshot.passes.iter().rev().map(|pass| {
        [
            jiff::Timestamp::from_second(pass.at)
                .map_or_else(|_| pass.at.to_string(), |at| at.to_string()),
            pass.cause.clone(),
            pass.outcome.clone(),
            pass.steps.to_string(),
            took(pass.duration_ms),
        ]
    }));
    let mut text = "\n".to_owned();
    for (index, line) in aligned(&rows, 3).iter().enumerate() {
        let _ = writeln!(text, "{line}");
        let pass = index
            .checked_sub(1)
            .and_then(|index| snapshot.passes.iter().rev().nth(index));
        if let Some(error) = pass.and_then(|pass| pass.error.as_deref()) {
            let _ = writeln!(text, "  {}", indented(error, 2));
        }
    }
    text
}
