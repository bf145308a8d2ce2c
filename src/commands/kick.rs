//! `trailblazer kick`: starts a pass of the agent and ends a pause.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{broken_config, complain, print};
use crate::cli::KickArgs;
use crate::exit;
use crate::printable::indented;
use crate::status::control::{Reply, Request, ask};
use crate::status::snapshot::{PassStatus, Snapshot};
use crate::words::counted;

/// Longest wait for the pass: a fetch over several silent sources takes under a minute, and a pass
/// that hangs has its own alarm.
const WAIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs `kick` and returns the exit code.
pub async fn run(arguments: &KickArgs) -> u8 {
    let base = &arguments.base;
    let shown = match broken_config::settings(base, &base.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let socket = &shown.loaded.config.agent.socket;
    let kicked = if arguments.wait {
        kick_and_wait(socket).await
    } else {
        kick(socket).map(|()| None)
    };
    let (text, mut value, code) = match &kicked {
        Ok(None) => (
            "The agent starts a pass; `trailblazer status` shows the result.".to_owned(),
            json!({"outcome": "asked", "error": null}),
            exit::OK,
        ),
        Ok(Some(pass)) => (
            ended_text(pass),
            json!({"outcome": pass.outcome, "error": pass.error, "pass": pass}),
            ended_code(pass),
        ),
        Err(error) => (
            "Failed: the agent did not start a pass.".to_owned(),
            json!({"outcome": "failed", "error": error}),
            exit::FAILED,
        ),
    };
    value["notes"] = shown.fault.as_deref().into_iter().collect();
    print(base.output, || text, || value);
    if let Err(error) = &kicked {
        complain(error);
    }
    code
}

fn kick(socket: &Path) -> Result<(), String> {
    match ask(socket, Request::Kick) {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(why)) => Err(format!("the agent refused: {why}")),
        Ok(Reply::Status(_) | Reply::Settings(_)) => {
            Err("unexpected reply from the agent".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Kicks the agent and returns the first pass that started after the kick.
async fn kick_and_wait(socket: &Path) -> Result<Option<PassStatus>, String> {
    let before = snapshot(socket)?.pass_totals.duration.count;
    kick(socket)?;
    wait_for_pass(socket, before, KICK).await.map(Some)
}

/// Waits for the pass of a request with this cause, which followed `before` passes.
pub(super) async fn wait_for_pass(
    socket: &Path,
    before: u64,
    cause: &str,
) -> Result<PassStatus, String> {
    let deadline = Instant::now() + WAIT;
    loop {
        let now = snapshot(socket)?;
        if let Some(pass) = pass_after(&now, before, cause) {
            return Ok(pass.clone());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "no pass ended within {} s; see `trailblazer status`",
                WAIT.as_secs()
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The agent's status.
pub(super) fn snapshot(socket: &Path) -> Result<Box<Snapshot>, String> {
    match ask(socket, Request::Status) {
        Ok(Reply::Status(snapshot)) => Ok(snapshot),
        Ok(Reply::Refused(why)) => Err(format!("the agent refused: {why}")),
        Ok(Reply::Done | Reply::Settings(_)) => Err("unexpected reply from the agent".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The pass of a request among the passes that ended after `before` passes. The first of these may
/// have started before the request, unless the request caused that pass.
fn pass_after<'a>(now: &'a Snapshot, before: u64, cause: &str) -> Option<&'a PassStatus> {
    let ended = now.pass_totals.duration.count.saturating_sub(before);
    let ended = usize::try_from(ended).unwrap_or(usize::MAX);
    let mut new = now.passes.iter().take(ended).rev();
    let first = new.next()?;
    if first.cause == cause {
        return Some(first);
    }
    new.next()
}

/// The cause of a pass after a kick, in the snapshot and in the journal.
const KICK: &str = "kick";

fn ended_code(pass: &PassStatus) -> u8 {
    match pass.outcome.as_str() {
        "in_sync" | "changed" => exit::OK,
        "held" => exit::HELD,
        _ => exit::FAILED,
    }
}

fn ended_text(pass: &PassStatus) -> String {
    let outcome = pass.outcome.replace('_', " ");
    let mut text = format!(
        "Pass ended: {outcome}, {} ({:.1} ms).",
        counted(pass.steps as u64, "step"),
        pass.duration_ms
    );
    if let Some(error) = &pass.error {
        text.push('\n');
        text.push_str(&indented(error, 2));
    }
    text
}
