//! Exit codes, a contract for scripts.

/// In sync, or changed and verified.
pub const OK: u8 = 0;
/// Failed on the host or at run time.
pub const FAILED: u8 = 1;
/// A dry run found changes.
pub const PENDING: u8 = 2;
/// The guard holds a document. Beats [`PENDING`].
pub const HELD: u8 = 3;
/// Wrong usage or config text (`EX_USAGE`, sysexits.h).
pub const USAGE: u8 = 64;
