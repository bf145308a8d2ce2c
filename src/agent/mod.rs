//! The agent: a service that keeps routes, rules and firewall in force between changes of the
//! document, of the host and of other programs.
//!
//! The scheduling decisions are state machines without a clock and without a random generator:
//! time and random numbers arrive as arguments, so that a test covers hours in microseconds and
//! a failure can be reproduced.
//!
//! ```text
//!  refresh timer, link up ─▶ FetchSchedule ─▶ fetch ─┐
//!  kernel events ──────────▶ Debounce ─────────────────┴─▶ PASS ─▶ RepairLimiter ─▶ repair, or wait
//! ```

mod alarm;
mod bookkeeping;
mod config_file;
mod config_reading;
mod debounce;
mod drains;
mod effort;
mod flow_table;
mod hops;
mod in_force;
mod journal_line;
mod listeners;
mod logging;
mod meter;
mod notify;
mod pinned;
mod prober;
mod repair_limiter;
mod repair_log;
mod run;
mod saved_rulesets;
mod schedule;
mod shared;
mod vpc;
mod watch;
mod ways;
mod worker;

use std::sync::Arc;

use thiserror::Error;

use crate::config::file::{ConfigOrigin, LoadError, Loaded};
use crate::config::{Config, Role};
use crate::kernel::events::ListenError;
use crate::state::agent_lock::AgentLockError;
use crate::status::control::ControlError;

pub use debounce::Debounce;
pub use repair_limiter::RepairLimiter;
pub use run::run;
pub use schedule::FetchSchedule;
pub use vpc::run as run_over_vpc;

/// The settings of a running agent; a reload replaces the value as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: Arc<Config>,
    pub role: Role,
    pub origin: ConfigOrigin,
}

impl Settings {
    /// The settings of a config file.
    ///
    /// # Errors
    /// Neither the file nor a flag sets the role.
    pub fn new(loaded: Loaded) -> Result<Settings, LoadError> {
        Ok(Settings {
            role: loaded.role()?,
            config: Arc::new(loaded.config),
            origin: loaded.origin,
        })
    }

    /// True if both mean the same, whatever the file's comments.
    fn means(&self, other: &Settings) -> bool {
        self.role == other.role && self.config == other.config
    }
}

/// A failure that keeps the agent from starting or ends the agent.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error(
        "the agent needs CAP_NET_ADMIN: run the agent as root, or with CAP_NET_ADMIN as an ambient capability (see trailblazer.service)"
    )]
    NoPrivilege,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Lock(#[from] AgentLockError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(
        "{0}; restart the agent (systemctl restart trailblazer): routes, rules and firewall stay in place meanwhile"
    )]
    Deaf(String),
    #[error("cannot install the signal handlers: {0}")]
    Signals(std::io::Error),
    #[error(
        "cannot start a thread: {0}; check the limit of tasks (TasksMax in trailblazer.service)"
    )]
    Thread(std::io::Error),
}
