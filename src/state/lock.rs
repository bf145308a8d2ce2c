//! The lock that keeps two passes apart: `flock` on a file of the state dir.
//!
//! The kernel drops the lock when its holder dies, however it dies, so that there is no stale
//! lock to clean up. What the file says is for the message only, never for the decision.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::StateFile;
use super::directory::StateDir;
use super::error::StateError;

/// How long a second pass waits for the first: longer than a pass over all of AWS's prefixes
/// takes, shorter than an operator's patience.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Between two tries. `flock` has no timeout of its own short of a signal.
const POLL: Duration = Duration::from_millis(20);

/// More than a holder's line ever has.
const MAX_HOLDER_BYTES: u64 = 4096;

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process, in its own namespace's numbers.
    pub pid: u32,
    /// What it runs (`reconcile`, `agent`, …).
    pub command: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
}

/// The lock can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else keeps it.
    #[error("another pass is running: {} is held by {}; waited {:.1} s, try again when it has ended", .path.display(), describe(.holder.as_ref()), .waited.as_secs_f64())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who, as far as the file tells.
        holder: Option<Holder>,
        /// How long we waited.
        waited: Duration,
    },
    /// The file refuses.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct PassLock {
    file: File,
    warning: Option<String>,
}

impl PassLock {
    /// Takes the lock of the state dir (created where missing), waiting at most `wait`; sleeps
    /// the calling thread meanwhile.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(dir: &Path, command: &str, wait: Duration) -> Result<PassLock, LockError> {
        let path = path_in(dir);
        let directory = StateDir::create(dir)?;
        let mut file = directory.open_to_update(StateFile::Lock, OFlags::empty())?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(StateError::wrap("lock", &path)(error).into());
                }
            }
            let waited = start.elapsed();
            if waited >= wait {
                let holder = written_holder(&mut file);
                return Err(LockError::Held {
                    path,
                    holder,
                    waited,
                });
            }
            std::thread::sleep(POLL.min(wait - waited));
        }
        write_holder(&mut file, command);
        let warning = directory.warning();
        Ok(PassLock { file, warning })
    }

    /// See [`StateDir::warning`].
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

impl Drop for PassLock {
    fn drop(&mut self) {
        // So that a later reader isn't told of a pass that ended.
        let _ = self.file.set_len(0);
        // Closing alone isn't enough: a child that another thread has just forked holds the file
        // open until it executes its program. Of a process that dies, the kernel closes all.
        let _ = self.file.unlock();
    }
}

/// Who holds the lock of the state dir now, without waiting and without writing; `None` when it
/// is free, or when there is no lock file.
///
/// # Errors
/// The file can't be opened or locked for another reason.
pub fn holder(dir: &Path) -> Result<Option<Holder>, LockError> {
    let path = path_in(dir);
    let opened = match StateDir::open(dir)? {
        Some(directory) => directory.open_to_read(StateFile::Lock)?,
        None => None,
    };
    let Some(mut file) = opened else {
        return Ok(None);
    };
    // Shared: two lookers must not take each other for a pass.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(written_holder(&mut file).unwrap_or(Holder {
            pid: 0,
            command: "an unnamed pass".to_owned(),
            since: String::new(),
        }))),
        Err(TryLockError::Error(error)) => Err(StateError::wrap("lock", &path)(error).into()),
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(StateFile::Lock.name())
}

/// A full disk must not stop a pass that has its lock: failures here cost the name only.
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
    let Some(holder) = holder else {
        return "a process that didn't write its name".to_owned();
    };
    let Holder {
        pid,
        command,
        since,
    } = holder;
    if is_alive(*pid) {
        format!("pid {pid} ({command}) since {since}")
    } else {
        format!(
            "pid {pid} ({command}) since {since}, which is not seen here: it runs in another pid \
             namespace (a container), or a child of it lives on; `fuser` on the file names it"
        )
    }
}

/// Signal 0 asks without disturbing (kill(2)); a refusal shows that the process is there.
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
    fn a_second_pass_waits_and_then_says_who_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let _held = PassLock::acquire(&state, "agent", Duration::ZERO).expect("free");
        // No group or others beyond the documented modes, whatever the umask.
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
    fn it_is_free_after_the_pass_and_taken_while_waiting() {
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
    fn a_holder_that_is_not_seen_here() {
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
            error.to_string().contains("didn't write its name"),
            "{error}"
        );
    }

    #[test]
    fn a_file_in_the_place_of_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "").expect("written");
        let error = PassLock::acquire(&path, "x", Duration::ZERO).expect_err("no directory");
        assert!(
            error.to_string().contains("cannot create the state dir"),
            "{error}"
        );
        assert_eq!(holder(&dir.path().join("absent")).expect("free"), None);
    }
}
