//! The pace of requests: back-off after failures, and a token bucket for calls that change
//! something. Times are arguments.

use std::time::Duration;

/// Exponential back-off with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog,
/// 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait; doubled for each further wait.
    pub base: Duration,
    /// The upper bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after the given number of failed tries, 1 or more. `fraction` is random, from 0 to 1.
    pub fn wait(&self, failed: u32, fraction: f64) -> Duration {
        let factor = 2_u32
            .checked_pow(failed.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        ceiling.mul_f64(fraction.clamp(0.0, 1.0))
    }
}

/// A token bucket that grants tokens ahead of time: a caller gets its token at once, together with
/// the wait until the token counts. Callers are served in the order of their requests.
///
/// EC2 has one bucket for all users of an account and region, and a caller that empties the bucket
/// stops the others ("Request throttling for the Amazon EC2 API"). The own bucket is smaller.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    burst: f64,
    per_second: f64,
    /// Negative while callers wait for their tokens.
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate of zero or less counts as one token in a hundred seconds, since a bucket
    /// without any rate blocks for ever.
    pub fn new(per_second: f64, burst: u32) -> TokenBucket {
        let burst = f64::from(burst.max(1));
        TokenBucket {
            burst,
            per_second: if per_second > 0.01 { per_second } else { 0.01 },
            tokens: burst,
            at: Duration::ZERO,
        }
    }

    /// Takes a token. Returns the wait until the token counts.
    ///
    /// # Errors
    /// The wait, without taking a token, if the wait is longer than `most`.
    pub fn take(&mut self, now: Duration, most: Duration) -> Result<Duration, Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        let missing = (1.0 - self.tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing / self.per_second);
        if wait > most {
            return Err(wait);
        }
        self.tokens -= 1.0;
        Ok(wait)
    }
}

/// The repetitions that are left, over all calls: each takes one, and a call that succeeds gives back its
/// own, at least one.
///
/// A fault that lasts then costs one request a call, and not all repetitions of each call (the retry
/// quota of the AWS SDKs, "Retry behavior" in their reference guide).
#[derive(Debug, Clone)]
pub struct RetryBudget {
    most: u32,
    left: u32,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(most: u32) -> RetryBudget {
        RetryBudget { most, left: most }
    }

    /// Takes a repetition. Returns false if none is left.
    pub fn take(&mut self) -> bool {
        let has_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_left
    }

    /// Records the success of a call with this number of repetitions.
    pub fn succeeded(&mut self, repetitions: u32) {
        let back = self.left.saturating_add(repetitions.max(1));
        self.left = back.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_of_repetitions_ends_and_comes_back_with_successes() {
        let mut budget = RetryBudget::new(3);
        let taken = [(); 5].map(|()| budget.take());
        assert_eq!(taken, [true, true, true, false, false]);
        budget.succeeded(0);
        assert!(budget.take() && !budget.take());
        budget.succeeded(2);
        assert!(budget.take() && budget.take() && !budget.take());
        budget.succeeded(100);
        assert_eq!([(); 4].map(|()| budget.take()), [true, true, true, false]);
    }

    const LONG: Duration = Duration::from_secs(3600);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn waits_double_up_to_the_cap_and_scale_with_the_fraction() {
        let backoff = Backoff {
            base: seconds(0.5),
            cap: seconds(10.0),
        };
        let waits = [1, 2, 3, 5, 6, 40, u32::MAX].map(|failed| backoff.wait(failed, 1.0));
        assert_eq!(
            waits.map(|wait| wait.as_secs_f64()),
            [0.5, 1.0, 2.0, 8.0, 10.0, 10.0, 10.0]
        );
        assert_eq!(backoff.wait(3, 0.25), seconds(0.5));
        assert_eq!(backoff.wait(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn bucket_grants_the_burst_at_once_and_then_the_rate() {
        let mut bucket = TokenBucket::new(2.0, 3);
        let now = seconds(10.0);
        let waits: Vec<f64> = (0..6)
            .map(|_| bucket.take(now, LONG).unwrap().as_secs_f64())
            .collect();
        assert_eq!(waits, [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]);
    }

    #[test]
    fn bucket_fills_with_time_up_to_the_burst() {
        let mut bucket = TokenBucket::new(2.0, 2);
        for _ in 0..2 {
            assert_eq!(bucket.take(seconds(1.0), LONG), Ok(Duration::ZERO));
        }
        assert_eq!(bucket.take(seconds(1.25), LONG), Ok(seconds(0.25)));
        for _ in 0..2 {
            assert_eq!(bucket.take(seconds(100.0), LONG), Ok(Duration::ZERO));
        }
        assert_eq!(bucket.take(seconds(100.0), LONG), Ok(seconds(0.5)));
    }

    #[test]
    fn refused_wait_takes_no_token() {
        let mut bucket = TokenBucket::new(2.0, 1);
        assert_eq!(bucket.take(Duration::ZERO, LONG), Ok(Duration::ZERO));
        for _ in 0..5 {
            assert_eq!(bucket.take(Duration::ZERO, seconds(0.1)), Err(seconds(0.5)));
        }
        assert_eq!(bucket.take(Duration::ZERO, LONG), Ok(seconds(0.5)));
    }

    #[test]
    fn clock_that_stands_still_or_runs_back_adds_nothing() {
        let mut bucket = TokenBucket::new(1.0, 1);
        assert_eq!(bucket.take(seconds(5.0), LONG), Ok(Duration::ZERO));
        assert_eq!(bucket.take(seconds(4.0), LONG), Ok(seconds(1.0)));
        assert_eq!(bucket.take(seconds(5.0), LONG), Ok(seconds(2.0)));
    }
}
