//! The metrics of a single pass as a file, for node_exporter's textfile collector: a host without an
//! agent has nobody to ask.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::metrics::{CATALOGUE, Metric, encode};
use super::snapshot::{
    DocumentStatus, Freshness, GroupCount, HoldStatus, PassStatus, Snapshot, State,
};
use crate::config::Config;
use crate::reconcile::Report;

/// The metrics with a meaning for a single pass. Counters of an agent's life have none.
const PASS: [&str; 4] = [
    "trailblazer_build_info",
    "trailblazer_in_force",
    "trailblazer_degraded",
    "trailblazer_last_pass_timestamp_seconds",
];
/// Those of a pass that has judged the document.
const DOCUMENT: [&str; 8] = [
    "trailblazer_document_sync_token",
    "trailblazer_document_age_seconds",
    "trailblazer_document_freshness",
    "trailblazer_held",
    "trailblazer_held_since_timestamp_seconds",
    "trailblazer_held_until_timestamp_seconds",
    "trailblazer_hold_down_prefixes",
    "trailblazer_prefixes",
];
/// That of a pass that has reached the end.
const ROUTES: &str = "trailblazer_routes";

/// The selected prefixes of a pass, by service, region and family.
pub fn groups(report: &Report) -> Vec<GroupCount> {
    let group = |(group, prefixes): &(crate::ranges::Group, usize)| GroupCount {
        service: group.service.to_string(),
        region: group.region.to_string(),
        family: group.family,
        prefixes: *prefixes,
    };
    report.groups.iter().map(group).collect()
}

/// The metrics of a pass that ended at `now`. `confirmed_at` is the last confirmation of the
/// document. Both are in seconds since the epoch.
pub fn to_text(report: &Report, config: &Config, confirmed_at: Option<u64>, now: i64) -> String {
    let mut snapshot = Snapshot::starting(report.role, now);
    snapshot.state = if report.error.is_none() && report.degraded.is_empty() {
        State::InForce
    } else {
        State::Degraded
    };
    snapshot.degraded.clone_from(&report.degraded);
    let backend = report.backend.as_ref();
    snapshot.firewall = backend.map(|backend| format!("{} ({})", backend.kind, backend.reason));
    snapshot.passes.push(PassStatus {
        at: now,
        ..PassStatus::default()
    });
    let age = confirmed_at.map(|at| now.unsigned_abs().saturating_sub(at));
    snapshot.document = report
        .sync_token
        .zip(age)
        .map(|(sync_token, age_s)| DocumentStatus {
            sync_token,
            create_date: report.create_date.clone(),
            age_s,
            freshness: Freshness::of(age_s, &config.agent),
        });
    let hold = report.guard_state.hold.as_ref();
    snapshot.hold = hold.map(|hold| HoldStatus::of(hold, &config.guard));
    snapshot.hold_down_total = report.guard_state.hold_down.len();
    snapshot.selection = groups(report);
    if let Some(in_force) = &report.in_force {
        snapshot.routes = in_force.bypass_routes();
    }
    let known = |metric: &&Metric| {
        PASS.contains(&metric.name)
            || report.was_judged() && DOCUMENT.contains(&metric.name)
            || report.in_force.is_some() && metric.name == ROUTES
    };
    let metrics: Vec<Metric> = CATALOGUE.iter().filter(known).copied().collect();
    encode(&metrics, &snapshot)
}

/// Replaces the file at once, readable for everybody: the collector runs as another user and may
/// read at any moment.
///
/// # Errors
/// The directory is missing, full, or closed to this user.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::from(ErrorKind::InvalidInput));
    };
    // The collector reads names that end in `.prom` only.
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    // A killed process may have left the name.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `O_EXCL` follows no link, and the rename replaces a link instead of its target.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}
