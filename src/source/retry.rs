//! The time of the next try: exponential back-off with full jitter, and `Retry-After`.

use std::time::Duration;

use jiff::Timestamp;

use crate::random;

/// The wait before the next try; `None` if the server asks for more than `max_wait`, so that the
/// fetch gives up.
///
/// `failed` is the number of tries so far, 1 or more.
pub(super) fn wait(
    failed: u32,
    retry_after: Option<Duration>,
    base: Duration,
    max_wait: Duration,
) -> Option<Duration> {
    match retry_after {
        // Jitter is added: Retry-After forbids an earlier try, and jitter keeps all clients from
        // returning in the same second.
        Some(asked) if asked <= max_wait => Some(asked + jitter(base)),
        Some(_) => None,
        None => Some(jitter(ceiling(failed, base, max_wait))),
    }
}

/// `base * 2^(failed-1)`, at most `max_wait`.
fn ceiling(failed: u32, base: Duration, max_wait: Duration) -> Duration {
    let factor = 2u32
        .checked_pow(failed.saturating_sub(1))
        .unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(max_wait)
}

/// Evenly spread from zero to `upper`.
fn jitter(upper: Duration) -> Duration {
    upper.mul_f64(random::fraction())
}

/// `Retry-After`: seconds, or a date in the preferred format of RFC 9110 (section 5.6.7). The two
/// obsolete date formats and any other text count as absent. A date in the past means now.
pub(super) fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only an overflow can fail: longer than any wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn back_off_doubles_up_to_the_cap() {
        let seconds: Vec<f64> = [1, 2, 3, 5, 6, 40, u32::MAX]
            .map(|failed| ceiling(failed, BASE, MAX).as_secs_f64())
            .to_vec();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 8.0, 10.0, 10.0, 10.0]);
    }

    #[test]
    fn waits_spread_over_the_whole_interval() {
        let waits: Vec<Duration> = (0..2000)
            .map(|_| wait(1, None, BASE, MAX).unwrap())
            .collect();
        assert!(waits.iter().all(|wait| *wait <= BASE));
        // 2,000 even draws miss a tenth of the range with a probability of 0.9^2000.
        assert!(waits.iter().any(|wait| *wait < BASE / 10));
        assert!(waits.iter().any(|wait| *wait > BASE / 10 * 9));
    }

    #[test]
    fn retry_after_is_honoured_or_ends_the_tries() {
        let asked = Duration::from_secs(10);
        let waited = wait(1, Some(asked), BASE, MAX).unwrap();
        assert!(waited >= asked && waited <= asked + BASE);
        assert_eq!(wait(1, Some(Duration::from_secs(11)), BASE, MAX), None);
        assert_eq!(wait(1, Some(Duration::MAX), BASE, MAX), None);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let parse = |value| parse_retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(parse(" 120 "), Some(120));
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(parse("-1"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("soon"), None);
    }
}
