//! Access to a disk that may never answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::StateFile;
use super::directory::StateDir;
use super::error::StateError;

/// How long the disk may take for one access. A disk that is silent for longer (a frozen
/// file system, a server that is gone) must not keep a pass from the kernel: the egress of a
/// booting host is open until then.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same for an access that has had no turn on a CPU: the machine is busy, and the disk has not
/// been asked.
const STARVED: Duration = Duration::from_secs(10);
/// The pause between two looks at such an access.
const LOOK: Duration = Duration::from_millis(50);

/// The time after which a silent disk is tried again while an access is still pending: another disk
/// may have been mounted in the place of the silent one.
const RETRY: Duration = Duration::from_secs(10);

/// State directories with a pending access that lasts longer than `PATIENCE`, and its start. Each
/// further access would cost `PATIENCE` again, and a thread that never ends.
static SILENT: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());

fn silent() -> MutexGuard<'static, BTreeMap<PathBuf, Instant>> {
    SILENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accesses the state dir on a thread of its own, for `PATIENCE`: a system call to a silent disk
/// never returns. A thread that waits for a CPU has more time. As long as an earlier access is pending,
/// fails without an access, until `RETRY`.
///
/// # Errors
/// The disk is silent ([`StateError::is_silent`]), or the system refuses a thread.
pub fn in_time<T: Send + 'static>(
    dir: &Path,
    access: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StateError> {
    let start = Instant::now();
    if silent()
        .get(dir)
        .is_some_and(|since| since.elapsed() < RETRY)
    {
        return Err(no_answer(dir));
    }
    let (to, from) = mpsc::channel();
    let ended = Arc::new(AtomicBool::new(false));
    let thread_id = Arc::new(AtomicI32::new(0));
    let accessing = {
        let (ended, dir) = (Arc::clone(&ended), dir.to_owned());
        let thread_id = Arc::clone(&thread_id);
        move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get();
            thread_id.store(own, Ordering::Relaxed);
            let answer = access();
            let mut silent = silent();
            ended.store(true, Ordering::Relaxed);
            silent.remove(&dir);
            drop(silent);
            // The receiver may have lost patience.
            drop(to.send(answer));
        }
    };
    let thread = std::thread::Builder::new().name("state-dir".to_owned());
    let started = thread.spawn(accessing);
    started.map_err(StateError::wrap("start a thread for", dir))?;
    let mut answer = from.recv_timeout(PATIENCE);
    while answer.is_err()
        && start.elapsed() < STARVED
        && waits_for_cpu(thread_id.load(Ordering::Relaxed))
    {
        answer = from.recv_timeout(LOOK);
    }
    answer.map_err(|_| {
        let mut silent = silent();
        if !ended.load(Ordering::Relaxed) {
            silent.insert(dir.to_owned(), start);
        }
        no_answer(dir)
    })
}

/// True if a thread of this process has not begun (0), or could run at once (proc_pid_stat(5)).
fn waits_for_cpu(thread_id: i32) -> bool {
    if thread_id == 0 {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/stat"));
    // The state follows the name, which may contain parentheses.
    let state = |stat: String| stat.rsplit(')').next()?.trim_start().chars().next();
    stat.ok().and_then(state) == Some('R')
}

fn no_answer(dir: &Path) -> StateError {
    let silent = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("the disk gives no answer within {PATIENCE:?}"),
    );
    StateError::wrap("use", dir)(silent)
}

/// Returns true if the state dir exists, without trust in the disk. For commands without the pass
/// lock, before their first access: each later one is a plain system call.
///
/// # Errors
/// The disk is silent ([`StateError::is_silent`]), or the system refuses a thread. Every other fault
/// of the directory belongs to the later access, and counts as an existing directory.
pub fn exists_in_time(dir: &Path) -> Result<bool, StateError> {
    let path = dir.to_owned();
    in_time(dir, move || match StateDir::open(&path) {
        // The answer to an open never comes from a cache, unlike attributes of a network file system.
        Ok(Some(directory)) => {
            let _ = directory.open_to_read(StateFile::Lock);
            true
        }
        Ok(None) => false,
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the machine were busy: the access runs, and ends after the usual patience.
    #[test]
    fn running_access_has_more_time() {
        let busy = || {
            let start = Instant::now();
            while start.elapsed() < PATIENCE + LOOK {
                std::hint::spin_loop();
            }
            3
        };
        assert_eq!(in_time(Path::new("/busy"), busy).expect("ends"), 3);
    }

    #[test]
    fn pending_access_bars_the_next_ones_until_its_end() {
        let dir = Path::new("/pending");
        let (end, ended) = mpsc::channel::<()>();
        let access = move || ended.recv().is_err();
        assert!(in_time(dir, access).expect_err("pending").is_silent());
        let barred = in_time(dir, || panic!("no access")).expect_err("pending");
        assert!(barred.is_silent(), "{barred}");
        assert_eq!(in_time(Path::new("/other"), || 1).expect("answers"), 1);
        drop(end);
        while silent().contains_key(dir) {
            std::thread::yield_now();
        }
        assert_eq!(in_time(dir, || 2).expect("answers"), 2);
    }
}
