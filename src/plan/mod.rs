//! The difference between what should be and what is, as an ordered list of steps. Pure: dry run
//! prints this value, apply executes this same value.
//!
//! The order makes every prefix of the list safe: what is added goes in before anything leads
//! there (marks, the rules that lead past our tables, nexthops, routes, then the rules that lead
//! to them, the one that closes last). What is removed goes the other way round, but all rules
//! first, and all adding comes before all removing.

mod diff;
mod foreign;
pub mod json;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{DesiredState, SysctlSetting};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, OwnedFirewall, Ruleset};
use crate::objects::{Nexthop, NexthopKind, Route, RouteKey, RouteTarget, Rule};
use crate::observed::{ObservedState, OwnedState};
use crate::types::{Family, NexthopId, PerFamily, Priority};

pub use diff::plan;
pub use foreign::taken_places;

/// What a step does to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Put in what wasn't there.
    Add,
    /// Put in place of what was seen as ours.
    Replace,
    /// Take out.
    Delete,
}

words!(Action { Add => "add", Replace => "replace", Delete => "delete" });

/// What a firewall holds after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallAfter {
    /// This policy.
    Policy(Ruleset),
    /// Exactly what was read earlier (rollback).
    Earlier(OwnedFirewall),
    /// Nothing of ours.
    Nothing,
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A sysctl that the settings let us write.
    Sysctl(SysctlSetting),
    /// All of our rules in one firewall, in one transaction.
    Firewall {
        /// Which firewall.
        backend: BackendKind,
        /// Add, replace or delete.
        action: Action,
        /// What it holds now, as canonical text.
        before: Vec<String>,
        /// What it shall hold, as canonical text.
        after_text: Vec<String>,
        /// The same as a value.
        after: FirewallAfter,
    },
    /// A nexthop object.
    Nexthop {
        /// Add, replace or delete.
        action: Action,
        /// The object (on delete: as it was seen).
        nexthop: Nexthop,
    },
    /// A route.
    Route {
        /// Add, replace or delete.
        action: Action,
        /// The route (on delete: as it was seen).
        route: Route,
        /// On replace: what is there now.
        before: Option<Box<Route>>,
    },
    /// A policy rule: the kernel knows no replacing.
    Rule {
        /// Add or delete.
        action: Action,
        /// The rule.
        rule: Rule,
    },
}

/// Which object a step changes, whatever it does to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A sysctl, by its path below `/proc/sys`.
    Sysctl(String),
    /// All of our rules in one firewall.
    Firewall(BackendKind),
    /// A nexthop object.
    Nexthop(NexthopId),
    /// A route.
    Route(RouteKey),
    /// The rules of one place in a family's list.
    Rule(Family, Priority),
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ObjectKey::Sysctl(path) => write!(f, "sysctl {}", path.replace('/', ".")),
            ObjectKey::Firewall(backend) => write!(f, "our {backend} rules"),
            ObjectKey::Nexthop(id) => write!(f, "nexthop {id}"),
            ObjectKey::Route(key) => write!(f, "route {} in table {}", key.dst, key.table),
            ObjectKey::Rule(family, priority) => write!(f, "{family} rule {priority}"),
        }
    }
}

impl Step {
    /// Which object it changes.
    pub fn key(&self) -> ObjectKey {
        match self {
            Step::Sysctl(setting) => ObjectKey::Sysctl(setting.path.clone()),
            Step::Firewall { backend, .. } => ObjectKey::Firewall(*backend),
            Step::Nexthop { nexthop, .. } => ObjectKey::Nexthop(nexthop.id),
            Step::Route { route, .. } => ObjectKey::Route(route.key),
            Step::Rule { rule, .. } => ObjectKey::Rule(rule.family, rule.priority),
        }
    }

    /// What it does.
    pub fn action(&self) -> Action {
        match self {
            Step::Sysctl(_) => Action::Replace,
            Step::Firewall { action, .. }
            | Step::Nexthop { action, .. }
            | Step::Route { action, .. }
            | Step::Rule { action, .. } => *action,
        }
    }

    /// `route`, `rule`, `nexthop`, `nat` or `sysctl`, as in the JSON output.
    pub fn object(&self) -> &'static str {
        match self {
            Step::Sysctl(_) => "sysctl",
            Step::Firewall { .. } => "nat",
            Step::Nexthop { .. } => "nexthop",
            Step::Route { .. } => "route",
            Step::Rule { .. } => "rule",
        }
    }
}

/// Something foreign where ours should go. The pass is refused; nothing is overwritten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// What is in the way, and what to do about it.
    pub message: String,
}

/// The ordered steps, and what the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps, in the order of execution.
    pub steps: Vec<Step>,
    /// What forbids executing them.
    pub conflicts: Vec<Conflict>,
    /// Foreign things that were noticed and are left alone.
    pub notes: Vec<String>,
    /// Ours that differ from what they should be, and are left so for now.
    pub withheld: Vec<ObjectKey>,
}

impl Plan {
    /// Leaves these objects as they are.
    pub fn withhold(&mut self, objects: &BTreeSet<ObjectKey>) {
        let kept = |step: &Step| !objects.contains(&step.key());
        let withheld = self.steps.extract_if(.., |step| !kept(step));
        self.withheld.extend(withheld.map(|step| step.key()));
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many steps add, replace and delete.
    pub fn totals(&self) -> BTreeMap<Action, usize> {
        let mut totals = BTreeMap::new();
        for step in &self.steps {
            *totals.entry(step.action()).or_default() += 1;
        }
        totals
    }
}

/// What the firewalls shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallGoal {
    /// This policy in this backend, nothing of ours in the others.
    Policy {
        /// The backend.
        backend: BackendKind,
        /// The policy.
        ruleset: Ruleset,
        /// Its canonical text in that backend.
        text: Vec<String>,
    },
    /// Exactly what each held earlier; nothing where none is named.
    Earlier(BTreeMap<BackendKind, OwnedFirewall>),
}

/// What a plan leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Our routes, sorted.
    pub routes: Vec<Route>,
    /// Our rules.
    pub rules: Vec<Rule>,
    /// Our nexthop objects.
    pub nexthops: Vec<Nexthop>,
    /// Our firewall objects.
    pub firewall: FirewallGoal,
    /// Sysctls to write.
    pub sysctls: Vec<SysctlSetting>,
    /// Families whose bypass routes and rules stay, whatever they are.
    pub frozen: PerFamily<bool>,
    /// Refuse where a foreign route or nexthop is in the way. A rollback doesn't: it only restores
    /// what lay beside it before.
    pub refuse_conflicts: bool,
}

impl Goal {
    /// The goal of a pass. `text` is the policy as the chosen backend renders it.
    pub fn of(desired: DesiredState, backend: BackendKind, text: Vec<String>) -> Self {
        Goal {
            routes: desired.routes,
            rules: desired.rules,
            nexthops: desired.nexthops,
            firewall: match desired.firewall {
                Some(ruleset) => FirewallGoal::Policy {
                    backend,
                    ruleset,
                    text,
                },
                None => FirewallGoal::Earlier(BTreeMap::new()),
            },
            sysctls: desired.sysctls,
            frozen: desired.frozen,
            refuse_conflicts: true,
        }
    }

    /// The goal of a rollback: what was ours before the pass.
    pub fn earlier(owned: OwnedState) -> Self {
        Goal {
            routes: owned.routes,
            rules: owned.rules,
            nexthops: owned.nexthops,
            firewall: FirewallGoal::Earlier(owned.firewalls),
            sysctls: Vec::new(),
            frozen: PerFamily::default(),
            refuse_conflicts: false,
        }
    }

    /// Leaves out what lies on a link that has gone or is down, or behind a gateway that is on no
    /// link any more, unless it is still there: the kernel took it out by itself, and wouldn't
    /// take it back. Whether there was any.
    pub fn keep_possible(&mut self, facts: &HostFacts, observed: &ObservedState) -> bool {
        let before = (self.routes.len(), self.nexthops.len());
        self.routes.retain(|route| match &route.target {
            RouteTarget::Via(via) => {
                facts.reaches(via) || observed.routes.binary_search(route).is_ok()
            }
            _ => true,
        });
        self.nexthops.retain(|nexthop| match &nexthop.kind {
            NexthopKind::Single(via) => facts.reaches(via) || observed.nexthops.contains(nexthop),
            _ => true,
        });
        let left: Vec<NexthopId> = self.nexthops.iter().map(|nexthop| nexthop.id).collect();
        for nexthop in &mut self.nexthops {
            if let NexthopKind::Group(members) = &mut nexthop.kind {
                members.retain(|member| left.contains(member));
            }
        }
        self.nexthops
            .retain(|nexthop| nexthop.kind != NexthopKind::Group(Vec::new()));
        let left: Vec<NexthopId> = self.nexthops.iter().map(|nexthop| nexthop.id).collect();
        self.routes.retain(|route| match &route.target {
            RouteTarget::Nexthop(id) => left.contains(id),
            _ => true,
        });
        before != (self.routes.len(), self.nexthops.len())
    }

    /// The goal of `flush`: nothing of ours.
    pub fn nothing() -> Self {
        Goal::earlier(OwnedState::default())
    }
}
