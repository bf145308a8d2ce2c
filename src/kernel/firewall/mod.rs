//! The firewall: one trait, two backends.

use crate::firewall::BackendKind;

mod backend;
mod error;
mod extras;
mod fallback;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guarded;
pub mod iptables;
pub mod nftables;

pub use backend::FirewallBackend;
pub use error::FirewallError;
pub(crate) use fallback::Fallback;
pub use fallback::Refusals;

/// A backend for the network namespace of the calling thread.
pub fn backend(kind: BackendKind) -> Box<dyn FirewallBackend> {
    match kind {
        BackendKind::Nftables => Box::new(nftables::Nftables::new()),
        BackendKind::Iptables => {
            Box::new(guarded::Guarded::new(iptables::IptablesBackend::detect()))
        }
    }
}

/// True if a change of the nf_tables table, as announced by the kernel, may concern our rules in
/// the backend. `family` is an `NFPROTO_…` number.
pub fn table_is_ours(kind: BackendKind, family: u8, table: &str) -> bool {
    match kind {
        BackendKind::Nftables => nftables::table_is_ours(family, table),
        BackendKind::Iptables => {
            iptables::table_is_ours(family, table) || nftables::is_guard_table(family, table)
        }
    }
}
