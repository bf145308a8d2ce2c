//! The images, the DaemonSet and the public CI: each file by a real parser and its reader's schema,
//! each config by the real binary, and the pages against the files.
//!
//! `packaging/dev/image-tools.sh` fetches the tools; without the tools the tests fail.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aws;
mod cage;
mod configs;
mod fleet;
mod packer;
mod pages;
mod tools;
