//! Doors to private decoders, for the targets in `fuzz/` alone.

pub use super::iptables::fuzzing::listing;
pub use super::nftables::fuzzing::rule;
