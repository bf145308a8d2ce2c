//! What the clocks show: for the guard, which must not read them itself.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::guard::Anchor;

/// A new random name at each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The wall clock and the boot clock of this moment; `None` without a /proc. The guard then goes
/// by the wall clock alone.
pub fn now() -> Option<Anchor> {
    let boot_id = std::fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
    if boot_id.is_empty() {
        return None;
    }
    // One right after the other: the guard compares how far each of them went.
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
    fn this_host_has_both() {
        let (first, second) = (now().unwrap(), now().unwrap());
        assert_eq!(first.boot_id, second.boot_id);
        assert_eq!(first.boot_id.len(), 36, "a UUID");
        assert!(first.boottime_s > 0 && first.boottime_s <= second.boottime_s);
        assert!(first.wall_s > 1_700_000_000);
    }
}
