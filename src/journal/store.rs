//! The files of the journal: append, sync, rotate, read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::history::Collector;
use super::{History, Record};
use crate::state::directory::{self, FILE_MODE, StateError};

/// The size at which `journal.jsonl` becomes `journal.jsonl.1`; both files together never exceed
/// twice the size. A pass without changes writes 400 bytes: with one pass every five minutes,
/// 8 MiB last ten weeks. A line with 256 steps has about 60 kB.
pub const DEFAULT_MAX_BYTES: u64 = 8 << 20;

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
        self.dir.join("journal.jsonl")
    }

    fn rotated_path(&self) -> PathBuf {
        self.dir.join("journal.jsonl.1")
    }

    /// Appends one line and waits for the disk. The pass lock excludes other writers.
    ///
    /// # Errors
    /// The disk is full, read-only, or fails; the journal then has no part of the line.
    pub fn append(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path();
        let failed = |source| StateError::wrap("append to the journal", &path)(source);
        directory::create(&self.dir)?;
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file = self.open().map_err(failed)?;
        let mut length = file.metadata().map_err(failed)?.len();
        let created = length == 0;
        if length > 0 && length + line.len() as u64 > self.max_bytes {
            fs::rename(&path, self.rotated_path())
                .map_err(StateError::wrap("rotate the journal", &path))?;
            file = self.open().map_err(failed)?;
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
                File::open(&self.dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(StateError::wrap("sync the directory", &self.dir))?;
            }
        }
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(self.path())?;
        directory::give_to_owner(&file, &self.dir);
        Ok(file)
    }

    /// Reads all passes, oldest first. Unreadable lines are reported beside the passes. A missing
    /// journal means that no pass has run yet.
    ///
    /// # Errors
    /// An existing file is unreadable.
    pub fn read(&self) -> Result<History, StateError> {
        let mut collector = Collector::default();
        for path in [self.rotated_path(), self.path()] {
            let failed = |source| StateError::wrap("read the journal", &path)(source);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            for number in 1.. {
                line.clear();
                if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                    break;
                }
                collector.line(&path, number, &line);
            }
        }
        Ok(collector.finish())
    }
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
