//! One agent for each state dir: two agents with different control sockets would undo each other's
//! changes.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::StateFile;
use super::directory::StateDir;
use super::error::StateError;
use super::lock::flock_within;
use super::patience::in_time;

/// The time for a killed agent's children to execute their programs: until then a child still has
/// the lock of its parent.
const WAIT: Duration = Duration::from_secs(2);

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
        let path = dir.join(StateFile::AgentLock.name());
        let locked = flock_within(&file, WAIT).map_err(StateError::wrap("lock", &path))?;
        if locked.is_some() {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            return Err(AgentLockError::Held {
                directory: dir.to_owned(),
                pid: read.ok().and_then(|_| text.trim().parse().ok()),
            });
        }
        // The pid only serves messages: on a full disk the lock works without the pid.
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", std::process::id());
        Ok(AgentLock { _file: file })
    }
}

/// True if an agent uses the state directory. False if the answer is unknown: without permission,
/// or on a silent disk.
pub fn is_held(dir: &Path) -> bool {
    let path = dir.to_owned();
    let file = in_time(dir, move || {
        StateDir::open(&path)?.map_or(Ok(None), |dir| dir.open_to_read(StateFile::AgentLock))
    });
    let Ok(Ok(Some(file))) = file else {
        return false;
    };
    // An agent that starts at this moment waits for the lock.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_agent_is_refused_and_the_first_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!is_held(dir.path()), "no file");
        let first = AgentLock::acquire(dir.path()).expect("free");
        assert!(is_held(dir.path()));
        let refused = AgentLock::acquire(dir.path())
            .expect_err("held")
            .to_string();
        let pid = format!("another agent (pid {})", std::process::id());
        assert!(refused.starts_with(&pid), "{refused}");
        drop(first);
        assert!(!is_held(dir.path()));
        AgentLock::acquire(dir.path()).expect("free again");
    }
}
