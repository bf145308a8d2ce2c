//! One reading of the host and of the kernel, and plans made from it. A failed attempt is followed
//! by a new reading.

mod again;

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{PassError, instance, refusals};
use crate::config::{AutoOr, Config, Role};
use crate::degraded::merge;
use crate::desired::shares::Shares;
use crate::desired::shut::shut;
use crate::desired::{DesiredState, Inputs, KnownSlots, desired};
use crate::facts::{HostFacts, InstanceFacts};
use crate::firewall::{BackendKind, ObservedFirewall, Piece, Ruleset, Variant};
use crate::health::Health;
use crate::judge::Promise;
use crate::kernel::Kernel;
use crate::kernel::firewall::Refusals;
use crate::kernel::flows::slots_in_use;
use crate::objects::Route;
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::plan::{Devices, Goal, ObjectKey, Plan, plan};
use crate::types::{Family, PerFamily, Slot};

/// The firewall in use, and the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendChoice {
    pub kind: BackendKind,
    /// The kernel interface that holds the rules.
    pub variant: Variant,
    pub reason: String,
}

/// The share of the firewalls in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewalls {
    /// Read them and choose one.
    Chosen,
    /// Leave them out: routes and rules don't depend on them.
    Ignored,
}

/// A reading of the host and the kernel, with the inputs that desired states are computed from.
///
/// - [`View::desired`]: the objects that the settings ask for on this host.
/// - [`View::goal`]: the same in terms of a plan, with the text of the firewall rules.
/// - [`View::plan_to`]: the ordered steps from the observed objects to a goal.
///
/// [`View::refresh`] and [`View::refresh_after`] replace facts and observed objects. Ownership, firewall, prefixes and
/// instance stay for the whole pass, so all attempts of a pass pursue the same goal.
#[derive(Debug)]
pub struct View {
    pub ownership: Ownership,
    pub facts: HostFacts,
    pub observed: ObservedState,
    pub vpc_cidrs: Vec<IpNet>,
    pub backend: BackendChoice,
    /// Prefixes in force. `None` before the judgement and without a document.
    pub prefixes: Option<PerFamily<Vec<IpNet>>>,
    pub instance: Option<InstanceFacts>,
    /// The failure of the metadata service where a setting needs an answer. The desired state
    /// leaves out the parts concerned.
    pub instance_error: Option<PassError>,
    /// The ways out of use by the verdict of probes, none without an agent; and the drained gateways.
    pub health: Health,
    /// Foreign routes in our tables.
    foreign: Vec<Route>,
    /// Parts of the firewall policy that the kernel refused.
    pub(super) refused: Refusals,
    /// The stored owners of the slots of source hosts.
    pub(super) shares: Shares,
    /// The reason if a pass goes on without any firewall.
    pub(super) no_firewall: Option<String>,
    available: PerFamily<bool>,
    /// The reason if the firewall cannot mark forwarded packets: no chain of nf_tables is possible.
    no_marks: Option<String>,
    /// Slots without a gateway in the settings whose flows are open.
    draining: PerFamily<BTreeSet<Slot>>,
}

impl View {
    /// Reads the kernel. `facts` were read before; the instance is unknown yet.
    pub(super) fn open(
        kernel: &mut Kernel,
        config: &Config,
        ownership: Ownership,
        firewalls: Firewalls,
        facts: HostFacts,
    ) -> Result<View, PassError> {
        let (backend, observed) = match firewalls {
            Firewalls::Chosen => observe_and_choose(kernel, config, &ownership)?,
            Firewalls::Ignored => {
                let backend = BackendChoice {
                    kind: BackendKind::Nftables,
                    variant: Variant::Nft,
                    reason: "not looked at".to_owned(),
                };
                (backend, kernel.observe(&ownership, &[])?)
            }
        };
        let foreign = foreign_routes(&observed, &ownership);
        let no_marks = no_marks(kernel, backend.kind);
        let draining = draining(config, &observed, &ownership);
        Ok(View {
            foreign,
            ownership,
            vpc_cidrs: instance::vpc_cidrs(config, None),
            facts,
            observed,
            backend,
            prefixes: None,
            instance: None,
            instance_error: None,
            health: Health::default(),
            refused: Refusals::new(),
            shares: Shares::default(),
            no_firewall: None,
            available: kernel.available,
            no_marks,
            draining,
        })
    }

    pub(super) fn devices(&self) -> Devices {
        let links = self.facts.links.iter();
        links.map(|link| (link.index, link.name.clone())).collect()
    }

    /// Adds the facts of the metadata service.
    pub(super) fn set_instance(&mut self, config: &Config, instance: Option<InstanceFacts>) {
        self.vpc_cidrs = instance::vpc_cidrs(config, instance.as_ref());
        self.facts.instance.clone_from(&instance);
        self.instance = instance;
    }

    /// Asks the firewall for the parts of the policy that are refused. Returns true if the answer
    /// changes the desired state.
    pub fn learn_refusals(&mut self, kernel: &Kernel) -> bool {
        let refused = kernel.refusals(self.backend.kind);
        let news = self.refused != *refused;
        self.refused.clone_from(refused);
        news
    }

    /// Takes the verdict of an agent's probes. The drained gateways stay.
    pub fn use_health(&mut self, health: Health) {
        let drained = self.health.drained().clone();
        self.health = health.with_drained(drained);
    }

    /// The prefixes of our bypass routes in the kernel.
    pub fn kernel_prefixes(&self) -> PerFamily<Vec<IpNet>> {
        self.ownership.bypass_prefixes(&self.observed.routes)
    }

    /// The desired state on this host.
    pub fn desired(&self, config: &Config, role: Role) -> DesiredState {
        let mut state = desired(&self.inputs(config, role));
        merge(
            &mut state.degraded,
            refusals::degradations(role, &self.refused),
        );
        state
    }

    /// The state of this host with its egress shut by the settings alone.
    pub(super) fn shut(&self, config: &Config) -> DesiredState {
        shut(&self.inputs(config, Role::Host))
    }

    fn inputs<'v>(&'v self, config: &'v Config, role: Role) -> Inputs<'v> {
        let read = self.observed.firewalls.get(&self.backend.kind);
        let mut unfiltered = refusals::unfiltered(self.backend.kind, read, &self.refused);
        if let Some(why) = &self.no_firewall {
            unfiltered = PerFamily::from_fn(|_| Some(why.clone()));
        }
        Inputs {
            config,
            role,
            prefixes: self.prefixes.as_ref(),
            facts: &self.facts,
            vpc_cidrs: &self.vpc_cidrs,
            backend: self.backend.kind,
            nf_tables_beside: self.no_marks.is_none(),
            last_bypass: self.observed.last_bypass(&self.ownership),
            available: self.available,
            unfiltered,
            no_switch: PerFamily::from_fn(|family| self.no_switch(family)),
            shares: &self.shares,
            slots: KnownSlots {
                gateways: self.observed.slots(&self.ownership),
                in_use: self.draining.clone(),
                leading: self.observed.leading(&self.ownership),
            },
            health: self.health.clone(),
        }
    }

    /// The reason if policies cannot refuse packets of the family that the firewall has not seen.
    fn no_switch(&self, family: Family) -> Option<String> {
        let words = self.refused.get(&(family, Piece::Switch));
        let refused = words.map(|words| format!("the firewall refuses the marks ({words})"));
        let unusable = self.observed.policies.unusable.clone();
        unusable.or_else(|| self.no_marks.clone()).or(refused)
    }

    /// The desired state on this host, with the refusals of the firewall known: for commands that
    /// change nothing.
    ///
    /// # Errors
    /// The firewall cannot render the policy.
    pub fn settled(
        &mut self,
        kernel: &mut Kernel,
        config: &Config,
        role: Role,
    ) -> Result<DesiredState, PassError> {
        let desired = self.desired(config, role);
        self.goal(kernel, desired.clone())?;
        if self.learn_refusals(kernel) {
            return Ok(self.desired(config, role));
        }
        Ok(desired)
    }

    /// Firewalls with unreadable content, which allow neither a plan nor a rollback.
    pub(super) fn unreadable_firewalls(&self) -> BTreeSet<ObjectKey> {
        let firewalls = self.observed.firewalls.iter();
        firewalls
            .filter(|(_, found)| matches!(found, ObservedFirewall::Unreadable(_)))
            .map(|(kind, _)| ObjectKey::Firewall(*kind))
            .collect()
    }

    /// The goal of a desired state.
    pub fn goal(&self, kernel: &mut Kernel, desired: DesiredState) -> Result<Goal, PassError> {
        let mut render = |ruleset: &Ruleset| {
            // Without a firewall that was read, none is written.
            if self.observed.firewalls.is_empty() {
                return Ok(Vec::new());
            }
            let present = match self.observed.firewalls.get(&self.backend.kind) {
                Some(ObservedFirewall::Owned(owned)) => Some(owned.text.as_slice()),
                Some(ObservedFirewall::Absent) => Some(&[][..]),
                _ => None,
            };
            kernel.render_policy(self.backend.kind, ruleset, present)
        };
        let on_the_way = match &desired.on_the_way {
            Some(ruleset) => Some((ruleset.clone(), render(ruleset)?)),
            None => None,
        };
        let text = desired.firewall.as_ref().map_or(Ok(Vec::new()), render)?;
        Ok(Goal {
            on_the_way,
            ..Goal::of(desired, self.backend.kind, text)
        })
    }

    /// The steps to a desired state.
    pub fn plan(&self, kernel: &mut Kernel, desired: DesiredState) -> Result<Plan, PassError> {
        Ok(self.plan_to(&self.goal(kernel, desired)?))
    }

    /// The promise of a desired state, to compare the kernel's answers with.
    pub fn promise<'v>(&'v self, desired: &'v DesiredState) -> Promise<'v> {
        Promise {
            desired,
            facts: &self.facts,
            ownership: &self.ownership,
            vpc_cidrs: &self.vpc_cidrs,
            rules: &self.observed.rules,
            foreign: &self.foreign,
            backend: self.backend.kind,
            chains: &[],
        }
    }

    /// The steps to a goal.
    pub fn plan_to(&self, goal: &Goal) -> Plan {
        plan(goal, &self.observed, &self.ownership)
    }
}

/// The slots whose gateway left the settings while flows are open. A slot with unknown flows counts as
/// one with flows.
fn draining(
    config: &Config,
    observed: &ObservedState,
    ownership: &Ownership,
) -> PerFamily<BTreeSet<Slot>> {
    let known = observed.slots(ownership);
    let left = PerFamily::from_fn(|family| {
        let gateways = config.egress.gateways_of(family);
        let slots = known.get(family).iter();
        let left = slots.filter(|(_, gateway)| !gateways.contains(gateway));
        left.map(|(slot, _)| *slot).collect::<BTreeSet<Slot>>()
    });
    let all = left.ipv4.union(&left.ipv6).copied().collect();
    // Open flows of an earlier config get the marks of this one in the course of the pass.
    let mut marks = ownership.former_marks();
    marks.push(config.kernel.pin_marks());
    let mut in_use: PerFamily<BTreeSet<Slot>> = PerFamily::default();
    for marks in marks {
        let Ok(found) = slots_in_use(marks, &all) else {
            return left;
        };
        for family in Family::ALL {
            in_use.get_mut(family).extend(found.get(family));
        }
    }
    in_use
}

/// The reason if the firewall cannot mark forwarded packets.
fn no_marks(kernel: &mut Kernel, backend: BackendKind) -> Option<String> {
    let marks = kernel.firewall(backend).marks_forwarded();
    (!marks).then(|| format!("{backend} can mark packets late only beside nf_tables"))
}

fn foreign_routes(observed: &ObservedState, ownership: &Ownership) -> Vec<Route> {
    let tables = [
        ownership.current.bypass_table,
        ownership.current.egress_table,
    ];
    let routes = observed.routes.iter();
    let foreign =
        |route: &&Route| tables.contains(&route.key.table) && !ownership.owns_route(route);
    routes.filter(foreign).cloned().collect()
}

/// Reads all objects and chooses the firewall for our rules.
fn observe_and_choose(
    kernel: &mut Kernel,
    config: &Config,
    ownership: &Ownership,
) -> Result<(BackendChoice, ObservedState), PassError> {
    let mut observed = kernel.observe(ownership, &[BackendKind::Nftables])?;
    let nftables = observed.firewalls.get(&BackendKind::Nftables);
    let absent = match nftables {
        Some(ObservedFirewall::Unavailable(why)) => Some(why.clone()),
        _ => None,
    };
    let (kind, reason) = match (&config.nat.backend, absent) {
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
    // With the variant and the version of iptables; nf_tables has neither.
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
