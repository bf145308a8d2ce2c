//! Trailblazer routes storage traffic around the NAT, and all other traffic through the NAT.
//!
//! One *pass* runs this data flow from left to right:
//!
//! ```text
//!  SOURCE ─▶ RANGES ─▶ GUARD ─▶ DESIRED ─┐
//!  bytes     prefixes   hold?   state     ├─▶ PLAN ─▶ APPLY ─▶ VERIFY ─▶ JOURNAL
//!  KERNEL ────────────▶ OBSERVED ────────┘   steps    batched   re-read   one line
//! ```
//!
//! The modules stand below from low to high; imports run from higher to lower modules only
//! (`tests/house.rs`).

// Vocabulary of all stages.
#[macro_use]
pub mod words;
pub mod columns;
pub mod exit;
pub mod nearest;
pub mod notes;
pub mod printable;
pub mod types;

pub mod degraded;

pub mod config;

// Values of host, kernel and firewall.
pub mod facts;
pub mod firewall;
pub mod objects;
pub mod ownership;
pub mod random;

// Bytes from outside and from disk.
pub mod ranges;
pub mod source;
pub mod state;

// The pure core, and the clock for its guard.
pub mod clock;
pub mod desired;
pub mod guard;
pub mod health;
pub mod observed;
pub mod plan;

// The judgement of the kernel's answers. Pure too.
pub mod judge;

pub mod kernel;

// Stages with access to the kernel.
pub mod apply;
pub mod journal;
pub mod pinned;
pub mod verify;

// The pass, the agent and the commands.
pub mod agent;
pub mod cli;
pub mod commands;
pub mod reconcile;
pub mod status;
pub mod vpc;
