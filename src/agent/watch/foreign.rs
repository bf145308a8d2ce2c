//! Polls the foreign rules of iptables-legacy in the path of forwarded packets: the kernel announces no
//! change of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::agent::shared::{Shared, locked};
use crate::judge::chain::BaseChain;
use crate::kernel::firewall::iptables;

/// The interval. Without a legacy table in the network namespace, a look reads two small files of
/// procfs; with one, a look runs `iptables-legacy` once a table, some milliseconds of CPU time.
const EVERY: Duration = Duration::from_secs(2);

/// A thread that requests a pass after each change. Dropping the value ends the thread.
#[derive(Debug)]
pub(in crate::agent) struct ForeignPoll {
    ended: Arc<AtomicBool>,
}

impl ForeignPoll {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(shared: Arc<Shared>) -> std::io::Result<ForeignPoll> {
        let ended = Arc::new(AtomicBool::new(false));
        let poll = ForeignPoll {
            ended: Arc::clone(&ended),
        };
        std::thread::Builder::new()
            .name("foreign".to_owned())
            .spawn(move || run(&shared, &ended))?;
        Ok(poll)
    }
}

impl Drop for ForeignPoll {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn run(shared: &Shared, ended: &AtomicBool) {
    // Unreadable chains equal unreadable chains.
    let look = || iptables::foreign_chains().ok();
    let mut known: Option<Vec<BaseChain>> = look();
    loop {
        std::thread::sleep(EVERY);
        if ended.load(Ordering::SeqCst) || shared.is_stopping() {
            return;
        }
        let now = look();
        if now != known {
            known = now;
            let mut noticed = locked(&shared.noticed);
            noticed.event = Some(Instant::now());
            noticed.cause(|| "foreign rules of iptables-legacy changed".to_owned());
            drop(noticed);
            shared.wake.notify_one();
        }
    }
}
