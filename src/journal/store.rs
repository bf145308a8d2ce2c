//! The files of the journal: append, sync, rotate, read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::history::Collector;
use super::{History, Record};
use crate::state::StateFile;
use crate::state::directory::StateDir;
use crate::state::error::{StateError, StateProblem};

/// The size at which `journal.jsonl` becomes `journal.jsonl.1`; both files together never exceed
/// twice the size. A pass without changes writes 400 bytes: with one pass every five minutes,
/// 8 MiB last ten weeks. A line with 256 steps has about 60 kB.
pub const DEFAULT_MAX_BYTES: u64 = 8 << 20;

/// A larger file is not read. No journal comes near the bound, and the owner of the state dir could
/// otherwise keep `history` busy for ever with a sparse file.
const MAX_READ: u64 = 8 * DEFAULT_MAX_BYTES;

/// The journal of a state dir.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
    max_bytes: u64,
    sync: bool,
}

impl Journal {
    /// The journal in a state dir. Creates no file yet.
    pub fn new(state_dir: &Path) -> Journal {
        Journal {
            dir: state_dir.to_owned(),
            max_bytes: DEFAULT_MAX_BYTES,
            sync: true,
        }
    }

    /// Sets the size for rotation, in bytes.
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Journal {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets whether `append` waits for the disk; false for benchmarks only.
    pub fn with_sync(mut self, sync: bool) -> Journal {
        self.sync = sync;
        self
    }

    /// The file that receives new lines.
    pub fn path(&self) -> PathBuf {
        self.dir.join(StateFile::Journal.name())
    }

    /// Appends one line and waits for the disk. The pass lock excludes other writers.
    ///
    /// # Errors
    /// The disk is full, read-only, or fails; the journal then has no part of the line.
    pub fn append(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path();
        let failed = |error: io::Error| StateError::wrap("append to the journal", &path)(error);
        let dir = StateDir::create(&self.dir)?;
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file = dir.open_to_update(StateFile::Journal, OFlags::APPEND)?;
        let mut length = file.metadata().map_err(failed)?.len();
        let created = length == 0;
        if length > 0 && length + line.len() as u64 > self.max_bytes {
            dir.rename_file(StateFile::Journal, StateFile::RotatedJournal)?;
            file = dir.open_to_update(StateFile::Journal, OFlags::APPEND)?;
            length = 0;
        }
        if length > 0 && !ends_with_newline(&mut file, length).map_err(failed)? {
            // A crash left an incomplete last line: start a new line behind it.
            line.insert(0, b'\n');
        }
        write_whole(&mut file, &line, length).map_err(failed)?;
        if self.sync {
            file.sync_data()
                .map_err(StateError::wrap("sync the journal", &path))?;
            if created || length == 0 {
                dir.sync()?;
            }
        }
        Ok(())
    }

    /// Reads all passes, oldest first. Unreadable lines are reported beside the passes. A missing
    /// journal means that no pass has run yet.
    ///
    /// # Errors
    /// An existing file is unreadable.
    pub fn read(&self) -> Result<History, StateError> {
        let mut collector = Collector::default();
        let Some(dir) = StateDir::open(&self.dir)? else {
            return Ok(collector.finish());
        };
        for file in [StateFile::RotatedJournal, StateFile::Journal] {
            let path = self.dir.join(file.name());
            let read = dir.open_to_read(file).and_then(|opened| match opened {
                None => Ok(()),
                Some(opened) => read_lines(&opened, &path, &mut collector)
                    .map_err(StateError::wrap("read the journal", &path)),
            });
            match read {
                // The other file may still be sound.
                Err(error) if error.is_untrusted() => collector.damaged(&path, 0, &error.problem),
                read => read?,
            }
        }
        Ok(collector.finish())
    }
}

fn read_lines(file: &File, path: &Path, collector: &mut Collector) -> Result<(), StateProblem> {
    let size = file.metadata()?.len();
    if size > MAX_READ {
        return Err(StateProblem::TooLarge { size });
    }
    let mut reader = BufReader::new(file.take(size));
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        collector.line(path, number, &line);
    }
    Ok(())
}

fn ends_with_newline(file: &mut File, length: u64) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Writes the line with one call, so that a crash leaves the whole line or no part, as far as the
/// file system can. Truncates the file after a partial write on a full disk.
fn write_whole(file: &mut File, line: &[u8], length: u64) -> io::Result<()> {
    let result = match file.write(line) {
        Ok(written) if written == line.len() => return Ok(()),
        // An interruption, or a full disk: writing the rest then returns the error.
        Ok(written) => file.write_all(&line[written..]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => file.write_all(line),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // If truncating fails too, the reader reports an incomplete line.
        let _ = file.set_len(length);
    }
    result
}
