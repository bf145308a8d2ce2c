//! Times as signatures and HTTP write them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seconds of a day.
const DAY: i64 = 86_400;

/// The days from the first of March of the year 0 to 1970.
const TO_1970: i64 = 719_468;

/// The seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs()).cast_signed()
}

/// The seconds since 1970 of a time as `20240131T235959Z`.
pub(crate) fn seconds(time: &str) -> Option<i64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let whole = time.len() == 16 && time.get(8..9)? == "T" && time.ends_with('Z');
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let clock = number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    // The year begins in March, so that the leap day is its last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    whole.then_some((days(year) + (153 * month + 2) / 5 + day - 1 - TO_1970) * DAY + clock)
}

/// The days from the first of March of the year 0 to that of another year.
fn days(year: i64) -> i64 {
    365 * year + year / 4 - year / 100 + year / 400
}

/// A time in the form of the header field `Date` (RFC 9110), between 1970 and 9999.
pub(crate) fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let day = seconds.div_euclid(DAY) + TO_1970;
    let clock = seconds.rem_euclid(DAY);
    // One step too far near the end of a year is put right.
    let mut year = day * 400 / 146_097;
    while days(year) > day {
        year -= 1;
    }
    while days(year + 1) <= day {
        year += 1;
    }
    let rest = day - days(year);
    let month = (5 * rest + 2) / 153;
    let of_month = rest - (153 * month + 2) / 5 + 1;
    let name = |names: &[&'static str], index: i64| {
        let index = usize::try_from(index).unwrap_or_default();
        names.get(index).copied().unwrap_or_default()
    };
    format!(
        "{}, {of_month:02} {} {:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, seconds.div_euclid(DAY).rem_euclid(7)),
        name(&MONTHS, month),
        year + i64::from(month >= 10),
        clock / 3600,
        clock / 60 % 60,
        clock % 60
    )
}
