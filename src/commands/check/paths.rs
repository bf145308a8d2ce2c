//! The two paths: gateways, addresses, and conflicts with our objects.

use std::net::IpAddr;

use super::report::CheckReport;
use crate::config::{Config, Role};
use crate::desired::{DesiredState, EgressPath};
use crate::guard::figures;
use crate::guard::{Level, SELECTION};
use crate::kernel::Kernel;
use crate::objects::Via;
use crate::reconcile::Examined;
use crate::types::Family;

/// Computes the desired state of a pass: each missing part is a failure, each note
/// with something to do a warning.
pub(super) fn all(
    config: &Config,
    role: Role,
    examined: &mut Examined,
    kernel: &mut Kernel,
    report: &mut CheckReport,
) -> DesiredState {
    let desired = match examined.view.settled(kernel, config, role) {
        Ok(desired) => desired,
        // The comparison below reports the error.
        Err(_) => examined.view.desired(config, role),
    };
    let examined = &*examined;
    for family in Family::ALL {
        bypass(config, examined, &desired, family, report);
        egress(config, role, &desired, family, report);
    }
    for missing in examined.judgement.degraded.iter().chain(&desired.degraded) {
        let part = missing.part.as_str();
        let family = missing.family.map(|family| format!("{family}: "));
        let text = format!("{}{}", family.unwrap_or_default(), missing.reason);
        if missing.advice.is_empty() {
            report.fail_plain(part, text);
        } else {
            report.fail(part, text, missing.advice.clone());
        }
    }
    for note in &desired.means {
        report.ok("paths", note.clone());
    }
    for note in &desired.notes {
        report.warn_plain("paths", note.clone());
    }
    for verdict in &examined.judgement.verdicts {
        // A misspelled service is only a note to the guard, but `check` exists for such mistakes.
        if verdict.level != Level::Note || verdict.guard == SELECTION {
            report.warn_plain("guard", verdict.to_string());
        }
    }
    conflicts(examined, &desired, kernel, report);
    desired
}

fn bypass(
    config: &Config,
    examined: &Examined,
    desired: &DesiredState,
    family: Family,
    report: &mut CheckReport,
) {
    if !config.select.families.contains(&family) {
        report.ok("bypass", format!("{family}: not selected"));
        return;
    }
    if desired.paths.get(family).diverted {
        // The degraded part says so.
        return;
    }
    // For a missing gateway, a note of the desired state names the reason.
    if let Some(path) = &desired.paths.get(family).bypass {
        let hop = |via: Via| {
            let device = examined.view.facts.device_name(via.device);
            let gateway = via
                .gateway
                .map_or_else(String::new, |gateway| format!("via {gateway} "));
            format!("{gateway}on {device}")
        };
        let hops: Vec<String> = path.vias().map(hop).collect();
        let options = path
            .options
            .as_ref()
            .map_or_else(String::new, |options| format!(" ({options})"));
        let count = examined.judgement.ranges.prefixes.get(family).len();
        let prefixes = figures::prefixes(count);
        report.ok(
            "bypass",
            format!("{family}: {}{options}, {prefixes}", hops.join(" or ")),
        );
    }
}

fn egress(
    config: &Config,
    role: Role,
    desired: &DesiredState,
    family: Family,
    report: &mut CheckReport,
) {
    let name = "egress";
    let list = |addresses: &[IpAddr]| {
        let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    if role == Role::Nat {
        let own: Vec<IpAddr> = config
            .nat
            .egress_addresses
            .iter()
            .copied()
            .filter(|address| Family::of(*address) == family)
            .collect();
        if !own.is_empty() && !desired.paths.get(family).inputs.is_empty() {
            report.ok(name, format!("{family}: source address {}", list(&own)));
        }
        return;
    }
    match &desired.paths.get(family).egress {
        EgressPath::Gateways(gateways) => {
            report.ok(name, format!("{family}: via {}", list(gateways)));
        }
        EgressPath::Closed if !config.egress.has_gateway(family) => {
            report.ok(name, format!("{family}: closed, as configured"));
        }
        EgressPath::Closed => report.warn(
            name,
            format!("{family}: no gateway is usable now: all traffic except storage is refused"),
            "bring the gateway's link up",
        ),
        // With gateways of only the other family, the desired state has a note.
        EgressPath::Main if config.egress.gateways.is_empty() => report.warn(
            name,
            format!("{family}: no egress gateway: partners see this host's own address"),
            format!("set [egress] gateways, or [egress] close = [\"{family}\"] to close the path"),
        ),
        EgressPath::Main => {}
    }
}

fn conflicts(
    examined: &Examined,
    desired: &DesiredState,
    kernel: &mut Kernel,
    report: &mut CheckReport,
) {
    let view = &examined.view;
    let name = "conflicts";
    if view.observed.firewalls.is_empty() {
        // The check of the backend has already reported the missing firewall.
        return;
    }
    let plan = match view.plan(kernel, desired.clone()) {
        Ok(plan) => plan,
        Err(error) => return report.fail_plain("backend", error.to_string()),
    };
    if plan.conflicts.is_empty() {
        report.ok(
            name,
            "no foreign object conflicts with Trailblazer's objects",
        );
    }
    for conflict in plan.conflicts {
        report.fail_plain(name, conflict.message);
    }
    for note in plan.notes {
        report.warn_plain("kernel", note);
    }
}
