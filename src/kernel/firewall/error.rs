//! Failures of firewall operations.

use thiserror::Error;

use crate::firewall::BackendKind;

/// Failure of a firewall operation.
#[derive(Debug, Error)]
pub enum FirewallError {
    #[error("{backend}: {operation}: {reason}")]
    Refused {
        backend: BackendKind,
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
