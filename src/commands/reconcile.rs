//! `trailblazer reconcile`: one pass.

use super::{complain, print, settings, settings_with_role, style};
use crate::cli::ReconcileArgs;
use crate::config::Role;
use crate::kernel::Kernel;
use crate::ownership::{Numbers, Ownership};
use crate::reconcile::{Mode, Options, one_shot};

/// Runs a pass and prints the report.
pub async fn run(arguments: &ReconcileArgs) -> u8 {
    let common = &arguments.common;
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
        ..Options::default()
    };
    let report = one_shot(config, role, &options, Kernel::open, None).await;
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
    report.exit_code()
}
