//! Errors of a pass over a VPC.

use thiserror::Error;

use super::ec2::Ec2Error;
use crate::reconcile::PassError;
use crate::state::error::StateError;
use crate::state::lock::LockError;

/// The failure of a pass.
#[derive(Debug, Error)]
pub enum VpcError {
    #[error(transparent)]
    Ec2(Box<Ec2Error>),
    #[error(transparent)]
    Documents(#[from] PassError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    State(#[from] StateError),
    /// A setting matches no table, or tables that cannot be used together.
    #[error("{0}")]
    Tables(String),
    #[error("the region is unknown: {0}; set [vpc_plane] region or the variable AWS_REGION")]
    NoRegion(String),
    /// Objects in the place of ours. Everything else is in force.
    #[error("conflict: {}; the objects in conflict are left out", .0.join("; "))]
    Conflict(Vec<String>),
    /// Some calls failed; the others are in force, and each address of the old and the new state kept
    /// its target.
    #[error("{}; what was done before stays, and the next pass does the rest", .0.join("; "))]
    Incomplete(Vec<String>),
    /// EC2's answers differ from the goal after all calls.
    #[error(
        "after all calls EC2 still describes another state: {0}: another program may have changed it; the next pass tries again"
    )]
    NotInForce(String),
    /// Another program has undone the changes of the pass again and again.
    #[error(
        "another program undoes the changes of this pass, {0} times so far: {1}; the next pass tries again"
    )]
    Undone(usize, String),
    /// The calls met the changes of another writer again and again.
    #[error(
        "another writer changes the same objects at the same time: {0}; the next pass tries again"
    )]
    Contended(Box<Ec2Error>),
    /// EC2 took a change of a list, and failed to carry it out.
    #[error("{0}")]
    ChangeFailed(String),
    /// The last guard before a call: the change would leave almost nothing.
    #[error("refused before the call: {0}")]
    Refused(String),
}

impl VpcError {
    /// True if another program has changed objects during the pass: another pass at once is no retry of
    /// a call that failed.
    pub fn is_contention(&self) -> bool {
        matches!(
            self,
            VpcError::Undone(..) | VpcError::Contended(_) | VpcError::NotInForce(_)
        )
    }
}

impl From<Ec2Error> for VpcError {
    fn from(error: Ec2Error) -> VpcError {
        VpcError::Ec2(Box::new(error))
    }
}
