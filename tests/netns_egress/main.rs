//! The matrix of faults: with each fault, at boot and on a running machine, no packet leaves with a
//! wrong address, storage is reached by the bypass path where the fault permits, and the state names
//! the part concerned. Packets are sampled from before the first pass until after the repair.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod carrier;
mod faults;
mod fights;
mod files;
mod flushes;
mod kills;
mod matrix;
mod probe;
mod scene;
mod shut;
mod silent;
mod without;

#[path = "../killer/process.rs"]
mod killed;
#[path = "../killer/mod.rs"]
mod killer;
#[path = "../packets/mod.rs"]
mod packets;
