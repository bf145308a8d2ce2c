//! The agent on this host, if any, and its state.

use super::report::CheckReport;
use crate::config::Config;
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::snapshot::State;

pub(super) fn all(config: &Config, report: &mut CheckReport) {
    let name = "agent";
    match ask(&config.agent.socket, Request::Status) {
        Ok(Reply::Status(status)) => {
            let state = status.state.as_str().replace('_', " ");
            let message = format!(
                "running, pid {}, version {}: {state}",
                status.pid, status.version
            );
            match status.state {
                State::InForce | State::Starting => report.ok(name, message),
                State::Degraded | State::Paused | State::Stopping => {
                    report.warn(name, message, "run trailblazer status for the reason");
                }
            }
        }
        Ok(_) => report.warn(
            name,
            "the control socket returned something other than a status",
            "restart the agent: systemctl restart trailblazer",
        ),
        Err(AskError::NoAgent { .. }) => report.ok(
            name,
            "not running: passes run only on `trailblazer reconcile`",
        ),
        Err(error) => report.warn(
            name,
            error.to_string(),
            "run trailblazer status for details",
        ),
    }
}
