//! The leak matrix: while other programs, the network and the product fail, no frame leaves a host for
//! the internet but by the bypass path or a gateway, and none leaves a NAT with another source than an
//! egress or bypass address. The router's ends of the links count.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod causes;
#[path = "../killer/process.rs"]
mod killed;
#[path = "../killer/mod.rs"]
mod killer;
mod kills;
mod lockout;
mod lockout_nat;
mod machines;
mod matrix;
#[path = "../no_nf_tables/mod.rs"]
mod no_nf_tables;
mod packet;
#[path = "../packets/mod.rs"]
mod packets;
mod probes;
mod scene;
mod storm;
mod wire;
