//! The socket to nf_tables, and the meaning of its errors.

use super::{read, uapi};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::{Wire, WireError};

const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;

pub(super) fn failed(operation: &str, error: WireError) -> FirewallError {
    let operation = operation.to_owned();
    let backend = BackendKind::Nftables;
    match error {
        WireError::Io(source) => FirewallError::Io {
            backend,
            operation,
            source,
        },
        WireError::Kernel { .. } | WireError::Interrupted | WireError::Malformed(_) => {
            FirewallError::Refused {
                backend,
                operation,
                reason: error.to_string(),
                errno: error.errno(),
            }
        }
    }
}

/// The state to report if the error means a kernel without nf_tables or a lack of privilege; `None`
/// for any other error.
pub(super) fn absence(error: &WireError) -> Option<ObservedFirewall> {
    match error.errno()? {
        EPERM => Some(ObservedFirewall::Unreadable(
            "reading nf_tables needs CAP_NET_ADMIN in this network namespace".to_owned(),
        )),
        EPROTONOSUPPORT | EOPNOTSUPP | EINVAL => Some(ObservedFirewall::Unavailable(format!(
            "the kernel has no nf_tables: {error}"
        ))),
        _ => None,
    }
}

pub(super) fn open(operation: &str) -> Result<Wire, FirewallError> {
    Wire::open(uapi::NETLINK_NETFILTER).map_err(|error| failed(operation, error.into()))
}

/// Opens a socket and checks with a harmless request for the presence of nf_tables.
pub(super) fn contact() -> Result<Wire, WireError> {
    let mut wire = Wire::open(uapi::NETLINK_NETFILTER)?;
    read::generation(&mut wire)?;
    Ok(wire)
}
