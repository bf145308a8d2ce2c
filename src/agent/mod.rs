//! The loop that keeps the promise: what decides when it does what.
//!
//! The decisions are state machines without a clock and without chance of their own: time and
//! random numbers come in as arguments, so that a test goes through hours in microseconds and a
//! failure can be played again.
//!
//! ```text
//!  refresh timer, link up ─▶ FetchSchedule ─▶ fetch ─┐
//!  kernel events ──────────▶ Debounce ─────────────────┴─▶ PASS ─▶ RepairLimiter ─▶ repair, or wait
//! ```

mod bookkeeping;
mod debounce;
mod logging;
mod meter;
mod notify;
mod repair_limiter;
mod run;
mod schedule;
mod shared;
mod watch;
mod worker;

use std::sync::Arc;

use thiserror::Error;

use crate::config::{Config, Role};
use crate::kernel::events::ListenError;
use crate::status::control::ControlError;

pub use debounce::Debounce;
pub use repair_limiter::RepairLimiter;
pub use run::run;
pub use schedule::FetchSchedule;

/// What the agent goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The settings.
    pub config: Arc<Config>,
    /// What this machine is.
    pub role: Role,
}

/// Why the agent can't start, or can't go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// No right to change the kernel.
    #[error(
        "the agent needs CAP_NET_ADMIN: run it as root or with that ambient capability, as trailblazer.service does"
    )]
    NoPrivilege,
    /// Another agent is there.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The kernel can't be listened to.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel could be listened to until now.
    #[error("{0}; restart the agent: routes, rules and firewall stay as they are meanwhile")]
    Deaf(String),
    /// No signal handlers.
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
    /// No threads.
    #[error("cannot start a thread: {0}; check the limit of tasks (TasksMax)")]
    Thread(std::io::Error),
}
