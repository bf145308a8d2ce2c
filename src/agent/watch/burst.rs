//! A flush, told from single deletions.

use std::time::{Duration, Instant};

/// Deletions that came together with others, within [`BURST_WINDOW`]: more are a flush. A program
/// that deletes one route, waits until it is back and deletes the next never has two together.
const BURST: usize = 128;
/// See [`BURST`].
const BURST_WINDOW: Duration = Duration::from_secs(1);
/// A burst is over after this long without a deletion.
const BURST_QUIET: Duration = Duration::from_millis(20);

/// Tells a flush from single deletions.
#[derive(Debug, Default)]
pub(super) struct Burst {
    since: Option<Instant>,
    together: usize,
    until: Option<Instant>,
}

impl Burst {
    /// Whether these deletions, which came together, are left to a pass.
    pub(super) fn is_on(&mut self, deletions: usize, now: Instant) -> bool {
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
    fn single_deletions_are_no_burst_however_many() {
        let mut burst = Burst::default();
        let now = Instant::now();
        for step in 0..10_000u64 {
            assert!(!burst.is_on(1, now + Duration::from_micros(step)));
        }
    }

    #[test]
    fn deletions_that_come_together_are_left_to_a_pass_until_it_is_quiet() {
        let mut burst = Burst::default();
        let mut now = Instant::now();
        assert!(!burst.is_on(100, now));
        assert!(burst.is_on(100, now));
        for _ in 0..100 {
            now += BURST_QUIET / 2;
            assert!(burst.is_on(1, now), "it goes on");
        }
        now += BURST_QUIET;
        assert!(!burst.is_on(1, now));
        now += BURST_WINDOW;
        assert!(!burst.is_on(100, now), "another one begins from nothing");
    }
}
