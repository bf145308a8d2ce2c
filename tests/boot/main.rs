//! Machines that boot with the package: systemd as the first process, the unit in its sandbox, and
//! the lab's packets as the proof.
//!
//! `make test-boot` runs these tests, as root or through sudo. Each test has its own copy of a
//! Debian root and its own lab; a machine's network is the one of a lab namespace.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../packets/mod.rs"]
mod packets;

mod host;
mod image;
mod life;
mod machine;
mod nat;
mod vpc;
