//! One agent for each state dir: two agents with different control sockets would undo each other's
//! changes.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::StateFile;
use super::directory::StateDir;
use super::error::StateError;
use super::patience::in_time;

/// The time for a killed agent's children to execute their programs: until then a child still has
/// the lock of its parent.
const WAIT: Duration = Duration::from_secs(2);
/// The pause between two tries: `flock` has no timeout.
const POLL: Duration = Duration::from_millis(20);

/// The lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum AgentLockError {
    #[error("another agent ({}) uses the state directory {}: stop that agent, or give this agent a state_dir, tables and priority of its own", pid_text(*.pid), .directory.display())]
    Held {
        directory: PathBuf,
        /// `None` if the file names no process.
        pid: Option<u32>,
    },
    #[error(transparent)]
    State(#[from] StateError),
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(|| "unknown pid".to_owned(), |pid| format!("pid {pid}"))
}

/// The lock of the running agent, held until dropped or until the process ends.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes the lock of the state dir (created if missing).
    ///
    /// # Errors
    /// See [`AgentLockError`].
    pub fn acquire(dir: &Path) -> Result<AgentLock, AgentLockError> {
        let path = dir.to_owned();
        let mut file = in_time(dir, move || {
            StateDir::create(&path)?.open_to_update(StateFile::AgentLock, OFlags::empty())
        })??;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < WAIT => {
                    std::thread::sleep(POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = file.read_to_string(&mut text);
                    return Err(AgentLockError::Held {
                        directory: dir.to_owned(),
                        pid: read.ok().and_then(|_| text.trim().parse().ok()),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    let path = dir.join(StateFile::AgentLock.name());
                    return Err(StateError::wrap("lock", &path)(error).into());
                }
            }
        }
        // The pid only serves messages: on a full disk the lock works without the pid.
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", std::process::id());
        Ok(AgentLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_agent_is_refused_and_the_first_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = AgentLock::acquire(dir.path()).expect("free");
        let refused = AgentLock::acquire(dir.path())
            .expect_err("held")
            .to_string();
        let pid = format!("another agent (pid {})", std::process::id());
        assert!(refused.starts_with(&pid), "{refused}");
        drop(first);
        AgentLock::acquire(dir.path()).expect("free again");
    }
}
