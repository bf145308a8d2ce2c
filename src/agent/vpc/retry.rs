//! The next pass after a failure: EC2 announces no end of a fault.

use std::time::{Duration, Instant};

use crate::vpc::report::VpcReport;

/// The first pause after a failed pass; each further failure doubles the pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest such pause. A pass that fails takes a few reads of the account's budget of 20 a second
/// ("Request throttling for the Amazon EC2 API"), and after the end of a fault the next pass is near.
const LONGEST: Duration = Duration::from_secs(60);

/// The pauses between failed passes.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    /// The time of the next pass; `None` after a success.
    pub at: Option<Instant>,
}

impl Retry {
    /// Records a pass. `random` is from 0 to 1.
    pub fn after(&mut self, report: &VpcReport, now: Instant, random: f64) {
        match (&report.error, report.degraded.is_empty()) {
            (None, true) => self.clear(),
            // Only the source can help, by its own schedule.
            (Some(_), true) if report.without_document => self.clear(),
            _ if report.contended => self.contended(now, random),
            _ => self.failed(now, random),
        }
    }

    /// Records a success, or a failure that only another document ends.
    fn clear(&mut self) {
        *self = Retry::default();
    }

    /// Records that another program has changed objects during the pass. The first time the next pass
    /// follows at once; a program that goes on is no reason to follow without a pause.
    fn contended(&mut self, now: Instant, random: f64) {
        self.failed(now, random);
        if self.failures == 1 {
            self.at = Some(now);
        }
    }

    /// Records a failure. `random` is from 0 to 1: the pause is in the second half of its bound, so
    /// that agents of one account spread out.
    fn failed(&mut self, now: Instant, random: f64) {
        let bound = FIRST.saturating_mul(2u32.saturating_pow(self.failures.min(6)));
        self.failures += 1;
        let share = 0.5 + random.clamp(0.0, 1.0) / 2.0;
        self.at = Some(now + bound.min(LONGEST).mul_f64(share));
    }
}

/// The loss of the document in force.
#[derive(Debug, Default)]
pub(super) struct Loss {
    is_lost: bool,
}

impl Loss {
    /// Records a judged pass. True for the first one of several without a document: a source that has
    /// no document either is asked by its own schedule.
    pub fn begins(&mut self, is_lost: bool) -> bool {
        !std::mem::replace(&mut self.is_lost, is_lost) && is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_of_the_document_begins_once() {
        let mut loss = Loss::default();
        let passes = [false, true, true, true, false, true];
        let begins = passes.map(|is_lost| loss.begins(is_lost));
        assert_eq!(begins, [false, true, false, false, false, true]);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_end_with_a_success() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        let mut pause = |random: f64| {
            retry.failed(now, random);
            retry.at.map(|at| (at - now).as_secs_f64())
        };
        let pauses: Vec<f64> = (0..8).filter_map(|_| pause(1.0)).collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(pause(0.0), Some(30.0));
        retry.clear();
        assert_eq!(retry.at, None);
        retry.failed(now, 1.0);
        assert_eq!(retry.at, Some(now + FIRST));
        retry.clear();
        retry.contended(now, 1.0);
        assert_eq!(retry.at, Some(now));
        retry.contended(now, 1.0);
        assert_eq!(retry.at, Some(now + FIRST * 2));
    }
}
