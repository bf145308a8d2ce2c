//! `trailblazer kick`: starts a pass of the agent and ends a pause.

use serde_json::json;

use super::{complain, print, settings};
use crate::cli::BaseArgs;
use crate::exit;
use crate::status::control::{Reply, Request, ask};

/// Runs `kick` and returns the exit code.
pub async fn run(base: &BaseArgs) -> u8 {
    let loaded = match settings(base, &base.overrides()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let error = match ask(&loaded.config.agent.socket, Request::Kick) {
        Ok(Reply::Done) => None,
        Ok(Reply::Refused(why)) => Some(format!("the agent refused: {why}")),
        Ok(Reply::Status(_)) => Some("unexpected reply from the agent".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    let outcome = match error {
        None => "asked",
        Some(_) => "failed",
    };
    let text = match error {
        None => "The agent starts a pass; `trailblazer status` shows the result.",
        Some(_) => "Failed: the agent did not start a pass.",
    };
    print(
        base.output,
        || text.to_owned(),
        || json!({"outcome": outcome, "error": error}),
    );
    match error {
        None => exit::OK,
        Some(error) => {
            complain(&error);
            exit::FAILED
        }
    }
}
