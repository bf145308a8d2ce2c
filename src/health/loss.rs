//! Loss: a gateway that loses a part of the packets, whatever the majorities of its rounds say.
//!
//! A lost probe counts if another way's probe of the same server was answered in the same round. The first
//! one opens a window of doubt, in which rounds follow at the quick pace. The gateway is down as soon as
//! two statements are certain: the loss is no ordinary one, and another gateway loses much less. The window
//! closes without a verdict once answers outweigh the lost probes, or after [`ROUNDS`].
//!
//! **No ordinary loss** is the sequential test of a likelihood ratio. Each lost probe multiplies the ratio
//! by `UNUSUAL / ORDINARY` = 12.5, and each answered one by `0.75 / 0.98` = 0.77; the window is open while
//! the ratio exceeds one, and the limit is 10⁹. For a gateway with the ordinary loss of 2 % a probe, the
//! ratio is a martingale that starts at one with each probe at most, so that it exceeds the limit with a
//! probability below 10⁻⁹ for each probe of a doubt (Ville's inequality). A doubt that lasts for a day
//! takes 432,000 rounds of three probes: below 1.3 · 10⁻³. With one probe in 10 seconds outside of doubts,
//! 2 % of them lost, a day has 173 windows: below 2 · 10⁻⁷. One answered probe of ten outweighs a lost
//! one, so that such a window takes some 14 probes.
//!
//! A NAT that loses 30 % of the packets in each direction loses 1 − 0.7² = 51 % of the probes. The
//! logarithm of the ratio then grows by 0.51 · 2.53 − 0.49 · 0.27 = 1.16 a probe, and exceeds the limit of
//! 20.7 after 18 probes on average, six rounds of three servers.
//!
//! **Another gateway loses much less** is the test of two shares (G): the logarithm of the ratio between
//! the likelihood of two shares and that of a common one. At 51 % against none it grows by 0.43 for each
//! pair of probes, and exceeds [`APART`] after 23 pairs (eight rounds), or after 16 with two other
//! gateways. For gateways that lose alike it exceeds ten with a probability of 4 · 10⁻⁶ at any one moment,
//! and of some 10⁻⁴ within a window.

use std::collections::BTreeMap;
use std::time::Duration;

use super::WayId;
use super::tally::{Seen, Tally};
use super::terms::Terms;

/// The loss of probes of a path without a fault.
const ORDINARY: f64 = 0.02;
/// The loss of probes that the test tells from the ordinary one.
const UNUSUAL: f64 = 0.25;
/// The logarithm of the likelihood ratio from which the loss is no ordinary one: that of 10⁹.
const CERTAIN: f64 = 20.7;
/// The logarithm of the likelihood ratio from which two gateways differ.
const APART: f64 = 10.0;
/// The same for failed rounds, once the gateway has lost packets: gateways that lose alike fail in turn.
const FAR_APART: f64 = 15.0;
/// The most rounds of a window: gateways that lose alike would else be probed quickly for ever.
const ROUNDS: u32 = 50;
/// The pause after a short window, in units of its length.
const REST: u32 = 5;
/// The logarithm from which a gateway that is down still loses packets: two lost probes, a third one among
/// a few answered ones.
const STILL: f64 = 5.1;
/// The most of that logarithm: twelve answered probes outweigh it.
const STILL_MOST: f64 = STILL * 1.5;
/// Another gateway with one lost probe in so many is well beside one that answers none.
const CLEAN: u32 = 8;

impl Tally {
    /// The logarithm of the likelihood ratio between an unusual and the ordinary loss.
    fn score(self) -> f64 {
        let answered = f64::from(self.asked - self.lost);
        f64::from(self.lost) * (UNUSUAL / ORDINARY).ln()
            + answered * ((1.0 - UNUSUAL) / (1.0 - ORDINARY)).ln()
    }

    /// True if the share of lost probes is at most half of the other one.
    fn is_half_of(self, other: Tally) -> bool {
        let (own, theirs) = (u64::from(self.lost), u64::from(other.lost));
        2 * own * u64::from(other.asked) <= theirs * u64::from(self.asked)
    }

    /// The logarithm of the likelihood of these probes, if this share of them is lost.
    fn likelihood(self, share: f64) -> f64 {
        let part = |count: u32, share: f64| match count {
            0 => 0.0,
            count => f64::from(count) * share.ln(),
        };
        part(self.lost, share) + part(self.asked - self.lost, 1.0 - share)
    }

    fn share(self) -> f64 {
        f64::from(self.lost) / f64::from(self.asked.max(1))
    }
}

/// The probes of some rounds to servers that live, through a gateway and through the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Versus {
    own: Tally,
    others: BTreeMap<WayId, Tally>,
}

impl Versus {
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        self.own.add(seen.own().living);
        for (way, tallies) in seen.others() {
            self.others.entry(way).or_default().add(tallies.living);
        }
    }

    /// True if no server has answered through the gateway, and nearly all through another one.
    fn is_dead(&self) -> bool {
        let clean = |it: &Tally| it.asked > 0 && it.lost * CLEAN <= it.asked;
        self.own.lost == self.own.asked && self.others.values().any(clean)
    }

    /// True if others lose much less for certain.
    fn is_worse(&self) -> bool {
        self.is_apart(APART)
    }

    fn is_apart(&self, limit: f64) -> bool {
        let mut rest = Tally::default();
        let better = self.others.values();
        better
            .filter(|it| it.asked > 0 && it.is_half_of(self.own))
            .for_each(|it| rest.add(*it));
        if rest.asked == 0 {
            return false;
        }
        let mut all = self.own;
        all.add(rest);
        let apart = self.own.likelihood(self.own.share()) + rest.likelihood(rest.share());
        apart - all.likelihood(all.share()) >= limit
    }
}

/// A window of doubt.
#[derive(Debug, Clone, Default)]
struct Window {
    /// The probes to servers that answered through another way in the same round.
    compared: Tally,
    versus: Versus,
    rounds: u32,
    /// The rounds with a lost probe.
    bad: u32,
}

/// The loss of one gateway. Times count from an arbitrary start.
#[derive(Debug, Clone, Default)]
pub(super) struct Loss {
    window: Option<Window>,
    /// The long windows without a verdict since the last short one.
    undecided: u32,
    /// No window opens before.
    quiet_until: Duration,
    /// Until then failed rounds may be those of a gateway that loses packets: by the last long window without
    /// a verdict, or by the loss while the gateway was down.
    unclear_until: Duration,
    /// The logarithm of the likelihood ratio while the gateway is down.
    still: f64,
}

impl Loss {
    /// Takes a round of a gateway that is not down.
    pub(super) fn take(&mut self, seen: &Seen<'_>, now: Duration, terms: &Terms) {
        let own = seen.own().compared;
        if self.window.is_none() && (own.lost == 0 || now < self.quiet_until) {
            return;
        }
        let window = self.window.get_or_insert_default();
        window.compared.add(own);
        window.versus.add(seen);
        window.rounds += 1;
        window.bad += u32::from(own.lost > 0);
        let refuted = window.compared.score() <= 0.0;
        let long = window.rounds >= ROUNDS;
        if seen.is_alone() {
            self.window = None;
        } else if refuted || (long && !self.is_certain(terms.fall)) {
            self.close(now, terms);
        }
    }

    /// Closes a window without a verdict. The rounds of a window ask other gateways too, so that windows
    /// of several gateways with some loss would follow each other for ever without a pause.
    fn close(&mut self, now: Duration, terms: &Terms) {
        let rounds = self.window.take().map_or(0, |window| window.rounds);
        let pause = if rounds <= ROUNDS / 2 {
            self.undecided = 0;
            terms.suspect_interval * rounds * REST
        } else {
            let factor = 2_u32.checked_pow(self.undecided).unwrap_or(u32::MAX);
            self.undecided += 1;
            self.doubt_rounds(now, terms);
            terms.interval.saturating_mul(factor)
        };
        self.quiet_until = now + pause.min(terms.hold_limit);
    }

    /// True if failed rounds in a row show that other gateways are better: nearly all of their probes were
    /// answered and none of this gateway's, or they lose much less for certain.
    pub(super) fn is_failure(&self, streak: &Versus, now: Duration) -> bool {
        if self.is_unclear(now) {
            streak.is_apart(FAR_APART)
        } else {
            streak.is_dead() || streak.is_worse()
        }
    }

    /// True if the gateway has lost some probes and answered others within the last minutes.
    pub(super) fn is_unclear(&self, now: Duration) -> bool {
        now < self.unclear_until
    }

    /// The lost and all compared probes of an open window.
    pub(super) fn doubt(&self) -> Option<(u32, u32)> {
        let compared = self.window.as_ref()?.compared;
        Some((compared.lost, compared.asked))
    }

    /// True if the gateway loses more than usual, and than another one. A burst that loses all probes of a
    /// moment is the matter of failed rounds, so that lost probes of `fall` rounds are too few.
    pub(super) fn is_certain(&self, fall: u32) -> bool {
        self.window.as_ref().is_some_and(|window| {
            window.bad > fall && window.compared.score() >= CERTAIN && window.versus.is_worse()
        })
    }

    /// Takes a good round of a gateway that is down. True if it still loses packets: a lost probe while it
    /// `rises`, or more of them later than at the ordinary loss. A hold of minutes would else never end.
    pub(super) fn is_still(
        &mut self,
        seen: &Seen<'_>,
        rises: bool,
        now: Duration,
        terms: &Terms,
    ) -> bool {
        let living = seen.own().living;
        self.still = (self.still + living.score()).clamp(0.0, STILL_MOST);
        let still = (rises && living.lost > 0) || self.still > STILL;
        if still {
            self.doubt_rounds(now, terms);
        }
        still
    }

    /// The gateway is down.
    pub(super) fn fall(&mut self, now: Duration, terms: &Terms) {
        let window = self.window.as_ref();
        if window.is_some_and(|it| it.compared.lost < it.compared.asked) {
            self.doubt_rounds(now, terms);
        }
        self.begin_anew();
    }

    /// Failed rounds need more evidence for some time.
    pub(super) fn doubt_rounds(&mut self, now: Duration, terms: &Terms) {
        self.unclear_until = now + terms.hold_limit * 2;
    }

    /// Begins without a window.
    pub(super) fn begin_anew(&mut self) {
        *self = Loss {
            unclear_until: self.unclear_until,
            ..Loss::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lost: u32, asked: u32) -> Tally {
        Tally { asked, lost }
    }

    fn versus(own: Tally, other: Tally) -> Versus {
        let other_way = WayId::Gateway([10, 0, 1, 2].into());
        Versus {
            own,
            others: [(other_way, other)].into(),
        }
    }

    #[test]
    fn figures_of_the_page_are_those_of_the_test() {
        assert!(CERTAIN < 1e9_f64.ln() + 0.1 && CERTAIN > 1e9_f64.ln() - 0.1);
        let growth = 0.51 * tally(1, 1).score() + 0.49 * tally(0, 1).score();
        assert!((growth - 1.16).abs() < 0.01, "{growth}");
        // Eighteen probes at that rate, nine of them lost.
        assert!(tally(9, 18).score() < CERTAIN && tally(10, 18).score() >= CERTAIN);
        assert!(versus(tally(12, 23), tally(0, 23)).is_worse());
        assert!(!versus(tally(11, 21), tally(0, 21)).is_worse());
        assert!(versus(tally(8, 16), tally(0, 32)).is_worse());
        assert!(tally(1, 10).score() > 0.0 && tally(1, 11).score() < 0.0);
    }

    #[test]
    fn gateways_that_lose_alike_or_little_are_none_worse_than_others() {
        assert!(!versus(tally(500, 1000), tally(450, 1000)).is_worse());
        assert!(
            !versus(tally(500, 1000), tally(260, 1000)).is_worse(),
            "half"
        );
        assert!(!versus(tally(9, 18), tally(3, 18)).is_worse(), "too early");
        assert!(!versus(tally(9, 18), tally(0, 0)).is_worse(), "nobody else");
        assert!(versus(tally(9, 9), tally(1, 9)).is_dead());
        assert!(!versus(tally(9, 9), tally(2, 9)).is_dead());
        assert!(!versus(tally(8, 9), tally(0, 9)).is_dead());
    }
}
