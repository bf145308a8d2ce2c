//! The status of a running agent, and the ways to ask for it.
//!
//! ```text
//!  status, kick, flush ──▶ client ─ unix socket ─▶ socket ─┐
//!                                                          ├─ Asked ─▶ the agent's loop
//!  Prometheus, probes ───────────── HTTP ────────▶ http ───┘
//! ```
//!
//! The loop answers each question with a [`snapshot`]; `metrics` and `text` only format it.

mod accept;
mod client;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hold;
mod http;
pub mod metrics;
mod protocol;
pub mod snapshot;
mod socket;
mod starting;
pub mod text;
pub mod textfile;

/// The control interface: client, servers, and the messages between both.
pub mod control {
    pub use super::accept::ControlError;
    pub use super::client::{AskError, ask};
    pub use super::http::{MetricsServer, serve_metrics};
    pub use super::protocol::{Asked, Reply, Request, SettingsInForce};
    pub use super::socket::{ControlSocket, serve_socket};
}
