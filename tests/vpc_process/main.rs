//! The vpc role as processes: the agent and single commands, over HTTP against the strict double of EC2.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod bad_input;
mod bad_objects;
mod check;
mod disk;
mod reload;
mod secrets;
mod world;
