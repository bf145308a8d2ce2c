//! Questions to the running agent: over its control socket, over HTTP, and by the commands.
//!
//! A fake loop answers behind the real servers; the real loop has its own tests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod commands;
mod dashboard;
mod http;
mod metrics;
mod page;
mod socket;
mod text;
