//! The ways as people and metrics see them.

use std::time::Duration;

use super::WayId;
use super::probes::Quality;
use super::watch::Watch;
use super::way::State;
use super::why::Why;

/// One way, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayStatus {
    pub way: WayId,
    pub state: State,
    /// True if new flows may take the way.
    pub in_use: bool,
    /// The begin of the state.
    pub since: Duration,
    pub why: Why,
    /// The end of the hold, for [`State::Held`].
    pub held_until: Option<Duration>,
    /// The duration of the last answered probe.
    pub latency: Option<Duration>,
    /// Loss and latency of the recent probes.
    pub quality: Quality,
}

impl Watch {
    /// All ways, for people and metrics.
    pub fn status(&self) -> impl Iterator<Item = WayStatus> {
        self.ways.iter().map(|(id, way)| WayStatus {
            way: *id,
            state: way.state(&self.terms),
            in_use: way.in_use,
            since: way.since,
            why: way.why,
            held_until: way
                .held_until(&self.terms)
                .filter(|_| way.answers_again(&self.terms)),
            latency: way.probes.latency,
            quality: way.probes.quality(),
        })
    }
}
