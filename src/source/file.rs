//! Reads a document from a file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::answer::Content;
use super::coding;
use super::error::Failure;
use super::settings::FetchSettings;

/// The files whose reading has not ended: each further thread would wait with the first.
static READING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn reading() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    READING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file in [`READING`], for the life of this value.
struct Reading(PathBuf);

impl Reading {
    /// `None` while an earlier read of the file goes on.
    fn begin(path: &Path) -> Option<Reading> {
        let begins = reading().insert(path.to_owned());
        begins.then(|| Reading(path.to_owned()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        reading().remove(&self.0);
    }
}

/// Reads a whole file in a thread, within the timeout of a try: a network file system whose server is
/// gone never answers, and everything else of a pass must not wait for the file.
pub(super) async fn read_within(
    path: PathBuf,
    settings: &FetchSettings,
) -> Result<Content, Failure> {
    let max_bytes = settings.max_bytes;
    let silent = |problem: String| Failure::File {
        problem,
        advice: "check the disk or the network file system (mount, dmesg)".into(),
    };
    let Some(mine) = Reading::begin(&path) else {
        return Err(silent("an earlier read has got no answer yet".to_owned()));
    };
    let (done, result) = oneshot::channel();
    let reading = std::thread::Builder::new().name("file".to_owned());
    reading
        .spawn(move || {
            let content = read(&path, max_bytes);
            // Before the answer, so that the next read may begin.
            drop(mine);
            done.send(content).is_ok()
        })
        .map_err(|error| Failure::File {
            problem: format!("no thread for the file: {error}"),
            advice: "check the limits of tasks (TasksMax, ulimit -u)".into(),
        })?;
    let within = settings.timeout;
    match tokio::time::timeout(within, result).await {
        Ok(Ok(content)) => content,
        Ok(Err(_)) => Err(silent("the thread that read the file has ended".to_owned())),
        Err(_) => Err(silent(format!(
            "no answer within {} s",
            within.as_secs_f64()
        ))),
    }
}

/// Reads a whole file, up to `max_bytes`.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Content, Failure> {
    // Before open(2): the open of a FIFO without a writer would wait for ever.
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        let (problem, advice) = if metadata.is_dir() {
            ("it is a directory", "name the file in it")
        } else {
            (
                "it is not a regular file",
                "write its content to a file first",
            )
        };
        return Err(Failure::File {
            problem: problem.to_owned(),
            advice: advice.into(),
        });
    }
    if metadata.len() > max_bytes {
        return Err(Failure::TooLarge {
            limit: max_bytes,
            announced: Some(metadata.len()),
        });
    }
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    // The file may have grown since.
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Failure::TooLarge {
            limit: max_bytes,
            announced: None,
        });
    }
    let bytes = coding::decode(bytes, max_bytes)?;
    if bytes.is_empty() {
        return Err(Failure::Empty);
    }
    Ok(Content::Document {
        bytes,
        validators: None,
    })
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::File {
        problem: error.to_string(),
        advice: Cow::Borrowed(match error.kind() {
            ErrorKind::NotFound => {
                "check the path (a relative one starts at the current directory)"
            }
            ErrorKind::PermissionDenied => "let this user read it and enter its directories",
            _ => "check the file and the disk",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path, max: u64) -> String {
        match read(path, max) {
            Ok(_) => panic!("{} was read", path.display()),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn file_is_read_up_to_the_size_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ranges.json");
        std::fs::write(&path, b"12345").unwrap();
        let Ok(Content::Document { bytes, validators }) = read(&path, 5) else {
            panic!("not read");
        };
        assert_eq!((bytes.as_slice(), validators), (&b"12345"[..], None));
        assert!(text(&path, 4).contains("larger than 4 bytes (5 bytes announced)"));
    }

    /// A file system that never answers keeps one thread, however often a fetch is tried.
    #[test]
    fn file_is_read_by_one_thread_at_a_time() {
        let path = Path::new("/a/file/that/no/other/test/reads");
        let first = Reading::begin(path).unwrap();
        assert!(Reading::begin(path).is_none());
        assert!(Reading::begin(Path::new("/a/file")).is_some());
        drop(first);
        assert!(Reading::begin(path).is_some());
    }

    #[test]
    fn unreadable_file_names_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(text(&dir.path().join("none"), 9).contains("check the path"));
        assert!(text(dir.path(), 9).contains("it is a directory"));
        assert!(text(Path::new("/dev/zero"), 9).contains("not a regular file"));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(text(&empty, 9).contains("empty document"));
        // A procfs file has a size of 0 and content: only reading shows the real size.
        assert!(text(Path::new("/proc/self/status"), 9).contains("larger than 9 bytes:"));
        assert!(text(&empty.join("below"), 9).contains("Not a directory"));
    }
}
