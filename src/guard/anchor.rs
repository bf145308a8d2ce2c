//! Time as the guard counts it: a wall clock that somebody sets neither ends nor lengthens a hold.
//!
//! The guard's times are wall seconds, as people read them. What is stored with them says what
//! the clocks showed when they were written: the wall clock, and the kernel's clock since boot,
//! which nobody can set. When they are read again, the difference tells how far the wall clock
//! was moved, and every time is moved along.
//!
//! ```text
//!  within a boot   jump = what the wall clock went ─ what the boot clock went
//!  across boots    jump = what the wall clock went       (the time in between doesn't count)
//! ```
//!
//! Across a boot nobody knows how long the machine was off: the wall clock may have started at
//! 1970, or at what a broken battery says. None of that time counts, nor what the last boot went
//! on after its last writing, at most [`RENEW_AFTER`] and the time to the next pass: a hold
//! lasts longer than it had to, never shorter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A file with running clocks is written again when its anchor is older than this: what a reboot
/// may forget. Small against the hours that holds and hold-downs last, and no work for a disk.
pub const RENEW_AFTER: Duration = Duration::from_secs(600);

/// A jump below this many seconds is none: both clocks are stored in whole seconds, rounded down
/// each by itself, so that their difference is off by up to one.
pub(super) const ROUNDING: i64 = 1;

/// What the clocks of one moment showed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Anchor {
    /// Which boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The time since then in seconds, suspended time included (CLOCK_BOOTTIME).
    pub boottime_s: u64,
    /// The wall clock, in seconds since the epoch.
    pub wall_s: i64,
}

impl Anchor {
    /// What certainly went by since the other moment, in seconds; `None` in another boot. A boot
    /// clock that went back is one too: a snapshot of a virtual machine, or a time namespace.
    pub(super) fn since(&self, before: &Anchor) -> Option<u64> {
        let same = self.boot_id == before.boot_id;
        same.then(|| self.boottime_s.checked_sub(before.boottime_s))?
    }

    /// How far the wall clock was moved since the other moment, in seconds, forward if positive.
    pub(super) fn jump_since(&self, before: &Anchor) -> i64 {
        let went = self.since(before).unwrap_or(0);
        let expected = before.wall_s.saturating_add_unsigned(went);
        self.wall_s.saturating_sub(expected)
    }
}
