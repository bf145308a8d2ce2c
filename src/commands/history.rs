//! `trailblazer history`: the last passes, from the journal.

use std::path::Path;

use serde_json::Value;

use super::{broken_config, complain, print};
use crate::cli::{HistoryArgs, Output};
use crate::exit;
use crate::journal::{History, Journal, history_json, history_text};
use crate::printable::escaped;
use crate::state::error::StateError;
use crate::state::lock;
use crate::state::patience::exists_in_time;

/// Runs `history` and returns the exit code.
pub async fn run(arguments: &HistoryArgs) -> u8 {
    let base = &arguments.base;
    let shown = match broken_config::settings(base, &base.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let state_dir = &shown.loaded.config.source.state_dir;
    let history = match read(state_dir) {
        Ok(history) => match arguments.since {
            Some(since) => history.since(since),
            None if arguments.all => history,
            None => history.last(arguments.last),
        },
        Err(error) => {
            complain(&error);
            return exit::FAILED;
        }
    };
    if base.output == Output::Text && !state_dir.exists() {
        let missing = state_dir.display().to_string();
        let missing = escaped(&missing);
        let text = format!("no pass yet: the state dir {missing} does not exist");
        print(
            base.output,
            || text,
            || json_of(&history, shown.fault.as_deref()),
        );
        return exit::OK;
    }
    print(
        base.output,
        || history_text(&history),
        || json_of(&history, shown.fault.as_deref()),
    );
    exit::OK
}

fn read(state_dir: &Path) -> Result<History, StateError> {
    exists_in_time(state_dir)?;
    let history = Journal::new(state_dir).read()?;
    // Without permission to open the lock, a running pass appears as interrupted.
    let running = lock::holder(state_dir)
        .ok()
        .flatten()
        .map(|holder| holder.pid);
    Ok(history.with_running(running))
}

/// The object of `-o json`, with the fault of a broken config.
fn json_of(history: &History, fault: Option<&str>) -> Value {
    let mut value = history_json(history);
    value["notes"] = fault.into_iter().collect();
    value
}
