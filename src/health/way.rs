//! The state of one way: in doubt, down, held, up.

use std::time::Duration;

use super::loss::{Loss, Versus};
use super::probes::Probes;
use super::round::Verdict;
use super::silence::{READING, Reading, SILENT_READINGS, Silence};
use super::tally::Seen;
use super::terms::Terms;
use super::why::Why;

/// The pace of single probes of a way with traffic, in units of `interval`.
const TRUSTED: u32 = 5;

/// The quick rounds of a doubt about a way that has lost packets, beside two for each failed round that a
/// verdict needs.
const HURRIED: u32 = 6;

/// The state of a way by its own answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// In doubt: rounds of probes are under way. New flows may still take the way.
    Suspect,
    Down,
    /// Answers again after an outage, and waits for the end of the hold.
    Held,
}

words!(State { Up => "up", Suspect => "suspect", Down => "down", Held => "held" });

/// One way. Times count from an arbitrary start.
#[derive(Debug, Clone)]
pub(super) struct Way {
    down: bool,
    suspect: bool,
    pub(super) why: Why,
    pub(super) since: Duration,
    failed: u32,
    /// The probes of these failed rounds.
    streak: Versus,
    dark: u32,
    loss: Loss,
    good: u32,
    /// Good rounds in a row of a way that is down, with or without lost probes.
    answered: u32,
    good_since: Option<Duration>,
    /// The last answer, by a probe or a counter.
    last_good: Duration,
    falls: Vec<Duration>,
    pub(super) silence: Silence,
    /// The last packet that came back, by the counters.
    last_back: Option<Duration>,
    /// The last reading with a packet in either direction.
    pub(super) last_packet: Option<Duration>,
    pub(super) last_read: Option<Duration>,
    pub(super) probes: Probes,
    pub(super) last_probe: Option<Duration>,
    /// True if new flows may take the way.
    pub(super) in_use: bool,
    /// Open flows are to be ended.
    pub(super) ending: bool,
    /// Connections that are being opened are to be ended.
    pub(super) opening: bool,
    /// Servers answer through this way alone, by the last round.
    pub(super) alone: bool,
    /// The end of the time in which one failed round is enough.
    pub(super) settles_until: Option<Duration>,
    /// True for a way that has fallen within that time, until its return.
    pub(super) rolled_back: bool,
}

impl Way {
    pub(super) fn new(now: Duration) -> Way {
        Way {
            down: false,
            suspect: false,
            why: Why::Unknown,
            since: now,
            failed: 0,
            streak: Versus::default(),
            dark: 0,
            loss: Loss::default(),
            good: 0,
            answered: 0,
            good_since: None,
            last_good: now,
            falls: Vec::new(),
            silence: Silence::default(),
            last_back: None,
            last_packet: None,
            last_read: None,
            probes: Probes::default(),
            last_probe: None,
            in_use: true,
            ending: false,
            opening: false,
            alone: false,
            settles_until: None,
            rolled_back: false,
        }
    }

    /// A way that is out of use by an earlier verdict.
    pub(super) fn found_down(now: Duration) -> Way {
        Way {
            down: true,
            why: Why::Before,
            falls: vec![now],
            in_use: false,
            ..Way::new(now)
        }
    }

    pub(super) fn state(&self, terms: &Terms) -> State {
        match (self.down, self.suspect) {
            (true, _) if self.good >= terms.rise => State::Held,
            (true, _) => State::Down,
            (false, true) => State::Suspect,
            (false, false) => State::Up,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    pub(super) fn is_suspect(&self) -> bool {
        !self.down && self.suspect
    }

    /// True if no server has answered for so many rounds that haste is useless.
    pub(super) fn is_long_dark(&self, terms: &Terms) -> bool {
        self.failed == 0 && self.dark >= 2 * terms.fall
    }

    /// True if the way has lost some probes and answered others for so long that haste is useless.
    pub(super) fn is_long_unclear(&self, now: Duration, terms: &Terms) -> bool {
        let quick = terms.suspect_interval * (2 * terms.fall + HURRIED);
        self.loss.is_unclear(now) && now.saturating_sub(self.since) >= quick
    }

    /// True if a way that was down has begun to answer.
    pub(super) fn is_rising(&self) -> bool {
        self.down && self.good > 0
    }

    /// The last packet that came back, if the counters stand in for a single probe: within the interval.
    /// Those may be packets of open flows alone, so that some probes remain.
    pub(super) fn trusted_answer(&self, interval: Duration, now: Duration) -> Option<Duration> {
        let within = |at: Duration, time| now.saturating_sub(at) < time;
        let probed = within(self.last_probe?, interval * TRUSTED);
        self.last_back
            .filter(|back| probed && within(*back, interval))
    }

    /// The last probe, or the last packet that came back if later.
    pub(super) fn last_sign(&self) -> Option<Duration> {
        self.last_probe
            .map(|probe| self.last_back.map_or(probe, |back| probe.max(back)))
    }

    /// True if no refuted doubt lengthens the silence that the next doubt needs.
    #[cfg(test)]
    pub(super) fn is_doubted_at_once(&self, now: Duration, terms: &Terms) -> bool {
        self.silence.recent(now, terms) == 0
    }

    /// True if most recent rounds were good, after an outage.
    pub(super) fn answers_again(&self, terms: &Terms) -> bool {
        self.down && self.good >= terms.rise
    }

    /// True if a way that is down answers again, though it may lose some probes.
    pub(super) fn serves_again(&self, terms: &Terms) -> bool {
        self.down && self.answered >= terms.rise
    }

    /// True if a reading of the last second saw packets come back.
    pub(super) fn carries(&self, now: Duration) -> bool {
        let fresh = READING * (SILENT_READINGS + 1);
        self.last_back
            .is_some_and(|back| now.saturating_sub(back) < fresh)
    }

    /// The end of the hold; `None` while the way doesn't answer. The hold is longer than the outage was, by
    /// the time of one more round: a way that flaps evenly dies at the end of such a hold, and never
    /// returns while another one is well.
    pub(super) fn held_until(&self, terms: &Terms) -> Option<Duration> {
        let since = self.good_since?;
        let doublings = u32::try_from(self.falls.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let grown = terms.hold.checked_mul(factor).unwrap_or(terms.hold_limit);
        let round = terms.patient_interval() + terms.timeout;
        let outage = since.saturating_sub(self.last_good) + round;
        Some(since + grown.max(outage).min(terms.hold_limit))
    }

    fn enter(&mut self, now: Duration, why: Why) {
        self.since = now;
        self.why = why;
    }

    /// Takes the verdict of a round that began at `begun`. `seen` has the counts of a gateway.
    pub(super) fn judge(
        &mut self,
        verdict: Verdict,
        seen: Option<Seen<'_>>,
        begun: Duration,
        now: Duration,
        terms: &Terms,
    ) {
        match (verdict, self.down) {
            (Verdict::Nothing, _) => {}
            (Verdict::Good, true) => {
                self.answered += 1;
                let rises = self.good < terms.rise;
                if seen.is_some_and(|it| self.loss.is_still(&it, rises, now, terms)) {
                    (self.good, self.good_since) = (0, None);
                } else {
                    self.good += 1;
                    self.good_since.get_or_insert(begun);
                }
            }
            (Verdict::Failed | Verdict::Dark, true) => {
                (self.good, self.answered) = (0, 0);
                self.good_since = None;
            }
            (Verdict::Good, false) => {
                self.judge_loss(seen, now, terms);
                match self.loss.doubt() {
                    Some((lost, asked)) => {
                        (self.failed, self.dark) = (0, 0);
                        self.doubt(now, Why::Loss { lost, asked });
                    }
                    None if self.down => {}
                    None => self.clear(now, terms),
                }
            }
            (Verdict::Dark, false) => {
                self.dark += 1;
                self.doubt(now, Why::Dark);
            }
            (Verdict::Failed, false) => {
                self.judge_failure(seen, begun, now, terms);
                self.judge_loss(seen, now, terms);
            }
        }
    }

    fn judge_failure(
        &mut self,
        seen: Option<Seen<'_>>,
        begun: Duration,
        now: Duration,
        terms: &Terms,
    ) {
        if self.failed == 0 {
            self.streak = Versus::default();
        }
        if let Some(seen) = &seen {
            self.streak.add(seen);
        }
        self.failed += 1;
        let failed = self.failed;
        self.doubt(now, Why::Rounds { failed });
        // Dark rounds count once another way has shown that the servers live. One failed round
        // alone is not enough: the servers may have returned in its middle.
        let settles = self.settles_until.is_some_and(|until| begun <= until);
        let shown = failed >= terms.fall.min(2);
        let enough = failed + if shown { self.dark } else { 0 } >= terms.fall;
        // A gateway that answers some probes is judged by its loss: gateways that lose alike fail rounds
        // in turn.
        let differs = seen.is_none() || self.loss.is_failure(&self.streak, now);
        if settles || (enough && differs) {
            let why = match settles {
                true => Why::Changed { failed },
                false => Why::Rounds { failed },
            };
            self.fall(why, now, terms);
            self.rolled_back = settles;
        }
    }

    /// Counts the lost probes of a round.
    fn judge_loss(&mut self, seen: Option<Seen<'_>>, now: Duration, terms: &Terms) {
        let Some(seen) = seen.filter(|_| !self.down) else {
            return;
        };
        self.loss.take(&seen, now, terms);
        if let Some((lost, asked)) = self.loss.doubt()
            && self.loss.is_certain(terms.fall)
        {
            self.fall(Why::Loss { lost, asked }, now, terms);
        }
    }

    /// Takes the answer to a single probe.
    pub(super) fn probed(&mut self, reached: bool, now: Duration, terms: &Terms) {
        if self.down {
            return;
        }
        match reached {
            true => self.clear(now, terms),
            false => self.doubt(now, Why::Probe),
        }
    }

    /// Takes a reading of the counters.
    pub(super) fn read(&mut self, reading: Reading, now: Duration, terms: &Terms) {
        self.last_read = Some(now);
        if reading.out > 0 || reading.back > 0 {
            self.last_packet = Some(now);
        }
        if reading.back > 0 {
            self.last_back = Some(now);
            // Packets of a way that is down come from flows whose answers were under way. They refute
            // silence, and no failed probe: a NAT with a full table of flows still serves the open ones.
            let refuted = !self.suspect || self.silence.raised_doubt();
            if !self.down && refuted && self.failed == 0 && self.loss.doubt().is_none() {
                self.clear(now, terms);
            }
            self.silence.end();
        } else {
            self.silence.read(reading, now);
            if let Some(readings) = self.silence.is_suspicious(now, terms)
                && !self.down
                && !self.suspect
            {
                self.silence.raise_doubt();
                self.doubt(now, Why::Silent { readings });
            }
        }
    }

    fn doubt(&mut self, now: Duration, why: Why) {
        if self.suspect {
            self.why = why;
        } else {
            self.suspect = true;
            self.enter(now, why);
        }
    }

    fn clear(&mut self, now: Duration, terms: &Terms) {
        (self.failed, self.dark) = (0, 0);
        self.silence.refute(now, terms);
        self.last_good = now;
        if self.suspect || self.why == Why::Unknown {
            self.suspect = false;
            self.enter(now, Why::Answers);
        }
    }

    fn fall(&mut self, why: Why, now: Duration, terms: &Terms) {
        self.falls
            .retain(|fall| now.saturating_sub(*fall) < terms.hold_limit);
        self.falls.push(now);
        (self.down, self.suspect) = (true, false);
        (self.good, self.answered, self.good_since) = (0, 0, None);
        self.loss.fall(now, terms);
        self.enter(now, why);
        (self.failed, self.dark) = (0, 0);
        self.silence.prove();
    }

    /// The way is up again. One without a hold, since nothing better is left, may be one that loses packets,
    /// with some answered ones by chance.
    pub(super) fn rise(&mut self, at_once: bool, now: Duration, terms: &Terms) {
        (self.down, self.rolled_back) = (false, false);
        self.suspect = true;
        (self.ending, self.opening) = (false, false);
        self.loss.begin_anew();
        if at_once {
            self.loss.doubt_rounds(now, terms);
        }
        self.clear(now, terms);
    }
}
