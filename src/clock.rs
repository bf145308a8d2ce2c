//! Readings of the clocks. The guard is pure and gets these values as arguments.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::guard::Anchor;

/// A random name, new at each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Seconds since the epoch. A clock before 1970 counts as 1970.
pub fn unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// The wall clock and the boot clock at the same moment. `None` without a /proc; the guard then
/// uses the wall clock alone.
pub fn anchor() -> Option<Anchor> {
    let boot_id = std::fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
    if boot_id.is_empty() {
        return None;
    }
    // Read back to back: the guard compares the progress of both clocks.
    let boottime = clock_gettime(ClockId::Boottime);
    let wall = Timestamp::now();
    Some(Anchor {
        boot_id,
        boottime_s: u64::try_from(boottime.tv_sec).unwrap_or(0),
        wall_s: wall.as_second(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchor_holds_boot_id_and_both_clocks() {
        let (first, second) = (anchor().unwrap(), anchor().unwrap());
        assert_eq!(first.boot_id, second.boot_id);
        assert_eq!(first.boot_id.len(), 36, "a UUID");
        assert!(first.boottime_s > 0 && first.boottime_s <= second.boottime_s);
        assert!(first.wall_s > 1_700_000_000);
    }
}
