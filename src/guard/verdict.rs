//! What the guard says.

use std::fmt;

use serde::Serialize;

/// How much a verdict changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A document, or a prefix of it, is ignored.
    Reject,
    /// Something waits for the operator or for `accept_after`; exit code 3.
    Hold,
    /// Worth knowing.
    Note,
}

words!(Level { Reject => "reject", Hold => "hold", Note => "note" });

/// One finding of the guard, with its figures and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which guard; a stable name that scripts may match.
    pub guard: &'static str,
    /// What follows from it.
    pub level: Level,
    /// For people.
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
        write!(f, "{} ({}): {}", self.level, self.guard, self.message)
    }
}
