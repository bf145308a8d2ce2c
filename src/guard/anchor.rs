//! The guard's clock: setting the wall clock neither ends nor lengthens a hold.
//!
//! The guard's times are wall seconds, readable for people. An anchor is stored with the times: the
//! wall clock and the kernel's clock since boot at the moment of writing. Nobody can set the clock
//! since boot. At the next reading, the difference between the two clocks shows how far somebody
//! has moved the wall clock, and every stored time moves by the same amount.
//!
//! ```text
//!  within a boot   jump = advance of the wall clock ─ advance of the boot clock
//!  across boots    jump = advance of the wall clock    (the time in between doesn't count)
//! ```
//!
//! Across a boot, the time during which the machine was off is unknown: the wall clock may have
//! started at 1970 or at a random time of a broken battery. None of the time in between counts,
//! nor does the last boot's time after its last writing, at most [`RENEW_AFTER`] and the time to
//! the next pass. A hold can so last longer than necessary, never shorter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A file with running clocks is written again when its anchor is older: a reboot forgets at most
/// this time. Small against the hours of holds and hold-downs, and no load for a disk.
pub const RENEW_AFTER: Duration = Duration::from_secs(600);

/// A jump of at most so many seconds is rounding: both clocks are stored in whole seconds, each
/// rounded down, so the difference of two readings is off by up to one.
pub(super) const ROUNDING: i64 = 1;

/// The clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Anchor {
    pub boot_id: String,
    /// Seconds since boot, suspended time included (CLOCK_BOOTTIME).
    pub boottime_s: u64,
    /// The wall clock, in seconds since the epoch.
    pub wall_s: i64,
}

impl Anchor {
    /// Seconds since the other moment; `None` in another boot. A boot clock that went back counts as
    /// another boot: a restored snapshot of a virtual machine, or a time namespace.
    pub(super) fn since(&self, before: &Anchor) -> Option<u64> {
        let same = self.boot_id == before.boot_id;
        same.then(|| self.boottime_s.checked_sub(before.boottime_s))?
    }

    /// The seconds by which somebody moved the wall clock since the other moment; positive is forward.
    pub(super) fn jump_since(&self, before: &Anchor) -> i64 {
        let went = self.since(before).unwrap_or(0);
        let expected = before.wall_s.saturating_add_unsigned(went);
        self.wall_s.saturating_sub(expected)
    }
}
