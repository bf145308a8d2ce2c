//! The state dir, the documents in it, the lock, and the metadata service.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access, statvfs};

use super::METADATA_ADVICE;
use super::report::CheckReport;
use crate::config::{Config, FetchPath, Role};
use crate::kernel::privilege::has_net_admin;
use crate::notes::NoteKind;
use crate::ranges::Document;
use crate::reconcile::Examined;
use crate::state::directory::StateDir;
use crate::state::lock;
use crate::state::patience::exists_in_time;
use crate::state::store::{Slot, Store};

/// Required free space: the journal's two files of 8 MiB, two documents of some MB, and a third
/// document during a replacement.
const ROOM: u64 = 64 << 20;

pub(in crate::commands) fn all(config: &Config, report: &mut CheckReport) {
    if let Err(silent) = exists_in_time(&config.source.state_dir) {
        let advice = "check the disk, or the server of the network file system";
        return report.fail("state_dir", silent.to_string(), advice);
    }
    let store = Store::open(&config.source.state_dir);
    last_known_good(config, &store, report);
    held(&store, report);
    state_dir(&config.source.state_dir, report);
    match lock::holder(&config.source.state_dir) {
        Ok(None) => report.ok("lock", "no pass is running"),
        Ok(Some(holder)) => report.warn(
            "lock",
            if holder.since.is_empty() {
                "an unidentified process holds the lock".to_owned()
            } else {
                format!(
                    "a pass is running: pid {} ({}) since {}",
                    holder.pid, holder.command, holder.since
                )
            },
            "wait until the pass ends",
        ),
        Err(error) => report.warn("lock", error.to_string(), "run the check as root"),
    }
}

/// Names the path of the agent's own fetch, the one exemption from the egress path.
pub(super) fn fetch(config: &Config, role: Role, report: &mut CheckReport) {
    let remote = config.source.urls.iter().any(|url| url.starts_with("http"));
    if role != Role::Host || config.egress.gateways.is_empty() || !remote {
        return;
    }
    let path = match config.source.path {
        FetchPath::Egress => "egress path only",
        FetchPath::Auto => {
            "egress path first; without an answer, the main table's default (the one exemption from the egress path)"
        }
        FetchPath::Bypass => "the main table's default (the one exemption from the egress path)",
    };
    report.ok("fetch", format!("{path}, by [source] path"));
}

fn last_known_good(config: &Config, store: &Store, report: &mut CheckReport) {
    let name = "document";
    let stored = match store.read(Slot::LastKnownGood) {
        Ok(stored) => stored,
        Err(error) if error.is_absent() => {
            let urls: Vec<String> = config
                .source
                .urls
                .iter()
                .map(|url| crate::source::redacted(url))
                .collect();
            report.warn(
                name,
                "no document stored yet: until the first fetch, storage takes the egress path",
                format!("run trailblazer reconcile to fetch {}", urls.join(", ")),
            );
            return;
        }
        Err(error) if error.is_damaged() => {
            return report.fail_plain(name, error.to_string());
        }
        Err(error) => return report.warn_plain(name, error.to_string()),
    };
    let document = match Document::parse(stored.body()) {
        Ok(document) => document,
        Err(error) => {
            return report.fail(
                name,
                format!("the stored document is invalid: {error}"),
                "move the file away and run trailblazer reconcile",
            );
        }
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let published = now.saturating_sub(document.sync_token.0);
    // Amazon may publish nothing for days, so only the age of the confirmation matters.
    let at = store.confirmed_at().unwrap_or(stored.meta().fetched_at);
    let confirmed = now.saturating_sub(at);
    let text = format!(
        "last known good: sync token {}, published {} ago, confirmed {} ago, from {}",
        document.sync_token,
        age(published),
        age(confirmed),
        stored.meta().url
    );
    if confirmed > config.agent.stale_warn.as_secs() {
        report.warn(
            name,
            text,
            "no fetch ran, or no source answered: test with trailblazer reconcile --dry-run, and run the agent or the timer",
        );
    } else {
        report.ok(name, text);
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn held(store: &Store, report: &mut CheckReport) {
    let name = "held";
    match store.read(Slot::Held) {
        Ok(stored) => {
            let token = stored.meta().sync_token;
            let token = token.map_or_else(|| "TOKEN".to_owned(), |token| token.to_string());
            report.warn(
                name,
                format!("the guard holds back the document with sync token {token}"),
                format!(
                    "see the reason with trailblazer reconcile --dry-run; accept the document with trailblazer reconcile --accept {token}"
                ),
            );
        }
        Err(error) if error.is_absent() => report.ok(name, "no document is held"),
        Err(error) => report.warn_plain(name, error.to_string()),
    }
}

fn state_dir(directory: &Path, report: &mut CheckReport) {
    let name = "state_dir";
    let opened = match StateDir::open(directory) {
        Err(error) if error.is_dangling() => return report.fail_plain(name, error.to_string()),
        opened => opened.ok().flatten(),
    };
    if let Some(warning) = opened.as_ref().and_then(StateDir::warning) {
        report.warn_plain(name, warning);
    }
    // A pass creates a missing directory, so check the nearest existing ancestor.
    let existing = directory.ancestors().find(|path| path.exists());
    let Some(existing) = existing else {
        return report.fail(
            name,
            "no existing parent directory",
            "set [source] state_dir",
        );
    };
    let shown = directory.display();
    if !existing.is_dir() {
        return report.fail(
            name,
            format!("{shown}: {} is a file", existing.display()),
            "move the file away, or set [source] state_dir",
        );
    }
    if let Err(errno) = access(existing, Access::WRITE_OK) {
        let text = format!("cannot write to {shown}: {}", std::io::Error::from(errno));
        if has_net_admin() == Some(false) {
            report.warn(name, text, "run the check as root");
        } else {
            let advice = "make the directory writable, or set [source] state_dir";
            report.fail(name, text, advice);
        }
        return;
    }
    match statvfs(existing) {
        Ok(fs) if fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM => report.warn(
            name,
            format!(
                "{shown}: only {} MiB free",
                fs.f_bavail.saturating_mul(fs.f_frsize) >> 20
            ),
            "free 64 MiB: a pass does not use a document without storing it",
        ),
        Ok(_) if existing == directory => report.ok(name, format!("{shown} is writable")),
        Ok(_) => report.ok(name, format!("{shown} will be created by the first pass")),
        Err(errno) => report.warn(
            name,
            format!("{shown}: {}", std::io::Error::from(errno)),
            "check the file system",
        ),
    }
}

/// Reports the metadata service's answer to this check.
pub(super) fn metadata(examined: &Examined, report: &mut CheckReport) {
    let name = "metadata";
    if let Some(error) = &examined.view.instance_error {
        return report.fail(name, error.to_string(), METADATA_ADVICE);
    }
    let mut silent = false;
    for note in examined.notes.texts_of(NoteKind::Metadata) {
        silent = true;
        report.warn_plain(name, note);
    }
    match &examined.view.instance {
        _ if silent => {}
        None if examined.metadata_left_to_agent => report.warn_plain(
            name,
            "the running agent has no answer so far: see its notes in `trailblazer status`",
        ),
        None => report.ok(name, "not needed by this config"),
        Some(instance) => {
            let mut parts: Vec<String> = Vec::new();
            parts.extend(
                instance
                    .region
                    .as_ref()
                    .map(|region| format!("region {region}")),
            );
            if !instance.vpc_cidrs.is_empty() {
                let cidrs: Vec<String> =
                    instance.vpc_cidrs.iter().map(ToString::to_string).collect();
                parts.push(format!("VPC {}", cidrs.join(", ")));
            }
            report.ok(name, format!("available: {}", parts.join(", ")));
        }
    }
}
