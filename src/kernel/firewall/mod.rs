//! The firewall: one trait, two backends.

use thiserror::Error;

use crate::firewall::{BackendKind, ObservedFirewall, PathTraffic, Ruleset, Snapshot, Variant};

pub mod iptables;
pub mod nftables;

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

/// The backend of this kind, for the network namespace of the calling thread.
pub fn backend(kind: BackendKind) -> Box<dyn FirewallBackend> {
    match kind {
        BackendKind::Nftables => Box::new(nftables::Nftables::new()),
        BackendKind::Iptables => Box::new(iptables::IptablesBackend::detect()),
    }
}

/// True if a change of this nf_tables table, as the kernel announces it, may concern rules of this
/// backend. `family` is an `NFPROTO_…` number.
pub fn table_is_ours(kind: BackendKind, family: u8, table: &str) -> bool {
    match kind {
        BackendKind::Nftables => nftables::table_is_ours(family, table),
        BackendKind::Iptables => iptables::table_is_ours(family, table),
    }
}

/// A firewall that can carry our rules.
pub trait FirewallBackend {
    /// Which one it is.
    fn kind(&self) -> BackendKind;

    /// What it found itself to be, for reports: `nf_tables of the kernel`,
    /// `iptables v1.8.9 (nf_tables)`.
    fn description(&self) -> String;

    /// The kernel interface that holds the rules.
    fn variant(&self) -> Variant;

    /// True if rules of ours certainly exist that `observe` could not read; `found` is the answer
    /// of `observe`.
    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool;

    /// Reads what is there of our name. Only a failure that leaves the answer unknown is an
    /// error or `Unreadable`; a failed read is never `Absent`.
    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError>;

    /// The policy as this backend's own canonical text, one line an object, exactly as
    /// `observe` would read it back. Pure.
    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError>;

    /// What the rules have counted so far, by path; `None` where no rule of ours counts. A family
    /// whose paths can't be told apart stays at zero.
    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError>;

    /// Puts the policy in place of whatever of ours is there, in one transaction: no packet
    /// sees a half. What was counted is carried on.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError>;

    /// Puts back exactly what an earlier `observe` saw, in one transaction. What was counted
    /// since then is carried on.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), FirewallError>;

    /// Removes all of ours, in one transaction. Nothing there is success.
    fn remove(&mut self) -> Result<(), FirewallError>;
}
