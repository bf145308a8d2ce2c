//! The next pass after one with an error or a missing part: no event announces some remedies, such as a
//! sysctl.

use std::time::{Duration, Instant};

use crate::reconcile::report::Report;

/// The first pause after a failed pass; each further failure doubles the pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest such pause: after the operator has removed the cause, the next pass is not far.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Retry {
    /// Failed passes in a row, since a part has come back.
    failures: u32,
    /// The parts that were missing after the last pass.
    missing: usize,
    /// The time of the next pass.
    pub at: Option<Instant>,
}

impl Retry {
    /// Takes the report of a pass that has ended at `ended`.
    pub fn passed(&mut self, report: &Report, ended: Instant) {
        let missing = report.degraded.len();
        // A part has come back: the others may follow soon.
        if missing < std::mem::replace(&mut self.missing, missing) {
            self.failures = 0;
        }
        match report.error {
            None if missing == 0 => (self.failures, self.at) = (0, None),
            // Only the next fetch can bring another document.
            Some(_) if report.without_document && missing == 0 => self.at = None,
            _ => {
                let pause = FIRST.saturating_mul(2u32.saturating_pow(self.failures.min(6)));
                self.failures += 1;
                self.at = Some(ended + pause.min(LONGEST));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::degraded::{Degradation, Part};
    use crate::reconcile::Mode;

    #[test]
    fn a_part_that_comes_back_begins_the_pauses_anew() {
        let report = |missing: usize| {
            let part = Degradation::new(Part::Bypass, None, "gone");
            let mut report = Report::new(Role::Host, Mode::Apply);
            report.degraded = vec![part; missing];
            report
        };
        let (mut retry, now) = (Retry::default(), Instant::now());
        let mut pauses = Vec::new();
        for missing in [2, 2, 2, 1, 1, 0, 1] {
            retry.passed(&report(missing), now);
            pauses.push(retry.at.map(|at| (at - now).as_secs()));
        }
        let expected = [Some(1), Some(2), Some(4), Some(1), Some(2), None, Some(1)];
        assert_eq!(pauses, expected);
    }
}
