//! The number of pinned flows for the status.

use std::time::{Duration, Instant};

use crate::judge::{Counts, Pins};
use crate::pinned::count;
use crate::status::snapshot::PinnedStatus;

/// A count is followed by a pause of this many times its duration, so that counts take at most one per
/// cent of a processor.
const PAUSE: u32 = 100;
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// A count that takes no longer may delay a reading of the meter. A longer one comes after the reading,
/// and the next reading has its result.
const QUICK: Duration = Duration::from_millis(50);

/// The meter's view of pinned flows.
#[derive(Debug, Default)]
pub(super) struct PinnedFlows {
    pins: Option<Pins>,
    /// The last count, and its time.
    last: Option<(Instant, Counts)>,
    took: Option<Duration>,
    /// Not before this time.
    next: Option<Instant>,
}

impl PinnedFlows {
    /// The pins that the last pass has put in force.
    pub fn use_pins(&mut self, pins: Option<Pins>) {
        if pins.is_none() {
            self.last = None;
        }
        self.pins = pins;
    }

    /// Counts before a reading, if the last count was quick.
    pub fn count_first(&mut self) {
        if self.took.is_some_and(|took| took <= QUICK) {
            self.count();
        }
    }

    /// Counts, if the last count is old enough.
    pub fn count(&mut self) {
        let began = Instant::now();
        let Some(pins) = &self.pins else {
            return;
        };
        if self.next.is_some_and(|at| began < at) {
            return;
        }
        match count(pins) {
            Ok(counts) => self.last = Some((began, counts)),
            Err(error) => {
                // Unknown is not zero, and an old number is not the present one.
                self.last = None;
                tracing::debug!("{error}");
            }
        }
        let took = began.elapsed();
        self.took = Some(took);
        self.next = Some(began + took + took.saturating_mul(PAUSE).max(LEAST_PAUSE));
    }

    /// The last count; `None` before the first one, and where the kernel refuses.
    pub fn status(&self) -> Option<PinnedStatus> {
        let (at, counts) = self.last?;
        Some(PinnedStatus {
            age_s: at.elapsed().as_secs(),
            flows: counts.0,
        })
    }
}
