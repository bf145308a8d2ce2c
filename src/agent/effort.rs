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
        let of = |who| {
            let used = getrusage(who).ok()?;
            Some(duration(used.user_time()) + duration(used.system_time()))
        };
        let thread = of(UsageWho::RUSAGE_THREAD).unwrap_or_default();
        Effort(thread + of(UsageWho::RUSAGE_CHILDREN).unwrap_or_default())
    }

    /// The time used since.
    pub(super) fn elapsed(self) -> Duration {
        Effort::now().0.saturating_sub(self.0)
    }
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn waiting_is_no_effort_and_the_work_of_programs_is() {
        let before = Effort::now();
        std::thread::sleep(Duration::from_millis(300));
        let waited = before.elapsed();
        let count = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done";
        let begun = Instant::now();
        Command::new("sh").args(["-c", count]).status().unwrap();
        let (worked, took) = (before.elapsed().saturating_sub(waited), begun.elapsed());
        assert!(waited < Duration::from_millis(300), "{waited:?}");
        assert!(worked > Duration::ZERO, "{worked:?} of {took:?}");
    }
}
