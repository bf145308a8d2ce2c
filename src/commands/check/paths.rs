//! The two paths: gateways, addresses, and what is in the way of our objects.

use std::net::IpAddr;

use super::finding::Findings;
use crate::config::{Config, Role};
use crate::desired::{DesiredState, EgressPath};
use crate::guard::Level;
use crate::kernel::Kernel;
use crate::reconcile::Examined;
use crate::types::Family;

/// Computes what a pass would; what it refuses is a failure, what it remarks a warning.
pub(super) fn all(
    config: &Config,
    role: Role,
    examined: &Examined,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Option<DesiredState> {
    let view = &examined.view;
    let desired = match view.desired(config, role) {
        Ok(desired) => desired,
        Err(error) => {
            findings.fail_plain("paths", error.to_string());
            return None;
        }
    };
    for family in Family::ALL {
        bypass(config, examined, &desired, family, findings);
        egress(config, role, &desired, family, findings);
    }
    for note in &desired.notes {
        findings.warn_plain("paths", note.clone());
    }
    for verdict in &examined.judgement.verdicts {
        // A mistyped service is a note to the guard, but the very thing to be told here.
        if verdict.level != Level::Note || verdict.guard == "selection" {
            findings.warn_plain("guard", verdict.to_string());
        }
    }
    conflicts(examined, &desired, kernel, findings);
    Some(desired)
}

fn bypass(
    config: &Config,
    examined: &Examined,
    desired: &DesiredState,
    family: Family,
    findings: &mut Findings,
) {
    if !config.select.families.contains(&family) {
        findings.ok("bypass", format!("{family}: not selected"));
        return;
    }
    // Without a gateway there is a note that says why.
    if let Some(via) = desired.paths.get(family).bypass {
        let device = examined.view.facts.device_name(via.device);
        let gateway = via
            .gateway
            .map_or_else(String::new, |gateway| format!("via {gateway} "));
        let count = examined.judgement.ranges.prefixes.get(family).len();
        findings.ok(
            "bypass",
            format!("{family}: {gateway}on {device}, {count} prefixes"),
        );
    }
}

fn egress(
    config: &Config,
    role: Role,
    desired: &DesiredState,
    family: Family,
    findings: &mut Findings,
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
            findings.ok(name, format!("{family}: seen from {}", list(&own)));
        }
        return;
    }
    match &desired.paths.get(family).egress {
        EgressPath::Gateways(gateways) => {
            findings.ok(name, format!("{family}: via {}", list(gateways)));
        }
        EgressPath::Closed if config.egress.gateways_of(family).is_empty() => {
            findings.ok(name, format!("{family}: closed, as configured"));
        }
        EgressPath::Closed => findings.warn(
            name,
            format!("{family}: no gateway is usable now: everything but storage is refused"),
            "bring the gateway's link up",
        ),
        // With gateways of the other family alone, a note of the desired state says it.
        EgressPath::Main if config.egress.gateways.is_empty() => findings.warn(
            name,
            format!("{family}: no egress gateway: partners see this host's own address"),
            format!("set [egress] gateways, or [egress] close = [\"{family}\"] to shut it"),
        ),
        EgressPath::Main => {}
    }
}

fn conflicts(
    examined: &Examined,
    desired: &DesiredState,
    kernel: &mut Kernel,
    findings: &mut Findings,
) {
    let view = &examined.view;
    let name = "conflicts";
    if view.observed.firewalls.is_empty() {
        // The firewall can't be had, which is a failure of its own.
        return;
    }
    let plan = match view.plan(kernel, desired.clone()) {
        Ok(plan) => plan,
        Err(error) => return findings.fail_plain("backend", error.to_string()),
    };
    if plan.conflicts.is_empty() {
        findings.ok(name, "nothing foreign is in the place of ours");
    }
    for conflict in plan.conflicts {
        findings.fail_plain(name, conflict.message);
    }
    for note in plan.notes {
        findings.warn_plain("kernel", note);
    }
}
