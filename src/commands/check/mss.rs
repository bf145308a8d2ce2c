//! The limit of TCP segments in the NAT role.

use std::collections::BTreeSet;

use super::report::CheckReport;
use crate::config::{Config, Mss};
use crate::desired::DesiredState;
use crate::firewall::{Match, Statement};

pub(super) fn all(config: &Config, desired: &DesiredState, report: &mut CheckReport) {
    let name = "mss";
    let chains = desired.firewall.iter().flat_map(|policy| &policy.chains);
    let mut limits = BTreeSet::new();
    for rule in chains.flat_map(|chain| &chain.rules) {
        let Statement::ClampMss(size) = rule.verdict else {
            continue;
        };
        for condition in &rule.matches {
            if let (Match::OutputInterface(device), Some(family)) = (condition, rule.family) {
                limits.insert((family, device.clone(), size));
            }
        }
    }
    for (family, device, size) in &limits {
        report.ok(
            name,
            format!("{family}: TCP segments of connections by {device} to hosts outside are limited to {size} bytes"),
        );
    }
    if limits.is_empty() {
        let reason = match config.nat.mss {
            Mss::Off => "as configured",
            Mss::Auto | Mss::Bytes(_) => "no interface has a larger MTU than the path outside",
        };
        report.ok(name, format!("TCP segments are not limited: {reason}"));
    }
}
