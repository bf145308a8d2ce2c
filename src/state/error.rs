//! Failures of the state directory, each with operation, path, reason and advice.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An operation on the state directory or a file in it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {problem}; {}", .path.display(), .problem.advice())]
pub struct StateError {
    /// A verb with its object, as in `cannot …`.
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub problem: StateProblem,
}

impl StateError {
    /// Wraps the reason of a failure, for `map_err`.
    pub fn wrap<P: Into<StateProblem>>(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(P) -> StateError + use<P> {
        let path = path.to_owned();
        move |problem| StateError {
            operation,
            path,
            problem: problem.into(),
        }
    }

    /// True if the system refused access to this user.
    pub fn is_denied(&self) -> bool {
        matches!(&self.problem, StateProblem::System(error) if error.kind() == ErrorKind::PermissionDenied)
    }

    /// True if the disk gave no answer in time. A further access may never return.
    pub fn is_silent(&self) -> bool {
        matches!(&self.problem, StateProblem::System(error) if error.kind() == ErrorKind::TimedOut)
    }

    /// True if the directory's path leads through a link without a target.
    pub fn is_dangling(&self) -> bool {
        matches!(self.problem, StateProblem::Dangling { .. })
    }

    /// True if the file itself cannot be trusted, so that the content counts as damaged. The next
    /// write replaces the file, except for a directory, which no rename can replace.
    pub fn is_untrusted(&self) -> bool {
        match &self.problem {
            StateProblem::NotRegular(kind) => *kind != FileKind::Directory,
            StateProblem::HardLinks
            | StateProblem::Owner { .. }
            | StateProblem::WorldWritable { .. }
            | StateProblem::TooLarge { .. } => true,
            StateProblem::System(_) | StateProblem::Replaced | StateProblem::Dangling { .. } => {
                false
            }
        }
    }
}

/// The reason of a [`StateError`].
#[derive(Debug, thiserror::Error)]
pub enum StateProblem {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("it is {0}, not a regular file")]
    NotRegular(FileKind),
    #[error("it has several names (hard links)")]
    HardLinks,
    #[error("it belongs to uid {owner}: neither to root nor to the owner of the state dir")]
    Owner { owner: u32 },
    #[error("everybody may write to it (mode {mode:04o})")]
    WorldWritable { mode: u32 },
    #[error("another program replaced it at the same moment")]
    Replaced,
    #[error("it has {size} bytes, far more than is ever written")]
    TooLarge { size: u64 },
    #[error("the symbolic link {} leads to {}, which does not exist", link.display(), target.display())]
    Dangling { link: PathBuf, target: PathBuf },
}

impl From<Errno> for StateProblem {
    fn from(errno: Errno) -> StateProblem {
        match errno {
            // The answer to O_NOFOLLOW and RESOLVE_NO_SYMLINKS.
            Errno::LOOP => StateProblem::NotRegular(FileKind::SymbolicLink),
            _ => StateProblem::System(errno.into()),
        }
    }
}

impl StateProblem {
    fn advice(&self) -> &'static str {
        match self {
            StateProblem::System(error) if errno_of(error) == Some(Errno::LOOP) => {
                "the symbolic links of this path lead in a circle: set state_dir (--state-dir)"
            }
            StateProblem::System(error) => advice(error.kind()),
            StateProblem::NotRegular(_) => {
                "find out which program put it there, and remove it: a pass writes a new file"
            }
            StateProblem::HardLinks => {
                "its other name may be another program's file: remove this name, the content stays under the other one"
            }
            StateProblem::Owner { .. } => {
                "remove it, or, if the content is right, give it to the owner of the state dir (chown)"
            }
            StateProblem::WorldWritable { .. } => {
                "remove it, or, if the content is right, take the right away (chmod o-w)"
            }
            StateProblem::Replaced => {
                "try again, and if the failure comes back, look for a program that writes to the state dir"
            }
            StateProblem::TooLarge { .. } => "move it away",
            StateProblem::Dangling { .. } => {
                "mount the volume that the link leads to, remove the link, or set state_dir (--state-dir)"
            }
        }
    }
}

fn errno_of(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull => {
            "free space there, or set state_dir (--state-dir) to another disk"
        }
        ErrorKind::QuotaExceeded => {
            "raise the quota, or set state_dir (--state-dir) to another disk"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "remount it writable, or set state_dir (--state-dir) to a writable directory"
        }
        ErrorKind::PermissionDenied => {
            "run as root or as the owner of the state dir, or pass --state-dir"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file stands where a directory must be: set state_dir (--state-dir)"
        }
        ErrorKind::TimedOut => "check the disk, or the server of the network file system",
        ErrorKind::InvalidFilename => "shorten state_dir (--state-dir)",
        ErrorKind::IsADirectory => "a directory stands where a file must be: move it away",
        _ => "check the disk (dmesg) and state_dir (--state-dir)",
    }
}

/// A fault of the state directory as a state of the product: the reason apart from the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFault {
    pub reason: String,
    /// Empty where the reason has the remedy.
    pub advice: &'static str,
}

impl StateFault {
    /// The fault with an introduction.
    #[must_use]
    pub fn after(self, introduction: &str) -> StateFault {
        StateFault {
            reason: format!("{introduction}{}", self.reason),
            ..self
        }
    }
}

impl From<&StateError> for StateFault {
    fn from(error: &StateError) -> StateFault {
        let StateError {
            operation,
            path,
            problem,
        } = error;
        StateFault {
            reason: format!("cannot {operation} {}: {problem}", path.display()),
            advice: problem.advice(),
        }
    }
}

impl From<&ReadError> for StateFault {
    fn from(error: &ReadError) -> StateFault {
        match error {
            ReadError::Unreadable(inner) | ReadError::Untrusted(inner) => inner.into(),
            ReadError::Absent { .. } | ReadError::Corrupt { .. } => StateFault {
                reason: error.to_string(),
                advice: "",
            },
        }
    }
}

/// The kind of a directory entry that is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    SymbolicLink,
    Directory,
    Fifo,
    Socket,
    Device,
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::SymbolicLink => "a symbolic link",
            FileKind::Directory => "a directory",
            FileKind::Fifo => "a FIFO",
            FileKind::Socket => "a socket",
            FileKind::Device => "a device node",
            FileKind::Unknown => "of an unknown kind",
        })
    }
}

/// A state file that could not be replaced or removed.
pub type WriteError = StateError;

/// A state file without a usable content.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file was never written, or was removed: the ordinary state of a new host.
    #[error("{} does not exist yet: a first successful pass writes it", path.display())]
    Absent { path: PathBuf },
    /// The file may be there and sound, but cannot be read.
    #[error(transparent)]
    Unreadable(StateError),
    /// Somebody else may have written the file ([`StateError::is_untrusted`]).
    #[error(transparent)]
    Untrusted(StateError),
    #[error("{} is damaged: {what}: move it away (keep it, if the cause matters) and run a pass with a working source", path.display())]
    Corrupt { path: PathBuf, what: String },
}

impl ReadError {
    /// True if the file was never written. No other error may be taken for an absent file.
    pub fn is_absent(&self) -> bool {
        matches!(self, ReadError::Absent { .. })
    }

    /// True if the content is lost, and the next write replaces the file.
    pub fn is_damaged(&self) -> bool {
        matches!(self, ReadError::Corrupt { .. } | ReadError::Untrusted(_))
    }

    /// True if the system refused access to this user.
    pub fn is_denied(&self) -> bool {
        matches!(self, ReadError::Unreadable(error) if error.is_denied())
    }
}

impl From<StateError> for ReadError {
    fn from(error: StateError) -> ReadError {
        if error.is_untrusted() {
            ReadError::Untrusted(error)
        } else {
            ReadError::Unreadable(error)
        }
    }
}
