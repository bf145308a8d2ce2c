//! The images, the DaemonSet and the public CI: each file by a real parser and its reader's schema,
//! each config by the real binary, and the pages against the files.
//!
//! `make test-images` fetches the tools (`packaging/dev/image-tools.sh`, 400 MB) and runs all tests
//! here; `make test` runs the few that need none of the tools.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aws;
mod cage;
mod configs;
mod fleet;
mod packer;
mod pages;
mod release;
mod tools;
