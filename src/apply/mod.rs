//! Carries out a plan: [`kernel`] on this machine's kernel.

mod kernel;

pub use kernel::*;
