//! The recent probes of a way: loss and latency.

use std::collections::VecDeque;
use std::time::Duration;

use super::round::Answer;

/// The probes of a way that loss and latency are about.
const RECENT: usize = 100;

/// Loss and latency of the recent probes of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// The probes that were sent, 100 at most.
    pub probes: u32,
    /// Those without an answer.
    pub lost: u32,
    /// Half of the answers came within this time.
    pub p50: Option<Duration>,
    /// 99 of 100 answers came within this time.
    pub p99: Option<Duration>,
}

impl Quality {
    /// The share of probes without an answer; `None` without a probe.
    pub fn loss(&self) -> Option<f64> {
        (self.probes > 0).then(|| f64::from(self.lost) / f64::from(self.probes))
    }
}

/// The recent probes of a way.
#[derive(Debug, Clone, Default)]
pub(super) struct Probes {
    /// The newest last; `None` for one without an answer.
    recent: VecDeque<Option<Duration>>,
    /// The duration of the last answered one.
    pub(super) latency: Option<Duration>,
}

impl Probes {
    pub(super) fn take(&mut self, answer: Answer) {
        let latency = match answer {
            Answer::Reached(latency) => Some(latency),
            Answer::Failed => None,
            Answer::Untried => return,
        };
        self.latency = latency.or(self.latency);
        self.recent.push_back(latency);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    pub(super) fn quality(&self) -> Quality {
        let mut answered: Vec<Duration> = self.recent.iter().copied().flatten().collect();
        answered.sort_unstable();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // The least latency that so many of 100 answers do not exceed (nearest rank).
        let within = |percent: usize| {
            let rank = (answered.len() * percent).div_ceil(100);
            answered.get(rank.checked_sub(1)?).copied()
        };
        Quality {
            probes: number(self.recent.len()),
            lost: number(self.recent.len() - answered.len()),
            p50: within(50),
            p99: within(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn quantiles_and_loss_are_those_of_the_last_hundred_probes() {
        let mut probes = Probes::default();
        assert_eq!(probes.quality(), Quality::default());
        assert_eq!(probes.quality().loss(), None);
        probes.take(Answer::Untried);
        assert_eq!(probes.quality().probes, 0, "nothing left this host");
        probes.take(Answer::Reached(millis(7)));
        let one = probes.quality();
        assert_eq!((one.p50, one.p99), (Some(millis(7)), Some(millis(7))));
        for number in 1..=100 {
            probes.take(Answer::Reached(millis(number)));
        }
        let all = probes.quality();
        assert_eq!((all.p50, all.p99), (Some(millis(50)), Some(millis(99))));
        assert_eq!((all.probes, all.lost), (100, 0));
        for _ in 0..25 {
            probes.take(Answer::Failed);
        }
        assert_eq!(probes.quality().loss(), Some(0.25));
        assert_eq!(probes.latency, Some(millis(100)), "the last answered one");
        for _ in 0..100 {
            probes.take(Answer::Failed);
        }
        let lost = probes.quality();
        assert_eq!((lost.loss(), lost.p50, lost.p99), (Some(1.0), None, None));
    }
}
