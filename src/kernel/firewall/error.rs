//! Failures of firewall operations.

use thiserror::Error;

use crate::firewall::BackendKind;

/// Failure of a firewall operation.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// The kernel or the tool refused.
    #[error("{backend}: {operation}: {reason}")]
    Refused {
        backend: BackendKind,
        /// The attempt in words, with the object.
        operation: String,
        /// The errno in words with the kernel's extended-ack text, or the message of the tool.
        reason: String,
        errno: Option<i32>,
    },
    #[error(
        "iptables: another program holds the xtables lock ({lock}) for more than {waited_s} s: {message}"
    )]
    Locked {
        lock: String,
        waited_s: u32,
        /// The message of the tool.
        message: String,
    },
    #[error("{backend}: {operation}: {source}")]
    Io {
        backend: BackendKind,
        operation: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{backend} cannot express {what}")]
    Inexpressible { backend: BackendKind, what: String },
}
