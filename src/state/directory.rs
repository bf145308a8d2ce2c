//! The directory for what outlives a pass, and what is said when it refuses.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

/// Ours and our group's alone: the journal tells what the host talks to.
pub const DIR_MODE: u32 = 0o750;
/// The mode of the files in it.
pub const FILE_MODE: u32 = 0o640;

/// An operation on a file of the state dir failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}{}", .path.display(), advice(.source))]
pub struct StateError {
    /// What was tried, as in `cannot …`.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl StateError {
    /// Wraps an error of the system, for `map_err`.
    pub fn wrap(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
        let path = path.to_owned();
        move |source| StateError {
            operation,
            path,
            source,
        }
    }
}

/// Creates the state dir where it is missing, with mode [`DIR_MODE`].
///
/// # Errors
/// It can't be created, or something else has its name.
pub fn create(dir: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(StateError::wrap("create the state dir", dir))
}

/// Gives a file to the owner of its state dir, where we may: what root writes by hand, the agent
/// must be able to read and replace under its own user.
pub fn give_to_owner(file: &File, dir: &Path) {
    let (Ok(file_meta), Ok(dir_meta)) = (file.metadata(), std::fs::metadata(dir)) else {
        return;
    };
    let wanted = (dir_meta.uid(), dir_meta.gid());
    if (file_meta.uid(), file_meta.gid()) != wanted {
        // Who may not give files away is that owner itself, or root without CAP_CHOWN, whose
        // agent then runs as root too.
        let _ = fchown(file, Some(wanted.0), Some(wanted.1));
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, or set state_dir (--state-dir) to another disk"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; set state_dir (--state-dir) to a directory that can be written"
        }
        io::ErrorKind::PermissionDenied => {
            "; run as root or as the owner of the state dir, or pass --state-dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a file stands where a directory must be"
        }
        _ => "",
    }
}

/// A file system of its own for a test that runs isolated (mount(8): `size=64k`; `remount,ro`).
#[cfg(test)]
pub(crate) fn small_disk(options: &str) -> std::path::PathBuf {
    let directory = std::path::PathBuf::from("/run/lab/disk");
    std::fs::create_dir_all(&directory).expect("the test's own /run");
    // With the source named, a remount repeats no option that a user namespace doesn't allow.
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(&directory)
        .status();
    assert!(mounted.expect("mount(8) is there").success());
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = File::create(dir.path().join("file")).expect("a file");
        let owner = || {
            let meta = file.metadata().expect("a file has metadata");
            (meta.uid(), meta.gid())
        };
        let before = owner();
        let given = std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).is_ok();
        give_to_owner(&file, dir.path());
        // Who isn't root can't give anything away, and nothing of it fails.
        let expected = if given { (65_534, 65_534) } else { before };
        assert_eq!(owner(), expected);
    }
}
