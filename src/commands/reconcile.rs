//! `trailblazer reconcile`: one pass.

use std::path::Path;

use super::{agent_health, complain, print, released, settings, settings_with_role, style, vpc};
use crate::cli::ReconcileArgs;
use crate::clock::unix_seconds;
use crate::config::{Config, Role};
use crate::ownership::{Numbers, Ownership};
use crate::reconcile::{FetchOutcome, Mode, Options, Report, one_shot};
use crate::state::store::Store;
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::textfile;

/// Runs a pass and prints the report.
pub async fn run(arguments: &ReconcileArgs) -> u8 {
    let common = &arguments.common;
    match settings(&common.base, &common.overrides()) {
        Ok(loaded) if loaded.config.vpc_role => {
            return vpc::reconcile(arguments, &loaded.config).await;
        }
        Ok(_) => {}
        Err(code) => return code,
    }
    let found = if arguments.cache_only {
        // Both roles use the same document, and a machine image has no role yet.
        settings(&common.base, &common.overrides())
            .map(|loaded| (loaded.config.role.unwrap_or(Role::Host), loaded))
    } else {
        settings_with_role(&common.base, &common.overrides()).map(|(loaded, role)| (role, loaded))
    };
    let (role, loaded) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let config = &loaded.config;
    let options = Options {
        mode: Mode::of(arguments.dry_run, arguments.cache_only),
        accept: arguments.accept,
        accept_region: arguments.accept_region.clone(),
        health: agent_health::ask_agent(config),
        ..Options::default()
    };
    let open = || released::open(&config.agent.socket, "reconcile");
    let mut report = one_shot(config, role, &options, open, None).await;
    if let Some(path) = &arguments.metrics_file {
        write_metrics(path, &mut report, config);
    }
    let untold = if changed_documents(&options, &report) {
        tell_agent(&config.agent.socket)
    } else {
        None
    };
    let ownership = Ownership::new(Numbers::of(config), []);
    print(
        common.base.output,
        || report.to_text(&ownership, style()),
        || report.to_json(),
    );
    if let Some(error) = &report.error {
        complain(error);
    }
    for missing in &report.degraded {
        complain(&format!("degraded: {missing}"));
    }
    if let Some(untold) = &untold {
        complain(untold);
    }
    report.exit_code()
}

/// Writes the metrics of a pass. A fault is a note: metrics are no part of the promise.
fn write_metrics(path: &Path, report: &mut Report, config: &Config) {
    let confirmed_at = Store::open(&config.source.state_dir).confirmed_at();
    let now = i64::try_from(unix_seconds()).unwrap_or(i64::MAX);
    let text = textfile::to_text(report, config, confirmed_at, now);
    if let Err(error) = textfile::replace(path, &text) {
        let path = path.display();
        let note = format!("cannot write the metrics to {path}: {error}");
        report.notes.push(note);
    }
}

/// True after a pass that stored other documents, or the operator's word for one.
fn changed_documents(options: &Options, report: &Report) -> bool {
    let news = options.accept.is_some() || report.fetch == FetchOutcome::Changed;
    options.mode.writes() && report.was_judged() && news
}

/// Tells a running agent to read the documents again: the agent would otherwise learn of them at
/// the next fetch. Returns the reason if an agent runs and doesn't take the word.
fn tell_agent(socket: &Path) -> Option<String> {
    let refusal = match ask(socket, Request::Documents) {
        Ok(Reply::Done) | Err(AskError::NoAgent { .. }) => return None,
        Ok(Reply::Refused(why)) => why,
        Ok(Reply::Status(_) | Reply::Settings(_)) => "unexpected reply".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "the running agent was not told of the document and reads it at the next fetch; \
         `trailblazer kick` makes it read now: {refusal}"
    ))
}
