//! The counters of the ways, read by the prober: packets out and back between two readings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Probing, Ways};
use crate::firewall::{Traffic, WayTraffic, WaysTraffic};
use crate::health::{Reading, WayId};
use crate::kernel::firewall::nftables::WaysCounters;
use crate::types::{Family, Slot};

/// The readings in a row without counters after which the counters count as missing: a change of the
/// rules interrupts a reading.
const PATIENCE: u32 = 4;
/// The pace of readings while the counters are missing.
const MISSING_EVERY: Duration = Duration::from_secs(10);

/// A reading of the counters, or the reason why there is none.
type Outcome = Result<WaysTraffic, String>;

/// The readings of the counters. An unreadable counter is no silence: a failed reading says nothing about
/// any way.
pub(super) struct Counted {
    counters: WaysCounters,
    /// The time of the last reading.
    at: Option<Duration>,
    /// The last reading; `None` while the counters are missing.
    last: Option<WaysTraffic>,
    /// The counts of former gateways of a slot, which are none of the present one.
    former: WaysTraffic,
    /// The readings in a row without counters.
    missed: u32,
    said: bool,
}

impl Counted {
    /// No reading yet.
    pub fn new() -> Counted {
        Counted {
            counters: WaysCounters::default(),
            at: None,
            last: None,
            former: WaysTraffic::new(),
            missed: 0,
            said: false,
        }
    }

    /// The time of the next reading, with this pause after the last one.
    fn due(&self, pause: Duration) -> Duration {
        let pause = if self.missed < PATIENCE {
            pause
        } else {
            MISSING_EVERY
        };
        self.at.map_or(Duration::ZERO, |at| at + pause)
    }

    /// Reads the counters in the calling thread: the kernel lists objects under RCU, so that no
    /// transaction keeps the listing waiting.
    fn read(&mut self, now: Duration) -> Outcome {
        self.at = Some(now);
        match self.counters.read() {
            Ok(ways) if ways.is_empty() => {
                Err("no rule in nf_tables counts the packets of each gateway".to_owned())
            }
            Ok(ways) => Ok(ways),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The packets since the last reading, for each way with a counter in both.
    pub fn take(&mut self, outcome: Outcome) -> Vec<((Family, Slot), Reading)> {
        match outcome {
            Ok(now) => {
                self.missed = 0;
                let readings = self.last.as_ref().map(|last| between(last, &now));
                // Counters that have started again hold no former counts.
                self.former.retain(|counter, former| {
                    let now = now.get(counter);
                    now.is_some_and(|now| now.since(former).is_some())
                });
                self.last = Some(now);
                readings.unwrap_or_default()
            }
            Err(why) => {
                self.missed = self.missed.saturating_add(1);
                if self.missed >= PATIENCE {
                    self.last = None;
                    if !std::mem::replace(&mut self.said, true) {
                        tracing::warn!(
                            "probes alone watch the gateways, so that an outage is seen later: {why}"
                        );
                    }
                }
                Vec::new()
            }
        }
    }

    /// Begins anew for counters that are those of another gateway now: the next reading says nothing about
    /// them.
    fn begin_anew(&mut self, counters: impl Iterator<Item = (Family, Slot)>) {
        for counter in counters {
            let before = self.last.as_mut().and_then(|last| last.remove(&counter));
            self.former.extend(before.map(|before| (counter, before)));
        }
    }

    /// The traffic of a way as of the last reading; `None` while the counters are missing.
    fn traffic(&self, counter: (Family, Slot)) -> Option<WayTraffic> {
        let now = *self.last.as_ref()?.get(&counter)?;
        let former = self.former.get(&counter);
        Some(former.and_then(|it| now.since(it)).unwrap_or(now))
    }
}

impl Ways {
    /// The ways with the family and the slot of their counters. No rule of a NAT counts the packets of each
    /// way.
    fn counted(&self) -> impl Iterator<Item = (WayId, (Family, Slot))> {
        let marks = self.marks.iter().filter(|_| !self.forwards);
        marks.filter_map(|(way, marks)| {
            let slot = match way {
                WayId::Bypass(_) => 0,
                WayId::Gateway(_) => self.slots?.slot_of(marks.flow?.value)?,
                WayId::Uplink(_) => return None,
            };
            Some((*way, (way.family(), slot)))
        })
    }

    /// The way of each counter.
    fn counters(&self) -> BTreeMap<(Family, Slot), WayId> {
        self.counted()
            .map(|(way, counter)| (counter, way))
            .collect()
    }

    /// True if counters show the traffic of a way.
    fn has_counters(&self) -> bool {
        self.counted().next().is_some()
    }
}

impl Probing<'_> {
    /// The time of the next reading; `None` where no counter shows the traffic of a way.
    pub(super) fn reading_due(&self, now: Duration) -> Option<Duration> {
        let pause = self.watch.reading_pause(now);
        self.ways.has_counters().then(|| self.counted.due(pause))
    }

    /// Reads the counters if a reading is due.
    pub(super) fn count(&mut self, now: Duration) {
        if self.reading_due(now).is_none_or(|due| due > now) {
            return;
        }
        let outcome = self.counted.read(now);
        let readings: BTreeMap<_, _> = self.counted.take(outcome).into_iter().collect();
        for (way, counter) in self.ways.counted() {
            if let Some(reading) = readings.get(&counter) {
                self.watch.reading(way, *reading, now);
            }
        }
        self.count_segments(now);
    }

    /// The traffic of the ways with counters.
    pub(super) fn traffic(&self) -> BTreeMap<WayId, WayTraffic> {
        let ways = self.ways.counted();
        let of_way = |(way, counter)| Some((way, self.counted.traffic(counter)?));
        ways.filter_map(of_way).collect()
    }

    /// Begins anew with the counters whose way is another one in `new`.
    pub(super) fn count_anew(&mut self, new: &Ways) {
        let counters = self.ways.counters();
        let changed = new.counters().into_iter();
        let changed = changed.filter(|(counter, way)| counters.get(counter) != Some(way));
        self.counted.begin_anew(changed.map(|(counter, _)| counter));
    }
}

/// The packets between two readings. Counters that have started again say nothing.
fn between(last: &WaysTraffic, now: &WaysTraffic) -> Vec<((Family, Slot), Reading)> {
    let more = |last: &Traffic, now: &Traffic| now.packets.checked_sub(last.packets);
    let reading = |(way, now): (&(Family, Slot), &WayTraffic)| {
        let last = last.get(way)?;
        let out = more(&last.out, &now.out)?;
        let back = more(&last.back, &now.back)?;
        Some((*way, Reading { out, back }))
    };
    now.iter().filter_map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: (Family, Slot) = (Family::Ipv4, 1);

    fn counted(out: u64, back: u64) -> Outcome {
        let of = |packets| Traffic { packets, bytes: 0 };
        let way = WayTraffic {
            out: of(out),
            back: of(back),
        };
        Ok([(WAY, way)].into())
    }

    #[test]
    fn readings_are_the_packets_since_the_last_one() {
        let mut counters = Counted::new();
        assert_eq!(counters.take(counted(7, 5)), [], "the first");
        let reading = Reading { out: 3, back: 0 };
        assert_eq!(counters.take(counted(10, 5)), [(WAY, reading)]);
        assert_eq!(counters.take(counted(2, 1)), [], "they started again");
        assert_eq!(counters.take(Err("interrupted".to_owned())), []);
        let reading = Reading { out: 1, back: 1 };
        assert_eq!(counters.take(counted(3, 2)), [(WAY, reading)]);
    }

    #[test]
    fn missing_counters_are_no_silence_and_no_traffic() {
        let mut counters = Counted::new();
        counters.take(counted(7, 5));
        for _ in 0..PATIENCE {
            assert!(counters.traffic(WAY).is_some());
            assert_eq!(counters.take(Err("gone".to_owned())), []);
        }
        assert_eq!(counters.traffic(WAY), None);
        assert_eq!(counters.take(counted(9, 5)), [], "the first again");
        assert!(counters.traffic(WAY).is_some());
    }

    #[test]
    fn new_gateway_of_a_slot_inherits_no_packet() {
        let mut counters = Counted::new();
        counters.take(counted(7, 5));
        counters.begin_anew([WAY].into_iter());
        assert_eq!(counters.traffic(WAY), None);
        // Packets of the former gateway in between would count as silence of the new one.
        assert_eq!(counters.take(counted(10, 5)), [], "the first");
        let packets = |counters: &Counted| {
            let traffic = counters.traffic(WAY).unwrap();
            (traffic.out.packets, traffic.back.packets)
        };
        assert_eq!(packets(&counters), (3, 0));
        let reading = Reading { out: 1, back: 1 };
        assert_eq!(counters.take(counted(11, 6)), [(WAY, reading)]);
        assert_eq!(packets(&counters), (4, 1));
        counters.take(counted(2, 1));
        assert_eq!(packets(&counters), (2, 1), "they started again");
    }
}
