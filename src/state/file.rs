//! Files of the state directory: replaced as a whole or not at all, and read back with a digest.
//!
//! A file is one line of JSON and then the body, byte for byte:
//!
//! ```text
//! {"format":1,"sha256":"…","length":2600123,"meta":{…}}⏎
//! …body…
//! ```
//!
//! One file, and not a body with a description beside it, because two renames are not atomic.
//! The digest covers everything behind its own closing quote, so that a flipped bit in the
//! metadata (an `ETag`, say) shows as well as one in the body. It is there against damage, not
//! against somebody who may write to the directory.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::state::directory;

/// Before the digest. The format number changes when an older version could misread the file.
const BEFORE_DIGEST: &str = r#"{"format":1,"sha256":""#;
/// SHA-256 in hexadecimal.
const DIGEST_LENGTH: usize = 64;
/// Owner and group: the operator's group may read what is in force, nobody else needs to.
const FILE_MODE: u32 = 0o640;
/// As above; DESIGN, "the contract".
const DIRECTORY_MODE: u32 = 0o750;
/// Nothing that we write comes near (`max_bytes` is 64 MiB by default): a larger file is damage,
/// and reading it would take the memory that the host needs.
const MAX_FILE: u64 = 4 << 30;

const TEMPORARY_PREFIX: &str = ".trailblazer-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A state file that gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was never written, or removed: the ordinary state of a new host.
    #[error("{} does not exist yet: a first successful pass writes it", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It may be there and sound, but cannot be read.
    #[error("cannot read {}: {source}: {}", path.display(), read_advice(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}: move it away (keep it, if the cause matters) and run a pass with a working source", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
}

impl ReadError {
    /// Whether there is simply nothing yet. Anything else is an error, never "nothing".
    pub fn is_absent(&self) -> bool {
        matches!(self, ReadError::Absent { .. })
    }
}

fn read_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "run as root or as a member of its group, or set [source] state_dir"
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "check [source] state_dir and what lies there"
        }
        _ => "check the disk (dmesg) and [source] state_dir",
    }
}

/// A state file that could not be replaced or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}: {}", path.display(), write_advice(source))]
pub struct WriteError {
    /// What was being done, as a verb.
    pub doing: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

fn write_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull => "free space there or set [source] state_dir; the old file stays",
        ErrorKind::QuotaExceeded => "raise the quota or set [source] state_dir; the old file stays",
        ErrorKind::ReadOnlyFilesystem => {
            "remount it writable or set [source] state_dir; the old file stays"
        }
        ErrorKind::PermissionDenied => "run as root, or set [source] state_dir; the old file stays",
        ErrorKind::NotADirectory => "a file lies where a directory should: set [source] state_dir",
        _ => "check the disk (dmesg) and [source] state_dir",
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<M> {
    length: u64,
    meta: M,
}

/// A file as read, the digest checked.
#[derive(Clone)]
pub(super) struct Sound<M> {
    pub(super) meta: M,
    bytes: Vec<u8>,
    body_at: usize,
}

impl<M> Sound<M> {
    /// Without a copy: a document has megabytes.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }
}

impl<M: fmt::Debug> fmt::Debug for Sound<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sound")
            .field("meta", &self.meta)
            .field("body_length", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// Reads and checks a file.
pub(super) fn read<M: DeserializeOwned>(path: &Path) -> Result<Sound<M>, ReadError> {
    let bytes = read_bytes(path)?;
    let corrupt = |what: String| ReadError::Corrupt {
        path: path.to_owned(),
        what,
    };
    let line_end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| {
            corrupt(format!(
                "it ends within its first line ({} bytes)",
                bytes.len()
            ))
        })?;
    let covered_from = BEFORE_DIGEST.len() + DIGEST_LENGTH + 1;
    if !bytes.starts_with(BEFORE_DIGEST.as_bytes())
        || line_end <= covered_from
        || bytes[covered_from - 1] != b'"'
    {
        return Err(corrupt(
            "its first line is not the one that this version writes".to_owned(),
        ));
    }
    let stored = &bytes[BEFORE_DIGEST.len()..covered_from - 1];
    // The rest of the line begins with the comma behind the digest.
    let mut rest = Vec::with_capacity(line_end - covered_from);
    rest.push(b'{');
    rest.extend_from_slice(&bytes[covered_from + 1..line_end]);
    let head: Head<serde_json::Value> = serde_json::from_slice(&rest)
        .map_err(|error| corrupt(format!("its first line is not JSON ({error})")))?;
    let body_at = line_end + 1;
    let length = (bytes.len() - body_at) as u64;
    if length != head.length {
        return Err(corrupt(format!(
            "{length} bytes follow its first line, {} were written",
            head.length
        )));
    }
    if hex(&Sha256::digest(&bytes[covered_from..])).as_bytes() != stored {
        return Err(corrupt(
            "its SHA-256 is not the one that was written".to_owned(),
        ));
    }
    let meta = serde_json::from_value(head.meta)
        .map_err(|error| corrupt(format!("this version does not understand it ({error})")))?;
    Ok(Sound {
        meta,
        bytes,
        body_at,
    })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => ReadError::Absent { path },
            _ => ReadError::Unreadable { path, source },
        }
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(ReadError::Corrupt {
            path: path.to_owned(),
            what: format!("it has {size} bytes, far more than is ever written"),
        });
    }
    std::fs::read(path).map_err(failed)
}

/// Replaces a file as a whole: temporary file, fsync, rename, fsync of the directory. Whatever
/// fails, the old file is as it was and no temporary one is left.
pub(super) fn write<M: Serialize>(
    directory: &Path,
    name: &str,
    meta: &M,
    body: &[u8],
    sync: bool,
) -> Result<(), WriteError> {
    let path = directory.join(name);
    let head = first_line(meta, body).map_err(|error| WriteError {
        doing: "encode the metadata of",
        path: path.clone(),
        source: error.into(),
    })?;
    create_directory(directory, sync)?;
    let temporary = directory.join(format!("{TEMPORARY_PREFIX}{name}{TEMPORARY_SUFFIX}"));
    // What a killed process left behind. Only under this name: other files are written at the
    // same time, by other threads and processes. One that can't be removed is told of below.
    let _ = std::fs::remove_file(&temporary);
    let written = fill(directory, &temporary, &[head.as_bytes(), body], sync)
        .map_err(|source| WriteError {
            doing: "write",
            path: temporary.clone(),
            source,
        })
        .and_then(|()| {
            std::fs::rename(&temporary, &path).map_err(|source| WriteError {
                doing: "put the new file in place of",
                path: path.clone(),
                source,
            })
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_directory(directory, sync)
}

fn first_line<M: Serialize>(meta: &M, body: &[u8]) -> Result<String, serde_json::Error> {
    let head = serde_json::to_string(&Head {
        length: body.len() as u64,
        meta,
    })?;
    // Without its opening brace, which stands before the digest.
    let covered = format!(",{}\n", &head[1..]);
    let digest = Sha256::new()
        .chain_update(covered.as_bytes())
        .chain_update(body)
        .finalize();
    Ok(format!("{BEFORE_DIGEST}{}\"{covered}", hex(&digest)))
}

fn fill(directory: &Path, temporary: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(temporary)?;
    // The umask has taken bits away from the mode above; never has it added any.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    directory::give_to_owner(&file, directory);
    for part in parts {
        file.write_all(part)?;
    }
    if sync {
        file.sync_all()?;
    }
    Ok(())
}

/// Removes a file; one that is already gone is a success.
pub(super) fn remove(directory: &Path, name: &str, sync: bool) -> Result<(), WriteError> {
    let path = directory.join(name);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_directory(directory, sync),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(WriteError {
            doing: "remove",
            path,
            source,
        }),
    }
}

/// Creates the directory and its parents where missing.
pub(super) fn create_directory(directory: &Path, sync: bool) -> Result<(), WriteError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| WriteError {
            doing: "create the directory",
            path: directory.to_owned(),
            source,
        })?;
    match directory.parent() {
        Some(parent) if parent != Path::new("") => sync_directory(parent, sync),
        _ => Ok(()),
    }
}

/// A rename survives a power cut only once its directory is on disk.
fn sync_directory(directory: &Path, sync: bool) -> Result<(), WriteError> {
    if !sync {
        return Ok(());
    }
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|source| WriteError {
            doing: "fsync the directory",
            path: directory.to_owned(),
            source,
        })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| {
            [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
        .map(char::from)
        .collect()
}
