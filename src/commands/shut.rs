//! `trailblazer shut`: shuts the egress until the next pass.

use super::{complain, print, released, role_of, style};
use crate::cli::ShutArgs;
use crate::config::file::{LoadedForDisplay, load_for_display};
use crate::ownership::{Numbers, Ownership};
use crate::reconcile::shut;

/// Shuts the egress and prints the report. A broken config file would stop every pass, so that the
/// readable part shuts the egress.
pub fn run(arguments: &ShutArgs) -> u8 {
    let base = &arguments.base;
    let LoadedForDisplay { loaded, fault } =
        match load_for_display(base.config.as_deref(), &base.overrides()) {
            Ok(found) => found,
            Err(missing) => {
                complain(&missing);
                return missing.exit_code();
            }
        };
    if let Some(fault) = &fault {
        complain(fault);
    }
    let role = match role_of(&loaded) {
        Ok(role) => role,
        Err(code) => return code,
    };
    let config = &loaded.config;
    let report = shut(config, role, || {
        released::open(&config.agent.socket, "shut")
    });
    let ownership = Ownership::new(Numbers::of(config), []);
    print(
        base.output,
        || report.to_text(&ownership, style()),
        || report.to_json(),
    );
    if let Some(error) = &report.error {
        complain(error);
    }
    match (report.exit_code(), fault) {
        (0, Some(fault)) => fault.exit_code(),
        (code, _) => code,
    }
}
