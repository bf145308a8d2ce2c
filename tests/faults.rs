//! The fault matrix: every class of failure at every step, real changes under a running pass, and
//! the process killed before every step. After each fault, one further pass converges and foreign
//! objects are unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "faults/carrier.rs"]
mod carrier;
#[path = "faults/changes.rs"]
mod changes;
#[path = "faults/foreign.rs"]
mod foreign;
#[path = "faults/kill.rs"]
mod kill;
#[path = "killer/mod.rs"]
mod killer;
#[path = "faults/matrix.rs"]
mod matrix;
#[path = "faults/reads.rs"]
mod reads;
#[path = "faults/scenario.rs"]
mod scenario;
#[path = "faults/watched.rs"]
mod watched;
#[path = "faults/world.rs"]
mod world;
