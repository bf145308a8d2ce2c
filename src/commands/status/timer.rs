//! Single passes by the timer in place of an agent.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::journal::History;

/// The place of the links of `systemctl enable`.
const ENABLED: &str = "/etc/systemd/system/timers.target.wants";
/// The unit of the roles with a kernel, without its suffix.
pub(super) const RECONCILE: &str = "trailblazer-reconcile";
/// The unit of the vpc role, without its suffix.
pub(super) const VPC: &str = "trailblazer-vpc";
/// Each timer runs a pass within nine minutes; a later pass means that the timer has stopped.
const LATEST: SignedDuration = SignedDuration::from_mins(30);
/// Corrections of the clock by NTP. A pass further in the future says nothing about the present: the
/// clock was wrong then.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);

/// The passes of the timer.
#[derive(Debug)]
pub(super) struct Timer {
    unit: &'static str,
    state: TimerState,
}

#[derive(Debug)]
enum TimerState {
    /// The last pass ended in time.
    OnTime { last: Timestamp },
    /// No pass yet, or the last pass is long ago.
    Late { last: Option<Timestamp> },
}

impl Timer {
    /// The state of an enabled timer; `None` without one.
    pub(super) fn look(unit: &'static str, history: &History, now: Timestamp) -> Option<Timer> {
        let link = Path::new(ENABLED).join(format!("{unit}.timer"));
        link.symlink_metadata().ok()?;
        let ended = history.passes.iter().rev().find_map(|pass| {
            let at = pass.last_at.as_ref().or(pass.ended_at.as_ref())?;
            at.parse().ok()
        });
        Some(Timer::of(unit, ended, now))
    }

    fn of(unit: &'static str, last: Option<Timestamp>, now: Timestamp) -> Timer {
        let state = match last {
            Some(last) if (-AHEAD..=LATEST).contains(&now.duration_since(last)) => {
                TimerState::OnTime { last }
            }
            last => TimerState::Late { last },
        };
        Timer { unit, state }
    }

    /// True if the last pass ended in time.
    pub(super) fn is_on_time(&self) -> bool {
        matches!(self.state, TimerState::OnTime { .. })
    }

    /// The rest of the first line.
    pub(super) fn text(&self) -> String {
        let unit = self.unit;
        match self.state {
            TimerState::OnTime { last } => {
                format!("{unit}.timer runs the passes, the last ended at {last:.0}")
            }
            TimerState::Late { last } => {
                let last = last.map_or_else(
                    || "no pass has ended yet".to_owned(),
                    |last| format!("the last pass ended at {last:.0}"),
                );
                format!(
                    "{unit}.timer is late: {last}; see `systemctl status {unit}.timer {unit}.service`"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_is_on_time_within_half_an_hour_and_not_in_the_future() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        for (ended, on_time) in [
            ("2026-11-01T11:55:00Z", true),
            ("2026-11-01T12:00:20Z", true),
            ("2026-11-01T11:20:00Z", false),
            ("2026-11-02T12:00:00Z", false),
        ] {
            let last = Some(ended.parse().unwrap());
            assert_eq!(
                Timer::of(RECONCILE, last, now).is_on_time(),
                on_time,
                "{ended}"
            );
        }
        assert!(!Timer::of(VPC, None, now).is_on_time());
    }
}
