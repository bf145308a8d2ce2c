//! The difference between the wanted and the observed state, as an ordered list of steps. Pure:
//! a dry run prints the same value that apply executes.
//!
//! Every prefix of the list is safe to stop after. Additions come before deletions. An object is
//! added before the rules that lead packets to the object: firewall marks, then the rules that
//! lead past our tables, then routes, then the rules that look our tables up, with the egress rule
//! (which may block traffic) last. Deletions run in the opposite order, except that all rules are
//! deleted first. On a host whose egress is shut since the boot, the firewall goes after the other
//! additions, since the marks of the firewall shut the egress. If gateways leave, one firewall goes in
//! first that passes new flows through old and new gateways, and the wanted one after the routes. If the
//! bits of the marks change, the firewall follows the rules of the new marks.

mod diff;
mod firewalls;
mod foreign;
mod goal;
pub mod json;
mod policies;
pub mod rule_text;
#[cfg(test)]
mod shut_tests;
mod step;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::SysctlSetting;
use crate::objects::RouteTarget;
use crate::types::IfIndex;

pub use diff::plan;
pub use goal::{FirewallGoal, Goal};
pub use step::{Action, FirewallAfter, ObjectKey, Step};

/// A foreign object in the place of one of ours. The plan leaves our object out; nothing foreign is
/// overwritten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Names the object and the remedy.
    pub message: String,
}

/// The names of the interfaces, for a plan's text and JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices(BTreeMap<IfIndex, String>);

impl Devices {
    fn name(&self, index: IfIndex) -> String {
        let name = self.0.get(&index).cloned();
        name.unwrap_or_else(|| format!("if{index}"))
    }
}

impl FromIterator<(IfIndex, String)> for Devices {
    fn from_iter<I: IntoIterator<Item = (IfIndex, String)>>(names: I) -> Devices {
        Devices(names.into_iter().collect())
    }
}

/// The ordered steps, and messages for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of execution.
    pub steps: Vec<Step>,
    /// Objects that the steps leave out.
    pub conflicts: Vec<Conflict>,
    /// Foreign objects that are left alone.
    pub notes: Vec<String>,
}

fn is_added_policy(step: &Step) -> bool {
    matches!(step, Step::Policy { action, .. } if *action == Action::Add)
}

impl Plan {
    /// Removes the steps for these objects. New policies go too if a firewall is withheld, since
    /// packets without its marks would be refused. The deletion of a nexthop object goes too if a withheld
    /// route still uses nexthop objects, since the kernel would delete the route with the object.
    /// Returns the objects of the removed steps.
    pub fn withhold(&mut self, objects: &BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
        let keeps_nexthops = self.steps.iter().any(|step| match step {
            Step::Route {
                before: Some(before),
                ..
            } => matches!(before.target, RouteTarget::Nexthop(_)) && objects.contains(&step.key()),
            _ => false,
        });
        let keeps_firewall = self
            .steps
            .iter()
            .any(|step| matches!(step, Step::Firewall { .. }) && objects.contains(&step.key()));
        let withheld = self.steps.extract_if(.., |step| {
            objects.contains(&step.key())
                || keeps_nexthops && matches!(step, Step::Nexthop(_))
                || keeps_firewall && is_added_policy(step)
        });
        withheld.map(|step| step.key()).collect()
    }

    /// The sysctls that the steps write.
    pub fn sysctls(&self) -> impl Iterator<Item = &SysctlSetting> {
        self.steps.iter().filter_map(|step| match step {
            Step::Sysctl(setting) => Some(setting),
            _ => None,
        })
    }

    /// True without any step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The number of steps for each action.
    pub fn totals(&self) -> BTreeMap<Action, usize> {
        let mut totals = BTreeMap::new();
        for step in &self.steps {
            *totals.entry(step.action()).or_default() += 1;
        }
        totals
    }
}
