//! Numbers with a unit: durations, sizes, shares.
//!
//! A number without a unit is an error: some people would read `refresh = 5` as seconds, others as
//! minutes.

use std::time::Duration;

use crate::nearest::nearest;

/// The units of a duration, with their length in milliseconds.
const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// The units of a size, with their length in bytes: powers of 1024 as in IEC 80000-13, powers of
/// 1000 as in SI.
const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Ten years in milliseconds. A longer duration is a typing error. Sums of a clock and ten years
/// can't overflow.
const LONGEST: u64 = 3_653 * 86_400_000;

/// Reads `"5m"`: a whole number and one of ms, s, m, h, d, w.
///
/// # Errors
/// The mistake and the correction.
pub fn duration(text: &str) -> Result<Duration, String> {
    let milliseconds = quantity(text, &DURATIONS, "duration", "5m")?;
    if milliseconds > LONGEST {
        return Err(format!("{text:?} is longer than ten years (\"3653d\")"));
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Reads `"64MiB"`: a whole number and one of B, KiB, MiB, GiB, kB, MB, GB.
///
/// # Errors
/// The mistake and the correction.
pub(super) fn size(text: &str) -> Result<u64, String> {
    quantity(text, &SIZES, "size", "64MiB")
}

/// Reads `"20%"`: 0 to 100, decimals allowed.
///
/// # Errors
/// The mistake and the correction.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    share(text, 100)
}

/// Reads `"500%"`: 0 to 1,000,000, decimals allowed.
///
/// # Errors
/// The mistake and the correction.
pub(super) fn gain(text: &str) -> Result<f64, String> {
    share(text, 1_000_000)
}

fn share(text: &str, most: u32) -> Result<f64, String> {
    let (number, unit) = split(text);
    let wrong = || format!("{text:?} is not a share: write 0 to {most} and a %, such as \"20%\"");
    if unit.is_empty() && !number.is_empty() {
        return Err(no_unit(text, "share", "20%", "%"));
    }
    if unit != "%" {
        return Err(wrong());
    }
    let share: f64 = number.parse().map_err(|_| wrong())?;
    if !(0.0..=f64::from(most)).contains(&share) {
        return Err(format!(
            "{text:?} is out of range: a share is 0% to {most}%"
        ));
    }
    Ok(share)
}

/// The message for a number without a unit, with or without quotes.
pub(super) fn no_unit(number: &str, kind: &str, example: &str, units: &str) -> String {
    format!("{number} has no unit: write a {kind} such as {example:?} (units: {units})")
}

/// [`no_unit`] for a duration.
pub(super) fn bare_duration(number: &str) -> String {
    no_unit(number, "duration", "5m", &names(&DURATIONS))
}

/// [`no_unit`] for a size.
pub(super) fn bare_size(number: &str) -> String {
    no_unit(number, "size", "64MiB", &names(&SIZES))
}

/// [`no_unit`] for a share.
pub(super) fn bare_percent(number: &str) -> String {
    no_unit(number, "share", "20%", "%")
}

/// Formats a duration for the config file, in the largest unit without a fraction.
pub(super) fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    in_units(milliseconds, &DURATIONS).unwrap_or_else(|| format!("{milliseconds}ms"))
}

fn names(units: &[(&str, u64)]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Splits `"5 m"` into `"5"` and `"m"`.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn quantity(text: &str, units: &[(&str, u64)], kind: &str, example: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let known = names(units);
    if number.is_empty() {
        let hint = if text.chars().any(|c| c.is_numeric() && !c.is_ascii_digit()) {
            "with the digits 0 to 9"
        } else {
            "the number first"
        };
        return Err(format!(
            "{text:?} is not a {kind}: write a whole number and a unit, {hint}, such as {example:?} (units: {known})"
        ));
    }
    if unit.is_empty() {
        return Err(no_unit(&format!("{text:?}"), kind, example, &known));
    }
    let Some((_, length)) = units.iter().find(|(name, _)| *name == unit) else {
        let hint = correction(text, number, unit, units)
            .map_or_else(String::new, |right| format!("; did you mean {right:?}?"));
        return Err(format!(
            "{text:?} has the unknown unit {unit:?} (units: {known}){hint}"
        ));
    };
    if number.contains('.') {
        let smaller = fraction(number, *length, units).map_or_else(
            || "use a smaller unit".to_owned(),
            |right| format!("use a smaller unit, {right:?}"),
        );
        return Err(format!(
            "{text:?} is not a whole number of {unit}: {smaller}"
        ));
    }
    let count: Option<u64> = number.parse().ok();
    count
        .and_then(|count| count.checked_mul(*length))
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Words and abbreviations for units, with the unit that the config knows.
const ALIASES: [(&[&str], &str); 9] = [
    (&["msec", "millis", "milliseconds"], "ms"),
    (&["sec", "secs", "second", "seconds"], "s"),
    (&["min", "mins", "minute", "minutes"], "m"),
    (&["hr", "hrs", "hour", "hours"], "h"),
    (&["day", "days"], "d"),
    (&["week", "weeks"], "w"),
    (&["k", "K", "KB", "kb", "Ki"], "KiB"),
    (&["M", "m", "Mb", "mb", "Mi"], "MiB"),
    (&["g", "G", "Gb", "gb", "Gi"], "GiB"),
];

/// The value that was meant: a unit by another name, or a sum such as `1h30m`.
fn correction(text: &str, number: &str, unit: &str, units: &[(&str, u64)]) -> Option<String> {
    let known = |name: &str| units.iter().find(|(unit, _)| *unit == name);
    let alias = ALIASES.iter().find(|(names, _)| names.contains(&unit));
    let named = alias.map(|(_, name)| *name);
    if let Some((name, _)) = named.and_then(known) {
        return Some(format!("{number}{name}"));
    }
    let mut total: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, behind) = split(rest);
        let end = behind.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let Some((_, length)) = known(unit) else {
            let names = units.iter().map(|(name, _)| *name);
            return nearest(unit, names)
                .filter(|_| behind.is_empty())
                .map(|name| format!("{number}{name}"));
        };
        let part = number.parse::<u64>().ok()?.checked_mul(*length)?;
        total = total.checked_add(part)?;
        rest = behind.trim_start();
    }
    in_units(total, units)
}

/// `0.5h` as `30m`.
fn fraction(number: &str, length: u64, units: &[(&str, u64)]) -> Option<String> {
    let exact = number.parse::<f64>().ok()? * length as f64;
    let whole = exact.round();
    ((exact - whole).abs() < 1e-6 && (1.0..1e15).contains(&whole))
        .then(|| in_units(whole as u64, units))?
}

/// An amount in the largest unit without a fraction.
fn in_units(amount: u64, units: &[(&str, u64)]) -> Option<String> {
    let fitting = units
        .iter()
        .filter(|(_, length)| amount.is_multiple_of(*length));
    fitting
        .max_by_key(|(_, length)| *length)
        .map(|(unit, length)| format!("{}{unit}", amount / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities_with_units() {
        let seconds = Duration::from_secs;
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0s"), Ok(seconds(0)));
        assert_eq!(duration("5 m"), Ok(seconds(300)));
        assert_eq!(duration("24h"), Ok(seconds(86_400)));
        assert_eq!(duration("1w"), Ok(seconds(7 * 86_400)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("5kB"), Ok(5_000));
        assert_eq!(percent("20%"), Ok(20.0));
        assert_eq!(percent("0.5 %"), Ok(0.5));
    }

    #[test]
    fn bad_quantities_get_messages_with_a_correction() {
        let cases = [
            (
                duration("5").err(),
                r#""5" has no unit: write a duration such as "5m" (units: ms, s, m, h, d, w)"#,
            ),
            (
                duration("5min").err(),
                r#"unknown unit "min" (units: ms, s, m, h, d, w)"#,
            ),
            (
                duration("1.5h").err(),
                r#"not a whole number of h: use a smaller unit, "90m""#,
            ),
            (duration("1h30m").err(), r#"did you mean "90m"?"#),
            (duration("5 minutes").err(), r#"did you mean "5m"?"#),
            (duration("h30m").err(), "the number first"),
            (duration("٥m").err(), "with the digits 0 to 9"),
            (duration("99999999999999999999d").err(), "is too large"),
            (size("64M").err(), r#"did you mean "64MiB"?"#),
            (size("0.5GiB").err(), r#""512MiB""#),
            (duration("-5m").err(), r#""-5m" is not a duration"#),
            (duration("").err(), r#""" is not a duration"#),
            (duration("11000d").err(), "longer than ten years"),
            (duration("99999999999999w").err(), "too large"),
            (size("64M").err(), r#"unknown unit "M""#),
            (size("64mib").err(), r#"did you mean "64MiB"?"#),
            (
                size("64").err(),
                r#"has no unit: write a size such as "64MiB""#,
            ),
            (
                percent("20").err(),
                r#"has no unit: write a share such as "20%""#,
            ),
            (percent("120%").err(), "0% to 100%"),
            (percent("1.2.3%").err(), "is not a share"),
            (percent("many").err(), "is not a share"),
        ];
        for (message, snippet) in cases {
            let message = message.unwrap_or_else(|| panic!("accepted; expected {snippet}"));
            assert!(message.contains(snippet), "{message}\nlacks\n{snippet}");
        }
    }

    #[test]
    fn formatted_durations_parse_back() {
        for text in ["1ms", "90s", "5m", "24h", "0s", "1w", "3650d"] {
            let read = duration(text).expect("a good duration");
            assert_eq!(duration(&duration_text(read)), Ok(read), "{text}");
        }
        assert_eq!(duration_text(Duration::from_secs(7200)), "2h");
    }
}
