//! NATs that die in each way, flap, or lose their servers: what new connections, open flows and forwarded
//! flows notice, with the default settings of the probes.
//!
//! `TRAILBLAZER_LONG=1` runs each death with two, three and seven NATs, each spread and each firewall, both
//! families at once; otherwise a few of them.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
mod death;
mod fleet;
mod forwarded;
mod late;
mod later;
mod matrix;
mod outages;
#[path = "../packets/mod.rs"]
mod packets;
mod scene;

/// True if `make test-long` runs the test.
fn is_long() -> bool {
    std::env::var_os("TRAILBLAZER_LONG").is_some_and(|value| value == "1")
}

/// Says that a test did not run.
fn not_run() {
    println!("not run: TRAILBLAZER_LONG=1 (make test-long) runs this scene");
}
