//! All ways together: the probes to send, and the ways in use.

use std::collections::BTreeMap;
use std::time::Duration;

use super::group::Group;
use super::repeated::Repeated;
use super::round::{Answer, Round, TargetId};
use super::silence::{READING, Reading};
use super::terms::Terms;
use super::way::Way;
use super::why::Why;
use super::{Health, WayId};
use crate::types::Family;

/// A probe to send now. The sender answers each one with [`Watch::answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    pub round: u64,
    pub group: Group,
    pub way: WayId,
    /// The place in the list of the group's servers with an address of the family.
    pub target: TargetId,
}

/// A way whose use has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub way: WayId,
    pub in_use: bool,
    pub why: Why,
}

/// The flows that stand still on a way out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    All,
    /// Connections that are being opened. Others still get answers.
    Opening,
    /// Connections that are being opened, and open ones whose data nobody acknowledges.
    Unanswered,
}

/// The outcome of [`Watch::decide`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// The ways out of use, for the desired state.
    pub health: Health,
    /// The changes since the last decision. Without one the routes stay.
    pub changes: Vec<Change>,
    /// Ways whose flows are to be ended, once the routes are changed.
    pub end: Vec<(WayId, Stuck)>,
}

/// The ways that a round asks for comparison.
pub(super) const COMPARED: usize = 2;
/// The first probe of a new way comes within this time: a fresh agent knows nothing of a way that has
/// been down for long.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The time after its limit in which a sender must have answered a probe.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The ways of this host and their probes. Times count from an arbitrary start.
///
/// Invariant: while a gateway of a family is not down, the ways in use contain such a gateway; a family
/// without one keeps the ways that it had.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(super) terms: Terms,
    pub(super) ways: BTreeMap<WayId, Way>,
    pub(super) targets: BTreeMap<Group, usize>,
    pub(super) rounds: BTreeMap<u64, (Group, Round)>,
    /// The next round of a group in doubt, or of a look.
    pub(super) next: BTreeMap<Group, Duration>,
    /// The groups whose gateways are looked at, with the rounds so far.
    pub(super) looks: BTreeMap<Group, u32>,
    /// The repeated segments of this host.
    pub(super) repeated: Repeated,
    /// The last answer of each server, through any way.
    pub(super) answered: BTreeMap<(Group, TargetId), Duration>,
    /// The end of the quick rounds after the first answer of an outage.
    hurry: BTreeMap<Group, Duration>,
    /// The next single probe of a way.
    pub(super) idle: BTreeMap<WayId, Duration>,
    last_round: u64,
    seed: u64,
}

impl Watch {
    /// A watch of these ways, all in use, with the numbers of servers of each list. The seed spreads
    /// the probes of a fleet.
    pub fn new(
        terms: Terms,
        ways: impl IntoIterator<Item = WayId>,
        targets: BTreeMap<Group, usize>,
        seed: u64,
        now: Duration,
    ) -> Watch {
        let mut watch = Watch {
            terms,
            ways: BTreeMap::new(),
            targets: BTreeMap::new(),
            rounds: BTreeMap::new(),
            next: BTreeMap::new(),
            looks: BTreeMap::new(),
            repeated: Repeated::default(),
            answered: BTreeMap::new(),
            hurry: BTreeMap::new(),
            idle: BTreeMap::new(),
            last_round: 0,
            seed: seed | 1,
        };
        watch.change(terms, ways, targets, now);
        watch
    }

    /// Takes over the verdict of an earlier process: the way is down until probes say otherwise.
    pub fn take_over(&mut self, way: WayId, now: Duration) {
        self.ways
            .entry(way)
            .and_modify(|found| *found = Way::found_down(now));
    }

    /// Takes other settings. Ways that stay keep their state; rounds under way are forgotten, since the
    /// servers may be others.
    pub fn change(
        &mut self,
        terms: Terms,
        ways: impl IntoIterator<Item = WayId>,
        targets: BTreeMap<Group, usize>,
        now: Duration,
    ) {
        let mut before = std::mem::take(&mut self.ways);
        let kept = |way| (way, before.remove(&way).unwrap_or_else(|| Way::new(now)));
        self.ways = ways.into_iter().map(kept).collect();
        self.terms = terms;
        self.targets = targets;
        self.rounds.clear();
        self.next.clear();
        self.looks.clear();
        self.answered.clear();
        self.hurry.clear();
        self.idle.retain(|way, _| self.ways.contains_key(way));
        for way in self.ways.keys().copied().collect::<Vec<_>>() {
            if !self.idle.contains_key(&way) {
                let within = terms.interval_of(Group::of(way)).min(FIRST_WITHIN);
                let first = now + within.mul_f64(self.fraction());
                self.idle.insert(way, first);
            }
        }
    }

    /// Evenly spread from zero to one (xorshift64).
    pub(super) fn fraction(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed as f64 / u64::MAX as f64
    }

    /// The ways that the group's rounds judge.
    fn judged(&self, group: Group) -> impl Iterator<Item = (WayId, &Way)> {
        let ways = self.ways.iter().map(|(id, way)| (*id, way));
        ways.filter(move |(id, _)| Group::of(*id) == group)
    }

    pub(super) fn gateways(&self, family: Family) -> impl Iterator<Item = (WayId, &Way)> {
        self.judged(Group::Egress(family))
    }

    /// True if a gateway of the family is not down.
    pub(super) fn has_gateway(&self, family: Family) -> bool {
        self.gateways(family).any(|(_, way)| !way.is_down())
    }

    /// The probes to send now.
    pub fn due(&mut self, now: Duration) -> Vec<Probe> {
        self.close_old_rounds(now);
        self.end_rests(now);
        let mut probes = Vec::new();
        for (group, count) in self.targets.clone() {
            if count == 0 {
                continue;
            }
            let in_doubt = |(_, way): (WayId, &Way)| way.is_down() || way.is_suspect();
            if self.judged(group).any(in_doubt) {
                self.looks.remove(&group);
                if self.next.get(&group).is_none_or(|next| *next <= now) {
                    probes.extend(self.round(group, count, now));
                    let pause = self.pause(group, now);
                    self.next.insert(group, now + pause);
                }
            } else {
                probes.extend(self.look(group, count, now));
            }
            if !self.is_compared(group) {
                probes.extend(self.singles(group, count, now));
            }
        }
        probes
    }

    /// True if rounds ask ways without doubt for comparison. Ways that are down need none while another is
    /// well: an answer through them says enough, and a fleet must spare the NATs that live.
    pub(super) fn is_compared(&self, group: Group) -> bool {
        let well = |(_, way): (WayId, &Way)| !way.is_down() && !way.is_suspect();
        self.judged(group).any(|(_, way)| way.is_suspect()) || !self.judged(group).any(well)
    }

    /// The time of the next call of [`Watch::due`] or [`Watch::decide`]; later calls lose nothing but
    /// time. Readings and answers may ask for a decision before.
    pub fn wake(&self, now: Duration) -> Duration {
        let ends = self.rounds.values();
        let ends = ends.map(|(_, round)| round.begun + self.terms.timeout + GRACE);
        let holds = self.ways.values();
        let holds = holds.filter_map(|way| way.held_until(&self.terms));
        let holds = holds.filter(|end| *end > now);
        let next = self.next.values().copied();
        // Rounds stand in for the single probes of a group in doubt, and nobody probes without a server.
        let idle = self.idle.iter().filter(|(way, _)| {
            let group = Group::of(**way);
            let down = self.ways.get(*way).is_some_and(Way::is_down);
            self.is_served(group) && !down && !self.is_compared(group)
        });
        let idle = idle.map(|(way, at)| self.latest_single(*way, *at, now));
        let times = next.chain(idle).chain(ends);
        let soonest = times.chain(holds).min();
        soonest.unwrap_or(now + self.terms.interval).max(now)
    }

    /// The pause between two rounds of a group in doubt.
    fn pause(&self, group: Group, now: Duration) -> Duration {
        let terms = &self.terms;
        let interval = terms.interval_of(group);
        if self.hurry.get(&group).is_some_and(|end| now < *end) {
            return terms.suspect_interval;
        }
        let young = |way: &Way| now.saturating_sub(way.since) < terms.hold_limit;
        let pause = |way: &Way| {
            let waits = way.is_long_dark(terms) || way.is_long_unclear(now, terms);
            if way.is_suspect() && !waits {
                terms.suspect_interval
            } else if young(way) || way.is_rising() {
                terms.patient_interval()
            } else {
                interval
            }
        };
        let in_doubt = self
            .judged(group)
            .filter(|(_, way)| way.is_down() || way.is_suspect());
        let shortest = in_doubt.map(|(_, way)| pause(way)).min();
        shortest.unwrap_or(interval).min(interval)
    }

    /// A round: the ways in doubt, and others for comparison. A patient round asks two servers, so that
    /// an outage of one hides no return of a way.
    fn round(&mut self, group: Group, count: usize, now: Duration) -> Vec<Probe> {
        let in_doubt = |way: &Way| way.is_down() || way.is_suspect();
        let doubted = self.judged(group).filter(|(_, way)| in_doubt(way));
        let mut ways: Vec<WayId> = doubted.map(|(id, _)| id).collect();
        let others = self
            .gateways(group.family())
            .filter(|(id, _)| !ways.contains(id));
        let mut others: Vec<(bool, WayId)> = others
            .map(|(id, way)| (in_doubt(way) || !way.in_use, id))
            .collect();
        others.sort();
        if self.is_compared(group) {
            ways.extend(others.into_iter().take(COMPARED).map(|(_, id)| id));
        }
        let patient = self.pause(group, now) > self.terms.suspect_interval;
        let asked = if patient { count.min(2) } else { count };
        self.ask(group, ways, (asked, count), now)
    }

    /// A round of these ways, to so many of all servers.
    pub(super) fn ask(
        &mut self,
        group: Group,
        ways: Vec<WayId>,
        (asked, count): (usize, usize),
        now: Duration,
    ) -> Vec<Probe> {
        let first = self.last_round as usize;
        let targets = move |way| (first..first + asked).map(move |place| (way, place % count));
        let pairs: Vec<(WayId, TargetId)> = ways.into_iter().flat_map(targets).collect();
        self.begin(group, &pairs, now)
    }

    /// Single probes of ways without doubt and without traffic.
    fn singles(&mut self, group: Group, count: usize, now: Duration) -> Vec<Probe> {
        let mut probes = Vec::new();
        let ways = self.judged(group).filter(|(_, way)| !way.is_down());
        let ways: Vec<WayId> = ways.map(|(id, _)| id).collect();
        for way in ways {
            if self.idle.get(&way).is_some_and(|idle| *idle > now) {
                continue;
            }
            let interval = self.single_interval(way, now);
            let pause = self.single_pause(interval);
            let found = self.ways.get(&way);
            if let Some(back) = found.and_then(|way| way.trusted_answer(interval, now)) {
                self.idle.insert(way, back + pause.max(interval));
                continue;
            }
            self.idle.insert(way, now + pause);
            let target = (self.last_round as usize) % count;
            probes.extend(self.begin(group, &[(way, target)], now));
        }
        probes
    }

    fn begin(&mut self, group: Group, pairs: &[(WayId, TargetId)], now: Duration) -> Vec<Probe> {
        self.last_round += 1;
        let round = self.last_round;
        let begun = Round::new(now, pairs.iter().copied());
        self.rounds.insert(round, (group, begun));
        for (way, _) in pairs {
            self.ways
                .entry(*way)
                .and_modify(|way| way.last_probe = Some(now));
        }
        let probe = |(way, target): &(WayId, TargetId)| Probe {
            round,
            group,
            way: *way,
            target: *target,
        };
        pairs.iter().map(probe).collect()
    }

    /// Takes the answer to a probe.
    pub fn answer(&mut self, probe: Probe, answer: Answer, now: Duration) {
        if matches!(answer, Answer::Reached(_)) {
            self.answered.insert((probe.group, probe.target), now);
        }
        if let Some(way) = self.ways.get_mut(&probe.way) {
            way.probes.take(answer);
            let long_out = way.is_down() || way.is_long_dark(&self.terms);
            if long_out && matches!(answer, Answer::Reached(_)) {
                self.hurry_up(probe.group, now);
            }
        }
        let Some((_, round)) = self.rounds.get_mut(&probe.round) else {
            return;
        };
        round.take(probe.way, probe.target, answer);
        if round.is_complete()
            && let Some((group, round)) = self.rounds.remove(&probe.round)
        {
            self.close(group, &round, now);
        }
    }

    /// Begins quick rounds at the first answer in an outage of all ways.
    fn hurry_up(&mut self, group: Group, now: Duration) {
        let well = |(_, way): (WayId, &Way)| !way.is_down() && !way.is_suspect();
        let hurries = self.hurry.get(&group).is_some_and(|end| now < *end);
        if !hurries && !self.judged(group).any(well) {
            self.hurry.insert(group, now + self.verdict_time());
            self.next.insert(group, now);
        }
    }

    /// Takes a reading of a way's counters, [`Watch::reading_pause`] after the last one.
    pub fn reading(&mut self, way: WayId, reading: Reading, now: Duration) {
        if let Some(found) = self.ways.get_mut(&way) {
            found.read(reading, now, &self.terms);
        }
    }

    /// The time within which a way in doubt gets its verdict, once its servers answer through another.
    pub(super) fn verdict_time(&self) -> Duration {
        self.terms.suspect_interval * self.terms.fall * 2 + self.terms.timeout + READING
    }
}
