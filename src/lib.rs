//! Trailblazer: storage traffic around the NAT, everything else through it.
//!
//! The data flow, left to right; the modules below are declared in its order:
//!
//! ```text
//!  SOURCE ─▶ RANGES ─▶ GUARD ─▶ DESIRED ─┐
//!  bytes     prefixes   hold?   state     ├─▶ PLAN ─▶ APPLY ─▶ VERIFY ─▶ JOURNAL
//!  KERNEL ────────────▶ OBSERVED ────────┘   steps    batched   re-read   one line
//! ```

// Vocabulary that every stage uses.
#[macro_use]
pub mod words;

pub mod types;

pub mod degraded;

pub mod config;

pub mod exit;
pub mod facts;
pub mod firewall;
pub mod nearest;
pub mod notes;
pub mod objects;
pub mod ownership;

// The stages.
pub mod source;

pub mod state;

pub mod ranges;

pub mod guard;

pub mod desired;

pub mod observed;

pub mod plan;

pub mod apply;

pub mod verify;

pub mod journal;

pub mod kernel;

// What runs them.
pub mod reconcile;

pub mod status;

pub mod agent;

pub mod commands;

pub mod cli;
pub mod clock;
pub mod columns;

#[cfg(test)]
#[path = "../tests/lab/isolate.rs"]
#[allow(dead_code)] // the lab uses the rest
mod isolate;
