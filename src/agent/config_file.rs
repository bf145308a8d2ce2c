//! The config file: its content in force, its present content, and refused reloads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::file::{ConfigOrigin, present_digest};
use crate::journal::{PassId, Record};
use crate::printable::escaped;
use crate::reconcile::Cause;
use crate::status::control::SettingsInForce;
use crate::status::snapshot::{ConfigStatus, RefusedReload};

/// Longest wait of the agent's loop for the file's digest; a local disk needs microseconds.
const LOOP_WAITS: Duration = Duration::from_millis(250);

/// The outcome of a refused reload in the journal.
const REFUSED: &str = "refused";
/// The outcome of the reload that ends a refusal.
const ACCEPTED: &str = "accepted";

/// The reason against new settings.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The line of the first mistake in the file.
    pub line: Option<usize>,
    /// One line, for status and journal.
    pub reason: String,
}

/// The config file as the agent loaded it.
pub(super) struct ConfigFile {
    origin: ConfigOrigin,
    loaded_at: i64,
    refused: Option<RefusedReload>,
    /// The number of the last refused reload.
    refused_reload: u64,
    disk: DigestReader,
}

impl ConfigFile {
    /// The file of the first settings.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(origin: ConfigOrigin) -> io::Result<Self> {
        Ok(ConfigFile {
            origin,
            loaded_at: Timestamp::now().as_second(),
            refused: None,
            refused_reload: 0,
            disk: DigestReader::start()?,
        })
    }

    /// Records new settings in force. Returns the journal's line if the settings end a refusal: a
    /// reload that was refused later stays refused.
    pub fn accepted(&mut self, origin: ConfigOrigin, reload: u64) -> Option<Record> {
        self.origin = origin;
        self.loaded_at = Timestamp::now().as_second();
        if reload < self.refused_reload {
            return None;
        }
        self.refused.take().map(|_| line(ACCEPTED, None))
    }

    /// Records a refused reload. Returns the journal's line, if the reason is a new one.
    pub fn refused(&mut self, refusal: &Refusal, reload: u64) -> Option<Record> {
        let now = Timestamp::now().as_second();
        self.refused_reload = reload;
        let before = self.refused.take();
        let known = before
            .as_ref()
            .is_some_and(|it| it.line == refusal.line && it.reason == escaped(&refusal.reason));
        self.refused = Some(RefusedReload {
            line: refusal.line,
            reason: escaped(&refusal.reason).into_owned(),
            since: before.as_ref().map_or(now, |before| before.since),
            last_at: now,
            attempts: before.map_or(0, |before| before.attempts) + 1,
        });
        (!known).then(|| line(REFUSED, Some(self.journal_text(refusal))))
    }

    fn journal_text(&self, refusal: &Refusal) -> String {
        let loaded = Timestamp::from_second(self.loaded_at);
        let loaded = loaded.map_or_else(|_| self.loaded_at.to_string(), |at| at.to_string());
        format!(
            "{}: {}; the config loaded at {loaded} stays in force",
            place(&self.origin.path, refusal.line),
            refusal.reason
        )
    }

    /// The remark for `systemctl status`.
    pub fn remark(&self) -> Option<String> {
        let refused = self.refused.as_ref()?;
        let place = place(&self.origin.path, refused.line);
        Some(format!("reload refused: {place}: {}", refused.reason))
    }

    /// The text in force, for commands beside a file that is broken by now.
    pub fn settings(&self) -> SettingsInForce {
        SettingsInForce {
            file: self.origin.path.display().to_string(),
            text: self.origin.text.as_deref().map(str::to_owned),
            flags: self.origin.flags.clone(),
        }
    }

    /// The status, with a look at the disk.
    pub fn status(&mut self) -> ConfigStatus {
        let present = self.disk.read(&self.origin.path);
        ConfigStatus {
            file: self.origin.path.display().to_string(),
            digest: self.origin.digest.clone(),
            loaded_at: self.loaded_at,
            differs: present.map(|present| present != self.origin.digest),
            refused: self.refused.clone(),
        }
    }
}

/// A line of the journal for a reload.
fn line(outcome: &str, error: Option<String>) -> Record {
    let now = Timestamp::now();
    let cause = Cause::Reload.as_str();
    let mut record = Record::end(now, PassId::new(now), cause, outcome, Duration::ZERO);
    record.duration_ms = None;
    record.with_error(error)
}

/// `FILE line N`, or the file alone.
fn place(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{} line {line}", path.display()),
        None => path.display().to_string(),
    }
}

/// Reads the file on a thread of its own: a disk may never answer, and the loop must not wait.
struct DigestReader {
    paths: Sender<PathBuf>,
    digests: Receiver<io::Result<Option<String>>>,
    /// True while the thread reads.
    busy: bool,
}

impl DigestReader {
    fn start() -> io::Result<Self> {
        let (paths, asked) = mpsc::channel::<PathBuf>();
        let (done, digests) = mpsc::channel();
        std::thread::Builder::new()
            .name("config-file".to_owned())
            .spawn(move || {
                for path in asked {
                    if done.send(present_digest(&path)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(DigestReader {
            paths,
            digests,
            busy: false,
        })
    }

    /// The digest of the present content; `None` if the file is unreadable or the disk silent.
    fn read(&mut self, path: &Path) -> Option<Option<String>> {
        if self.busy {
            // The answer to an earlier question may be outdated.
            drop(self.digests.try_recv().ok()?);
        }
        self.busy = self.paths.send(path.to_owned()).is_ok();
        let read = self.digests.recv_timeout(LOOP_WAITS).ok()?;
        self.busy = false;
        read.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path) -> ConfigFile {
        let path = dir.join("c.toml");
        std::fs::write(&path, "role = \"host\"").unwrap();
        let digest = present_digest(&path).unwrap();
        let origin = ConfigOrigin {
            path,
            digest,
            ..ConfigOrigin::default()
        };
        ConfigFile::new(origin).unwrap()
    }

    fn refusal(reason: &str) -> Refusal {
        Refusal {
            line: Some(2),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn refusal_lasts_until_a_later_reload_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = file(dir.path());
        let origin = file.origin.clone();
        let text = file.refused(&refusal("unknown key"), 1).unwrap();
        let text = text.error.unwrap();
        assert!(text.contains("c.toml line 2: unknown key; "), "{text}");
        assert!(file.refused(&refusal("unknown key"), 2).is_none(), "known");
        assert!(file.refused(&refusal("another"), 4).is_some());
        let refused = file.status().refused.unwrap();
        assert_eq!((refused.attempts, &*refused.reason), (3, "another"));
        // The settings of an earlier reload end their test later.
        assert!(file.accepted(origin.clone(), 3).is_none());
        assert!(file.status().refused.is_some());
        let ended = file.accepted(origin, 5).unwrap();
        assert_eq!(ended.outcome.as_deref(), Some("accepted"));
        assert_eq!(file.status().refused, None);
    }

    #[test]
    fn status_tells_whether_the_file_on_disk_differs() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = file(dir.path());
        let path = file.origin.path.clone();
        assert_eq!(file.status().differs, Some(false));
        std::fs::write(&path, "role = \"nat\"").unwrap();
        assert_eq!(file.status().differs, Some(true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.status().differs, Some(true));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(file.status().differs, None);
    }
}
