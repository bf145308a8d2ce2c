//! Connections that are open when our firewall rules come in, or when an address goes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Job;
use super::memory::Memory;
use super::present_paths::PresentPaths;
use super::view::View;
use crate::config::{AutoOr, Config, NatBypass, Role};
use crate::desired::{DesiredState, drain, local_ports, special};
use crate::firewall::Ports;
use crate::kernel::flows::{
    backfill_inbound, forget_dead, forget_marks, forget_untranslated, renew_marks,
};
use crate::notes::Notes;
use crate::objects::{Rule, RuleAction};
use crate::types::{Family, Mark, PinMarks};

/// Keeps open connections working, see [`OpenFlows::keep`].
pub(super) struct OpenFlows {
    role: Role,
    inbound: Mark,
    own: Vec<IpAddr>,
    local_ports: Option<Ports>,
    sources: Vec<IpNet>,
    private: Vec<IpNet>,
    rules_are_in: bool,
    /// The marks now, and those of earlier configs.
    marks: (PinMarks, Vec<PinMarks>),
    /// `None` if open flows have their marks already.
    unpinned: Option<PresentPaths>,
    /// Failures. The pass goes on: new connections work all the same.
    pub notes: Notes,
}

impl OpenFlows {
    /// The connections through this host.
    pub fn new(job: Job<'_>, view: &View, desired: &DesiredState) -> OpenFlows {
        let Job { config, role, .. } = job;
        let families = Family::ALL.into_iter();
        let private: Vec<IpNet> = families
            .flat_map(|family| special::thrown(family, &view.vpc_cidrs))
            .collect();
        let unpinned = begins_to_pin(job, view, desired).then(|| {
            let marks = config.kernel.pin_marks();
            let paths = (&desired.paths, &view.facts);
            PresentPaths::new(role, marks, paths, private.clone())
        });
        OpenFlows {
            role,
            inbound: config.kernel.path_mask.inbound(),
            own: view.facts.own_addresses(),
            local_ports: (!is_first(job, view)).then(|| local_ports(config, &view.facts.sysctls)),
            sources: sources(job, view),
            private,
            rules_are_in: false,
            marks: (config.kernel.pin_marks(), view.ownership.former_marks()),
            unpinned,
            notes: Notes::default(),
        }
    }

    /// Runs before and after the firewall rules come in.
    ///
    /// Host role: marks the connections that clients outside have opened, so that the answers
    /// keep their path, and the flows of this host with their present path. NAT role: once the rules are in, deletes the conntrack entries of
    /// connections without translation, since the kernel consults the NAT rules only for the
    /// first packet of an entry.
    pub fn keep(&mut self) {
        self.renew();
        if self.role == Role::Nat {
            self.pin();
        }
        let (kept, consequence) = match self.role {
            Role::Host => (
                backfill_inbound(self.inbound, &self.own, self.local_ports).map(drop),
                "open connections from outside may break",
            ),
            Role::Nat if !std::mem::replace(&mut self.rules_are_in, true) => return,
            Role::Nat => (
                forget_untranslated(&self.sources, &self.private).map(drop),
                "connections opened before NAT was in place keep their private source",
            ),
        };
        if let Err(error) = kept {
            self.notes.push(format!("{consequence}: {error}"));
        }
        if self.role == Role::Host {
            // Flows from outside have their mark by now.
            self.pin();
        }
    }

    fn renew(&mut self) {
        let (now, former) = &self.marks;
        for former in former {
            let failure = if now.overlap(*former) {
                Some("the former marks and [kernel] marks have bits in common".to_owned())
            } else {
                renew_marks(*former, *now)
                    .err()
                    .map(|error| error.to_string())
            };
            if let Some(why) = failure {
                let note = format!("open flows may change their path with the new marks: {why}");
                if !self.notes.iter().any(|known| known.to_string() == note) {
                    self.notes.push(note);
                }
            }
        }
    }

    fn pin(&mut self) {
        if let Some(paths) = &mut self.unpinned {
            self.notes.extend(paths.pin(&self.own));
        }
    }
}

/// Takes the marks of earlier configs from open flows, once no rule reads them: other programs may use
/// the bits from then on.
pub(super) fn forget_former_marks(config: &Config, view: &View) -> Notes {
    let mut notes = Notes::default();
    let now = config.kernel.pin_marks();
    for former in view.ownership.former_marks() {
        if !now.overlap(former)
            && let Err(error) = forget_marks(former, now)
        {
            notes.push(format!(
                "open flows keep marks of an earlier config: {error}"
            ));
        }
    }
    notes
}

/// True if this pass is the first one that pins flows on this host. A family whose rules are gone for
/// another reason has open flows with a mark, and flows that began meanwhile are on no path.
fn begins_to_pin(job: Job<'_>, view: &View, desired: &DesiredState) -> bool {
    let pins = |family: Family| desired.paths.get(family).slots.is_some();
    if !Family::ALL.into_iter().any(pins) || view.observed.is_shut(&view.ownership) {
        return false;
    }
    let ours = view.observed.owned(&view.ownership);
    let (ownership, numbers) = (&view.ownership, view.ownership.current);
    let mut rules = ours.rules.iter();
    let pinned = rules.any(|rule| ownership.leads_to_pins(rule));
    let to_egress = |rule: &Rule| matches!(rule.action, RuleAction::Lookup { table, .. } if table == numbers.egress_table);
    // The flows of a NAT have marks of their paths from earlier versions.
    let on_paths = job.role == Role::Host && ours.rules.iter().any(to_egress);
    // While flows drain, new ones take the main table's path without a mark.
    let is_draining = pinned && !drain::decides(&ours.rules, ownership);
    !pinned && (on_paths || is_first(job, view)) || is_draining && !was_in_force(job)
}

fn was_in_force(job: Job<'_>) -> bool {
    let watched = job.options.watched.as_ref();
    watched.is_some_and(|watched| watched.earlier.is_some())
}

/// True if none of our objects has decided about an open flow. The last object of a drain is the firewall
/// of a NAT.
fn is_first(job: Job<'_>, view: &View) -> bool {
    let ours = view.observed.owned(&view.ownership);
    let none_decides = ours.routes.is_empty() && ours.policies.is_empty() && ours.rules.is_empty();
    none_decides && !was_in_force(job)
}

fn sources(job: Job<'_>, view: &View) -> Vec<IpNet> {
    match &job.config.nat.sources {
        AutoOr::Set(sources) => sources.clone(),
        AutoOr::Auto => view.vpc_cidrs.clone(),
    }
}

/// Ends the flows that keep a dead translation: the address is neither configured nor an address of
/// this host. Conntrack translates each packet of a flow like the first one, so a flow that never
/// idles would lose its packets for ever. Without a memory the flows are listed in every pass, else
/// only after a change of the addresses.
pub(super) fn end_dead(job: Job<'_>, view: &View, memory: Option<&mut Memory>) -> Notes {
    let mut notes = Notes::default();
    let config = job.config;
    if job.role != Role::Nat {
        return notes;
    }
    let mut kept: BTreeSet<IpAddr> = view.facts.own_addresses().into_iter().collect();
    kept.extend(&config.nat.egress_addresses);
    if let Some(instance) = &view.facts.instance {
        let configured = config.nat.egress_addresses.iter();
        kept.extend(configured.filter_map(|public| instance.public_addresses.get(public)));
    }
    let path = config.kernel.path_mask;
    let mut marks = vec![path.egress()];
    match &config.nat.bypass {
        NatBypass::Masquerade => marks.push(path.bypass()),
        NatBypass::Addresses(addresses) => {
            marks.push(path.bypass());
            kept.extend(addresses);
        }
        // Bypass traffic is translated by another program, if at all.
        NatBypass::None => {}
    }
    if memory
        .as_ref()
        .is_some_and(|memory| memory.kept.as_ref() == Some(&kept))
    {
        return notes;
    }
    match forget_dead(&marks, &sources(job, view), &kept) {
        Ok(ended) => {
            if ended > 0 {
                notes.push(format!(
                    "{ended} flows were ended, since the address of their translation is gone from this host"
                ));
            }
            if let Some(memory) = memory {
                memory.kept = Some(kept);
            }
        }
        Err(error) => notes.push(format!(
            "flows with a translation to an address that is gone lose their packets: {error}"
        )),
    }
    notes
}
