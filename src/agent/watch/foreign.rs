//! Polls the foreign rules of iptables-legacy: filters of forwarded packets, and of a host's own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::poll::{Pauses, Poll, notice};
use crate::agent::shared::Shared;
use crate::kernel::firewall::iptables;

/// The interval while the network namespace has a legacy table. A look runs `iptables-legacy` once a table,
/// some milliseconds of CPU time.
const EVERY: Duration = Duration::from_secs(2);
/// The longest time without a look while there is no such table: its creation may go unnoticed, by a
/// program in a container with a lock file of its own. A look reads two small files of procfs.
const LONGEST: Duration = Duration::from_secs(120);
/// The pause after a run of iptables-legacy. A script runs many.
const BURST: Duration = Duration::from_millis(200);

/// Starts the thread that requests a pass after each change.
///
/// # Errors
/// The system refuses a thread.
pub(in crate::agent) fn poll_foreign(shared: Arc<Shared>) -> io::Result<Poll> {
    Poll::start("foreign", shared, run)
}

fn run(shared: &Shared, pauses: &Pauses) {
    let mut runs = iptables::LegacyRuns::watch();
    if let Err(error) = &runs {
        tracing::debug!("runs of iptables-legacy are not announced: {error}");
    }
    // A pass that cannot judge the chains is requested once.
    let mut requested = None;
    let mut pause = EVERY;
    while pauses.pause(shared, pause) {
        // Unreadable chains equal unreadable chains.
        let now = iptables::foreign_chains().ok();
        let unused = now.as_ref().is_some_and(Vec::is_empty);
        if shared.has_judged(now.as_ref()) {
            requested = None;
        } else if requested.as_ref() != Some(&now) {
            requested = Some(now);
            notice(shared, |noticed| {
                noticed.event = Some(Instant::now());
                noticed.cause(|| "foreign rules of iptables-legacy changed".to_owned());
            });
        }
        pause = EVERY;
        if unused && let Ok(announced) = &runs {
            match announced.wait(LONGEST) {
                Ok(true) => pause = BURST,
                Ok(false) => pause = Duration::ZERO,
                Err(error) => runs = Err(error),
            }
        }
    }
}
