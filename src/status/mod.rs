//! What a running agent tells about itself, and how it is asked.
//!
//! ```text
//!  status, kick, flush ──▶ client ─ unix socket ─▶ socket ─┐
//!                                                          ├─ Asked ─▶ the agent's loop
//!  Prometheus, probes ───────────── HTTP ────────▶ http ───┘
//! ```
//!
//! The loop answers with a [`snapshot`]; `metrics` and `text` turn it into what is read.

mod accept;
mod client;
pub mod control;
mod http;
pub mod metrics;
pub mod snapshot;
mod socket;
pub mod text;
