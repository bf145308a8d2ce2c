//! The privileges of this process.

use rustix::thread::{CapabilitySet, capabilities};

/// True with CAP_NET_ADMIN in the user namespace of this thread; `None` if the system refuses to
/// name the capabilities (a seccomp filter may forbid capget(2)).
///
/// Unknown is neither yes nor no: the caller decides which of the two does less harm.
pub fn has_net_admin() -> Option<bool> {
    let sets = capabilities(None).ok()?;
    Some(sets.effective.contains(CapabilitySet::NET_ADMIN))
}
