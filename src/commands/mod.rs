//! The commands of the command line.

pub mod agent;
mod agent_health;
mod agents;
pub mod blocked;
mod boot;
mod broken_config;
pub mod check;
pub mod drain;
pub mod explain;
pub mod fetch_for_agent;
pub mod flows;
pub mod flush;
pub mod history;
pub mod kick;
mod origins;
pub mod probe;
pub mod ranges;
pub mod reconcile;
mod released;
pub mod shut;
pub mod status;
mod vpc;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;
use tracing::error;

use crate::cli::{BaseArgs, Cli, Command, Output};
use crate::columns::Style;
use crate::config::Overrides;
use crate::config::file::{Loaded, load};
use crate::exit;
use crate::printable;
use crate::vpc::ec2::forbid_core_dumps;

/// Runs the command and returns the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let code = match cli.command {
        Command::Reconcile(arguments) => reconcile::run(&arguments).await,
        Command::Agent(arguments) => agent::run(&arguments, cli.verbose).await,
        Command::FetchForAgent(_) => fetch_for_agent::run().await,
        Command::Check(arguments) => check::run(&arguments).await,
        Command::Explain(arguments) => explain::run(&arguments).await,
        Command::Ranges(arguments) => ranges::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Blocked(arguments) => blocked::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments).await,
        Command::Drain(arguments) => drain::run(&arguments).await,
        Command::Kick(arguments) => kick::run(&arguments).await,
        Command::Flush(arguments) => flush::run(&arguments).await,
        Command::Shut(arguments) => shut::run(&arguments),
        Command::History(arguments) => history::run(&arguments).await,
    };
    ExitCode::from(code)
}

/// Loads the settings. On failure prints the error and returns the exit code.
fn settings(base: &BaseArgs, overrides: &Overrides) -> Result<Loaded, u8> {
    let loaded = load(base.config.as_deref(), overrides).map_err(|wrong| {
        complain(&wrong);
        wrong.exit_code()
    })?;
    keep_secrets(&loaded);
    Ok(loaded)
}

/// Forbids core dumps in the role whose variables may hold the keys of an account.
fn keep_secrets(loaded: &Loaded) {
    if loaded.config.vpc_role {
        forbid_core_dumps();
    }
}

/// Loads the settings, which must name a role.
fn settings_with_role(
    base: &BaseArgs,
    overrides: &Overrides,
) -> Result<(Loaded, crate::config::Role), u8> {
    let loaded = settings(base, overrides)?;
    let role = role_of(&loaded)?;
    Ok((loaded, role))
}

/// The role of the settings. Without one prints the error and returns the exit code.
fn role_of(loaded: &Loaded) -> Result<crate::config::Role, u8> {
    loaded.role().map_err(|missing| {
        complain(&missing);
        exit::USAGE
    })
}

/// Prints an error on standard error, at any log level.
fn complain(message: &dyn std::fmt::Display) {
    error!("{message}");
}

/// Prints text or JSON on standard output. A closed pipe (`| head`) is not an error.
fn print(output: Output, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
    let mut printed = match output {
        Output::Text => printable::page(&text()).into_owned(),
        Output::Json => printable::json(&stamped(json()).to_string()).into_owned(),
    };
    if !printed.ends_with('\n') {
        printed.push('\n');
    }
    let _ = io::stdout().lock().write_all(printed.as_bytes());
}

/// The version of the JSON outputs. A change that removes a field or gives a field another meaning
/// raises the number; new fields don't.
const FORMAT: u32 = 1;

/// The object with the fields `format` and, unless the object has one, `version`.
fn stamped(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("format".to_owned(), FORMAT.into());
        let version = fields.entry("version");
        version.or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    }
    value
}

/// Colours on a terminal, unless `NO_COLOR` is set (no-color.org).
fn style() -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !refused && io::stdout().is_terminal() {
        Style::Coloured
    } else {
        Style::Plain
    }
}
