//! The lock that keeps two passes apart: an abstract socket, which needs no disk, and `flock` on a
//! file of the state dir, which also holds between network namespaces.
//!
//! The kernel drops both when the holder ends, so no stale lock is left to clean up. The content
//! of the file serves messages only, never the decision.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::StateFile;
use super::directory::StateDir;
use super::error::StateError;
use super::exclusion::{self, Exclusion, Rival};
use super::patience::in_time;

/// The pause between two tries: `flock` has no timeout.
const POLL: Duration = Duration::from_millis(20);

/// The command of the kill switch, as a holder.
pub const FLUSH: &str = "flush";

/// Larger than any holder's line.
const MAX_HOLDER_BYTES: u64 = 4096;

/// The process with the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The pid in the process's own pid namespace.
    pub pid: u32,
    /// `reconcile`, `agent`, …
    pub command: String,
    /// RFC 3339 in UTC.
    pub since: String,
}

/// The lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another pass is running: {} is held by {}; waited {:.1} s, try again when the pass has ended", .path.display(), describe(.holder.as_ref()), .waited.as_secs_f64())]
    Held {
        path: PathBuf,
        /// `None` if the file names no process.
        holder: Option<Holder>,
        waited: Duration,
    },
    #[error(transparent)]
    State(#[from] StateError),
}

impl LockError {
    /// True if the holder is known as this command.
    pub fn holder_is(&self, command: &str) -> bool {
        matches!(self, LockError::Held { holder: Some(holder), .. } if holder.command == command)
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct PassLock {
    dir: PathBuf,
    command: String,
    /// `None` if another user has the socket's name.
    exclusion: Option<Exclusion>,
    file: Option<File>,
    warning: Option<String>,
    failure: Option<StateError>,
}

impl PassLock {
    /// Takes both halves of the lock, waiting at most `wait` for each; sleeps the calling thread
    /// meanwhile. A disk that refuses the file is in [`PassLock::failure`].
    ///
    /// # Errors
    /// Another pass holds the lock.
    pub fn acquire(dir: &Path, command: &str, wait: Duration) -> Result<PassLock, LockError> {
        let mut lock = PassLock::exclude(dir, command, wait)?;
        lock.lock_file(wait)?;
        Ok(lock)
    }

    /// Takes the half that needs no disk.
    ///
    /// # Errors
    /// Another pass holds the lock.
    pub fn exclude(dir: &Path, command: &str, wait: Duration) -> Result<PassLock, LockError> {
        let start = Instant::now();
        let exclusion = loop {
            let Rival { pid } = match Exclusion::take(dir) {
                Ok(Ok(taken)) => break taken,
                // Without sockets only the file is left.
                Err(_) => break None,
                Ok(Err(rival)) => rival,
            };
            let waited = start.elapsed();
            if waited >= wait {
                return Err(LockError::Held {
                    path: path_in(dir),
                    holder: Some(named_holder(dir).unwrap_or(unnamed(pid))),
                    waited,
                });
            }
            std::thread::sleep(POLL.min(wait - waited));
        };
        Ok(PassLock {
            dir: dir.to_owned(),
            command: command.to_owned(),
            exclusion,
            file: None,
            warning: None,
            failure: None,
        })
    }

    /// Takes the other half, the file in the state dir (created where missing).
    ///
    /// # Errors
    /// Another pass holds the lock.
    pub fn lock_file(&mut self, wait: Duration) -> Result<(), LockError> {
        match self.try_file(wait) {
            Err(LockError::State(error)) => self.failure = Some(error),
            other => return other,
        }
        Ok(())
    }

    fn try_file(&mut self, wait: Duration) -> Result<(), LockError> {
        let path = path_in(&self.dir);
        let (mut file, warning) = open_in_time(&self.dir)?;
        let locked = flock_within(&file, wait);
        if let Some(waited) = locked.map_err(StateError::wrap("lock", &path))? {
            let holder = written_holder(&mut file);
            return Err(LockError::Held {
                path,
                holder,
                waited,
            });
        }
        write_holder(&mut file, &self.command);
        self.warning = warning;
        self.file = Some(file);
        Ok(())
    }

    /// True if no other pass of this network namespace runs: the socket is taken, whoever holds the
    /// file.
    pub fn excludes(&self) -> bool {
        self.exclusion.is_some()
    }

    /// See [`StateDir::warning`].
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The reason for which the file is not locked. The socket excludes other passes all the same.
    pub fn failure(&self) -> Option<&StateError> {
        self.failure.as_ref()
    }
}

/// Locks a file. Returns the time waited if another process has kept the lock for that time.
///
/// # Errors
/// The system refuses the lock for another reason.
pub(super) fn flock_within(file: &File, wait: Duration) -> io::Result<Option<Duration>> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let waited = start.elapsed();
        if waited >= wait {
            return Ok(Some(waited));
        }
        std::thread::sleep(POLL.min(wait - waited));
    }
}

/// Opens the lock file.
fn open_in_time(dir: &Path) -> Result<(File, Option<String>), StateError> {
    let path = dir.to_owned();
    in_time(dir, move || {
        let directory = StateDir::create(&path)?;
        let file = directory.open_to_update(StateFile::Lock, OFlags::empty())?;
        Ok((file, directory.warning()))
    })?
}

impl Drop for PassLock {
    fn drop(&mut self) {
        let Some(file) = &self.file else {
            return;
        };
        // A later reader must not see the name of a finished pass.
        let _ = file.set_len(0);
        // A close alone is not enough: a child just forked by another thread keeps the file open
        // until the child executes its program. If a process dies, the kernel closes all files.
        let _ = file.unlock();
    }
}

/// The holder by the file, unless the disk is silent.
fn named_holder(dir: &Path) -> Option<Holder> {
    let path = dir.to_owned();
    in_time(dir, move || file_holder(&path)).ok()?.ok()?
}

fn unnamed(pid: u32) -> Holder {
    Holder {
        pid,
        command: "an unnamed pass".to_owned(),
        since: String::new(),
    }
}

/// The present holder of the lock, without a wait for the lock and without a write; `None` if the
/// lock is free or the file is missing.
///
/// # Errors
/// The file can't be opened or locked for another reason.
pub fn holder(dir: &Path) -> Result<Option<Holder>, LockError> {
    let path = dir.to_owned();
    if let Some(holder) = in_time(dir, move || file_holder(&path))?? {
        return Ok(Some(holder));
    }
    Ok(exclusive_holder(dir))
}

/// The present holder of the half that needs no disk.
pub fn exclusive_holder(dir: &Path) -> Option<Holder> {
    exclusion::holder(dir).map(|Rival { pid }| unnamed(pid))
}

fn file_holder(dir: &Path) -> Result<Option<Holder>, LockError> {
    let path = path_in(dir);
    let opened = match StateDir::open(dir)? {
        Some(directory) => directory.open_to_read(StateFile::Lock)?,
        None => None,
    };
    let Some(mut file) = opened else {
        return Ok(None);
    };
    // Shared: two readers must not take each other for a pass.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(written_holder(&mut file).unwrap_or(unnamed(0)))),
        Err(TryLockError::Error(error)) => Err(StateError::wrap("lock", &path)(error).into()),
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(StateFile::Lock.name())
}

/// A full disk must not stop a pass with its lock: a failure only costs the name.
fn write_holder(file: &mut File, command: &str) {
    let holder = Holder {
        pid: std::process::id(),
        command: command.to_owned(),
        since: format!("{:.0}", Timestamp::now()),
    };
    if let Ok(line) = serde_json::to_vec(&holder) {
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = file.write_all(&line);
    }
}

fn written_holder(file: &mut File) -> Option<Holder> {
    file.rewind().ok()?;
    let mut line = Vec::new();
    file.take(MAX_HOLDER_BYTES).read_to_end(&mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

fn describe(holder: Option<&Holder>) -> String {
    let Some(holder) = holder.filter(|holder| holder.pid != 0) else {
        return "an unidentified process".to_owned();
    };
    let Holder {
        pid,
        command,
        since,
    } = holder;
    if since.is_empty() {
        format!("pid {pid} ({command})")
    } else if is_alive(*pid) {
        format!("pid {pid} ({command}) since {since}")
    } else {
        format!(
            "pid {pid} ({command}) since {since}, which has no process here: the pass runs in \
             another pid namespace (a container), or a child process still has the lock; `fuser` \
             on the file shows the process"
        )
    }
}

/// Signal 0 tests for a process without any effect (kill(2)); EPERM shows an existing process.
fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::state::directory::{DIR_MODE, FILE_MODE};

    fn mode(path: &Path) -> u32 {
        let meta = std::fs::metadata(path).expect("it exists");
        meta.permissions().mode() & 0o777
    }

    #[test]
    fn second_pass_waits_and_then_names_the_holder() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let _held = PassLock::acquire(&state, "agent", Duration::ZERO).expect("free");
        // No permissions beyond the documented modes, with any umask.
        assert_eq!(mode(&state) & !DIR_MODE, 0);
        assert_eq!(mode(&path_in(&state)) & !FILE_MODE, 0);
        let wait = Duration::from_millis(100);
        let start = Instant::now();
        let error = PassLock::acquire(&state, "reconcile", wait).expect_err("held");
        let took = start.elapsed();
        assert!(took >= wait && took < 20 * wait, "waited {took:?}");
        let message = error.to_string();
        let ours = format!("held by pid {} (agent) since 20", std::process::id());
        assert!(message.contains(&ours), "{message}");
        let found = holder(&state).expect("readable").expect("held");
        assert_eq!(
            (found.pid, found.command.as_str()),
            (std::process::id(), "agent")
        );
    }

    #[test]
    fn waiting_pass_takes_the_lock_when_the_other_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = PassLock::acquire(dir.path(), "reconcile", Duration::ZERO).expect("free");
        let path = dir.path().to_owned();
        let waiting = std::thread::spawn(move || {
            PassLock::acquire(&path, "flush", Duration::from_secs(10)).map(drop)
        });
        std::thread::sleep(3 * POLL);
        drop(held);
        waiting.join().expect("no panic").expect("it got the lock");
        assert_eq!(holder(dir.path()).expect("readable"), None);
    }

    #[test]
    fn holder_in_another_pid_namespace_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = PassLock::acquire(dir.path(), "agent", Duration::ZERO).expect("free");
        // Above the largest pid (PID_MAX_LIMIT, 4194304, linux/threads.h).
        let line = r#"{"pid":4194305,"command":"agent","since":"2026-01-01T00:00:00Z"}"#;
        std::fs::write(path_in(dir.path()), line).expect("written");
        let error = PassLock::acquire(dir.path(), "x", Duration::ZERO).expect_err("held");
        assert!(
            error.to_string().contains("another pid namespace"),
            "{error}"
        );
        std::fs::write(path_in(dir.path()), "garbage").expect("written");
        let error = PassLock::acquire(dir.path(), "x", Duration::ZERO).expect_err("held");
        assert!(
            error.to_string().contains("an unidentified process"),
            "{error}"
        );
    }

    #[test]
    fn file_in_place_of_the_directory_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "").expect("written");
        let held = PassLock::acquire(&path, "x", Duration::ZERO).expect("the socket is free");
        let failure = held.failure().expect("no directory").to_string();
        assert!(failure.contains("cannot create the state dir"), "{failure}");
        // The socket alone keeps another pass out.
        let error = PassLock::acquire(&path, "y", Duration::ZERO).expect_err("held");
        let ours = format!("held by pid {}", std::process::id());
        assert!(error.to_string().contains(&ours), "{error}");
        assert_eq!(holder(&dir.path().join("absent")).expect("free"), None);
    }
}
