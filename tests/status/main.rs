//! The running agent, asked: over its control socket, over HTTP, and by the commands.
//!
//! A fake loop answers behind the real servers; what the real loop answers is its own tests'
//! business.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod commands;
mod http;
mod metrics;
mod page;
mod socket;
mod text;
