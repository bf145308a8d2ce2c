//! Executes a plan: `kernel.rs` in the kernel of this machine.

mod kernel;

pub use kernel::*;
