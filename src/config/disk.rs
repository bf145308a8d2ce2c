//! The bytes of the config file, also from a pipe (`-c <(…)`), without waiting for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// A config file has a few kB. The limit stops endless files (`-c /dev/zero`).
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The longest wait for a pipe or a terminal, from the start to the last byte.
const WITHIN: Duration = Duration::from_secs(10);

/// Opens a file; a pipe without a writer doesn't block the caller.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK.bits();
    options.read(true).custom_flags(flags.cast_signed());
    options.open(path)
}

/// Reads a file, at most one byte more than [`MAX_BYTES`]; `None` if the file doesn't exist.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let waits = !file.metadata()?.is_file();
    let end = Instant::now() + WITHIN;
    let mut bytes = Vec::new();
    let mut part = [0; 8192];
    while bytes.len() as u64 <= MAX_BYTES {
        if waits {
            wait(&file, end)?;
        }
        match (&file).read(&mut part) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if waits && error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(bytes))
}

/// Waits for bytes, or for the end of a pipe's last writer.
fn wait(file: &File, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = Timespec {
        tv_sec: left.as_secs().cast_signed(),
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!(
                "no writer has finished this pipe within {} s",
                WITHIN.as_secs()
            ),
        )),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The remedy for an unreadable file.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::IsADirectory => "name the file in this directory",
        ErrorKind::TimedOut => "name a file, or start the program that writes to the pipe",
        ErrorKind::InvalidFilename => "shorten the path",
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "the link leads back to itself: name the file itself"
        }
        ErrorKind::PermissionDenied => "check its owner and mode, and those of its directories",
        _ => "check the file and its disk (dmesg)",
    }
}

/// The fault of bytes that are no UTF-8 text; `None` for text.
pub(super) fn not_text(bytes: &[u8]) -> Option<String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Some("is larger than 1 MiB: a config file has a few kB; check the path".to_owned());
    }
    let zeros = bytes.iter().take(64).filter(|byte| **byte == 0).count();
    let is_marked = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    // Every second byte of Latin text in UTF-16 is zero, and more in UTF-32.
    if is_marked || (bytes.len() > 3 && zeros * 3 > bytes.len().min(64)) {
        return Some("is UTF-16 or UTF-32 text: save it as UTF-8".to_owned());
    }
    let error = std::str::from_utf8(bytes).err()?;
    let at = error.valid_up_to();
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    Some(format!(
        "is not text: byte {at}, in line {line}, is not UTF-8; save it as UTF-8"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_other_encodings_are_named() {
        assert_eq!(not_text(b"role = \"host\"\n"), None);
        assert_eq!(not_text("ä\u{feff}日本".as_bytes()), None);
        assert_eq!(not_text(b""), None);
        for bytes in [
            &b"r\0o\0l\0e\0"[..],
            b"\0r\0o\0l\0e",
            b"\xff\xfer\0",
            b"\xfe\xff\0r",
        ] {
            assert!(not_text(bytes).is_some_and(|fault| fault.contains("UTF-16")));
        }
        let fault = not_text(b"a = 1\nb = \"\xff\"\n").unwrap_or_default();
        assert!(fault.contains("byte 11, in line 2"), "{fault}");
    }
}
