//! Threads that look again and again at state whose changes the kernel doesn't announce.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::agent::shared::{Noticed, Shared, locked};

/// A polling thread. Dropping the value ends the thread at its next pause.
#[derive(Debug)]
pub(in crate::agent) struct Poll {
    _end: Sender<()>,
}

/// The thread's side.
pub(super) struct Pauses {
    end: Receiver<()>,
}

impl Poll {
    /// Starts the thread with the function that looks.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(
        name: &str,
        shared: Arc<Shared>,
        look: impl FnOnce(&Shared, &Pauses) + Send + 'static,
    ) -> io::Result<Poll> {
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || look(&shared, &Pauses { end: ended }))?;
        Ok(Poll { _end: end })
    }
}

impl Pauses {
    /// Waits. Returns false if the thread shall end.
    pub(super) fn pause(&self, shared: &Shared, time: Duration) -> bool {
        let ended = self.end.recv_timeout(time);
        ended == Err(RecvTimeoutError::Timeout) && !shared.is_stopping()
    }
}

/// Wakes the loop with a change that a poll has found.
pub(super) fn notice(shared: &Shared, note: impl FnOnce(&mut Noticed)) {
    note(&mut locked(&shared.noticed));
    shared.wake.notify_one();
}
