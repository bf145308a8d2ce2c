//! The CPU time of a pass. A pass that waits (for the lock, a silent gateway, a program's lock) costs
//! nothing, and needs no rest after it.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The CPU time of this thread and of the programs that this process has waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort(Duration);

impl Effort {
    /// Reads both clocks. A clock that cannot be read counts as zero.
    pub(super) fn now() -> Effort {
        Effort(of(UsageWho::RUSAGE_THREAD) + of(UsageWho::RUSAGE_CHILDREN))
    }

    /// The time used since.
    pub(super) fn elapsed(self) -> Duration {
        Effort::now().0.saturating_sub(self.0)
    }
}

fn of(who: UsageWho) -> Duration {
    getrusage(who).map_or(Duration::ZERO, |used| {
        duration(used.user_time()) + duration(used.system_time())
    })
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn waiting_is_no_effort_and_the_work_of_programs_is() {
        // The programs of other tests count for this process too, so that the thread alone is known.
        let (before, thread) = (Effort::now(), of(UsageWho::RUSAGE_THREAD));
        std::thread::sleep(Duration::from_millis(300));
        let waited = of(UsageWho::RUSAGE_THREAD) - thread;
        assert!(waited < Duration::from_millis(300), "{waited:?}");
        let count = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done";
        Command::new("sh").args(["-c", count]).status().unwrap();
        let programs = before.elapsed();
        assert!(programs > waited, "{programs:?}, {waited:?} of the thread");
    }
}
