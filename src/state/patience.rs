//! Access to a disk that may never answer.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::error::StateError;

/// How long the disk may take for one access. A disk that is silent for longer (a frozen
/// file system, a server that is gone) must not keep a pass from the kernel: the egress of a
/// booting host is open until then.
const PATIENCE: Duration = Duration::from_millis(500);

/// Accesses the state dir on a thread of its own, for `PATIENCE`: a system call to a silent disk
/// never returns.
///
/// # Errors
/// The disk is silent ([`StateError::is_silent`]), or the system refuses a thread.
pub fn in_time<T: Send + 'static>(
    dir: &Path,
    access: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StateError> {
    let (to, from) = mpsc::channel();
    // The receiver may have lost patience.
    let accessing = move || drop(to.send(access()));
    let thread = std::thread::Builder::new().name("state-dir".to_owned());
    let started = thread.spawn(accessing);
    started.map_err(StateError::wrap("start a thread for", dir))?;
    from.recv_timeout(PATIENCE).map_err(|_| {
        let silent = std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("the disk gives no answer within {PATIENCE:?}"),
        );
        StateError::wrap("use", dir)(silent)
    })
}
