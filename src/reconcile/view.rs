//! Looking at the host and at what is there, and planning from it: done again after each attempt
//! that didn't end as promised.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Pass, PassError, instance};
use crate::config::{AutoOr, Role};
use crate::desired::{DesiredState, Inputs, desired};
use crate::facts::{HostFacts, InstanceFacts};
use crate::firewall::{BackendKind, ObservedFirewall, Variant};
use crate::kernel::{Kernel, ObserveError};
use crate::objects::RouteTarget;
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::plan::{Goal, ObjectKey, Plan, Step, plan};
use crate::types::PerFamily;

/// The firewall in use, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendChoice {
    pub kind: BackendKind,
    /// The kernel interface that holds the rules.
    pub variant: Variant,
    /// Why, for people.
    pub reason: String,
}

/// Whether the firewalls are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewalls {
    /// Read, and one chosen.
    Chosen,
    /// Left out: the paths don't depend on them.
    Ignored,
}

/// What a pass sees of the host and the kernel.
#[derive(Debug)]
pub struct View {
    /// What is ours.
    pub ownership: Ownership,
    /// The host.
    pub facts: HostFacts,
    /// The kernel.
    pub observed: ObservedState,
    /// The VPC's CIDRs.
    pub vpc_cidrs: Vec<IpNet>,
    /// The firewall in use.
    pub backend: BackendChoice,
    /// The prefixes in force, once judged.
    pub prefixes: Option<PerFamily<Vec<IpNet>>>,
    /// What the metadata service said.
    pub instance: Option<InstanceFacts>,
    /// The gateways that the settings name.
    pub configured_gateways: Vec<std::net::IpAddr>,
    /// The metadata service's error, where a setting needed it: the pass closes the egress and then fails.
    pub instance_error: Option<PassError>,
    available: PerFamily<bool>,
    withheld: BTreeSet<ObjectKey>,
}

impl View {
    /// The first look.
    pub(super) async fn open(
        pass: &mut Pass<'_>,
        kernel: &mut Kernel,
        ownership: Ownership,
        firewalls: Firewalls,
    ) -> Result<View, PassError> {
        let mut facts = kernel.facts()?;
        let asked = instance::learn(pass, &facts).await;
        // The egress path needs no region: it goes in all the same, and the pass fails after. What
        // was in force needs no answer either.
        let goes_on = pass.role == Role::Host || pass.options.earlier.is_some();
        let (instance, instance_error) = match asked {
            Ok(instance) => (instance, None),
            Err(error) if goes_on => (None, Some(error)),
            Err(error) => return Err(error),
        };
        facts.instance = instance.clone();
        let (backend, observed) = match firewalls {
            Firewalls::Chosen => {
                let (backend, observed) = observe_and_choose(pass, kernel, &ownership)?;
                pass.report.backend = Some(backend.clone());
                (backend, observed)
            }
            Firewalls::Ignored => {
                let backend = BackendChoice {
                    kind: BackendKind::Nftables,
                    variant: Variant::Nft,
                    reason: "not looked at".to_owned(),
                };
                (backend, kernel.observe(&ownership, &[])?)
            }
        };
        pass.report.devices = facts
            .links
            .iter()
            .map(|link| (link.index, link.name.clone()))
            .collect();
        Ok(View {
            ownership,
            vpc_cidrs: instance::vpc_cidrs(pass.config, instance.as_ref()),
            facts,
            observed,
            backend,
            prefixes: None,
            instance,
            instance_error,
            configured_gateways: super::documents::configured_gateways(pass.config),
            available: kernel.available,
            withheld: pass.options.withheld.clone(),
        })
    }

    /// Another look at what may have changed.
    pub fn refresh(&mut self, kernel: &mut Kernel) -> Result<(), ObserveError> {
        self.facts = kernel.facts()?;
        self.facts.instance = self.instance.clone();
        let kinds: Vec<BackendKind> = self.observed.firewalls.keys().copied().collect();
        self.observed = kernel.observe(&self.ownership, &kinds)?;
        Ok(())
    }

    /// The prefixes that our own bypass routes hold now.
    pub fn kernel_prefixes(&self) -> PerFamily<Vec<IpNet>> {
        PerFamily::from_fn(|family| {
            self.observed
                .routes
                .iter()
                .filter(|route| {
                    route.key.family() == family
                        && self.ownership.is_bypass_table(route.key.table)
                        && self.ownership.owns_route(route)
                        && matches!(route.target, RouteTarget::Via(_))
                })
                .map(|route| route.key.dst)
                .collect()
        })
    }

    /// What should be, from what is seen now.
    pub fn desired(
        &self,
        config: &crate::config::Config,
        role: Role,
    ) -> Result<DesiredState, PassError> {
        Ok(desired(&Inputs {
            config,
            role,
            prefixes: self.prefixes.as_ref(),
            facts: &self.facts,
            vpc_cidrs: &self.vpc_cidrs,
            backend: self.backend.kind,
            last_bypass: self.observed.last_bypass(&self.ownership),
            available: self.available,
        })?)
    }

    /// What a plan is to lead to.
    pub fn goal(&self, kernel: &mut Kernel, desired: DesiredState) -> Result<Goal, PassError> {
        let text = match &desired.firewall {
            Some(ruleset) => kernel.firewall(self.backend.kind).render(ruleset)?,
            None => Vec::new(),
        };
        Ok(Goal::of(desired, self.backend.kind, text))
    }

    /// The steps from what is seen now to what should be.
    pub fn plan(&self, kernel: &mut Kernel, desired: DesiredState) -> Result<Plan, PassError> {
        Ok(self.plan_to(&self.goal(kernel, desired)?))
    }

    /// The steps from what is seen now to a goal, but for the objects that are left alone for now.
    pub fn plan_to(&self, goal: &Goal) -> Plan {
        let mut plan = plan(goal, &self.observed, &self.ownership);
        if self.leaves_some_alone() {
            plan.withhold(&self.withheld);
        }
        plan
    }

    /// Whether objects are left as they are although they should be otherwise.
    pub fn leaves_some_alone(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Leaves alone from now on what was written, step by step of `tried`, and has to be written
    /// again: somebody changes it back. Of those `gives_way` may spare some. Which objects those are.
    pub(super) fn give_way(
        &mut self,
        tried: &[Step],
        left: &Plan,
        gives_way: impl Fn(&ObjectKey) -> bool,
    ) -> BTreeSet<ObjectKey> {
        let tried: BTreeSet<ObjectKey> = tried.iter().map(Step::key).collect();
        let left = left.steps.iter().map(Step::key);
        let fought: BTreeSet<ObjectKey> = left
            .filter(|key| tried.contains(key) && gives_way(key))
            .collect();
        self.leave_alone(fought.iter().cloned());
        fought
    }

    /// Leaves these objects as they are, from now on.
    pub(super) fn leave_alone(&mut self, objects: impl IntoIterator<Item = ObjectKey>) {
        self.withheld.extend(objects);
    }
}

/// Reads everything and decides which firewall carries our rules.
fn observe_and_choose(
    pass: &Pass<'_>,
    kernel: &mut Kernel,
    ownership: &Ownership,
) -> Result<(BackendChoice, ObservedState), PassError> {
    let mut observed = kernel.observe(ownership, &[BackendKind::Nftables])?;
    let nftables = observed.firewalls.get(&BackendKind::Nftables);
    let absent = match nftables {
        Some(ObservedFirewall::Unavailable(why)) => Some(why.clone()),
        _ => None,
    };
    let (kind, reason) = match (&pass.config.nat.backend, absent) {
        (AutoOr::Set(BackendKind::Nftables), Some(why)) => {
            return Err(PassError::NoFirewall(format!(
                "[nat] backend = \"nftables\", but {why}; set it to \"auto\" or \"iptables\""
            )));
        }
        (AutoOr::Set(kind), _) => (*kind, "as configured".to_owned()),
        (AutoOr::Auto, None) => (
            BackendKind::Nftables,
            "auto: the kernel has nf_tables".to_owned(),
        ),
        (AutoOr::Auto, Some(why)) => (BackendKind::Iptables, format!("auto: {why}")),
    };
    if kind == BackendKind::Iptables || kernel.may_hold_iptables_chains()? {
        let iptables = kernel.firewall(BackendKind::Iptables).observe()?;
        if kind == BackendKind::Iptables
            && let ObservedFirewall::Unavailable(why) = &iptables
        {
            return Err(PassError::NoFirewall(format!("{reason}; {why}")));
        }
        observed.firewalls.insert(BackendKind::Iptables, iptables);
    }
    // Which variant of iptables, which version; of nf_tables there is nothing to add.
    let reason = match kind {
        BackendKind::Nftables => reason,
        BackendKind::Iptables => format!("{reason}; {}", kernel.firewall(kind).description()),
    };
    let choice = BackendChoice {
        kind,
        variant: kernel.firewall(kind).variant(),
        reason,
    };
    Ok((choice, observed))
}
