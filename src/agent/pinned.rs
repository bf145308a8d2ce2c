//! The number of pinned flows for the status, and the time that idle ones need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::judge::{Counts, Pins};
use crate::kernel::flows::lasting_interval;
use crate::pinned::count_and_keep;
use crate::status::snapshot::PinnedStatus;

/// A count is followed by a pause of this many times its duration, so that counts take at most one per
/// cent of a processor.
const PAUSE: u32 = 100;
/// The same for counts that idle flows need.
const PAUSE_OF_IDLE: u32 = 10;
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
    /// A pass has ended since the last count.
    changed: bool,
    /// The time between two looks at idle flows.
    interval: Duration,
}

impl PinnedFlows {
    /// The pins that the last pass has put in force. A pass may displace flows.
    pub fn use_pins(&mut self, pins: Option<Pins>) {
        if pins.is_none() {
            self.last = None;
        }
        self.pins = pins;
        self.changed = true;
    }

    /// The time of the next count that idle flows need; `None` while no flow is displaced.
    pub fn due(&self) -> Option<Instant> {
        self.pins.as_ref()?;
        if self.changed {
            return Some(self.next.unwrap_or_else(Instant::now));
        }
        let (at, counts) = self.last.as_ref()?;
        let took = self.took.unwrap_or_default();
        let interval = self.interval.max(took.saturating_mul(PAUSE_OF_IDLE));
        counts.has_displaced().then(|| *at + interval)
    }

    /// Counts before a reading, if the last count was quick.
    pub fn count_first(&mut self) {
        if self.took.is_some_and(|took| took <= QUICK) {
            self.count();
        }
    }

    /// Counts, if the last count is old enough.
    pub fn count(&mut self) {
        if self.next.is_none_or(|at| Instant::now() >= at) {
            self.count_now();
        }
    }

    /// Counts, and gives idle displaced flows more time.
    pub fn count_now(&mut self) {
        let began = Instant::now();
        let Some(pins) = &self.pins else {
            return;
        };
        self.changed = false;
        self.interval = lasting_interval();
        match count_and_keep(pins) {
            Ok(counts) => self.last = Some((began, counts)),
            Err(error) => {
                // Unknown is not zero, and an old number is not the present one.
                self.last = None;
                self.changed = true;
                tracing::debug!("{error}");
            }
        }
        let took = began.elapsed();
        self.took = Some(took);
        self.next = Some(began + took + took.saturating_mul(PAUSE).max(LEAST_PAUSE));
    }

    /// The last count; `None` before the first one, and where the kernel refuses.
    pub fn status(&self) -> Option<PinnedStatus> {
        let (at, counts) = self.last.as_ref()?;
        Some(PinnedStatus {
            age_s: at.elapsed().as_secs(),
            flows: counts.paths,
        })
    }

    /// The flows of each gateway with at least one, by the last count.
    pub fn on_gateways(&self) -> Option<BTreeMap<IpAddr, u64>> {
        let (_, counts) = self.last.as_ref()?;
        Some(counts.gateways.clone())
    }
}
