//! The state dir, the documents in it, the lock, and the metadata service.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access, statvfs};

use super::finding::Findings;
use crate::config::{Config, FetchPath, Role};
use crate::kernel::privilege::has_net_admin;
use crate::notes::NoteKind;
use crate::ranges::Document;
use crate::reconcile::Examined;
use crate::state::lock;
use crate::state::store::{ReadError, Slot, Store};

/// The journal's two files of 8 MiB, two documents of some MB, and room for a third while it
/// replaces one.
const ROOM: u64 = 64 << 20;

pub(super) fn all(config: &Config, findings: &mut Findings) {
    let store = Store::open(&config.source.state_dir);
    last_known_good(config, &store, findings);
    held(&store, findings);
    state_dir(&config.source.state_dir, findings);
    match lock::holder(&config.source.state_dir) {
        Ok(None) => findings.ok("lock", "no pass is running"),
        Ok(Some(holder)) => findings.warn(
            "lock",
            match holder.since.is_empty() {
                true => "a process that didn't write its name holds the lock".to_owned(),
                false => format!(
                    "a pass is running: pid {} ({}) since {}",
                    holder.pid, holder.command, holder.since
                ),
            },
            "wait for its end; another one would",
        ),
        Err(error) => findings.warn("lock", error.to_string(), "run the check as root"),
    }
}

/// The one exemption from the egress path.
pub(super) fn fetch(config: &Config, role: Role, findings: &mut Findings) {
    let remote = config.source.urls.iter().any(|url| url.starts_with("http"));
    if role != Role::Host || config.egress.gateways.is_empty() || !remote {
        return;
    }
    let way = match config.source.path {
        FetchPath::Egress => "by the egress path only",
        FetchPath::Auto => {
            "by the egress path; where that gives no answer, by the main table's default: the one exemption"
        }
        FetchPath::Bypass => "by the main table's default: the one exemption from the egress path",
    };
    findings.ok("fetch", format!("{way} ([source] path)"));
}

fn last_known_good(config: &Config, store: &Store, findings: &mut Findings) {
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
            findings.warn(
                name,
                "no last known good yet: until there is one, storage takes the egress path",
                format!(
                    "run trailblazer reconcile, which fetches {}",
                    urls.join(", ")
                ),
            );
            return;
        }
        Err(error @ ReadError::Corrupt { .. }) => {
            return findings.fail_plain(name, error.to_string());
        }
        Err(error) => return findings.warn_plain(name, error.to_string()),
    };
    let document = match Document::parse(stored.body()) {
        Ok(document) => document,
        Err(error) => {
            return findings.fail(
                name,
                format!("the last known good is no document: {error}"),
                "move it away and run trailblazer reconcile",
            );
        }
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let published = now.saturating_sub(document.sync_token.0);
    // Amazon may publish nothing for days: old is what no source has confirmed for long.
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
        findings.warn(
            name,
            text,
            "nobody has asked, or no source answers: see with trailblazer reconcile --dry-run, and run the agent or the timer",
        );
    } else {
        findings.ok(name, text);
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

fn held(store: &Store, findings: &mut Findings) {
    let name = "held";
    match store.read(Slot::Held) {
        Ok(stored) => {
            let token = stored.meta().sync_token;
            let token = token.map_or_else(|| "TOKEN".to_owned(), |token| token.to_string());
            findings.warn(
                name,
                format!("the guard holds the document of sync token {token}"),
                format!(
                    "read why with trailblazer reconcile --dry-run; accept it with trailblazer reconcile --accept {token}"
                ),
            );
        }
        Err(error) if error.is_absent() => findings.ok(name, "no document is held"),
        Err(error) => findings.warn_plain(name, error.to_string()),
    }
}

fn state_dir(directory: &Path, findings: &mut Findings) {
    let name = "state_dir";
    // Where it is missing, a pass creates it: what counts is what is there.
    let existing = directory.ancestors().find(|path| path.exists());
    let Some(existing) = existing else {
        return findings.fail(
            name,
            "no directory to create it in",
            "set [source] state_dir",
        );
    };
    let shown = directory.display();
    if !existing.is_dir() {
        return findings.fail(
            name,
            format!("{shown}: {} is a file", existing.display()),
            "move it away, or set [source] state_dir",
        );
    }
    if let Err(errno) = access(existing, Access::WRITE_OK) {
        let text = format!("{shown} can't be written: {}", std::io::Error::from(errno));
        return if has_net_admin() == Some(false) {
            findings.warn(name, text, "run the check as root")
        } else {
            findings.fail(name, text, "make it writable, or set [source] state_dir")
        };
    }
    match statvfs(existing) {
        Ok(fs) if fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM => findings.warn(
            name,
            format!(
                "{shown}: {} MiB are free there",
                fs.f_bavail.saturating_mul(fs.f_frsize) >> 20
            ),
            "free 64 MiB: a document that can't be stored is not used",
        ),
        Ok(_) if existing == directory => findings.ok(name, format!("{shown} can be written")),
        Ok(_) => findings.ok(name, format!("{shown} will be created by the first pass")),
        Err(errno) => findings.warn(
            name,
            format!("{shown}: {}", std::io::Error::from(errno)),
            "check the file system",
        ),
    }
}

/// What it said when this check asked it.
pub(super) fn metadata(examined: &Examined, findings: &mut Findings) {
    let name = "metadata";
    if let Some(error) = &examined.view.instance_error {
        return findings.fail(
            name,
            error.to_string(),
            "switch the instance's metadata service on (IMDSv2), or set what it says",
        );
    }
    let mut silent = false;
    for note in examined.notes.texts_of(NoteKind::Metadata) {
        silent = true;
        findings.warn_plain(name, note);
    }
    match &examined.view.instance {
        _ if silent => {}
        None => findings.ok(name, "this config doesn't need it"),
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
            findings.ok(name, format!("it answers: {}", parts.join(", ")));
        }
    }
}
