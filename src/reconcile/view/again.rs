//! The reading after a change.

use super::{View, foreign_routes, no_marks};
use crate::desired::DesiredState;
use crate::facts::HostFacts;
use crate::firewall::BackendKind;
use crate::kernel::{Kernel, ObserveError};
use crate::observed::ObservedState;
use crate::plan::Plan;
use crate::verify::bypass_routes_after;

impl View {
    /// Reads facts and objects again.
    pub fn refresh(&mut self, kernel: &mut Kernel) -> Result<(), ObserveError> {
        let facts = kernel.facts()?;
        let observed = kernel.observe(&self.ownership, &self.firewall_kinds())?;
        self.take(kernel, facts, observed);
        Ok(())
    }

    /// Reads facts and objects again after `steps` towards `desired`, which were all carried out.
    ///
    /// The thousands of routes of the bypass table have been read in this pass. After a small change
    /// the kernel is asked about the changed ones, and everything else is read again. Any doubt
    /// leads to the whole reading: an answer that proves nothing, or links, addresses or main
    /// routes that changed meanwhile, with which the kernel removes routes without a notification.
    pub fn refresh_after(
        &mut self,
        kernel: &mut Kernel,
        desired: &DesiredState,
        steps: &Plan,
    ) -> Result<(), ObserveError> {
        let promise = self.promise(desired);
        let known = bypass_routes_after(&promise, &steps.steps, &self.observed.routes, kernel)?;
        let Some(known) = known else {
            return self.refresh(kernel);
        };
        let table = self.ownership.current.bypass_table;
        let known = Some((table, known));
        let kinds = self.firewall_kinds();
        let observed = kernel.observe_beside(&self.ownership, &kinds, known)?;
        // Last: a link that went down while the routes were asked about shows here.
        let facts = kernel.facts()?;
        if !is_same_network(&facts, &self.facts) {
            return self.refresh(kernel);
        }
        self.take(kernel, facts, observed);
        Ok(())
    }

    fn firewall_kinds(&self) -> Vec<BackendKind> {
        self.observed.firewalls.keys().copied().collect()
    }

    fn take(&mut self, kernel: &mut Kernel, facts: HostFacts, observed: ObservedState) {
        self.facts = facts;
        self.facts.instance.clone_from(&self.instance);
        self.observed = observed;
        self.foreign = foreign_routes(&self.observed, &self.ownership);
        self.refused.clone_from(kernel.refusals(self.backend.kind));
        self.no_marks = no_marks(kernel, self.backend.kind);
    }
}

fn is_same_network(now: &HostFacts, before: &HostFacts) -> bool {
    now.links == before.links
        && now.addresses == before.addresses
        && now.main_routes == before.main_routes
}
