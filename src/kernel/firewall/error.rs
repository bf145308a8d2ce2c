//! Failures of firewall operations.

use thiserror::Error;

use crate::firewall::BackendKind;

/// Why a firewall operation failed.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// The kernel or the tool refused.
    #[error("{backend}: {operation}: {reason}")]
    Refused {
        /// Which backend.
        backend: BackendKind,
        /// What was attempted, in words with its object.
        operation: String,
        /// The errno in words with the kernel's extended-ack text, or the tool's own message.
        reason: String,
        /// The errno, where one was reported.
        errno: Option<i32>,
    },
    /// The xtables lock is held by another program for longer than we wait.
    #[error(
        "iptables: another program holds the xtables lock ({lock}) for more than {waited_s} s: {message}"
    )]
    Locked {
        /// The lock file.
        lock: String,
        /// How long we waited, in seconds.
        waited_s: u32,
        /// The tool's own message.
        message: String,
    },
    /// Reading or talking failed below the protocol.
    #[error("{backend}: {operation}: {source}")]
    Io {
        /// Which backend.
        backend: BackendKind,
        /// What was attempted.
        operation: String,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The policy holds something that this backend can't express.
    #[error("{backend} cannot express {what}")]
    Inexpressible {
        /// Which backend.
        backend: BackendKind,
        /// What it can't.
        what: String,
    },
}
