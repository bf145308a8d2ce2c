//! The guard's verdicts.

use std::fmt;

use serde::Serialize;

use crate::printable::escaped;

/// The consequence of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A document or a prefix is ignored.
    Reject,
    /// A document waits for the operator or for `accept_after`; exit code 3.
    Hold,
    Note,
}

words!(Level { Reject => "reject", Hold => "hold", Note => "note" });

/// One result of the guard, with its figures and the operator's options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// A stable name for scripts.
    pub guard: &'static str,
    pub level: Level,
    pub message: String,
}

impl Verdict {
    pub(super) fn reject(guard: &'static str, message: impl Into<String>) -> Self {
        Verdict {
            guard,
            level: Level::Reject,
            message: message.into(),
        }
    }

    pub(super) fn hold(guard: &'static str, message: impl Into<String>) -> Self {
        Verdict {
            guard,
            level: Level::Hold,
            message: message.into(),
        }
    }

    pub(super) fn note(guard: &'static str, message: impl Into<String>) -> Self {
        Verdict {
            guard,
            level: Level::Note,
            message: message.into(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = escaped(&self.message);
        write!(f, "{} ({}): {message}", self.level, self.guard)
    }
}
