//! Whether an agent runs here, and what it says of itself.

use super::finding::Findings;
use crate::config::Config;
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::snapshot::State;

/// Asks it.
pub(super) fn all(config: &Config, findings: &mut Findings) {
    let name = "agent";
    match ask(&config.agent.socket, Request::Status) {
        Ok(Reply::Status(status)) => {
            let state = status.state.as_str().replace('_', " ");
            let says = format!(
                "running, pid {}, version {}: {state}",
                status.pid, status.version
            );
            match status.state {
                State::InForce | State::Starting => findings.ok(name, says),
                State::Degraded | State::Paused | State::Stopping => {
                    findings.warn(name, says, "trailblazer status says why");
                }
            }
        }
        Ok(_) => findings.warn(
            name,
            "something answers at its socket with what is no status",
            "restart the agent: systemctl restart trailblazer",
        ),
        Err(AskError::NoAgent { .. }) => findings.ok(
            name,
            "none runs: passes run when `trailblazer reconcile` is called",
        ),
        Err(error) => findings.warn(name, error.to_string(), "trailblazer status says more"),
    }
}
