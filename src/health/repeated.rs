//! Segments that this host's TCP repeats: the sign of a gateway that loses some packets, while others come
//! back.
//!
//! The sign proves nothing, since a segment may be lost on any path and on any stretch. It asks for a few rounds
//! of probes, and each look in vain doubles the time until the next one.

use std::collections::VecDeque;
use std::time::Duration;

use super::terms::Terms;

/// Segments of this host's TCP between two readings, on all paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segments {
    /// Those sent for the first time.
    pub sent: u64,
    /// Those sent again.
    pub repeated: u64,
}

/// Segments count for this time: two repetitions of a SYN with a second between them.
const WITHIN: Duration = Duration::from_millis(2_250);
/// Fewer repeated segments than these are no sign.
const LEAST: f64 = 2.0;
/// One repeated segment of so many sent ones is a sign. The internet loses less than one of a hundred.
const SHARE: f64 = 50.0;
/// A smaller share is a sign with more segments than these, if it is so many times the usual one: a gateway
/// that loses packets may carry a small part of the traffic.
const MORE: f64 = 4.0;
const UNUSUAL: f64 = 5.0;
/// Until a host has sent more, its usual share is one of so many.
const PRIOR: f64 = 500.0;
/// The part of the former segments that counts after a further reading: half of them after a minute and a
/// half of quick readings.
const KEPT: f64 = 0.998;
/// The time from the first look in vain to the next one.
const PAUSE: Duration = Duration::from_secs(2);

/// Sums of segments.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sent: f64,
    repeated: f64,
}

impl Sum {
    fn add(&mut self, more: Segments) {
        self.sent += more.sent as f64;
        self.repeated += more.repeated as f64;
    }

    /// True if the recent segments are unlike the `usual` ones.
    fn is_sign(self, usual: Sum) -> bool {
        let many = self.repeated >= LEAST && self.repeated * SHARE >= self.sent;
        let share = (usual.repeated + 1.0) / (usual.sent + PRIOR);
        many || (self.repeated >= MORE && self.repeated >= UNUSUAL * share * self.sent)
    }
}

/// The recent segments, and the looks at the gateways. Times count from an arbitrary start.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeated {
    recent: VecDeque<(Duration, Segments)>,
    /// Those before the recent ones, the older the less.
    usual: Sum,
    /// The looks in vain.
    looks: u32,
    /// The earliest time of the next look.
    next: Duration,
}

impl Repeated {
    /// Takes a reading. True if the gateways are to be looked at now.
    pub(super) fn take(&mut self, segments: Segments, now: Duration, terms: &Terms) -> bool {
        self.recent.push_back((now, segments));
        let old = |at: Duration| now.saturating_sub(at) >= WITHIN;
        let is_old = |it: Option<&(Duration, Segments)>| it.is_some_and(|(at, _)| old(*at));
        while is_old(self.recent.front())
            && let Some((_, segments)) = self.recent.pop_front()
        {
            self.usual.sent *= KEPT;
            self.usual.repeated *= KEPT;
            self.usual.add(segments);
        }
        let mut recent = Sum::default();
        self.recent.iter().for_each(|(_, it)| recent.add(*it));
        if now < self.next || !recent.is_sign(self.usual) {
            return false;
        }
        if now.saturating_sub(self.next) >= terms.hold_limit {
            self.looks = 0;
        }
        let factor = 2_u32.checked_pow(self.looks).unwrap_or(u32::MAX);
        self.next = now + PAUSE.saturating_mul(factor).min(terms.hold_limit);
        self.looks = self.looks.saturating_add(1);
        self.recent.clear();
        true
    }

    /// A gateway was found to lose packets: the last look was not in vain.
    pub(super) fn prove(&mut self) {
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProbeConfig;

    fn looks(seconds: u64, mut of: impl FnMut(u64) -> Segments) -> Vec<Duration> {
        let terms = Terms::from(&ProbeConfig::default());
        let mut repeated = Repeated::default();
        let readings = (1..=seconds * 4).map(|it| (Duration::from_millis(250 * it), of(it)));
        let looks = readings.filter(|(now, segments)| repeated.take(*segments, *now, &terms));
        looks.map(|(now, _)| now).collect()
    }

    #[test]
    fn repeated_segments_of_a_lossy_path_ask_for_a_look_at_once() {
        let segments = |_| Segments {
            sent: 20,
            repeated: 2,
        };
        assert_eq!(looks(1, segments), [Duration::from_millis(250)]);
        // A lone connection that is being opened.
        let lone = |reading| Segments {
            sent: u64::from(reading == 1),
            repeated: u64::from(reading == 5 || reading == 9),
        };
        assert_eq!(looks(3, lone), [Duration::from_millis(2_250)]);
    }

    #[test]
    fn ordinary_loss_is_no_sign() {
        // Eight of a thousand, and one alone.
        let many = |_| Segments {
            sent: 1_000,
            repeated: 8,
        };
        assert_eq!(looks(600, many), []);
        let few = |reading| Segments {
            sent: 3,
            repeated: u64::from(reading % 9 == 0),
        };
        assert_eq!(looks(600, few), []);
    }

    #[test]
    fn small_share_is_a_sign_where_it_is_unusual() {
        let seven = |reading| Segments {
            sent: 200,
            repeated: u64::from(reading > 40),
        };
        let first = looks(20, seven)[0];
        assert_eq!(first, Duration::from_millis(250 * 44));
        let usual = |_| Segments {
            sent: 200,
            repeated: 1,
        };
        assert_eq!(looks(600, usual), []);
    }

    #[test]
    fn looks_in_vain_become_rare() {
        let segments = |_| Segments {
            sent: 20,
            repeated: 2,
        };
        let all = looks(86_400, segments);
        let hour = all.iter().filter(|at| at.as_secs() < 3_600).count();
        assert!((15..=21).contains(&hour), "{hour}");
        assert!(all.len() <= 300, "{}", all.len());
    }
}
