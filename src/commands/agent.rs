//! `trailblazer agent`: the daemon.

use std::sync::Arc;

use super::{complain, fetch_for_agent, role_of, settings};
use crate::agent::{AgentError, Settings, run as run_agent, run_over_vpc};
use crate::cli::AgentArgs;
use crate::config::file::load;
use crate::exit;
use crate::kernel::privilege::has_net_admin;

/// Runs the agent until SIGTERM or SIGINT and returns the exit code.
pub async fn run(arguments: &AgentArgs, verbose: u8) -> u8 {
    let overrides = arguments.common.overrides();
    let base = &arguments.common.base;
    let loaded = match settings(base, &overrides) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let file = base.config.clone();
    let asker = fetch_for_agent::asker(arguments.log, verbose);
    if loaded.config.vpc_role {
        let reload = move || load(file.as_deref(), &overrides);
        return ended(run_over_vpc(loaded, asker, reload).await);
    }
    let role = match role_of(&loaded) {
        Ok(role) => role,
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
    let reload = move || load(file.as_deref(), &overrides).and_then(Settings::new);
    ended(run_agent(settings, asker, reload).await)
}

fn ended(result: Result<(), AgentError>) -> u8 {
    match result {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&error);
            exit::FAILED
        }
    }
}
