//! Connections that are open when our firewall rules come in.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Job;
use super::view::View;
use crate::config::{AutoOr, Role};
use crate::desired::special;
use crate::kernel::flows::{backfill_inbound, forget_untranslated};
use crate::notes::Notes;
use crate::types::{Family, Mark};

/// Keeps open connections working, see [`OpenFlows::keep`].
pub(super) struct OpenFlows {
    role: Role,
    inbound: Mark,
    own: Vec<IpAddr>,
    sources: Vec<IpNet>,
    private: Vec<IpNet>,
    rules_are_in: bool,
    /// Failures. The pass goes on: new connections work all the same.
    pub notes: Notes,
}

impl OpenFlows {
    /// The connections through this host.
    pub fn new(job: Job<'_>, view: &View) -> OpenFlows {
        let Job { config, role, .. } = job;
        let families = Family::ALL.into_iter();
        OpenFlows {
            role,
            inbound: config.kernel.path_mask.inbound(),
            own: view.facts.own_addresses(),
            sources: match &config.nat.sources {
                AutoOr::Set(sources) => sources.clone(),
                AutoOr::Auto => view.vpc_cidrs.clone(),
            },
            private: families
                .flat_map(|family| special::thrown(family, &view.vpc_cidrs))
                .collect(),
            rules_are_in: false,
            notes: Notes::default(),
        }
    }

    /// Runs before and after the firewall rules come in.
    ///
    /// Host role: marks the connections that clients outside have opened, so that the answers
    /// keep their path. NAT role: once the rules are in, deletes the conntrack entries of
    /// connections without translation, since the kernel consults the NAT rules only for the
    /// first packet of an entry.
    pub fn keep(&mut self) {
        let (kept, consequence) = match self.role {
            Role::Host => (
                backfill_inbound(self.inbound, &self.own).map(drop),
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
    }
}
