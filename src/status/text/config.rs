//! The config file on the page.

use super::figures::moment;
use super::lines::Lines;
use crate::status::snapshot::{ConfigStatus, RefusedReload};
use crate::words::counted;

/// The line of a refused reload, next to the headline.
pub(super) fn refused(config: &ConfigStatus, now: i64) -> Option<String> {
    let RefusedReload {
        line,
        reason,
        since,
        attempts,
        ..
    } = config.refused.as_ref()?;
    let place = match line {
        Some(line) => format!("{} line {line}", config.file),
        None => config.file.clone(),
    };
    let attempts = match attempts {
        0 | 1 => String::new(),
        count => format!(", {}", counted(*count, "attempt")),
    };
    Some(format!(
        "since {}{attempts}: {place}: {reason}; the config loaded at {} stays in force",
        moment(*since, now),
        moment(config.loaded_at, now)
    ))
}

/// The line of the file.
pub(super) fn file(config: &ConfigStatus, now: i64, lines: &mut Lines) {
    let loaded = moment(config.loaded_at, now);
    let content = match config.digest {
        Some(_) => format!("{}, loaded {loaded}", config.file),
        None => format!("defaults: no file at {} on {loaded}", config.file),
    };
    let disk = match config.differs {
        Some(false) => "",
        Some(true) => {
            "; DIFFERS from the file on disk: systemctl reload trailblazer loads the file"
        }
        None => "; cannot compare with the file on disk",
    };
    let worrying = config.differs == Some(true);
    lines.line(worrying, "config", &format!("{content}{disk}"));
}
