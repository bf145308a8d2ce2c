//! The only code that talks to the kernel.

pub mod errno;
pub mod link;
pub mod nat;
pub mod netlink;
pub mod route;
pub mod rule;
pub mod wire;
