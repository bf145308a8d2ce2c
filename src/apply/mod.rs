//! Executes a plan; [`kernel`] in the kernel of this machine.

mod kernel;

pub use kernel::*;
