//! Notices runs of iptables-legacy: the kernel announces no change of its rules, but each run opens and
//! closes a lock file, and inotify tells of that.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// The directory of the lock file of xtables. An agent without root may not watch the file itself, which
/// only root can read.
const DIRECTORY: &str = "/run";
const LOCK: &[u8] = b"xtables.lock";

/// Notifications of runs that lock the file of this mount namespace, also by containers that mount the file.
#[derive(Debug)]
pub struct LegacyRuns(OwnedFd);

impl LegacyRuns {
    /// Asks for notifications.
    ///
    /// # Errors
    /// The kernel refuses an inotify instance, or the directory is absent.
    pub fn watch() -> io::Result<LegacyRuns> {
        let runs = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let closed = WatchFlags::CLOSE_NOWRITE | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&runs, DIRECTORY, closed)?;
        Ok(LegacyRuns(runs))
    }

    /// Waits for the end of a run, at most for this time. Returns true if one has ended.
    ///
    /// # Errors
    /// The notifications cannot be read.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // A timeout out of range of the system call's is none.
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if self.has_run()? => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// True if a waiting notification is that of a run, or of lost notifications.
    fn has_run(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut found = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    found |= name.is_none_or(|name| name == LOCK);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(found),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
