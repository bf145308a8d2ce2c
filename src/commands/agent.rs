//! `trailblazer agent`: the daemon.

use std::sync::Arc;

use super::{complain, fetch_for_agent, settings_with_role};
use crate::agent::{AgentError, Settings, run as run_agent};
use crate::cli::AgentArgs;
use crate::config::file::load;
use crate::exit;
use crate::kernel::privilege::has_net_admin;

/// Runs the agent until SIGTERM or SIGINT and returns the exit code.
pub async fn run(arguments: &AgentArgs, verbose: u8) -> u8 {
    let overrides = arguments.common.overrides();
    let base = &arguments.common.base;
    let (loaded, role) = match settings_with_role(base, &overrides) {
        Ok(found) => found,
        Err(code) => return code,
    };
    if has_net_admin() == Some(false) {
        complain(&AgentError::NoPrivilege);
        return exit::FAILED;
    }
    let settings = Settings {
        config: Arc::new(loaded.config),
        role,
        origin: loaded.origin,
    };
    let file = base.config.clone();
    let reload = move || load(file.as_deref(), &overrides).and_then(Settings::new);
    match run_agent(
        settings,
        fetch_for_agent::asker(arguments.log, verbose),
        reload,
    )
    .await
    {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&error);
            exit::FAILED
        }
    }
}
