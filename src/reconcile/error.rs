//! Errors of a pass.

use thiserror::Error;

use crate::guard::AcceptError;
use crate::kernel::ObserveError;
use crate::kernel::firewall::FirewallError;
use crate::kernel::netlink::NetlinkError;
use crate::source::imds::ImdsError;
use crate::state::error::{ReadError, StateError};
use crate::state::lock::LockError;
use crate::types::Region;

/// The failure of a pass.
#[derive(Debug, Error)]
pub enum PassError {
    #[error(
        "changing routes, rules and firewall needs CAP_NET_ADMIN: run as root (sudo trailblazer …); --dry-run needs no privilege"
    )]
    NoPrivilege,
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    State(#[from] StateError),
    /// A silent disk, or a state dir that is the purpose of the pass.
    #[error("{0}")]
    NoStateDir(String),
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// A setting needs the metadata service, and no answer is known.
    #[error("metadata service: {error}; it is needed for {setting}")]
    Instance {
        #[source]
        error: ImdsError,
        /// The setting, and a way to do without the service.
        setting: &'static str,
    },
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error("no usable firewall: {0}")]
    NoFirewall(String),
    /// A foreign object has the place of one of ours. Everything else is in force.
    #[error("conflict: {}; the objects in conflict are left out", .0.join("; "))]
    Conflict(Vec<String>),
    /// The steps failed, and our objects are again as before them, except for those of the egress.
    #[error(
        "{reason}; rolled back: our objects are as they were before the pass; the egress is not undone"
    )]
    RolledBack { reason: String },
    /// The steps failed, and so did the rollback.
    #[error(
        "{reason}; the rollback failed too: {rollback}; run `trailblazer reconcile` again, or `trailblazer flush` to remove all our objects"
    )]
    RollbackFailed { reason: String, rollback: String },
    /// The kernel refused some steps again and again; the others are in force and verified.
    #[error("the kernel refuses {}; everything else is in force, and the next pass tries again", .0.join("; "))]
    Refused(Vec<String>),
    /// The egress is not shut, or only in part.
    #[error("the egress is not shut: {0}")]
    NotShut(String),
    /// The selected region is unknown, so no document can be judged.
    #[error("{0}; until the region is known, the bypass path stays as it is")]
    NoRegion(String),
    /// `--accept-region` names another region than the held one.
    #[error("--accept-region {asked}: {why}; the region selected so far stays in force")]
    NotHeld { asked: Region, why: String },
    #[error("stopped between two steps; the next pass does the rest")]
    Stopped,
    /// No document was ever accepted.
    #[error("no document: {0}; until a document is accepted, the bypass path stays as it is")]
    NoDocument(String),
}

impl From<NetlinkError> for PassError {
    fn from(error: NetlinkError) -> Self {
        PassError::Observe(ObserveError::Netlink(error))
    }
}
