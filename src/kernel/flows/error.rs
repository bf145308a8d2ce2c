//! Failures of reading and writing flows.

use thiserror::Error;

use crate::kernel::wire::WireError;

/// Flows could not be read or written.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The kernel has no connection tracking that netlink can write.
    #[error(
        "connection tracking is not available ({reason}): connections opened from outside can't \
         be marked and may break when rules are added; load nf_conntrack_netlink"
    )]
    Unavailable {
        /// The kernel's answer.
        reason: String,
    },
    /// The kernel refused, or the exchange failed.
    #[error("{operation}: {source}")]
    Failed {
        operation: String,
        #[source]
        source: WireError,
    },
}

pub(super) fn failed(operation: impl Into<String>) -> impl FnOnce(WireError) -> FlowError {
    let operation = operation.into();
    move |source| FlowError::Failed { operation, source }
}
