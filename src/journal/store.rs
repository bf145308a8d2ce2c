//! The journal's files: appended, put on disk, rotated, read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::history::Collector;
use super::{History, Record};
use crate::state::directory::{self, FILE_MODE, StateError};

/// Size at which `journal.jsonl` becomes `journal.jsonl.1`; the two together never take more
/// than twice this. At 400 bytes for a pass without changes and one pass each five minutes,
/// 8 MiB hold ten weeks; a line with 256 steps has some 60 kB.
pub const DEFAULT_MAX_BYTES: u64 = 8 << 20;

/// The journal of a state dir.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
    max_bytes: u64,
    sync: bool,
}

impl Journal {
    /// The journal in that directory; nothing is touched yet.
    pub fn new(state_dir: &Path) -> Journal {
        Journal {
            dir: state_dir.to_owned(),
            max_bytes: DEFAULT_MAX_BYTES,
            sync: true,
        }
    }

    /// With another size to rotate at, in bytes.
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Journal {
        self.max_bytes = max_bytes;
        self
    }

    /// Whether each line is on disk before `append` returns; off for benchmarks only.
    pub fn with_sync(mut self, sync: bool) -> Journal {
        self.sync = sync;
        self
    }

    /// The file that lines are appended to.
    pub fn path(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }

    fn rotated_path(&self) -> PathBuf {
        self.dir.join("journal.jsonl.1")
    }

    /// Appends one line and waits until it is on disk. The pass lock keeps writers apart.
    ///
    /// # Errors
    /// The disk is full, read-only, or refuses; the journal then holds no part of the line.
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
            // A crash tore the last line: ours must not be glued to it.
            line.insert(0, b'\n');
        }
        write_whole(&mut file, &line, length).map_err(failed)?;
        if self.sync {
            file.sync_data()
                .map_err(StateError::wrap("put on disk the journal", &path))?;
            if created || length == 0 {
                File::open(&self.dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(StateError::wrap("put on disk the directory", &self.dir))?;
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

    /// Reads every pass that is still there, oldest first. Lines that can't be read are reported
    /// in the answer, with the rest. No journal means no pass yet.
    ///
    /// # Errors
    /// A file that exists can't be read.
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

/// One write, so that a crash leaves the line whole or absent wherever the file system can; what
/// a full disk took of it is cut off again.
fn write_whole(file: &mut File, line: &[u8], length: u64) -> io::Result<()> {
    let result = match file.write(line) {
        Ok(written) if written == line.len() => return Ok(()),
        // Either an interruption, or the disk is full: then the rest says so.
        Ok(written) => file.write_all(&line[written..]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => file.write_all(line),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // If this fails too, the reader reports a torn line.
        let _ = file.set_len(length);
    }
    result
}
