//! Polls the foreign rules of iptables-legacy: filters of forwarded packets, and of a host's own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::poll::{Pauses, Poll, notice};
use crate::agent::shared::Shared;
use crate::kernel::firewall::iptables;

/// The interval. Without a legacy table in the network namespace, a look reads two small files of
/// procfs; with one, a look runs `iptables-legacy` once a table, some milliseconds of CPU time.
const EVERY: Duration = Duration::from_secs(2);

/// Starts the thread that requests a pass after each change.
///
/// # Errors
/// The system refuses a thread.
pub(in crate::agent) fn poll_foreign(shared: Arc<Shared>) -> io::Result<Poll> {
    Poll::start("foreign", shared, run)
}

fn run(shared: &Shared, pauses: &Pauses) {
    // A pass that cannot judge the chains is requested once.
    let mut requested = None;
    while pauses.pause(shared, EVERY) {
        // Unreadable chains equal unreadable chains.
        let now = iptables::foreign_chains().ok();
        if shared.has_judged(now.as_ref()) {
            requested = None;
        } else if requested.as_ref() != Some(&now) {
            requested = Some(now);
            notice(shared, |noticed| {
                noticed.event = Some(Instant::now());
                noticed.cause(|| "foreign rules of iptables-legacy changed".to_owned());
            });
        }
    }
}
