//! Times and amounts in a form that is quick to read: two units, three digits.

/// A span in its two largest units: `45 s`, `2 min 10 s`, `3 d 4 h`.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let first = UNITS
        .iter()
        .position(|(_, length)| seconds >= *length)
        .unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, length) in UNITS.iter().skip(first).take(2) {
        let count = rest / length;
        rest %= length;
        if count > 0 || parts.is_empty() {
            parts.push(format!("{count} {unit}"));
        }
    }
    parts.join(" ")
}

/// A time, both in seconds since the epoch: `2026-11-20T11:50:00Z (10 min ago)`.
pub(crate) fn moment(at: i64, now: i64) -> String {
    let time = jiff::Timestamp::from_second(at)
        .map_or_else(|_| format!("second {at}"), |time| time.to_string());
    let distance = span(at.abs_diff(now));
    if at > now {
        format!("{time} (in {distance})")
    } else {
        format!("{time} ({distance} ago)")
    }
}

/// Bytes in decimal units, as the cloud bills them: `1.23 TB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1e3;
    let mut unit = 0;
    // The format rounds 999.5 up to 1000.
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1e3;
        unit += 1;
    }
    let digits = match amount {
        _ if amount < 9.995 => 2,
        _ if amount < 99.95 => 1,
        _ => 0,
    };
    format!("{amount:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (45, "45 s"),
            (60, "1 min"),
            (130, "2 min 10 s"),
            (3_599, "59 min 59 s"),
            (3_605, "1 h"),
            (86_400 * 3 + 4 * 3_600 + 59, "3 d 4 h"),
            (86_400 * 400, "400 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn byte_counts_have_three_digits_and_a_unit() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_951, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (1_234_567_890_123, "1.23 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_are_absolute_and_relative() {
        assert_eq!(moment(0, 61), "1970-01-01T00:00:00Z (1 min 1 s ago)");
        assert_eq!(moment(61, 1), "1970-01-01T00:01:01Z (in 1 min)");
        assert_eq!(
            moment(i64::MAX, i64::MAX),
            format!("second {} (0 s ago)", i64::MAX)
        );
    }
}
