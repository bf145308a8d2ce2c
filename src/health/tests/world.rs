//! A host, its gateways and the servers behind them: the truth, and the events that follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::ProbeConfig;
use crate::health::*;
use crate::types::Family;

pub(super) const STEP: Duration = Duration::from_millis(50);
/// The time that an answer takes.
const TRIP: Duration = Duration::from_millis(20);
pub(super) const TARGETS: usize = 3;

pub(super) fn gateway(number: u8) -> WayId {
    WayId::Gateway(IpAddr::from([10, 0, 1, number]))
}

pub(super) const BYPASS: WayId = WayId::Bypass(Family::Ipv4);

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The truth at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth {
    pub(super) dead: BTreeSet<WayId>,
    /// Servers of the gateways' list that are out.
    pub(super) out: BTreeSet<usize>,
    /// Ways that open flows use and new ones don't get through.
    pub(super) old_flows_only: BTreeSet<WayId>,
    /// The share of probes that a way loses.
    pub(super) loss: BTreeMap<WayId, f64>,
}

/// A changed use of a way, with its time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) way: WayId,
    pub(super) in_use: bool,
}

pub(super) struct World {
    pub(super) watch: Watch,
    pub(super) truth: Truth,
    pub(super) now: Duration,
    pub(super) events: Vec<Event>,
    pub(super) ended: Vec<(Duration, WayId)>,
    /// Ways whose connections that were being opened begin anew, beside flows that go on.
    pub(super) begun_anew: Vec<WayId>,
    pub(super) probes: BTreeMap<WayId, usize>,
    pub(super) health: Health,
    /// Ways with traffic of the host's own.
    pub(super) traffic: BTreeSet<WayId>,
    /// Ways with traffic that nobody answers, such as a log over UDP.
    pub(super) one_way: BTreeSet<WayId>,
    /// The doubts so far.
    pub(super) doubts: usize,
    /// False where nobody can read the counters.
    pub(super) counted: bool,
    /// Packets out since the last reading, none of them answered.
    unanswered: BTreeMap<WayId, u64>,
    suspected: BTreeSet<WayId>,
    pending: Vec<(Duration, Probe, Answer)>,
    last_reading: Duration,
    pub(super) readings: usize,
    /// The state of the random numbers of lost packets.
    chance: u64,
}

impl World {
    /// Gateways 1 to `count`, and the bypass path.
    pub(super) fn new(count: u8, seed: u64) -> World {
        World::with(&ProbeConfig::default(), count, seed)
    }

    pub(super) fn with(probe: &ProbeConfig, count: u8, seed: u64) -> World {
        let ways: Vec<WayId> = (1..=count).map(gateway).chain([BYPASS]).collect();
        let targets = [
            (Group::Egress(Family::Ipv4), TARGETS),
            (Group::Bypass(Family::Ipv4), 1),
        ];
        let terms = Terms::from(probe);
        World {
            watch: Watch::new(terms, ways, targets.into(), seed, Duration::ZERO),
            truth: Truth::default(),
            now: Duration::ZERO,
            events: Vec::new(),
            ended: Vec::new(),
            begun_anew: Vec::new(),
            probes: BTreeMap::new(),
            health: Health::default(),
            traffic: BTreeSet::new(),
            one_way: BTreeSet::new(),
            doubts: 0,
            counted: true,
            unanswered: BTreeMap::new(),
            suspected: BTreeSet::new(),
            pending: Vec::new(),
            last_reading: Duration::ZERO,
            readings: 0,
            chance: seed ^ 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// True for a packet and its answer that the way loses (splitmix64).
    fn loses(&mut self, way: WayId) -> bool {
        let Some(share) = self.truth.loss.get(&way).copied() else {
            return false;
        };
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (mixed ^ (mixed >> 31)) >> 11;
        (drawn as f64 / (1_u64 << 53) as f64) < share
    }

    fn reaches(&self, probe: &Probe) -> bool {
        let server = match probe.group {
            Group::Egress(_) => !self.truth.out.contains(&probe.target),
            Group::Bypass(_) => true,
        };
        let refused = self.truth.old_flows_only.contains(&probe.way);
        server && !refused && !self.truth.dead.contains(&probe.way)
    }

    fn step(&mut self) {
        self.now += STEP;
        for probe in self.watch.due(self.now) {
            *self.probes.entry(probe.way).or_default() += 1;
            let (after, answer) = if self.reaches(&probe) && !self.loses(probe.way) {
                (TRIP, Answer::Reached(TRIP))
            } else {
                (self.watch.terms.timeout, Answer::Failed)
            };
            self.pending.push((self.now + after, probe, answer));
        }
        let now = self.now;
        let ready = self.pending.extract_if(.., |(at, ..)| *at <= now);
        for (_, probe, answer) in ready.collect::<Vec<_>>() {
            self.watch.answer(probe, answer, now);
        }
        if self.counted && self.last_reading + self.watch.reading_pause(now) <= now {
            self.read_all();
        }
        let suspects = self.suspects();
        let before = std::mem::replace(&mut self.suspected, suspects.clone());
        self.doubts += suspects.difference(&before).count();
        let decision = self.watch.decide(now);
        for change in &decision.changes {
            self.events.push(Event {
                at: now,
                way: change.way,
                in_use: change.in_use,
            });
        }
        for (way, stuck) in decision.end {
            match stuck {
                Stuck::All => self.ended.push((now, way)),
                Stuck::Opening => self.begun_anew.push(way),
                Stuck::Unanswered => panic!("no decision, but a later round"),
            }
        }
        self.health = decision.health;
    }

    /// Reads the counters of all ways.
    fn read_all(&mut self) {
        self.last_reading = self.now;
        self.readings += 1;
        let unanswered = std::mem::take(&mut self.unanswered);
        let mut segments = Segments::default();
        for way in self.watch.ways.keys().copied().collect::<Vec<_>>() {
            let in_use = self.health.is_in_use(way);
            let alive = !self.truth.dead.contains(&way);
            let both = self.traffic.contains(&way);
            let back = u64::from(both && alive) * 5;
            // New flows avoid a way that is out of use.
            let steady = both && (in_use || alive) || self.one_way.contains(&way) && in_use;
            let out = u64::from(steady) * 5 + unanswered.get(&way).copied().unwrap_or(0);
            self.watch.reading(way, Reading { out, back }, self.now);
            if both && in_use {
                segments.sent += out;
                segments.repeated += (0..out).map(|_| u64::from(self.loses(way))).sum::<u64>();
            }
        }
        if self.watch.wants_segments(self.now) {
            self.watch.segments(segments, self.now);
        }
    }

    /// A packet of the host's own leaves by the way, and none comes back.
    pub(super) fn send(&mut self, way: WayId) {
        *self.unanswered.entry(way).or_default() += 1;
    }

    /// Lets time pass, with the check after each step.
    pub(super) fn pass(&mut self, time: Duration, mut check: impl FnMut(&World)) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            check(self);
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.pass(time, |_| {});
    }

    /// Waits for a change of use, and returns the time that it took.
    pub(super) fn until(&mut self, way: WayId, in_use: bool, most: Duration) -> Duration {
        let begun = self.now;
        while self.health.is_in_use(way) != in_use {
            self.step();
            let took = self.now - begun;
            assert!(took <= most, "{way} after {took:?}: {:?}", self.events);
        }
        self.now - begun
    }

    fn suspects(&self) -> BTreeSet<WayId> {
        let ways = self.watch.ways.iter();
        let suspects = ways.filter(|(_, way)| way.is_suspect());
        suspects.map(|(id, _)| *id).collect()
    }

    /// Takes one reading of a way's counters.
    pub(super) fn read(&mut self, way: WayId, out: u64, back: u64) {
        self.watch.reading(way, Reading { out, back }, self.now);
    }

    pub(super) fn state(&self, way: WayId) -> WayStatus {
        let mut all = self.watch.status();
        all.find(|status| status.way == way).expect("a way")
    }
}
