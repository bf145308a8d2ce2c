//! `trailblazer check`: reports obstacles on this host to the paths of the config. Changes nothing.

mod agent;
pub(super) mod data;
mod host;
mod judged;
mod marks;
mod mss;
mod networkd;
mod paths;
mod redirects;
pub(super) mod report;
mod reverse_path;
mod rules;
mod rulesets;
mod servers;
mod shares;
mod spread;
mod sysctls;
mod unit;

use super::boot::{AtBoot, UNIT};
use super::{agent_health, print, role_of, settings, vpc};
use crate::cli::CommonArgs;
use crate::config::file::Loaded;
use crate::config::{Config, Role};
use crate::exit;
use crate::kernel::Kernel;
use crate::reconcile::{Asking, Examined, Firewalls, PassError, examine};
use report::CheckReport;
use std::path::Path;
use unit::Needs;

const METADATA_ADVICE: &str =
    "enable the instance's metadata service (IMDSv2), or set its values in the config";

/// Runs `check` and returns the exit code.
pub async fn run(arguments: &CommonArgs) -> u8 {
    let loaded = match settings(&arguments.base, &arguments.overrides()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let report = if loaded.config.vpc_role {
        vpc::check(&loaded).await
    } else {
        match role_of(&loaded) {
            Ok(role) => check(&loaded, role).await,
            Err(code) => return code,
        }
    };
    print(
        arguments.base.output,
        || report.to_text(),
        || report.to_json(),
    );
    if report.fails() == 0 {
        exit::OK
    } else {
        exit::FAILED
    }
}

async fn check(loaded: &Loaded, role: Role) -> CheckReport {
    let config = &loaded.config;
    let mut report = CheckReport::default();
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no config file: defaults and flags".to_owned(),
    };
    report.ok("config", format!("{name}, role {}", role.as_str()));
    host::privileges(&mut report);
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            report.fail(
                "kernel",
                error.to_string(),
                "check that this is a Linux host",
            );
            return report;
        }
    };
    host::families(config, &kernel, &mut report);
    host::nf_tables(config, &mut report);
    let mut examined = look(config, role, &mut kernel, &mut report).await;
    if let Some(examined) = &examined {
        host::iptables(&mut kernel, examined.view.backend.kind, &mut report);
    }
    let mut needs = Needs::default();
    data::all(config, &mut report);
    data::fetch(config, role, &mut report);
    if let Some(examined) = &mut examined {
        examined.view.use_health(agent_health::ask_agent(config));
        data::metadata(examined, &mut report);
        let desired = paths::all(config, role, examined, &mut kernel, &mut report);
        needs = Needs::of(&examined.view, &desired, &mut kernel);
        rules::all(&examined.view, &desired, &mut report);
        rulesets::all(config, &mut report);
        marks::all(config, role, &examined.view, &mut report);
        shares::all(examined.view.backend.kind, &desired, &mut report);
        match role {
            Role::Host => servers::all(&examined.view, &desired, &mut report),
            Role::Nat => mss::all(config, &desired, &mut report),
        }
        judged::all(&examined.view, &desired, &mut kernel, &mut report);
        sysctls::all(
            config,
            role,
            &examined.view,
            &desired,
            &mut kernel,
            &mut report,
        );
    }
    unit::all(Path::new("/"), loaded, &needs, &mut report);
    boot(config, role, AtBoot::look(Path::new("/")), &mut report);
    networkd::all(Path::new("/"), &mut report);
    agent::all(config, &mut report);
    report
}

/// Names the egress between the boot and the first pass.
fn boot(config: &Config, role: Role, at_boot: AtBoot, report: &mut CheckReport) {
    let name = "boot";
    if let Some(warning) = at_boot.warning() {
        let advice = format!("systemctl unmask {UNIT}, unless this is on purpose");
        return report.warn(name, warning, advice);
    }
    match at_boot {
        AtBoot::NotInstalled | AtBoot::Masked => {}
        AtBoot::NotRequested => report.ok(
            name,
            "no unit of Trailblazer is enabled: a boot changes nothing",
        ),
        AtBoot::Shut if role == Role::Host && config.egress.is_open() => report.ok(
            name,
            "the settings leave the egress open, at boot too ([egress])",
        ),
        AtBoot::Shut => report.ok(
            name,
            format!("{UNIT} shuts the egress before the network, until the first pass"),
        ),
    }
}

/// Reads the state as a pass does; without the firewalls, if only reading those fails.
async fn look(
    config: &Config,
    role: Role,
    kernel: &mut Kernel,
    report: &mut CheckReport,
) -> Option<Examined> {
    let firewall_error =
        match examine(config, role, Asking::Nobody, Firewalls::Chosen, kernel).await {
            Ok(examined) => {
                let backend = &examined.view.backend;
                report.ok("backend", format!("{} ({})", backend.kind, backend.reason));
                return Some(examined);
            }
            Err(error) => error,
        };
    match examine(config, role, Asking::Nobody, Firewalls::Ignored, kernel).await {
        Ok(mut examined) => {
            report.fail(
                "backend",
                firewall_error.to_string(),
                "load nf_tables (modprobe nf_tables) or install iptables",
            );
            if let crate::config::AutoOr::Set(kind) = config.nat.backend {
                examined.view.backend.kind = kind;
            }
            Some(examined)
        }
        Err(error @ PassError::Instance { .. }) => {
            report.fail("metadata", error.to_string(), METADATA_ADVICE);
            None
        }
        Err(error) => {
            report.fail(
                "host",
                error.to_string(),
                "repair this first, then run the check again",
            );
            None
        }
    }
}
