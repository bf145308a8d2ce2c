//! The fault matrix: every class of failure at every step, real changes under a running pass,
//! and the process killed before every step. After each, one further pass converges and nothing
//! foreign has changed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "faults/carrier.rs"]
mod carrier;
#[path = "faults/changes.rs"]
mod changes;
#[path = "faults/foreign.rs"]
mod foreign;
#[path = "faults/kill.rs"]
mod kill;
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
