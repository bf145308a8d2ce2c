//! The bypass path dies at the router: storage takes the egress path, slow instead of dead, and comes back
//! when the path is well. The sources that the servers see are the proof.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../packets/mod.rs"]
mod packets;

mod canary;
mod host;
mod nat;
mod restarts;
mod scene;
