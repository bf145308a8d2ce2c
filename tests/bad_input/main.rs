//! Bad input, through the real binary in a real kernel: each case shows the message, the exit
//! code, and that the kernel and the state dir are as before.
//!
//! *As before* means: every link, route, rule, nexthop, firewall rule and sysctl, and every
//! document, guard, fact and number file of the state dir, byte for byte. The journal may have
//! grown (a pass that failed belongs into it) but has lost nothing, and the lock file is empty.
//! What fails before the pass begins (usage, config, privileges) leaves no state dir at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock;
mod conflict;
mod disk;
mod documents;
mod firewall;
mod guard;
mod host;
mod settings;
mod site;
mod state_dir;
