//! Passes over a VPC, against the strict double of EC2.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod disk;
mod edits;
mod faults;
mod history;
mod passes;
mod routes_flush;
mod routes_history;
mod routes_mode;
mod schedule;
mod tables;
mod targets;
mod trouble;
mod values;
mod world;
mod writers;
