//! The pace of readings and of single probes: quick where somebody could wait for an answer, slow at rest.
//!
//! A host at rest loses nothing by a dead way, and the first packet after the rest brings the quick pace back.

use std::time::Duration;

use super::WayId;
use super::group::Group;
use super::silence::READING;
use super::terms::Terms;
use super::watch::Watch;
use super::way::Way;

/// The time between two readings while no way has traffic. A reading falls at least a [`READING`] before the
/// first repetition of a SYN, which comes after a second (RFC 6298): the repetition raises a doubt as
/// soon as between quick readings.
pub const IDLE_READING: Duration = Duration::from_millis(750);
/// Readings are quick for this time after a packet: until the first repetition of a SYN is read.
const QUICK_AFTER: Duration = Duration::from_millis(1250);
/// A way without a packet for so long is at rest: no client waits for an answer any more. A client that
/// only receives sends nothing when its way dies, so that the time is longer than a client's patience
/// with a silent server.
const RESTS_AFTER: Duration = Duration::from_secs(60);
/// Single probes may be late by this part of their interval, so that one wake-up serves many of them.
const SLACK: u32 = 10;

impl Way {
    /// True if quick readings may show an outage, its end, or packets of flows that are to be ended.
    fn is_read_quickly(&self, now: Duration, terms: &Terms) -> bool {
        let packets = self.had_packet_within(QUICK_AFTER, now);
        let doubted = self.is_suspect() && !self.is_long_dark(terms);
        doubted || self.ending || (packets && self.silence.is_telling(now, terms))
    }

    /// True if a packet has passed since the last slow reading or so.
    pub(super) fn had_packet_lately(&self, now: Duration) -> bool {
        self.had_packet_within(QUICK_AFTER, now)
    }

    fn had_packet_within(&self, time: Duration, now: Duration) -> bool {
        let packet = self.last_packet;
        packet.is_some_and(|at| now.saturating_sub(at) <= time)
    }

    /// True if counters show that the way has had no packet for long. False without counters.
    fn rests(&self, now: Duration) -> bool {
        let read = self.last_read;
        let known = read.is_some_and(|at| now.saturating_sub(at) < IDLE_READING * 2);
        known && !self.had_packet_within(RESTS_AFTER, now)
    }
}

impl Watch {
    /// The time from one reading of the counters to the next. Without a server to probe nothing can be
    /// decided, and the readings serve those who look at the status.
    pub fn reading_pause(&self, now: Duration) -> Duration {
        let is_served = |id: WayId| self.is_served(Group::of(id));
        let mut served = self.ways.iter().filter(|(id, _)| is_served(**id));
        if served.clone().next().is_none() {
            self.terms.interval
        } else if served.any(|(_, way)| way.is_read_quickly(now, &self.terms)) {
            READING
        } else {
            IDLE_READING
        }
    }

    pub(super) fn is_served(&self, group: Group) -> bool {
        self.targets.get(&group).is_some_and(|count| *count > 0)
    }

    /// The time between two single probes of a way: that of its group, or at rest that of all ways.
    pub(super) fn single_interval(&self, id: WayId, now: Duration) -> Duration {
        let interval = self.terms.interval_of(Group::of(id));
        let rests = self.ways.get(&id).is_some_and(|way| way.rests(now));
        if rests {
            interval.max(self.terms.interval)
        } else {
            interval
        }
    }

    /// The latest time of a way's next single probe, which waits for another wake-up until then.
    pub(super) fn latest_single(&self, id: WayId, at: Duration, now: Duration) -> Duration {
        at + self.single_interval(id, now) / SLACK
    }

    /// A share of the interval that spreads the probes of a fleet.
    pub(super) fn single_pause(&mut self, interval: Duration) -> Duration {
        let slack = interval / SLACK;
        interval - slack.mul_f64(self.fraction())
    }

    /// Brings the probes of ways forward whose rest is over, as if these had never rested.
    pub(super) fn end_rests(&mut self, now: Duration) {
        let ways: Vec<WayId> = self.idle.keys().copied().collect();
        for id in ways {
            let interval = self.single_interval(id, now);
            let last = self.ways.get(&id).and_then(Way::last_sign);
            if let (Some(last), Some(next)) = (last, self.idle.get_mut(&id)) {
                *next = (*next).min(last + interval);
            }
        }
    }
}
