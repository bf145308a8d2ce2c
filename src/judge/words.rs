//! Expectations and decisions in words.

use super::culprit::route_text;
use super::expected::{Expected, Promise};
use super::packet::RouteDecision;

/// An errno in words.
pub fn errno_text(errno: i32) -> String {
    // The errnos of routes that reject, of reverse path filters, and of missing routes.
    match errno {
        13 => "Permission denied (EACCES)".to_owned(),
        18 => "Invalid cross-device link (EXDEV)".to_owned(),
        22 => "Invalid argument (EINVAL)".to_owned(),
        101 => "Network is unreachable (ENETUNREACH)".to_owned(),
        113 => "No route to host (EHOSTUNREACH)".to_owned(),
        other => format!("error {other}"),
    }
}

/// An expectation in words.
pub fn promised_text(promise: &Promise<'_>, expected: &Expected) -> String {
    let numbers = promise.numbers();
    match expected {
        Expected::Bypass(prefix) => format!("{prefix} in table {} (bypass)", numbers.bypass_table),
        Expected::Egress => format!("the default of table {} (egress)", numbers.egress_table),
        Expected::Closed => "unreachable (egress closed)".to_owned(),
        Expected::Main => "the main table".to_owned(),
    }
}

/// A decision in words.
pub fn decision_text(promise: &Promise<'_>, decision: &RouteDecision) -> String {
    match decision {
        RouteDecision::Errno(errno) => errno_text(*errno),
        RouteDecision::Route(route) => format!(
            "{} (protocol {})",
            route_text(route, promise.facts),
            route.protocol
        ),
    }
}
