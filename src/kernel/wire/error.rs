//! Failed exchanges.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Receive and send timeout of a socket. The kernel answers within milliseconds; another
/// program's transaction that holds the nf_tables lock takes seconds at worst.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A failed exchange.
#[derive(Debug, Error)]
pub enum WireError {
    #[error("{}", errno_words(.0))]
    Io(#[from] io::Error),
    #[error("{}", refusal_words(*.errno, .text))]
    Kernel {
        errno: i32,
        /// The kernel's extended-ack text, empty if there was none.
        text: String,
        sequence: u32,
    },
    #[error("the kernel's state changed during the dump; try again")]
    Interrupted,
    #[error("malformed answer of the kernel: {0}")]
    Malformed(&'static str),
}

impl WireError {
    /// The errno, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            WireError::Io(error) => error.raw_os_error(),
            WireError::Kernel { errno, .. } => Some(*errno),
            WireError::Interrupted | WireError::Malformed(_) => None,
        }
    }
}

fn errno_words(error: &io::Error) -> String {
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return format!(
            "the kernel gave no answer within {} s",
            ANSWER_WITHIN.as_secs()
        );
    }
    error.to_string()
}

fn refusal_words(errno: i32, text: &str) -> String {
    let words = io::Error::from_raw_os_error(errno).to_string();
    if text.is_empty() {
        words
    } else {
        format!("{words}: {text}")
    }
}
