//! Trailblazer: storage traffic around the NAT, everything else through it.
//!
//! The data flow, left to right; the modules below are declared in its order:
//!
//! ```text
//!  SOURCE ─▶ RANGES ─▶ GUARD ─▶ DESIRED ─┐
//!  bytes     prefixes   hold?   state     ├─▶ PLAN ─▶ APPLY ─▶ VERIFY ─▶ JOURNAL
//!  KERNEL ────────────▶ OBSERVED ────────┘   steps    batched   re-read   one line
//! ```

pub mod cli;
pub mod config;
pub mod types;

pub mod facts;
pub mod firewall;
pub mod objects;

pub mod kernel;

pub mod journal;
pub mod lock;
pub mod state_dir;
