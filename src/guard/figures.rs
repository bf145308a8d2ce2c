//! Amounts and times for people.

use std::time::Duration;

use ipnet::IpNet;

use crate::ranges::Document;
use crate::types::{Family, SyncToken};
use crate::words::counted;

/// Seconds since the epoch as `2026-11-22T06:32:04Z`.
pub fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

/// A sync token with its time.
pub fn token(token: SyncToken) -> String {
    let date = i64::try_from(token.0).map_or_else(|_| "far in the future".to_owned(), time);
    format!("{token} ({date})")
}

/// A document by token and date.
pub fn document(document: &Document<'_>) -> String {
    format!("document {}", token(document.sync_token))
}

/// A duration in its largest whole unit, as in the config file.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// `lost` of `total` addresses, with the percentage if there is a total. Amounts of whole IPv6 /64 networks are
/// counted in networks: a count like 2^89 addresses helps no reader.
pub fn share(family: Family, lost: u128, total: u128) -> String {
    const NETWORK: u128 = 1 << 64;
    let whole_networks = lost.is_multiple_of(NETWORK) && total.is_multiple_of(NETWORK);
    let (lost_shown, total_shown, unit) = if family == Family::Ipv6 && whole_networks {
        (lost / NETWORK, total / NETWORK, "/64 networks")
    } else {
        (lost, total, "addresses")
    };
    if total == 0 {
        return format!("{lost_shown} {unit}, with none before");
    }
    format!(
        "{lost_shown} of {total_shown} {unit} ({:.1} %)",
        percent(lost, total)
    )
}

/// `part` of `total` in percent; nothing of nothing is 0.
pub fn percent(part: u128, total: u128) -> f64 {
    if total == 0 {
        return 0.0;
    }
    // Counts of addresses are sums of few powers of two: the rounding of a double lies far below
    // a tenth of a percent. Multiplied first, so that whole percentages stay exact.
    part as f64 * 100.0 / total as f64
}

/// `1 prefix`, `5 prefixes`.
pub fn prefixes(count: usize) -> String {
    counted(count as u64, "prefix")
}

/// The first few items of a list, and the number of the others.
pub fn first_few<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    crate::words::first_few(items, 5, ", ")
}

/// The first few prefixes of a list.
pub fn few_prefixes(prefixes: &[IpNet]) -> String {
    first_few(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_in_addresses_or_networks_with_a_share() {
        assert_eq!(
            share(Family::Ipv4, 65_536, 131_072),
            "65536 of 131072 addresses (50.0 %)"
        );
        assert_eq!(
            share(Family::Ipv6, 1 << 88, 1 << 89),
            "16777216 of 33554432 /64 networks (50.0 %)"
        );
        assert_eq!(share(Family::Ipv6, 1, 4), "1 of 4 addresses (25.0 %)");
        assert_eq!(
            share(Family::Ipv4, 512, 0),
            "512 addresses, with none before"
        );
    }

    #[test]
    fn whole_percentages_are_exact() {
        for part in 1..=100u32 {
            assert_eq!(percent(part.into(), 100), f64::from(part));
        }
    }

    #[test]
    fn tokens_are_dated_and_durations_have_one_unit() {
        assert_eq!(
            token(SyncToken(1_703_850_787)),
            "1703850787 (2023-12-29T11:53:07Z)"
        );
        assert!(token(SyncToken(u64::MAX)).contains("far in the future"));
        assert_eq!(duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(duration(Duration::from_secs(90 * 60)), "90m");
        assert_eq!(duration(Duration::from_secs(7)), "7s");
    }
}
