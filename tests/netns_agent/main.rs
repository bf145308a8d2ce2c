//! The agent beside other programs, with real packets: deleted objects come back, and partners see
//! the egress address only, throughout.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conflicts;
mod firewall;
mod links;
mod nat;
mod networkd;
mod overruns;
mod scene;
mod taken;

#[path = "../packets/mod.rs"]
mod packets;
