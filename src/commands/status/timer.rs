//! Single passes by the timer in place of an agent.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::journal::History;

/// The link of `systemctl enable trailblazer-reconcile.timer`.
const TIMER: &str = "/etc/systemd/system/timers.target.wants/trailblazer-reconcile.timer";
/// The timer runs a pass within nine minutes; a later pass means that the timer has stopped.
const LATEST: SignedDuration = SignedDuration::from_mins(30);

/// The passes of the timer.
#[derive(Debug)]
pub(super) enum Timer {
    /// The last pass ended in time.
    OnTime { last: Timestamp },
    /// No pass yet, or the last pass is long ago.
    Late { last: Option<Timestamp> },
}

impl Timer {
    /// The state of an enabled timer; `None` without one.
    pub(super) fn look(history: &History, now: Timestamp) -> Option<Timer> {
        Path::new(TIMER).symlink_metadata().ok()?;
        Some(Timer::of(history, now))
    }

    fn of(history: &History, now: Timestamp) -> Timer {
        let ended = history.passes.iter().rev().find_map(|pass| {
            let at = pass.last_at.as_ref().or(pass.ended_at.as_ref())?;
            at.parse().ok()
        });
        match ended {
            Some(last) if now.duration_since(last) <= LATEST => Timer::OnTime { last },
            last => Timer::Late { last },
        }
    }

    /// True if the last pass ended in time.
    pub(super) fn is_on_time(&self) -> bool {
        matches!(self, Timer::OnTime { .. })
    }

    /// The rest of the first line.
    pub(super) fn text(&self) -> String {
        match self {
            Timer::OnTime { last } => {
                format!("trailblazer-reconcile.timer runs the passes, the last ended at {last:.0}")
            }
            Timer::Late { last } => {
                let last = last.map_or_else(
                    || "no pass has ended yet".to_owned(),
                    |last| format!("the last pass ended at {last:.0}"),
                );
                format!(
                    "trailblazer-reconcile.timer is late: {last}; see `systemctl status \
                     trailblazer-reconcile.timer trailblazer-reconcile.service`"
                )
            }
        }
    }
}
