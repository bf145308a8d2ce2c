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
    /// The rules are in force, but chains of ours cannot go.
    #[error(
        "{operation}: foreign rules still refer to Trailblazer's chains, so the empty chains stay: delete `{}`, then run the command again",
        references.join("`, `")
    )]
    Referenced {
        operation: String,
        /// The foreign rules, each as a command.
        references: Vec<String>,
    },
    /// The table belongs to the netlink socket of a running agent, see
    /// [`Protection`](super::nftables::Protection).
    #[error(
        "{operation}: a running agent has the table for itself ([kernel] protect_table; netlink port {port}){}; stop the agent (systemctl stop trailblazer), then run the command again",
        unreleased.as_ref().map(|why| format!(" and does not release it: {why}")).unwrap_or_default()
    )]
    Protected {
        operation: String,
        /// The port of the agent's socket.
        port: u32,
        /// The reason of an agent that keeps the table on request.
        unreleased: Option<String>,
    },
    #[error("{backend} cannot express {what}")]
    Inexpressible { backend: BackendKind, what: String },
}
