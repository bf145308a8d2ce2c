//! Readings of the counters after all translation, from pass to pass.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::firewall::{DropReason, DroppedTraffic};
use crate::types::Family;

/// The span in which dropped packets make the state degraded: as long as the default of `[agent]
/// resync`, so that at least one pass in between has looked.
const WINDOW: Duration = Duration::from_secs(600);
/// Readings that follow each other faster are one reading.
const APART: Duration = Duration::from_secs(10);

/// The readings of the last minutes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct DropReadings(VecDeque<(Instant, DroppedTraffic)>);

impl DropReadings {
    /// Forgets all readings before this one.
    pub(super) fn restart(&mut self, now: Instant, counts: DroppedTraffic) {
        self.0.clear();
        self.0.push_back((now, counts));
    }

    /// The packets since the oldest reading inside the window, and the age of that reading.
    pub(super) fn grown(
        &mut self,
        now: Instant,
        counts: DroppedTraffic,
    ) -> (DroppedTraffic, Duration) {
        if self
            .0
            .back()
            .is_some_and(|(_, last)| counts.restarted_since(last))
        {
            self.0.clear();
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        // One reading from before the window is the base.
        while self.0.get(1).is_some_and(|(at, _)| age(*at) > WINDOW) {
            self.0.pop_front();
        }
        let (at, before) = self.0.front().copied().unwrap_or((now, counts));
        if self.0.back().is_none_or(|(at, _)| age(*at) >= APART) {
            self.0.push_back((now, counts));
        }
        (since(&before, &counts), age(at))
    }
}

/// The packets between two readings.
pub(super) fn since(before: &DroppedTraffic, now: &DroppedTraffic) -> DroppedTraffic {
    let mut grown = DroppedTraffic::default();
    for reason in DropReason::ALL {
        for family in Family::ALL {
            let packets = |counts: &DroppedTraffic| counts.of(reason).get(family).packets;
            grown.of_mut(reason).get_mut(family).packets = packets(now) - packets(before);
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PerFamily;

    fn counts(packets: u64) -> DroppedTraffic {
        let traffic = crate::firewall::Traffic { packets, bytes: 0 };
        DroppedTraffic {
            sources: PerFamily::from_fn(|_| traffic),
            ..DroppedTraffic::default()
        }
    }

    #[test]
    fn growth_is_that_of_the_last_minutes() {
        let start = Instant::now();
        let mut readings = DropReadings::default();
        let mut grown = |minutes: u64, packets| {
            let now = start + Duration::from_secs(60 * minutes);
            let (grown, _) = readings.grown(now, counts(packets));
            grown.sources.ipv4.packets
        };
        assert_eq!(grown(0, 5), 0, "from before this process");
        assert_eq!(grown(1, 7), 2);
        assert_eq!(grown(9, 7), 2);
        assert_eq!(grown(30, 7), 0);
        assert_eq!(grown(31, 1), 0, "the table was created again");
        assert_eq!(grown(32, 2), 1);
        readings.restart(start + Duration::from_secs(60 * 33), counts(9));
        let (none, _) = readings.grown(start + Duration::from_secs(60 * 34), counts(9));
        assert_eq!(none.sources.ipv4.packets, 0, "after a repair");
    }
}
