//! The only code that talks to the kernel.

pub mod flows;
pub mod nat;
pub mod wire;
