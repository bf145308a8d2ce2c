//! The running agent: the real binary, started as systemd starts it, with a mirror and a metadata
//! service that answer, misbehave or stay silent.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../packets/mod.rs"]
mod packets;

mod child;
mod clocks;
mod gateways;
mod hold;
mod host;
mod systemd;

mod kill;
mod large;
mod logs;
mod metadata;
mod metrics;
mod orders;
mod protocol;
mod reload;
mod sources;
mod start;
