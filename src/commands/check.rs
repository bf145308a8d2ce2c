//! `trailblazer check`: can this host do what the config says, and what is in the way. Touches
//! nothing.

mod agent;
mod data;
mod finding;
mod host;
mod networkd;
mod paths;
mod rules;
mod sysctls;

use super::{print, settings_with_role};
use crate::cli::CommonArgs;
use crate::config::file::Loaded;
use crate::config::{Config, Role};
use crate::exit;
use crate::kernel::Kernel;
use crate::reconcile::{Asking, Examined, Firewalls, PassError, examine};
use finding::Findings;

/// Checks and prints.
pub async fn run(arguments: &CommonArgs) -> u8 {
    let (loaded, role) = match settings_with_role(&arguments.base, &arguments.overrides()) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let findings = check(&loaded, role).await;
    print(
        arguments.base.output,
        || findings.to_text(),
        || findings.to_json(),
    );
    match findings.fails() {
        0 => exit::OK,
        _ => exit::FAILED,
    }
}

async fn check(loaded: &Loaded, role: Role) -> Findings {
    let config = &loaded.config;
    let mut findings = Findings::default();
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no config file: the defaults and the flags".to_owned(),
    };
    findings.ok("config", format!("{name}, role {}", role.as_str()));
    host::privileges(&mut findings);
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            findings.fail(
                "kernel",
                error.to_string(),
                "check that this is a Linux host",
            );
            return findings;
        }
    };
    host::families(config, &kernel, &mut findings);
    host::nf_tables(config, &mut findings);
    let examined = look(config, role, &mut kernel, &mut findings).await;
    if let Some(examined) = &examined {
        host::iptables(&mut kernel, examined.view.backend.kind, &mut findings);
    }
    data::all(config, &mut findings);
    data::fetch(config, role, &mut findings);
    if let Some(examined) = &examined {
        data::metadata(examined, &mut findings);
        let desired = paths::all(config, role, examined, &mut kernel, &mut findings);
        rules::all(&examined.view, desired.as_ref(), &mut findings);
        sysctls::all(
            config,
            role,
            &examined.view,
            desired.as_ref(),
            &mut findings,
        );
    }
    networkd::all(std::path::Path::new("/"), &mut findings);
    agent::all(config, &mut findings);
    findings
}

/// Looks as a pass does; without the firewalls where those are what fails.
async fn look(
    config: &Config,
    role: Role,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Option<Examined> {
    let firewall = match examine(config, role, Asking::Nobody, Firewalls::Chosen, kernel).await {
        Ok(examined) => {
            let backend = &examined.view.backend;
            findings.ok("backend", format!("{} ({})", backend.kind, backend.reason));
            return Some(examined);
        }
        Err(error) => error,
    };
    match examine(config, role, Asking::Nobody, Firewalls::Ignored, kernel).await {
        Ok(mut examined) => {
            findings.fail(
                "backend",
                firewall.to_string(),
                "load nf_tables (modprobe nf_tables) or install iptables",
            );
            if let crate::config::AutoOr::Set(kind) = config.nat.backend {
                examined.view.backend.kind = kind;
            }
            Some(examined)
        }
        Err(error @ PassError::Instance { .. }) => {
            findings.fail(
                "metadata",
                error.to_string(),
                "switch the instance's metadata service on (IMDSv2), or set what it says",
            );
            None
        }
        Err(error) => {
            findings.fail(
                "host",
                error.to_string(),
                "mend that first, then check again",
            );
            None
        }
    }
}
