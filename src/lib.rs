//! Trailblazer: storage traffic around the NAT, everything else through it.
//!
//! The data flow, left to right; the modules below are declared in its order:
//!
//! ```text
//!  SOURCE ─▶ RANGES ─▶ GUARD ─▶ DESIRED ─┐
//!  bytes     prefixes   hold?   state     ├─▶ PLAN ─▶ APPLY ─▶ VERIFY ─▶ JOURNAL
//!  KERNEL ────────────▶ OBSERVED ────────┘   steps    batched   re-read   one line
//! ```

pub mod config;
pub mod types;

pub mod guard;
pub mod ranges;

pub mod facts;
pub mod firewall;
pub mod objects;

pub mod kernel;
