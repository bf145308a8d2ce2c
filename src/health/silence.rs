//! Silence by the counters of a way: packets went out and none came back.

use std::time::Duration;

use super::terms::Terms;

/// Silent readings of the counters after which a way is in doubt.
pub const SILENT_READINGS: u32 = 3;
/// The time between two readings of the counters while a way has traffic.
pub const READING: Duration = Duration::from_millis(250);

/// Packets of a way between two readings of its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Packets of flows on the way that left this host.
    pub out: u64,
    /// Packets that came back to these flows.
    pub back: u64,
}

/// The silence of one way. Times count from an arbitrary start.
///
/// Silence alone proves nothing: a log over UDP gets no answers, and neither does a partner that is out.
/// Each doubt that probes or packets refute therefore doubles the silence that the next doubt needs. A
/// way with traffic in one direction alone ends up with its single probes.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence {
    /// The readings with packets out, since a packet came back.
    readings: u32,
    /// The first of them.
    since: Option<Duration>,
    /// True while the way is in doubt for its silence.
    raised: bool,
    refuted: u32,
    refuted_at: Duration,
}

impl Silence {
    /// Takes a reading without a packet that came back.
    pub(super) fn read(&mut self, reading: Reading, now: Duration) {
        if reading.out > 0 {
            self.readings += 1;
            self.since.get_or_insert(now);
        }
    }

    /// A packet came back.
    pub(super) fn end(&mut self) {
        (self.readings, self.since) = (0, None);
    }

    /// The readings of this length that silence took, if the silence is long enough for a doubt. A single
    /// reading with packets is no evidence: the last packet of many exchanges needs no answer. The first
    /// repetition of a packet is, and a connection that is being opened repeats its packet after a second
    /// (RFC 6298).
    pub(super) fn is_suspicious(&self, now: Duration, terms: &Terms) -> Option<u32> {
        let lasted = now.saturating_sub(self.since?);
        let needed = self.needed(now, terms)?;
        let counted = u32::try_from(lasted.as_millis() / READING.as_millis()).unwrap_or(u32::MAX);
        (self.readings > 1 && lasted >= needed).then_some(counted.saturating_add(1))
    }

    /// The time from the first to the last silent reading that raises a doubt; `None` once single probes
    /// are as quick.
    fn needed(&self, now: Duration, terms: &Terms) -> Option<Duration> {
        let least = READING * (SILENT_READINGS - 1);
        let needed = least.checked_mul(2_u32.checked_pow(self.recent(now, terms))?)?;
        (needed < terms.interval).then_some(needed)
    }

    /// True if silence can raise a doubt.
    pub(super) fn is_telling(&self, now: Duration, terms: &Terms) -> bool {
        self.needed(now, terms).is_some()
    }

    /// The refuted doubts that count: an hour of a log must not blunt the next hour.
    pub(super) fn recent(&self, now: Duration, terms: &Terms) -> u32 {
        if now.saturating_sub(self.refuted_at) < terms.hold_limit {
            self.refuted
        } else {
            0
        }
    }

    /// The way is in doubt for its silence.
    pub(super) fn raise_doubt(&mut self) {
        self.raised = true;
    }

    /// True if the way is in doubt for its silence.
    pub(super) fn raised_doubt(&self) -> bool {
        self.raised
    }

    /// The way answers.
    pub(super) fn refute(&mut self, now: Duration, terms: &Terms) {
        self.end();
        if std::mem::take(&mut self.raised) {
            self.refuted = self.recent(now, terms).saturating_add(1);
            self.refuted_at = now;
        }
    }

    /// The way is down: the doubt was right.
    pub(super) fn prove(&mut self) {
        self.end();
        self.raised = false;
    }
}
