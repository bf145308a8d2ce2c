//! The judgement of the kernel's answers: the same as at the end of a pass.

use ipnet::IpNet;

use super::report::CheckReport;
use crate::degraded::{Degradation, Part};
use crate::desired::{DesiredState, special};
use crate::judge::{Exemption, is_forwarding};
use crate::kernel::Kernel;
use crate::reconcile::View;
use crate::types::Family;
use crate::verify::judge_kernel;

const NAME: &str = "judge";

/// Reports foreign state that defeats the promise. Objects of ours that a pass has yet to add are no
/// finding: foreign rules and routes before ours take packets already without ours.
pub(super) fn all(
    view: &View,
    desired: &DesiredState,
    kernel: &mut Kernel,
    report: &mut CheckReport,
) {
    let verdicts = match judge_kernel(&view.promise(desired), kernel) {
        Ok(verdicts) => verdicts,
        Err(error) => return report.fail_plain(NAME, error.to_string()),
    };
    let pending = match view.plan(kernel, desired.clone()) {
        Ok(plan) => !plan.is_empty(),
        Err(_) => true,
    };
    // With the sysctl off, its own finding comes first.
    let is_off = |family| is_forwarding(&view.facts, family) == Some(false);
    let told_here =
        |found: &&Degradation| found.part != Part::Forwarding || !found.family.is_some_and(is_off);
    let found: Vec<&Degradation> = verdicts.degraded.iter().filter(told_here).collect();
    for degradation in &found {
        report.fail(NAME, text(degradation), degradation.advice.clone());
    }
    for doubt in &verdicts.doubts {
        report.warn(NAME, text(doubt), doubt.advice.clone());
    }
    for harmless in &verdicts.harmless {
        report.ok(NAME, harmless.clone());
    }
    if !pending {
        for mismatch in &verdicts.mismatches {
            report.fail(NAME, text(mismatch), "run trailblazer reconcile");
        }
    }
    let calm = verdicts.degraded.is_empty() && verdicts.doubts.is_empty();
    if calm && verdicts.mismatches.is_empty() {
        report.ok(NAME, "the kernel's answers are the promised ones");
    } else if calm && pending {
        report.ok(NAME, "nothing foreign defeats the promise");
    }
    for exempt in verdicts.exempt {
        // The check of the rules names each foreign rule.
        if !matches!(exempt, Exemption::Rule(_)) {
            report.warn(
                NAME,
                exempt.to_string(),
                "intended for its own packets; otherwise remove it",
            );
        }
    }
    other_exits(view, desired, report);
}

fn text(degradation: &Degradation) -> String {
    Degradation {
        advice: String::new(),
        ..degradation.clone()
    }
    .to_string()
}

/// NAT role: routes to partners out of another interface than the one of the translation.
fn other_exits(view: &View, desired: &DesiredState, report: &mut CheckReport) {
    const NAMED: usize = 5;
    for family in Family::ALL {
        let paths = desired.paths.get(family);
        let Some(out) = paths.leaves_by else { continue };
        let home = special::thrown(family, &view.vpc_cidrs);
        let is_home = |dst: &IpNet| {
            home.iter().any(|net| net.contains(dst))
                || paths.inputs.iter().any(|input| input.source.contains(dst))
        };
        let mut elsewhere = view.facts.main_routes.iter().filter(|route| {
            route.unicast
                && Family::of_net(&route.dst) == family
                && route.dst.prefix_len() > 0
                && !Family::is_wide(&route.dst)
                // A connected network holds this host's neighbours, no partners.
                && route.gateway.is_some()
                && route.device.is_some_and(|device| device != out)
                && !is_home(&route.dst)
        });
        let name = |index| view.facts.device_name(index);
        for route in elsewhere.by_ref().take(NAMED) {
            let device = route.device.map(name).unwrap_or_default();
            let gateway = route.gateway.map(|gateway| format!(" via {gateway}"));
            report.warn(
                "routes",
                format!(
                    "{family}: route {}{} dev {device} of table main leads hosts out by {device}, untranslated: only {} translates",
                    route.dst,
                    gateway.unwrap_or_default(),
                    name(out)
                ),
                "intended for networks that know the hosts' own addresses; otherwise remove the route",
            );
        }
        let more = elsewhere.count();
        if more > 0 {
            report.warn_plain("routes", format!("{family}: {more} more routes like these"));
        }
    }
}
