//! The commands in the vpc role: route tables of a VPC in place of this machine's kernel.

mod check;
pub(super) mod explain;
mod probes;

pub(super) use check::run as check;

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;

use super::{complain, print, style};
use crate::cli::{FlushArgs, ReconcileArgs};
use crate::config::Config;
use crate::exit;
use crate::journal::{Journal, PassId, Record};
use crate::reconcile::{FetchOutcome, LOCK_WAIT, Mode, Options};
use crate::state::lock::{FLUSH, PassLock};
use crate::status::control::{AskError, Reply, Request, ask};
use crate::vpc::flush::{Flushed, flush as flush_vpc};
use crate::vpc::pass::{PassMemory, pass};
use crate::vpc::session::Session;
use crate::vpc::step::Step;

/// Opens a session. On failure prints the error and returns the exit code.
async fn session(config: &Config) -> Result<Session, u8> {
    Session::open(config).await.map_err(|error| {
        complain(&error);
        exit::FAILED
    })
}

/// Runs a pass and prints the report.
pub(super) async fn reconcile(arguments: &ReconcileArgs, config: &Config) -> u8 {
    if arguments.cache_only || arguments.accept_region.is_some() || arguments.metrics_file.is_some()
    {
        complain(
            &"--cache-only, --accept-region and --metrics-file are for roles with a kernel: leave them \
              out with role = \"vpc\"",
        );
        return exit::USAGE;
    }
    let session = match session(config).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    let options = Options {
        mode: Mode::of(arguments.dry_run, false),
        accept: arguments.accept,
        ..Options::default()
    };
    let mut memory = PassMemory::default();
    let report = pass(&session.ec2, &session.config, &options, &mut memory).await;
    let news = options.accept.is_some() || report.fetch == FetchOutcome::Changed;
    if options.mode.writes() && report.was_judged() && news {
        tell_agent(&config.agent.socket);
    }
    print(
        arguments.common.base.output,
        || report.to_text(style()),
        || report.to_json(),
    );
    if let Some(error) = &report.error {
        complain(error);
    }
    for missing in &report.degraded {
        complain(&format!("degraded: {missing}"));
    }
    report.exit_code()
}

/// Takes our routes and lists away.
pub(super) async fn flush(arguments: &FlushArgs, config: &Config) -> u8 {
    if arguments.drain {
        complain(&"--drain is for roles with a kernel: leave it out with role = \"vpc\"");
        return exit::USAGE;
    }
    let session = match session(config).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    if !arguments.dry_run
        && let Err(why) = pause_agent(&config.agent.socket)
    {
        complain(&why);
        return exit::FAILED;
    }
    let directory = &config.source.state_dir;
    let lock = match arguments.dry_run {
        true => Ok(None),
        false => PassLock::acquire(directory, FLUSH, LOCK_WAIT).map(Some),
    };
    let lock = match lock {
        Ok(lock) => lock,
        Err(held) => {
            complain(&held);
            return exit::FAILED;
        }
    };
    let started = Instant::now();
    let flushed = flush_vpc(&session.ec2, &session.config, arguments.dry_run).await;
    let error = flushed.error.as_ref().map(ToString::to_string);
    let has_failed = error.is_some() || flushed.incomplete;
    if lock.is_some_and(|lock| lock.failure().is_none()) {
        let outcome = if has_failed { "failed" } else { "changed" };
        let (now, took) = (Timestamp::now(), started.elapsed());
        let record = Record::end(now, PassId::new(now), FLUSH, outcome, took)
            .with_steps(flushed.steps.iter().map(Step::to_json))
            .with_error(error.clone().or_else(|| left(&flushed)));
        if let Err(error) = Journal::new(directory).append(&record) {
            complain(&error);
        }
    }
    let steps = || flushed.steps.iter().map(Step::to_json).collect::<Vec<_>>();
    print(
        arguments.base.output,
        || text(&flushed, arguments.dry_run),
        || {
            json!({
                "role": "vpc",
                "dry_run": arguments.dry_run,
                "steps": steps(),
                "left": flushed.left,
                "error": error,
            })
        },
    );
    for error in error.iter() {
        complain(error);
    }
    match has_failed {
        true => exit::FAILED,
        false => exit::OK,
    }
}

/// The reasons why routes that may be ours are left.
fn left(flushed: &Flushed) -> Option<String> {
    flushed.incomplete.then(|| flushed.left.join("; "))
}

/// Pauses a running agent, which would restore the removed objects.
fn pause_agent(socket: &Path) -> Result<(), String> {
    let by = format!("flush, pid {}", std::process::id());
    let why = match ask(socket, Request::Pause { by }) {
        Ok(Reply::Done) => {
            tracing::warn!("the agent is paused until `trailblazer kick` or a restart");
            return Ok(());
        }
        Err(AskError::NoAgent { .. }) => return Ok(()),
        Ok(Reply::Refused(why)) => why,
        Ok(_) => "unexpected reply".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "nothing was removed: the agent is not paused and would restore the removed objects: {why}"
    ))
}

/// Lets a running agent read the documents again. The agent would otherwise learn of them at the next
/// fetch.
fn tell_agent(socket: &Path) {
    let why = match ask(socket, Request::Documents) {
        Ok(Reply::Done) | Err(AskError::NoAgent { .. }) => return,
        Ok(Reply::Refused(why)) => why,
        Ok(_) => "unexpected reply".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        "the running agent was not told of the document and reads it at the next fetch: {why}"
    );
}

fn text(flushed: &Flushed, dry_run: bool) -> String {
    let mut lines: Vec<String> = flushed
        .steps
        .iter()
        .map(|step| match step {
            Step::DeleteRoute {
                family,
                table,
                prefix,
            } => {
                let name = prefix.map_or_else(|| "the list".to_owned(), |it| it.to_string());
                format!("- {family} route {table}: {name}")
            }
            Step::DeleteList { family } => format!("- {family} prefix list"),
            other => other.to_json().to_string(),
        })
        .collect();
    lines.extend(flushed.left.iter().map(|left| format!("left      {left}")));
    let (done, all) = (flushed.done, flushed.steps.len());
    lines.push(match (all, dry_run) {
        _ if flushed.error.is_some() && all > 0 => {
            format!("Failed: {done} of {all} objects removed.")
        }
        _ if flushed.error.is_some() => "Failed: nothing was removed.".to_owned(),
        (0, _) if flushed.incomplete => "Nothing was removed: routes may be left.".to_owned(),
        (0, _) => "Nothing to remove.".to_owned(),
        (_, true) => "Nothing was changed.".to_owned(),
        _ if flushed.incomplete => format!("Removed: {done} objects; others may be left."),
        _ => format!("Removed: {done} objects."),
    });
    lines.join("\n")
}
