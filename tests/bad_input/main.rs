//! Bad input, through the real binary in a real kernel: each case shows the message, the exit code,
//! and an unchanged kernel and state directory.
//!
//! *Unchanged* means: every link, route, rule, nexthop, firewall rule and sysctl, and every
//! document, guard, fact and number file of the state directory, byte for byte. The journal may
//! have grown (a failed pass is recorded) and has lost nothing, and the lock file is empty.
//! Failures before the pass (usage, config, privileges) leave no state directory at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock;
mod conflict;
mod disk;
mod documents;
mod firewall;
mod guard;
mod host;
mod kinds;
#[path = "../no_nf_tables/mod.rs"]
mod no_nf_tables;
mod rows;
mod settings;
mod site;
mod sources;
mod state_dir;
