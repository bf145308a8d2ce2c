//! Changes of the use of ways: gateways and bypass paths.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A change of the use of a way, which a pass then puts into the routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayChange {
    /// RFC 3339 in UTC.
    pub at: String,
    /// For people: `gateway 10.0.1.10`.
    pub way: String,
    /// `down` or `back` by the verdict of probes; `drained` or `undrained` on an operator's word.
    pub change: String,
    /// The verdict of the probes, or the program that asked.
    pub why: String,
}

impl WayChange {
    /// A change that happens now.
    pub fn now(way: impl fmt::Display, change: &str, why: impl fmt::Display) -> WayChange {
        WayChange {
            at: format!("{:.3}", Timestamp::now()),
            way: way.to_string(),
            change: change.to_owned(),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for WayChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WayChange {
            way, change, why, ..
        } = self;
        match change.as_str() {
            "back" => write!(f, "{way} is in use again: {why}"),
            "undrained" => write!(f, "{way} takes new flows again: {why}"),
            other => write!(f, "{way} is {other}: {why}"),
        }
    }
}
