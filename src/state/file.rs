//! Format of the files in the state directory: each write replaces the whole file, each read checks
//! a digest.
//!
//! A file is one line of JSON, followed by the unchanged body:
//!
//! ```text
//! {"format":1,"sha256":"…","length":2600123,"meta":{…}}⏎
//! …body…
//! ```
//!
//! Body and metadata share one file, because two renames are not atomic. The digest covers all bytes
//! after its own closing quote, so that a flipped bit shows in the metadata (an `ETag`, for
//! example) as well as in the body. The digest detects damage, not forgery: any user with write
//! permission in the directory can compute a new digest.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StateFile;
use super::directory::StateDir;
use super::error::{ReadError, StateError, StateProblem, WriteError};

/// The bytes before the digest. A change that older versions would misread needs a new number.
const BEFORE_DIGEST: &str = r#"{"format":1,"sha256":""#;
/// SHA-256 in hexadecimal.
const DIGEST_LENGTH: usize = 64;
/// No file comes near the bound (`max_bytes` is 64 MiB by default): a larger file is damaged, and a
/// read would use up the host's memory.
const MAX_FILE: u64 = 4 << 30;

const TEMPORARY_PREFIX: &str = ".trailblazer-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<M> {
    length: u64,
    meta: M,
}

#[derive(Clone)]
pub(super) struct Sound<M> {
    pub(super) meta: M,
    bytes: Vec<u8>,
    body_at: usize,
}

impl<M> Sound<M> {
    /// Content without a file.
    pub(super) fn in_memory(meta: M, body: Vec<u8>) -> Sound<M> {
        Sound {
            meta,
            bytes: body,
            body_at: 0,
        }
    }

    /// Borrowed, since a document has megabytes.
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

/// Reads a file of the directory and checks its digest.
pub(super) fn read<M: DeserializeOwned>(
    directory: &Path,
    file: StateFile,
) -> Result<Sound<M>, ReadError> {
    let path = &directory.join(file.name());
    let opened = match StateDir::open(directory)? {
        Some(directory) => directory.open_to_read(file)?,
        None => None,
    };
    let Some(opened) = opened else {
        return Err(ReadError::Absent { path: path.clone() });
    };
    let bytes = read_bytes(&opened).map_err(StateError::wrap("read", path))?;
    parse(path, bytes)
}

/// Checks the digest of a file's bytes.
pub(super) fn parse<M: DeserializeOwned>(
    path: &Path,
    bytes: Vec<u8>,
) -> Result<Sound<M>, ReadError> {
    let corrupt = |what: String| ReadError::Corrupt {
        path: path.to_owned(),
        what,
    };
    let line_end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| {
            corrupt(format!(
                "the first line is incomplete ({} bytes)",
                bytes.len()
            ))
        })?;
    let covered_from = BEFORE_DIGEST.len() + DIGEST_LENGTH + 1;
    if !bytes.starts_with(BEFORE_DIGEST.as_bytes())
        || line_end <= covered_from
        || bytes[covered_from - 1] != b'"'
    {
        return Err(corrupt(
            "the first line has another format than this version's".to_owned(),
        ));
    }
    let stored = &bytes[BEFORE_DIGEST.len()..covered_from - 1];
    // The rest of the line begins with the comma behind the digest.
    let mut rest = Vec::with_capacity(line_end - covered_from);
    rest.push(b'{');
    rest.extend_from_slice(&bytes[covered_from + 1..line_end]);
    let head: Head<serde_json::Value> = serde_json::from_slice(&rest)
        .map_err(|error| corrupt(format!("the first line is not JSON ({error})")))?;
    let body_at = line_end + 1;
    let length = (bytes.len() - body_at) as u64;
    if length != head.length {
        return Err(corrupt(format!(
            "{length} bytes follow the first line, {} were written",
            head.length
        )));
    }
    if hex(&Sha256::digest(&bytes[covered_from..])).as_bytes() != stored {
        return Err(corrupt("the SHA-256 does not match the content".to_owned()));
    }
    let meta = serde_json::from_value(head.meta)
        .map_err(|error| corrupt(format!("this version does not understand it ({error})")))?;
    Ok(Sound {
        meta,
        bytes,
        body_at,
    })
}

fn read_bytes(file: &File) -> Result<Vec<u8>, StateProblem> {
    let size = file.metadata()?.len();
    if size > MAX_FILE {
        return Err(StateProblem::TooLarge { size });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // A bound, since the file's owner can append for ever.
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file as a whole: temporary file, fsync, rename, fsync of the directory. After a
/// failure the old file is unchanged, and no temporary file is left.
pub(super) fn write<M: Serialize>(
    directory: &Path,
    file: StateFile,
    meta: &M,
    body: &[u8],
    sync: bool,
) -> Result<(), WriteError> {
    let name = file.name();
    let head = first_line(meta, body)
        .map_err(io::Error::from)
        .map_err(StateError::wrap(
            "encode the metadata of",
            &directory.join(name),
        ))?;
    let opened = create_directory(directory, sync)?;
    let temporary = format!("{TEMPORARY_PREFIX}{name}{TEMPORARY_SUFFIX}");
    // A killed process may have left a temporary file of the same name. Other names stay: other
    // threads and processes write other files at the same time. If the removal fails, the
    // creation fails too and reports the reason.
    let _ = opened.remove(&temporary);
    let mut new = opened.create_new(&temporary)?;
    let written = fill(&mut new, &[head.as_bytes(), body], sync)
        .map_err(StateError::wrap("write", &directory.join(&temporary)))
        .and_then(|()| opened.rename(&temporary, name));
    if written.is_err() {
        let _ = opened.remove(&temporary);
    }
    written?;
    if sync { opened.sync() } else { Ok(()) }
}

pub(super) fn first_line<M: Serialize>(meta: &M, body: &[u8]) -> Result<String, serde_json::Error> {
    let head = serde_json::to_string(&Head {
        length: body.len() as u64,
        meta,
    })?;
    // Without the opening brace, which precedes the digest.
    let covered = format!(",{}\n", &head[1..]);
    let digest = Sha256::new()
        .chain_update(covered.as_bytes())
        .chain_update(body)
        .finalize();
    Ok(format!("{BEFORE_DIGEST}{}\"{covered}", hex(&digest)))
}

fn fill(file: &mut File, parts: &[&[u8]], sync: bool) -> io::Result<()> {
    for part in parts {
        file.write_all(part)?;
    }
    if sync { file.sync_all() } else { Ok(()) }
}

/// Removes a file; the absence of the file is a success.
pub(super) fn remove(directory: &Path, file: StateFile, sync: bool) -> Result<(), WriteError> {
    let Some(directory) = StateDir::open(directory)? else {
        return Ok(());
    };
    let removed = directory.remove(file.name())?;
    if removed && sync {
        directory.sync()
    } else {
        Ok(())
    }
}

/// Opens the directory, and first creates it and its parents where they are missing.
pub(super) fn create_directory(directory: &Path, sync: bool) -> Result<StateDir, WriteError> {
    if let Some(there) = StateDir::open(directory).ok().flatten() {
        return Ok(there);
    }
    let created = StateDir::create(directory)?;
    if sync
        && let Some(parent) = directory.parent().filter(|parent| *parent != Path::new(""))
        && let Some(parent) = StateDir::open(parent)?
    {
        parent.sync()?;
    }
    Ok(created)
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
