//! Executes a plan. [`kernel`] executes the steps in the kernel of this machine.

mod kernel;

pub use kernel::*;
