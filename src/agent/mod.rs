//! The loop that keeps the promise: what decides when it does what.
//!
//! The decisions are state machines without a clock and without chance of their own: time and
//! random numbers come in as arguments, so that a test goes through hours in microseconds and a
//! failure can be played again.
//!
//! ```text
//!  refresh timer, link up ─▶ FetchSchedule ─▶ fetch ─┐
//!  kernel events ──────────▶ Settle ─────────────────┴─▶ PASS ─▶ RepairLimiter ─▶ repair, or wait
//! ```

mod limiter;
mod schedule;
mod settle;

pub use limiter::RepairLimiter;
pub use schedule::FetchSchedule;
pub use settle::Settle;
