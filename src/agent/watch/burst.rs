//! Distinguishes a flush from single deletions.

use std::time::{Duration, Instant};

/// Grouped deletions within [`BURST_WINDOW`]: more are a flush. A program that deletes a single
/// route and waits for the repair before the next deletion never makes a group.
const BURST: usize = 128;
const BURST_WINDOW: Duration = Duration::from_secs(1);
/// Time without a deletion that ends a flush.
const BURST_QUIET: Duration = Duration::from_millis(20);

/// Distinguishes a flush from single deletions.
#[derive(Debug, Default)]
pub(super) struct FlushDetector {
    since: Option<Instant>,
    together: usize,
    until: Option<Instant>,
}

impl FlushDetector {
    /// Records a group of deletions; returns true if a flush is running, which a pass repairs.
    pub(super) fn is_flush(&mut self, deletions: usize, now: Instant) -> bool {
        if deletions > 1 {
            if self.since.is_none_or(|since| now >= since + BURST_WINDOW) {
                (self.since, self.together) = (Some(now), 0);
            }
            self.together += deletions;
            if self.together > BURST {
                self.until = Some(now + BURST_QUIET);
            }
        }
        let on = self.until.is_some_and(|until| now < until);
        if on && deletions > 0 {
            self.until = Some(now + BURST_QUIET);
        }
        on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_deletions_are_no_flush_however_many() {
        let mut flushes = FlushDetector::default();
        let now = Instant::now();
        for step in 0..10_000u64 {
            assert!(!flushes.is_flush(1, now + Duration::from_micros(step)));
        }
    }

    #[test]
    fn grouped_deletions_are_a_flush_until_a_quiet_time() {
        let mut flushes = FlushDetector::default();
        let mut now = Instant::now();
        assert!(!flushes.is_flush(100, now));
        assert!(flushes.is_flush(100, now));
        for _ in 0..100 {
            now += BURST_QUIET / 2;
            assert!(flushes.is_flush(1, now), "the flush continues");
        }
        now += BURST_QUIET;
        assert!(!flushes.is_flush(1, now));
        now += BURST_WINDOW;
        assert!(
            !flushes.is_flush(100, now),
            "another flush is counted from zero"
        );
    }
}
